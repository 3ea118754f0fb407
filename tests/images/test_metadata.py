from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import (
    P3_XYZ,
    RGB,
    SRGB_XYZ,
    XMP,
    make_exif,
    parse_exif,
    png_chunk,
    raw_png,
    rgb_icc,
    saved,
    with_icc,
)
from PIL import ExifTags, Image, PngImagePlugin

from unquant.images import from_arrays, image_bytes, open_image, to_picture
from unquant.images.metadata import resolution_of


def test_exif_that_only_rotates_is_dropped() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    assert to_picture(saved(Image.new("RGB", (8, 4)), "JPEG", exif=exif)).exif is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_metadata_kept_or_dropped(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{kind.lower()}"
    path.write_bytes(image_bytes(from_arrays(RGB, exif=make_exif(), xmp=XMP), path))
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
    image = from_arrays(RGB, exif=make_exif() + bytes(70_000), xmp=XMP)
    with pytest.warns(UserWarning, match="bytes of EXIF do not fit into JPEG"):
        back = Image.open(io.BytesIO(image_bytes(image, "x.jpg")))
    assert "exif" not in back.info
    assert back.info["xmp"] == XMP


def camera_exif(orientation: int, *, colour: int = 0xFFFF, index: str = "R03") -> bytes:
    """As of a camera: size, colour space, interoperability, a resolution that differs by direction; and a thumbnail."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = 300.0, 150.0
    exif[ExifTags.Base.ImageWidth] = 4000
    shot = {ExifTags.Base.ColorSpace: colour, ExifTags.Base.ExifImageWidth: 4000, ExifTags.Base.ExifImageHeight: 3000}
    interop = {1: index, 0x1001: 4000, 0x1002: 3000}
    exif[ExifTags.IFD.Exif] = {**shot, ExifTags.Base.MakerNote: b"notes", ExifTags.IFD.Interop: interop}
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    start = struct.unpack_from(">I", data, 4)[0]
    pointer = start + 2 + 12 * struct.unpack_from(">H", data, start)[0]
    second = struct.pack(">H", 2) + b"".join(
        struct.pack(">HHII", tag, 4, 1, value) for tag, value in ((0x201, len(data) + 30), (0x202, 8))
    )
    return data[:pointer] + struct.pack(">I", len(data)) + data[pointer + 4 :] + second + bytes(4) + b"\xff\xd8THUMB\0"


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(("colour", "index"), [(1, "R98"), (0xFFFF, "R03"), (2, "R03")])
def test_exif_is_made_true(orientation: int, colour: int, index: str) -> None:
    image = saved(Image.new("RGB", (8, 4)), "PNG", exif=camera_exif(orientation, colour=colour, index=index))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that colours were converted
        picture = to_picture(image)
    height, width = picture.rgb.shape[:2]
    assert picture.exif is not None
    exif = parse_exif(picture.exif)
    assert exif[ExifTags.Base.Orientation] == 1
    assert exif[ExifTags.Base.ImageWidth] == width
    shot, interop = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.Interop)
    assert (shot[ExifTags.Base.ExifImageWidth], shot[ExifTags.Base.ExifImageHeight]) == (width, height)
    assert (shot[ExifTags.Base.ColorSpace], shot[ExifTags.Base.MakerNote]) == (1, b"notes")
    assert (interop[1], interop[0x1001], interop[0x1002]) == ("R98", width, height)
    assert (exif[0x11A], exif[0x11B]) == ((150, 300) if orientation == 6 else (300, 150))
    assert (b"THUMB" in picture.exif) == bool(exif.get_ifd(ExifTags.IFD.IFD1)) == (orientation == 1 and colour == 1)


def raw_profile(name: str, data: bytes, *, size: int | None = None) -> str:
    digits = data.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return f"\n{name}\n{len(data) if size is None else size:>8}\n{lines}\n"


def png_with(**profiles: str) -> Image.Image:
    text = PngImagePlugin.PngInfo()
    for kind, value in profiles.items():
        text.add_text(f"Raw profile type {kind}", value, zip=True)
    return saved(Image.fromarray(RGB), "PNG", pnginfo=text)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("kind", ["exif", "APP1"])
def test_raw_profiles_of_png(kind: str, prefix: bytes) -> None:
    exif = make_exif(6).removeprefix(b"Exif\0\0")
    image = png_with(**{kind: raw_profile("exif", prefix + exif) + "\0"}, xmp=raw_profile("xmp", XMP))
    opened = open_image(image.fp)
    assert opened.info["exif"] == make_exif(1).removeprefix(b"Exif\0\0")  # it turns nothing
    for source in (image, opened):
        picture = to_picture(source)
        assert picture.rgb.shape == (5, 7, 3)
        assert picture.exif == make_exif(1).removeprefix(b"Exif\0\0")
        assert picture.xmp == XMP.replace(b'n="6"', b'n="1"')
    app1 = png_with(APP1=raw_profile("generic", b"http://ns.adobe.com/xap/1.0/\0" + XMP))
    assert to_picture(app1).xmp == XMP.replace(b'n="6"', b'n="1"')


@pytest.mark.parametrize("text", ["", "\nexif\n", "\nexif\n  99\nabcd\n", "\nexif\n 3\n4949gg", "exif 4 49492a00"])
def test_broken_raw_profiles_are_left_out_with_a_warning(text: str) -> None:
    with pytest.warns(UserWarning, match="the raw profile (exif|xmp|iptc) is left out, it is broken"):
        picture = to_picture(png_with(exif=text, xmp=text, iptc=text))
    assert picture.exif is picture.xmp is None
    np.testing.assert_array_equal(picture.rgb, RGB)


def test_iptc_in_a_raw_profile() -> None:
    picture = to_picture(png_with(iptc=raw_profile("iptc", b"8BIM\x04\x04\0\0\0\0\0\x0e\x1c\x02\x78\0\x09a caption")))
    assert picture.xmp is not None
    assert b"a caption" in picture.xmp


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("dpi", [(300, 300), (150, 96)])
def test_the_resolution_survives(kind: str, dpi: tuple[int, int]) -> None:
    picture = to_picture(saved(Image.fromarray(RGB), kind, dpi=dpi))
    assert picture.exif is not None
    assert len(picture.exif) <= 54
    assert to_picture(saved(Image.fromarray(RGB), kind, dpi=dpi), keep_metadata=False).exif is None
    image = from_arrays(RGB, exif=picture.exif)
    assert image.info["dpi"] == pytest.approx(dpi, abs=0.05)
    for name in ("x.jpg", "x.png", "x.tif"):
        again = Image.open(io.BytesIO(image_bytes(image, name)))
        assert tuple(map(float, again.info["dpi"])) == pytest.approx(dpi, abs=0.05)
    for name in ("x.webp", "x.avif"):
        assert resolution_of(open_image(io.BytesIO(image_bytes(image, name))).info["exif"]) == pytest.approx(
            dpi, abs=0.05
        )


def test_a_resolution_that_says_nothing_is_not_kept() -> None:
    for dpi in ((72, 72), (1, 1), (0, 0)):
        assert to_picture(saved(Image.fromarray(RGB), "JPEG", dpi=dpi)).exif is None
    image = Image.fromarray(RGB)
    for nonsense in ("300", (300,), ("a", "b"), (-1, 300), (float("nan"), 1.0), (1e9, 1e9)):
        image.info["dpi"] = nonsense
        assert to_picture(image).exif is None
    both = to_picture(saved(image, "JPEG", exif=make_exif(), dpi=(300, 300))).exif
    assert both is not None
    assert parse_exif(both)[0x11A] == 300
    assert parse_exif(both)[ExifTags.Base.Make] == "Maker"
    assert resolution_of(both) == (300, 300)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("own", [None, rgb_icc(SRGB_XYZ, 1.8)])
def test_a_profile_given_counts_in_place_of_the_file_s(depth: int, own: bytes | None) -> None:
    rows = b"".join(
        b"\0" + row.astype(">u2").tobytes() if depth == 16 else b"\0" + row.tobytes()
        for row in RGB.astype(np.uint16 if depth == 16 else np.uint8) * (257 if depth == 16 else 1)
    )
    chunk = b"" if own is None else png_chunk(b"iCCP", b"own\0\0" + zlib.compress(own))
    data = raw_png(7, 5, depth, 2, rows, chunk + png_chunk(b"gAMA", struct.pack(">I", 100_000)))
    given = rgb_icc(P3_XYZ, 2.2)
    found = to_picture(open_image(io.BytesIO(data), icc=given)).rgb
    expected = to_picture(with_icc(Image.fromarray(RGB), given)).rgb
    assert np.abs(found.astype(int) - expected).max() <= 1
