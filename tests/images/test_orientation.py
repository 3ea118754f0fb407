from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import (
    ALPHA,
    RGB,
    XMP,
    make_exif,
    parse_exif,
    png_chunk,
    raw_png,
    saved,
)
from PIL import ExifTags, Image

from unquant.container.avif import build_avif, parse_avif
from unquant.images import from_arrays, image_bytes, open_image, to_picture
from unquant.images.orientation import orientation_of, split_orientation, with_orientation

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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_orientation_in_xmp_alone_turns_nothing(kind: str) -> None:
    for exif in (None, make_exif()):  # without an orientation
        data = image_bytes(from_arrays(np.zeros((4, 8, 3), np.uint8), exif=exif, xmp=XMP), f"x.{kind.lower()}")
        for found in (Image.open(io.BytesIO(data)), open_image(io.BytesIO(data))):
            picture = to_picture(found)
            assert picture.rgb.shape == (4, 8, 3)
            assert (picture.exif is None) == (exif is None)
            assert picture.xmp is not None


@pytest.mark.parametrize("turns", ["eXIf", "text"])
def test_png_is_turned_by_its_chunk_alone(turns: str) -> None:
    exif = make_exif(6)[6:]
    text = b"Raw profile type exif\0\0" + zlib.compress(
        b"\nexif\n%8d\n%s\n" % (len(exif) + 6, (b"Exif\0\0" + exif).hex().encode())
    )
    chunk = png_chunk(b"eXIf", exif) if turns == "eXIf" else png_chunk(b"zTXt", text)
    data = raw_png(8, 4, 8, 0, bytes(9 * 4), chunk)
    for found in (Image.open(io.BytesIO(data)), open_image(io.BytesIO(data))):
        picture = to_picture(found)
        assert picture.rgb.shape == ((8, 4, 3) if turns == "eXIf" else (4, 8, 3))
        assert picture.exif is not None
        assert parse_exif(picture.exif).get(ExifTags.Base.Orientation, 1) == 1
        assert parse_exif(picture.exif)[ExifTags.Base.Make] == "Maker"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_by_its_boxes(orientation: int) -> None:
    """Whatever EXIF says beside them."""
    smooth = np.linspace(0, 250, 24).astype(np.uint8).reshape(4, 6).repeat(16, 0).repeat(16, 1)
    rgb = np.dstack([smooth, smooth.T.reshape(smooth.shape), smooth[::-1]])
    obus = parse_avif(image_bytes(from_arrays(rgb), "x.avif")).obus
    assert obus is not None
    avif = build_avif(obus, exif=make_exif(9 - orientation)[6:], orientation=orientation)
    expected = UPRIGHT[orientation](to_picture(open_image(io.BytesIO(build_avif(obus)))).rgb)
    np.testing.assert_array_equal(to_picture(open_image(io.BytesIO(avif))).rgb, expected)


PLAIN, TURNED = make_exif()[6:], make_exif(6)[6:]


def test_the_tag_is_read() -> None:
    assert [orientation_of(exif) for exif in (None, b"", b"no TIFF structure", PLAIN)] == [None] * 4
    assert [orientation_of(make_exif(n)[6:]) for n in range(1, 9)] == list(range(1, 9))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_tag_is_set(orientation: int) -> None:
    for exif in (PLAIN, TURNED):
        changed = with_orientation(exif, orientation)
        assert changed is not None
        assert (orientation_of(changed) or 1) == orientation
        assert parse_exif(changed)[ExifTags.Base.Make] == "Maker"
        assert len(changed) == len(exif) or exif == PLAIN
    bare = with_orientation(None, orientation)
    assert (bare is None) if orientation == 1 else (orientation_of(bare) == orientation)


def test_broken_exif_gives_way_to_the_tag() -> None:
    assert with_orientation(b"no TIFF structure", 1) == b"no TIFF structure"
    with pytest.warns(UserWarning, match="EXIF left out but for the orientation"):
        assert orientation_of(with_orientation(b"no TIFF structure", 6)) == 6


def test_the_tag_is_taken_out() -> None:
    for exif in (None, PLAIN, b"no TIFF structure", make_exif(1)[6:], make_exif(9)[6:]):
        assert split_orientation(exif) == (1, exif)
    assert split_orientation(TURNED) == (6, make_exif(1)[6:])
    assert split_orientation(with_orientation(None, 8)) == (8, None)
