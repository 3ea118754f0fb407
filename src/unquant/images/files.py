"""Image files: opened with all checks, written in the format of their extension."""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from unquant.errors import InputError, OptionError, UnquantError, warn
from unquant.images.checks import check_size, typed_errors, without_pillows_limit
from unquant.images.cicp import find_cicp
from unquant.images.damage import is_cut_png, mended
from unquant.images.deep import deepen, scale_gray
from unquant.images.formats import HEAD_BYTES, check_known, register_for
from unquant.images.jxl import jxl_size
from unquant.images.metadata import drop_raw_profiles, exif_of, load_pixels, metadata_options, parsed_exif, xmp_of
from unquant.images.numbers import U8, checked_16_bit, gray_to_8_bit
from unquant.images.orientation import ORIENTATION, exif_with_orientation, swaps_sides, transpose_by
from unquant.images.picture import from_arrays, to_picture
from unquant.images.profiles import space_of

__all__ = ["FORMATS", "frame_count", "image_bytes", "image_size", "open_image", "pixel_count", "read_rgb"]

_PROGRAMS: Final = {"EPS", "WMF"}  # drawn by an outside program, not decoded
_UPRIGHT: Final = {"TIFF", "JXL", "HEIF"}  # Pillow or its plugin turns them
_LAYERED: Final = {"PSD"}  # frames are layers, and what is opened is all of them
FORMATS: Final[Mapping[str, str]] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pnm": "PPM",
}
"""Of the files that are written: suffixes in lower case, and Pillow's names of their formats."""
_SAVE_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "PPM": {},
}
_WITHOUT_ALPHA: Final = {"JPEG", "PPM"}


def open_image(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    max_pixels: int | None = None,
    frame: int | None = None,
    icc: bytes | None = None,
) -> ImageFile.ImageFile:
    """Opens an image file and decodes one frame (or page); the file is closed (or no longer needed) on return.

    source: a path or a binary stream. name: of a stream, for messages; its own by default. max_pixels: checked against the
    header, before any pixel is decoded, 2^28 by default (or as in `container.pixel_limit`); Pillow's own limit does not
    count. frame: from 0; None takes the first (of HEIF the primary one), with an UnquantWarning that counts the frames
    where there are more. icc: the profile that its colours are in, whatever the file says.

    EXIF and XMP are found in `.info["exif"]` and `["xmp"]`, whatever the format, and code points of colours (`Cicp`) in
    `.info["cicp"]`. Colours of more than 8 bits come converted to sRGB, where imagecodecs is installed. HEIF and JPEG XL
    need the extra `formats`. A JPEG or PNG that is cut after its last pixel is read, with an UnquantWarning.

    Raises InputError, naming the file and the cause (missing, not readable, truncated, of an unknown format), CodecMissing
    for a format whose package is not installed, OptionError for a frame that there is not, or ImageTooLarge.
    """
    with _stream(source, name) as (file, known):
        return _read(file, known, max_pixels, frame, icc)


def frame_count(
    source: str | os.PathLike[str] | BinaryIO, *, name: str | None = None, max_pixels: int | None = None
) -> int:
    """How many frames or pages an image file has, at least 1: `frame` of `open_image` lies below. Of a layered picture
    (PSD) the whole counts as one. Arguments and errors as in `open_image`; a stream is left at its start."""
    with _stream(source, name) as (file, known):
        count = _frames(_opened(file, known, max_pixels))
        file.seek(0)
        return count


def pixel_count(source: str | os.PathLike[str] | BinaryIO, *, name: str | None = None, frame: int | None = None) -> int:
    """Width times height of what `open_image` would open, by the file's headers; it warns of nothing. Arguments and errors as
    there, as far as headers tell."""
    with _stream(source, name) as (file, known):
        image = _opened(file, known, None)
        _check(image, known, None)
        if frame is not None:
            _pick_frame(image, frame, known)
            _check(image, known, None)
        pixels = image.width * image.height
        file.seek(0)
        return pixels


def image_size(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    max_pixels: int | None = None,
    frame: int | None = None,
) -> tuple[int, int]:
    """(width, height) of the upright picture that `open_image` and `to_picture` give, by the file's headers alone.

    Arguments, warnings and errors as in `open_image`, as far as headers tell.
    """
    with _stream(source, name) as (file, known):
        image = _opened(file, known, max_pixels)
        _check(image, known, max_pixels)
        _pick_frame(image, frame, known)
        _check(image, known, max_pixels)
        turned = image.format not in _UPRIGHT and swaps_sides(parsed_exif(image, known))
        return (image.height, image.width) if turned else image.size


def read_rgb(
    source: str | os.PathLike[str] | BinaryIO, *, name: str | None = None, max_pixels: int | None = None
) -> U8:
    """The picture in an image file, (h, w, 3) uint8: sRGB and upright as in `to_picture`, without what travels beside it.

    Arguments as in `open_image`. Raises InputError or ImageTooLarge, naming the file.
    """
    return to_picture(open_image(source, name=name, max_pixels=max_pixels), keep_metadata=False).rgb


def image_bytes(image: Image.Image, name: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file, in the format of the extension of `name`: PNG, TIFF, PPM (exact), JPEG, WebP, AVIF.

    image: any mode that `to_picture` takes; L, RGB and RGBA are written as they are. The lossy formats are written at
    high quality (4:4:4 where the format has it). Alpha is flattened on white for JPEG and PPM. ICC, EXIF and XMP in `.info`
    are written where the format holds them, EXIF left out with an UnquantWarning if it is too long for JPEG; the resolution
    of EXIF goes where else the format tells it. TIFF is compressed (Deflate) only where there is no EXIF or XMP.
    Raises InputError, naming `name`.
    """
    name = os.fspath(name)
    kind = _output_format(name)
    with typed_errors(name, f"cannot be written as {kind}"):
        if image.mode not in ("L", "RGB", "RGBA") or "transparency" in image.info:
            picture = to_picture(image)
            image = from_arrays(picture.rgb, picture.alpha, picture.icc, picture.exif, picture.xmp)
        options = {**_SAVE_OPTIONS[kind], **metadata_options(image, kind, name)}
        if image.mode == "RGBA" and kind in _WITHOUT_ALPHA:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()


@contextmanager
def _stream(source: str | os.PathLike[str] | BinaryIO, name: str | None) -> Generator[tuple[BinaryIO, str]]:
    """A file or stream to be read, and what messages call it; failures within are typed."""
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        with typed_errors(path), open(path, "rb") as file:
            yield file, path
    else:
        known = name or str(getattr(source, "name", "image stream"))
        with typed_errors(known):
            yield source if source.seekable() else io.BytesIO(source.read()), known


def _opened(file: BinaryIO, name: str, max_pixels: int | None) -> ImageFile.ImageFile:
    file.seek(0)
    head = file.read(HEAD_BYTES)
    register_for(head)
    if (size := jxl_size(file)) is not None:
        check_size(name, size[1], size[0], max_pixels)
    try:
        with without_pillows_limit():
            image = Image.open(file)
    except UnidentifiedImageError:
        check_known(file, name)
        raise
    if image.format in _PROGRAMS:
        raise InputError(f"{name}: {image.format} is a drawing, not an image")
    return image


def _frames(image: Image.Image) -> int:
    return 1 if image.format in _LAYERED else int(getattr(image, "n_frames", 1))


def _pick_frame(image: Image.Image, frame: int | None, name: str) -> None:
    count = _frames(image)
    if frame is None:
        if count > 1:
            warn(f"{name}: has {count} frames or pages, of which the first is read")
        return
    if not 0 <= frame < count:
        raise OptionError(f"{name}: has no frame {frame}, of {count} the last is {count - 1}")
    if count > 1:
        image.seek(frame)


def _read(
    file: BinaryIO, name: str, max_pixels: int | None, frame: int | None, icc: bytes | None
) -> ImageFile.ImageFile:
    try:
        image = _decoded(file, name, max_pixels, frame, given=icc)
    except UnquantError:
        raise
    except (OSError, ValueError):
        repaired = mended(file)
        if repaired is None:
            raise
        if repaired.cause:
            warn(f"{name}: {repaired.cause}")
        image = _decoded(io.BytesIO(repaired.data), name, max_pixels, frame, repaired.icc, given=icc)
    if image.format == "PNG" and is_cut_png(file):
        warn(f"{name}: cut after its last pixel (no chunk IEND)")
    image.filename = name  # for messages; now that all is read, Pillow opens it no more
    return image


def _decoded(
    file: BinaryIO,
    name: str,
    max_pixels: int | None,
    frame: int | None,
    icc: bytes | None = None,
    *,
    given: bytes | None = None,
) -> ImageFile.ImageFile:
    """One frame, its colours of 8 bits or grey of 16, with what is told of it in `.info`. icc: a profile that is known.
    given: one in place of all that the file says."""
    image = _opened(file, name, max_pixels)
    _check(image, name, max_pixels)
    _pick_frame(image, frame, name)
    _check(image, name, max_pixels)  # pages differ in size
    turned = getattr(image, "tag_v2", {}).get(ORIENTATION)  # of a TIFF, which Pillow turns on loading
    load_pixels(image)
    scale_gray(image)
    _check_numbers(image, name)
    if image.format == "JXL" and not getattr(image, "jpeg", True) and (exif := image.info.get("exif")):
        image.info["exif"] = exif_with_orientation(exif, 1)  # the codestream says how it is turned, and has been
    if icc is not None:
        image.info["icc_profile"] = icc
    if given is not None:
        image.info["icc_profile"] = given
    elif (cicp := find_cicp(image, file)) is not None:
        image.info["cicp"] = cicp
    exif = parsed_exif(image, name)
    # what a file keeps elsewhere: in the directory of TIFF, in a text of PNG, which turns nothing
    if exif and not image.info.get("exif") and (found := exif_of(image, exif, name)):
        image.info["exif"] = exif_with_orientation(found, 1) if image.format == "PNG" else found
    if xmp := xmp_of(image, name):
        image.info["xmp"] = xmp
    drop_raw_profiles(image)
    deepen(image, file, space_of(image, exif, name), transpose_by(turned), name)
    return image


def _check(image: Image.Image, name: str, max_pixels: int | None) -> None:
    try:
        check_size(name, image.height, image.width, max_pixels)
    except OptionError as error:
        raise InputError(str(error)) from error


def _check_numbers(image: Image.Image, name: str) -> None:
    """Raises InputError for numbers beyond the range that is known how to show."""
    try:
        if image.mode == "F":
            gray_to_8_bit(np.asarray(image))
        elif image.mode == "I":
            checked_16_bit(np.asarray(image), image.mode)
    except OptionError as error:
        raise InputError(f"{name}: cannot be read: {error}") from error


def _output_format(name: str) -> str:
    suffix = Path(name).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"{name}: unknown image extension '{suffix}'; known are {', '.join(FORMATS)}")
    return FORMATS[suffix]
