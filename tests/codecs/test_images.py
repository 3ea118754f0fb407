from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from unquant.codecs import images
from unquant.codecs.images import (
    Picture,
    atomic_write_bytes,
    from_arrays,
    image_bytes,
    open_image,
    save_image,
    to_picture,
)
from unquant.errors import ImageTooLarge, InputError, OptionError

RNG = np.random.default_rng(1)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 255, (5, 7), dtype=np.uint8)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6" note="kept"/></x:xmpmeta>'


def make_exif(orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Copyright] = "(c) somebody"
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.LensModel: "Lens 50mm"}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return exif.tobytes()


def parse_exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(data)
    return exif


def saved(image: Image.Image, kind: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return Image.open(buffer)


def png_chunk(tag: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# --- modes -------------------------------------------------------------------------------------------------------


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


ALL_16 = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
ALL_8 = np.array([(v * 510 + 65_535) // 131_070 for v in range(65_536)], np.uint8).reshape(256, 256)


def test_16_bit_rounds_exactly() -> None:
    for mode in ("I;16", "I;16L", "I;16B"):
        order = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, (256, 256), ALL_16.astype(order).tobytes())
        np.testing.assert_array_equal(to_picture(image).rgb[:, :, 2], ALL_8)
    for image in (Image.fromarray(ALL_16.astype(np.int32)), saved(Image.fromarray(ALL_16), "PNG")):
        np.testing.assert_array_equal(to_picture(image).rgb[:, :, 0], ALL_8)
    for values in (ALL_16, ALL_16[:, :, None], ALL_16.astype(">u2"), np.dstack([ALL_16] * 3)):
        np.testing.assert_array_equal(to_picture(values).rgb[:, :, 1], ALL_8)
    picture = to_picture(np.dstack([ALL_16] * 4))
    np.testing.assert_array_equal(picture.alpha, ALL_8)


def test_float_mode() -> None:
    image = Image.fromarray(np.array([[0, 0.5 / 255 + 1e-4, 0.5, 1]], np.float32))
    assert to_picture(image).rgb[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_float_mode_out_of_range(value: float) -> None:
    with pytest.raises(OptionError, match=r"\[0, 1\]"):
        to_picture(Image.fromarray(np.array([[0.5, value]], np.float32)))


@pytest.mark.parametrize("value", [-1, 65_536])
def test_integer_mode_out_of_range(value: int) -> None:
    with pytest.raises(OptionError, match="65535"):
        to_picture(Image.fromarray(np.array([[0, value]], np.int32)))


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


# --- arrays and tensors ------------------------------------------------------------------------------------------


def test_numpy_shapes() -> None:
    np.testing.assert_array_equal(to_picture(RGB).rgb, RGB)
    np.testing.assert_array_equal(to_picture(RGB[:, :, :1]).rgb, np.repeat(RGB[:, :, :1], 3, 2))
    np.testing.assert_array_equal(to_picture(RGB[:, :, 0]).rgb, np.repeat(RGB[:, :, :1], 3, 2))
    picture = to_picture(np.dstack([RGB, ALPHA])[::-1])
    np.testing.assert_array_equal(picture.rgb, RGB[::-1])
    np.testing.assert_array_equal(picture.alpha, ALPHA[::-1])
    assert picture.rgb.flags.c_contiguous


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 4, 2), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((3, 4, 3), np.float32),
        np.zeros((3, 4, 3), np.int16),
        np.zeros((1, 3, 4, 3), np.uint8),
        "a path",
        None,
        [[1, 2]],
    ],
)
def test_other_inputs_are_refused(bad: object) -> None:
    with pytest.raises(OptionError):
        to_picture(bad)  # type: ignore[arg-type]


def test_huge_arrays_are_refused() -> None:
    with pytest.raises(ImageTooLarge):
        to_picture(np.broadcast_to(np.uint8(0), (1 << 15, (1 << 13) + 1, 3)))


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    chw = torch.from_numpy(RGB).permute(2, 0, 1) / 255
    for tensor in (chw, chw.double(), chw.clone().requires_grad_()):
        np.testing.assert_array_equal(to_picture(tensor).rgb, RGB)
    np.testing.assert_array_equal(to_picture(chw[:1]).rgb, np.repeat(RGB[:, :, :1], 3, 2))
    rgba = torch.cat([chw, torch.from_numpy(ALPHA)[None] / 255])
    np.testing.assert_array_equal(to_picture(rgba).alpha, ALPHA)
    assert to_picture(chw.half()).rgb.shape == RGB.shape
    bad = [chw * 2, chw - 0.5, chw[None], chw[:2], torch.full((3, 2, 2), float("nan")), chw[:, :0]]
    for tensor in [*bad, torch.zeros(3, 2, 2, dtype=torch.uint8)]:
        with pytest.raises(OptionError):
            to_picture(tensor)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, numpy as np; from PIL import Image; from unquant.codecs.images import to_picture;"
        "to_picture(Image.new('RGB', (2, 2))); to_picture(np.zeros((2, 2), np.uint8));"
        "assert 'torch' not in sys.modules"
    )
    package = Path(images.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(package)})


# --- orientation and metadata ------------------------------------------------------------------------------------

UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),  # stored top row is the right column
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),  # stored top row is the left column
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    Image.fromarray(np.dstack([RGB, ALPHA])).save(path, kind, exif=make_exif(orientation), **options)
    # given the path, Pillow itself maps plain TIFF files into memory with the sides swapped; given a stream it does not
    for image in (open_image(path), Image.open(io.BytesIO(path.read_bytes()))):
        picture = to_picture(image)
        np.testing.assert_array_equal(picture.rgb, UPRIGHT[orientation](RGB))
        np.testing.assert_array_equal(picture.alpha, UPRIGHT[orientation](ALPHA))
        assert picture.rgb.flags.c_contiguous
        assert picture.exif is not None
        exif = parse_exif(picture.exif)
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        assert exif[ExifTags.Base.Make] == "Maker"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "Lens 50mm"
        assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


def test_orientation_changes_no_other_byte() -> None:
    image = saved(Image.new("RGB", (8, 4)), "JPEG", exif=make_exif(6), xmp=XMP)
    picture = to_picture(image)
    assert picture.rgb.shape == (8, 4, 3)
    assert picture.exif == make_exif(1)[6:]
    assert picture.xmp == XMP.replace(b'n="6"', b'n="1"')
    again = to_picture(image)  # the caller's image is as it was
    assert again.rgb.shape == (8, 4, 3)
    assert image.size == (8, 4)
    assert image.getexif()[ExifTags.Base.Orientation] == 6


def test_orientation_in_xmp_only() -> None:
    picture = to_picture(saved(Image.new("RGB", (8, 4)), "JPEG", xmp=XMP))
    assert picture.rgb.shape == (8, 4, 3)
    assert picture.exif is None


def test_exif_that_only_rotates_is_dropped() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    assert to_picture(saved(Image.new("RGB", (8, 4)), "JPEG", exif=exif)).exif is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_metadata_kept_or_dropped(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{kind.lower()}"
    save_image(from_arrays(RGB, exif=make_exif(), xmp=XMP), path)
    image = open_image(path)
    picture = to_picture(image)
    assert picture.exif is not None
    assert picture.xmp is not None
    assert not picture.exif.startswith(b"Exif")
    assert parse_exif(picture.exif)[ExifTags.Base.Copyright] == "(c) somebody"
    assert b"kept" in picture.xmp
    private = to_picture(image, keep_metadata=False)
    assert private.exif is private.xmp is None
    np.testing.assert_array_equal(private.rgb, picture.rgb)


def test_plain_tiff_has_no_exif(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "x.tif")
    assert to_picture(open_image(tmp_path / "x.tif")).exif is None


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage that is no TIFF", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_exif_does_not_stop_the_picture(exif: bytes, recwarn: pytest.WarningsRecorder) -> None:
    image = Image.fromarray(RGB)
    image.info["exif"] = exif
    np.testing.assert_array_equal(to_picture(image).rgb, RGB)
    for name in ("x.png", "x.jpg", "x.webp", "x.avif", "x.tif"):
        image_bytes(image, name)


def test_metadata_too_long_for_jpeg() -> None:
    image = from_arrays(RGB, exif=make_exif() + bytes(70_000), xmp=bytes(70_000))
    with pytest.warns(UserWarning, match="JPEG"):
        back = Image.open(io.BytesIO(image_bytes(image, "x.jpg")))
    assert "exif" not in back.info


# --- colour profiles ---------------------------------------------------------------------------------------------

SRGB_XYZ = [(0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]
P3_XYZ = [(0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)]


def s15f16(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(v * 65_536) for v in values))


def make_icc(space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 2 profile with the given tags; `space` and `pcs` are four bytes each."""
    description = b"desc" + bytes(4) + struct.pack(">I", 5) + b"Test\0" + bytes(12 + 67)
    tags = {b"desc": description, b"cprt": b"text" + bytes(4) + b"none\0", **tags}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + s15f16(0.9642, 1.0, 0.8249)
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s28x", offset + len(body), b"lcms", 0x02400000, b"mntr", space, pcs, b"acsp")
    head += s15f16(0.9642, 1.0, 0.8249) + bytes(48)
    assert len(head) == 128
    return head + struct.pack(">I", len(tags)) + table + body


def gamma_curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def rgb_icc(primaries: list[tuple[float, float, float]], gamma: float) -> bytes:
    tags = {f"{c}XYZ".encode(): b"XYZ " + bytes(4) + s15f16(*p) for c, p in zip("rgb", primaries, strict=True)}
    return make_icc(b"RGB ", b"XYZ ", {**tags, **{f"{c}TRC".encode(): gamma_curve(gamma) for c in "rgb"}})


def cmyk_icc() -> bytes:
    """Cyan is a printer's cyan, Lab (55, -37, -50); magenta and yellow likewise, their mixtures roughly."""
    inks = np.array([(-45, -37, -50), (-52, 74, -3), (-11, -5, 93), (-100, 0, 0)], float)
    corners = []
    for index in range(16):
        amounts = np.array([index >> 3 & 1, index >> 2 & 1, index >> 1 & 1, index & 1], float)
        lightness, a, b = np.array([100.0, 0, 0]) + amounts @ inks
        corners += [round(max(0, lightness) * 2.55), round(np.clip(a, -99, 99) + 128), round(np.clip(b, -99, 99) + 128)]
    identity = bytes(range(256))
    matrix = s15f16(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + bytes(corners) + identity * 3
    return make_icc(b"CMYK", b"Lab ", {b"A2B0": lut})


def with_icc(image: Image.Image, icc: bytes) -> Image.Image:
    image.info["icc_profile"] = icc
    return image


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


# --- opening -----------------------------------------------------------------------------------------------------


def file_bytes(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def test_open_path_and_stream(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(RGB).save(path)
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        image = open_image(source)
        np.testing.assert_array_equal(np.asarray(image), RGB)
        np.testing.assert_array_equal(to_picture(image).rgb, RGB)
        assert image.format == "PNG"


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_open_animation(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue")]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    picture = to_picture(open_image(path))
    assert np.abs(picture.rgb.astype(int) - (255, 0, 0)).max() <= 8


def test_missing_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png.*No such file"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(InputError, match="directory"):
        open_image(tmp_path)
    with pytest.raises(InputError):
        open_image("nul\0byte")


@pytest.mark.parametrize("data", [b"", b"just some text\n" * 9, RNG.bytes(5000), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_not_an_image(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "thing.jpg"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"thing\.jpg"):
        open_image(path)


def test_drawings_are_refused() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(InputError):
        open_image(io.BytesIO(eps))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000", "PPM"])
def test_truncated(kind: str, tmp_path: Path) -> None:
    data = file_bytes(kind)
    path = tmp_path / "cut"
    for length in {*range(0, len(data) - 64, max(1, len(data) // 25))}:
        path.write_bytes(data[:length])
        try:  # some decoders make do with less: what counts is that nothing but our errors comes out
            image = open_image(path)
        except (InputError, ImageTooLarge):
            continue
        assert kind not in ("PNG", "JPEG", "BMP", "PPM")
        to_picture(image)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "TGA", "PCX", "ICO"]), st.data())
@pytest.mark.filterwarnings("ignore")
def test_damaged(kind: str, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = open_image(io.BytesIO(bytes(damaged)), max_pixels=1 << 20)
        assert isinstance(to_picture(image), Picture)
    except (InputError, ImageTooLarge, OptionError):
        pass


@pytest.mark.parametrize("size", [(16_385, 16_384), (65_535, 65_535), (2**31 - 1, 2**31 - 1)])
def test_bomb_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLarge):
        open_image(io.BytesIO(raw_png(*size, 8, 2, b"")))


def test_max_pixels() -> None:
    data = raw_png(100, 100, 8, 2, b"")  # no pixels in it: were it decoded first, it would be an InputError
    with pytest.raises(ImageTooLarge, match="100x100"):
        open_image(io.BytesIO(data), max_pixels=9_999)
    with pytest.raises(InputError):
        open_image(io.BytesIO(data), max_pixels=10_000)


def test_truncated_lazy_image() -> None:
    data = file_bytes("JPEG")
    with pytest.raises(InputError, match="truncated"):
        to_picture(Image.open(io.BytesIO(data[: len(data) // 2])))


# --- back to images and files ------------------------------------------------------------------------------------


def test_from_arrays() -> None:
    image = from_arrays(RGB, ALPHA, b"icc", make_exif()[6:], XMP)
    assert image.mode == "RGBA"
    assert image.info == {"icc_profile": b"icc", "exif": make_exif(), "xmp": XMP}
    assert from_arrays(RGB).info == {}
    picture = to_picture(from_arrays(RGB, ALPHA, exif=make_exif()))
    np.testing.assert_array_equal(picture.rgb, RGB)
    np.testing.assert_array_equal(picture.alpha, ALPHA)
    assert picture.exif == make_exif()[6:]


@pytest.mark.parametrize(
    "bad", [(RGB[:, :, 0], None), (RGB.astype(np.uint16), None), (RGB, ALPHA[1:]), (RGB[:0], None)]
)
def test_from_arrays_refuses(bad: tuple[np.ndarray, np.ndarray | None]) -> None:
    with pytest.raises(OptionError):
        from_arrays(*bad)


SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:240:6j, 0:240:8j], 90), axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp", ".avif", ".tif", ".tiff", ".ppm"])
def test_save_every_format(suffix: str, tmp_path: Path) -> None:
    big = np.asarray(Image.fromarray(SMOOTH).resize((64, 48), Image.Resampling.BILINEAR))
    alpha = np.full(big.shape[:2], 255, np.uint8)
    alpha[:, :32] = 0
    for image in (from_arrays(big), from_arrays(big, alpha)):
        path = tmp_path / f"{image.mode}{suffix}"
        save_image(image, path)
        picture = to_picture(open_image(path))
        tolerance = 0 if suffix in (".png", ".tif", ".tiff", ".ppm") else 12
        opaque = picture.rgb[:, 40:].astype(int) - big[:, 40:]
        assert np.abs(opaque).max() <= tolerance
        if image.mode == "RGBA":
            if suffix.lower() in (".jpg", ".jpeg", ".ppm"):
                assert picture.alpha is None
                assert picture.rgb[:, :24].min() >= 250
            else:
                np.testing.assert_array_equal(picture.alpha, alpha)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{mode}{suffix}" for mode in ("RGB", "RGBA"))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".avif", ".tif"])
def test_save_keeps_the_profile(suffix: str) -> None:
    icc = rgb_icc(P3_XYZ, 2.2)
    image = open_image(io.BytesIO(image_bytes(from_arrays(RGB, icc=icc), f"x{suffix}")))
    assert image.info["icc_profile"] == icc


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "I;16", "F", "YCbCr"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".ppm"])
def test_save_other_modes(mode: str, suffix: str) -> None:
    assert open_image(io.BytesIO(image_bytes(Image.new(mode, (3, 2)), f"x{suffix}"))).size == (3, 2)


def test_tiff_ignores_layout_tags_in_exif() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageWidth] = 9999
    exif[ExifTags.Base.Make] = "Maker"
    image = open_image(io.BytesIO(image_bytes(from_arrays(RGB, exif=exif.tobytes()), "x.tif")))
    np.testing.assert_array_equal(np.asarray(image), RGB)
    assert image.getexif()[ExifTags.Base.Make] == "Maker"


def test_save_refuses(tmp_path: Path) -> None:
    image = Image.fromarray(RGB)
    for name in ("x.xyz", "x", "x.unq"):
        with pytest.raises(InputError, match="extension"):
            save_image(image, tmp_path / name)
    with pytest.raises(InputError, match="No such file"):
        save_image(image, tmp_path / "gone" / "x.png")
    with pytest.raises(InputError, match="WEBP"):
        save_image(Image.new("L", (20_000, 1)), tmp_path / "x.webp")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="folder"):
        save_image(image, tmp_path / "folder.png", force=True)
    with pytest.raises(InputError):
        save_image(image, "nul\0byte.png")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_overwriting_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="exists"):
        save_image(Image.fromarray(RGB), path)
    with pytest.raises(InputError, match="exists"):
        atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    save_image(Image.fromarray(RGB), path, force=True)
    np.testing.assert_array_equal(np.asarray(open_image(path)), RGB)
    atomic_write_bytes(path, b"new", force=True)
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.parametrize("step", ["replace", "save"])
def test_failure_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((images.os, "replace") if step == "replace" else (Image.Image, "save")), fail)
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=r"x\.png.*No space"):
        save_image(Image.fromarray(RGB), path, force=True)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(images.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_bytes(tmp_path / "x", b"data")
    assert list(tmp_path.iterdir()) == []


def test_links_are_followed_and_the_umask_holds(tmp_path: Path) -> None:
    target = tmp_path / "target"
    link = tmp_path / "link"
    link.symlink_to(target)
    atomic_write_bytes(link, b"data")
    assert link.is_symlink()
    assert target.read_bytes() == b"data"
    (tmp_path / "plain").write_bytes(b"")
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode
