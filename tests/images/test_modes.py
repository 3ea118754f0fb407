from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from image_files import (
    ALPHA,
    RGB,
    png_chunk,
    raw_png,
    saved,
)
from PIL import Image, ImageCms

from unquant.images import to_picture


def test_rgb_and_rgba() -> None:
    picture = to_picture(Image.fromarray(RGB))
    np.testing.assert_array_equal(picture.rgb, RGB)
    assert picture.alpha is picture.icc is picture.exif is picture.xmp is None
    assert picture.rgb.flags.c_contiguous
    assert picture.rgb.flags.writeable
    picture = to_picture(Image.fromarray(np.dstack([RGB, ALPHA])))
    np.testing.assert_array_equal(picture.rgb, RGB)
    np.testing.assert_array_equal(picture.alpha, ALPHA)


def test_opaque_alpha_is_dropped() -> None:
    opaque = np.full_like(ALPHA, 255)
    assert to_picture(Image.fromarray(np.dstack([RGB, opaque]))).alpha is None
    assert to_picture(np.dstack([RGB, opaque])).alpha is None


def test_gray_modes() -> None:
    gray = RGB[:, :, 0]
    np.testing.assert_array_equal(to_picture(Image.fromarray(gray)).rgb, np.dstack([gray] * 3))
    bilevel = Image.fromarray(gray).point(lambda v: 255 * (v > 99), "1")
    np.testing.assert_array_equal(to_picture(bilevel).rgb[:, :, 1], np.where(gray > 99, 255, 0))
    la = Image.merge("LA", [Image.fromarray(gray), Image.fromarray(ALPHA)])
    picture = to_picture(la)
    np.testing.assert_array_equal(picture.rgb, np.dstack([gray] * 3))
    np.testing.assert_array_equal(picture.alpha, ALPHA)


def test_palette_modes() -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    colours = [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    picture = to_picture(palette)
    assert picture.rgb.tolist() == colours
    assert picture.alpha is None
    for transparency, alpha in [(1, [[255, 0, 255]]), (bytes([0, 100, 255]), [[0, 100, 255]])]:
        image = palette.copy()
        image.info["transparency"] = transparency
        for case in (image, saved(image, "PNG")):
            picture = to_picture(case)
            assert picture.rgb.tolist() == colours
            assert picture.alpha is not None
            assert picture.alpha.tolist() == alpha
    pa = Image.new("PA", (2, 1))
    pa.putpalette([10, 20, 30])
    pa.putalpha(77)
    picture = to_picture(pa)
    assert picture.rgb.tolist() == [[[10, 20, 30]] * 2]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[77, 77]]


def test_transparent_keys() -> None:
    gray = Image.fromarray(np.array([[5, 6]], np.uint8))
    rgb = Image.fromarray(np.array([[[1, 2, 3], [1, 2, 4]]], np.uint8))
    for image, key in [(gray, 6), (rgb, (1, 2, 4))]:
        image.info["transparency"] = key
        for case in (image, saved(image, "PNG", transparency=key)):
            alpha = to_picture(case).alpha
            assert alpha is not None
            assert alpha.tolist() == [[255, 0]]
    for key in (0, 1):
        rows = bytes([0, 0b01000000])
        bilevel = raw_png(2, 1, 1, 0, rows, png_chunk(b"tRNS", struct.pack(">H", key)))
        alpha = to_picture(Image.open(io.BytesIO(bilevel))).alpha
        assert alpha is not None
        assert alpha.tolist() == [[255 * key, 255 * (1 - key)]]
    deep = raw_png(2, 1, 16, 0, struct.pack(">BHH", 0, 1000, 1001), png_chunk(b"tRNS", struct.pack(">H", 1001)))
    alpha = to_picture(Image.open(io.BytesIO(deep))).alpha
    assert alpha is not None
    assert alpha.tolist() == [[255, 0]]


@pytest.mark.parametrize("mode", ["RGBX", "RGBa", "HSV", "YCbCr", "CMYK", "LAB"])
def test_colour_modes_keep_the_colour(mode: str) -> None:
    colour = (200, 120, 40)
    image = Image.new("RGB", (3, 2), colour)
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
        assert image is not None
        image.info.clear()
    elif mode == "RGBa":
        image = image.convert("RGBA").convert("RGBa")
    else:
        image = image.convert(mode)
    assert image.mode == mode
    picture = to_picture(image)
    assert picture.alpha is None
    assert picture.rgb.shape == (2, 3, 3)
    assert np.abs(picture.rgb.astype(int) - colour).max() <= 3


def test_adobe_cmyk_jpeg() -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = to_picture(saved(ink, "JPEG", quality=100)).rgb  # Pillow writes, and reads, the inverted form of Adobe
    assert np.abs(red.astype(int) - (255, 0, 0)).max() <= 4


def test_premultiplied_alpha() -> None:
    rgba = Image.new("RGBA", (1, 1), (200, 100, 50, 128))
    picture = to_picture(rgba.convert("RGBa"))
    assert picture.alpha is not None
    assert picture.alpha.item() == 128
    assert np.abs(picture.rgb.astype(int) - (200, 100, 50)).max() <= 2
    la = Image.new("LA", (1, 1), (200, 128))
    picture = to_picture(la.convert("La"))
    assert picture.alpha is not None
    assert picture.alpha.item() == 128


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_one_pixel(mode: str) -> None:
    assert to_picture(Image.new(mode, (1, 1))).rgb.shape == (1, 1, 3)


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 3), c) for c in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        image = saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert to_picture(image).rgb[0, 0].tolist() == [255, 0, 0]
        image.seek(1)
        assert to_picture(image).rgb[0, 0].tolist() == [0, 0, 255]
