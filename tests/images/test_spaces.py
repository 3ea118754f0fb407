"""Colours that a file describes without a profile: code points, gAMA and cHRM, EXIF. Expected by the standards' formulas."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from image_files import P3_XYZ, icc_chunk, png_chunk, png_of, rgb_icc, smooth
from PIL import ExifTags, Image, ImageCms

from unquant.container.avif import build_avif, parse_avif
from unquant.container.avif_writer import Nclx
from unquant.errors import UnquantWarning
from unquant.images import from_arrays, image_bytes, open_image, to_picture
from unquant.images.cicp import CURVES, PRIMARIES, SRGB_CURVE, Cicp
from unquant.images.profiles import gray_profile, rgb_profile, rgb_to_xyz

D65 = 0.3127, 0.3290
SRGB = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
BT2020 = (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
P3 = (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE = (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def srgb_light(code: np.ndarray) -> np.ndarray:
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def bt709_light(code: np.ndarray) -> np.ndarray:
    return np.where(code < 0.081, code / 4.5, ((code + 0.099) / 1.099) ** (1 / 0.45))


def to_xyz(primaries: tuple[float, ...]) -> np.ndarray:
    """From linear RGB to XYZ at the white of the primaries, by the definition of chromaticities."""
    x, y = np.array(primaries).reshape(4, 2).T
    xyz = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    return xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0])


def expected(
    values: np.ndarray, primaries: tuple[float, ...], light: Callable[[np.ndarray], np.ndarray], most: int = 255
) -> np.ndarray:
    """(h, w, 3) sRGB of 0..255, not rounded; all primaries here are of one white."""
    linear = light(values / most) @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def shown(data: bytes) -> np.ndarray:
    return to_picture(open_image(io.BytesIO(data))).rgb.astype(float)


def chunk_of(name: str, *numbers: float) -> bytes:
    return png_chunk(name.encode(), struct.pack(f">{len(numbers)}I", *(round(100_000 * n) for n in numbers)))


SPACES = {
    "BT.2020": ((9, 14), BT2020, bt709_light),
    "BT.2020 linear": ((9, 8), BT2020, lambda v: v),
    "P3": ((12, 13), P3, srgb_light),
    "BT.709": ((1, 1), SRGB, bt709_light),
    "gamma 2.2": ((1, 4), SRGB, lambda v: v**2.2),
    "linear": ((1, 8), SRGB, lambda v: v),
    "sRGB": ((1, 13), SRGB, srgb_light),
    "P3, transfer unspecified": ((12, 2), P3, srgb_light),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", SPACES)
def test_png_cicp(name: str, dtype: type) -> None:
    points, primaries, light = SPACES[name]
    values = smooth(3, dtype)
    data = png_of(values, png_chunk(b"cICP", bytes((*points, 0, 1))) + icc_chunk(rgb_icc(P3_XYZ, 1.8)))
    difference = shown(data) - expected(values, primaries, light, np.iinfo(dtype).max)
    assert np.abs(difference).max() <= (1.2 if dtype == np.uint16 else 2.5)


@pytest.mark.parametrize("name", SPACES)
def test_avif_nclx(name: str) -> None:
    points, primaries, light = SPACES[name]
    obus = parse_avif(image_bytes(from_arrays(smooth(3)), "x.avif")).obus
    assert obus is not None
    coded = shown(build_avif(obus))
    data = build_avif(obus, nclx=Nclx(*points, 6, True))
    assert np.abs(shown(data) - expected(coded, primaries, light)).max() <= 2.5
    icc = rgb_icc(P3_XYZ, 1.8)  # beside which code points do not count
    np.testing.assert_array_equal(
        shown(build_avif(obus, icc=icc, nclx=Nclx(*points, 6, True))), shown(build_avif(obus, icc=icc))
    )


@pytest.mark.parametrize("name", SPACES)
def test_heif_nclx(name: str) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    points, primaries, light = SPACES[name]
    buffer = io.BytesIO()
    nclx = {"color_primaries": points[0], "transfer_characteristics": points[1], "matrix_coefficients": 1}
    Image.fromarray(smooth(3)).save(buffer, "HEIF", quality=100, chroma=444, **nclx, full_range_flag=1)
    coded = np.asarray(Image.open(io.BytesIO(buffer.getvalue()))).astype(float)
    assert np.abs(shown(buffer.getvalue()) - expected(coded, primaries, light)).max() <= 2.5


def test_unknown_code_points() -> None:
    values = smooth(3)
    for points in ((77, 13), (1, 10)):
        with pytest.warns(UnquantWarning, match=r"code points .* unknown"):
            np.testing.assert_array_equal(shown(png_of(values, png_chunk(b"cICP", bytes((*points, 0, 1))))), values)
    np.testing.assert_array_equal(shown(png_of(values, png_chunk(b"cICP", bytes((2, 2, 0, 1))))), values)
    np.testing.assert_array_equal(shown(png_of(values, png_chunk(b"cICP", b"\1"))), values)  # cut
    assert Cicp.of(2, 2) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_gamma(channels: int, dtype: type) -> None:
    values, most = smooth(channels, dtype), np.iinfo(dtype).max
    colour = values[:, :, :3] if channels > 2 else np.repeat(values[:, :, :1], 3, 2)
    for gamma, wanted in (
        (0.625, 255 * (colour / most) ** (1 / (2.2 * 0.625))),  # what a display of 2.2, sRGB's, is given
        (1.0, expected(colour, SRGB, lambda v: v, most)),
        (0.45455, 255 * (colour / most)),
    ):
        picture = to_picture(open_image(io.BytesIO(png_of(values, chunk_of("gAMA", gamma)))))
        assert np.abs(picture.rgb - wanted).max() <= (1.2 if dtype == np.uint16 and channels > 2 else 2.5)
        assert (picture.alpha is None) == (channels % 2 == 1)
        srgb = png_of(values, chunk_of("gAMA", gamma) + png_chunk(b"sRGB", b"\0"))
        assert np.abs(shown(srgb) - 255 * (colour / most)).max() <= 0.51


def test_png_chromaticities() -> None:
    values = smooth(3)
    data = png_of(values, chunk_of("cHRM", *P3))
    assert np.abs(shown(data) - expected(values, P3, srgb_light)).max() <= 2.5
    both = png_of(values, chunk_of("gAMA", 1.0) + chunk_of("cHRM", *BT2020))
    assert np.abs(shown(both) - expected(values, BT2020, lambda v: v)).max() <= 2.5
    swapped = (*D65, 0.30, 0.60, 0.64, 0.33, 0.15, 0.06)  # red is green
    assert np.abs(shown(png_of(values, chunk_of("cHRM", *swapped))) - values[:, :, [1, 0, 2]]).max() <= 2.5
    for nonsense in ((0,) * 8, (0.3,) * 8, (*D65, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3)):
        np.testing.assert_array_equal(shown(png_of(values, chunk_of("cHRM", *nonsense))), values)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "PNG"])
@pytest.mark.parametrize(("space", "index"), [(0xFFFF, "R03"), (2, None), (2, "R98"), (1, "R98"), (0xFFFF, None)])
def test_adobe_rgb_by_exif(kind: str, space: int, index: str | None) -> None:
    if kind == "TIFF" and index is not None:
        pytest.skip("Pillow writes no such directory into TIFF")
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    interop = {} if index is None else {ExifTags.IFD.Interop: {1: index}}
    exif[ExifTags.IFD.Exif] = {0xA001: space, **interop}
    buffer = io.BytesIO()
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    Image.fromarray(smooth(3)).save(buffer, kind, exif=exif.tobytes(), **options)
    coded = np.asarray(Image.open(buffer)).astype(float)
    adobe = space == 2 or (space == 0xFFFF and index == "R03")
    wanted = expected(coded, ADOBE, lambda v: v ** (563 / 256)) if adobe else coded
    assert np.abs(shown(buffer.getvalue()) - wanted).max() <= 2.5
    buffer = io.BytesIO()  # a profile beside it holds
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(smooth(3)).save(buffer, kind, exif=exif.tobytes(), icc_profile=icc, **options)
    np.testing.assert_array_equal(shown(buffer.getvalue()), np.asarray(Image.open(buffer)))


def test_profiles_are_those_of_the_standard() -> None:
    bradford = [[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]]  # of every sRGB profile
    np.testing.assert_allclose(rgb_to_xyz(SRGB), bradford, atol=2e-4)
    for icc in [gray_profile(SRGB_CURVE), *(rgb_profile(p, c) for p in PRIMARIES.values() for c in CURVES.values())]:
        profile = ImageCms.getOpenProfile(io.BytesIO(icc)).profile
        assert profile.xcolor_space.strip() in ("RGB", "GRAY")
        np.testing.assert_allclose(profile.media_white_point[0], (0.9642, 1, 0.8249), atol=1e-4)
    with pytest.raises(ValueError, match="luminance"):
        rgb_profile((0.0,) * 8, 1.0)


def test_cmyk_without_a_profile_is_told() -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (8, 8), (51, 0, 255, 51)).save(buffer, "TIFF")
    with pytest.warns(UnquantWarning, match="CMYK without a profile"):
        assert shown(buffer.getvalue())[0, 0].tolist() == [163, 204, 0]  # (1 - C)(1 - K) and so on
