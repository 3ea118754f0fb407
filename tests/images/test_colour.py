from __future__ import annotations

import numpy as np
import pytest
from image_files import (
    ALPHA,
    P3_XYZ,
    RGB,
    SRGB_XYZ,
    cmyk_icc,
    gamma_curve,
    make_icc,
    rgb_icc,
    saved,
    with_icc,
)
from PIL import Image, ImageCms

from unquant.images import to_picture


def test_wide_gamut_profile() -> None:
    colours = np.array([[[200, 100, 80], [128, 128, 128], [255, 255, 255], [0, 0, 0], [60, 180, 90]]], np.uint8)
    picture = to_picture(saved(with_icc(Image.fromarray(colours), rgb_icc(P3_XYZ, 2.2)), "PNG"))
    assert picture.icc is None
    moved = picture.rgb.astype(int)[0]
    # the same numbers mean a stronger colour in P3: in sRGB the high channel rises and the low ones fall
    assert moved[0, 0] > 208
    assert moved[0, 1] < 98
    assert moved[4, 0] < 50
    assert moved[4, 1] > 180
    assert np.abs(moved[1] - 128).max() <= 2
    assert moved[2].tolist() == [255] * 3
    assert moved[3].tolist() == [0] * 3


def test_srgb_profile_changes_nothing() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image in (Image.fromarray(RGB), Image.fromarray(RGB[:, :, 0])):
        picture = to_picture(with_icc(image.copy(), icc))
        np.testing.assert_array_equal(picture.rgb, to_picture(image).rgb)
        assert picture.icc is None


def test_profile_leaves_alpha_alone() -> None:
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))
    picture = to_picture(with_icc(rgba, rgb_icc(SRGB_XYZ, 1.0)))
    np.testing.assert_array_equal(picture.alpha, ALPHA)
    assert (picture.rgb.astype(int) - RGB).mean() > 10  # linear light becomes lighter numbers


def test_palette_with_profile() -> None:
    palette = Image.new("P", (1, 1))
    palette.putpalette([128, 128, 128])
    assert np.abs(to_picture(with_icc(palette, rgb_icc(SRGB_XYZ, 1.0))).rgb.astype(int) - 188).max() <= 1


def test_gray_profile() -> None:
    icc = make_icc(b"GRAY", b"XYZ ", {b"kTRC": gamma_curve(1.0)})
    gray = Image.new("L", (2, 1), 128)
    deep = Image.fromarray(np.full((1, 2), 128 * 257, np.uint16))
    for image in (gray, gray.convert("LA"), deep):
        assert np.abs(to_picture(with_icc(image, icc)).rgb.astype(int) - 188).max() <= 1


def test_cmyk_profile() -> None:
    cyan = Image.new("CMYK", (1, 1), (255, 0, 0, 0))
    assert to_picture(cyan).rgb[0, 0].tolist() == [0, 255, 255]
    red, green, blue = to_picture(with_icc(cyan, cmyk_icc())).rgb[0, 0].tolist()
    assert red < 60
    assert 120 < green < 180
    assert 180 < blue < 250
    paper = to_picture(with_icc(Image.new("CMYK", (1, 1)), cmyk_icc())).rgb
    assert paper.min() >= 253


@pytest.mark.parametrize("icc", [b"not a profile", bytes(200), rgb_icc(P3_XYZ, 2.2)[:140], cmyk_icc()])
def test_unusable_profile_is_ignored_with_a_warning(icc: bytes) -> None:
    with pytest.warns(UserWarning, match="profile"):
        picture = to_picture(with_icc(Image.fromarray(RGB), icc))
    np.testing.assert_array_equal(picture.rgb, RGB)
    assert picture.icc is None
