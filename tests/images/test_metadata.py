from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import (
    RGB,
    XMP,
    make_exif,
    parse_exif,
    saved,
)
from PIL import ExifTags, Image

from unquant.images import from_arrays, image_bytes, open_image, to_picture


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
