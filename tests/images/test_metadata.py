from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import (
    ALPHA,
    RGB,
    XMP,
    make_exif,
    parse_exif,
    saved,
)
from PIL import ExifTags, Image

from unquant.images import from_arrays, image_bytes, open_image, to_picture

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
    image = from_arrays(RGB, exif=make_exif() + bytes(70_000), xmp=bytes(70_000))
    with pytest.warns(UserWarning, match="JPEG"):
        back = Image.open(io.BytesIO(image_bytes(image, "x.jpg")))
    assert "exif" not in back.info
