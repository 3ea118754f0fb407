"""EXIF and XMP: what is kept of them, and how Pillow is told to write them."""

from __future__ import annotations

import re
from typing import Any, Final

from PIL import ExifTags, Image, PngImagePlugin

from unquant.errors import warn
from unquant.images.checks import cause_of
from unquant.images.orientation import ORIENTATION, exif_with_orientation, orientation_of

__all__ = [
    "EXIF_PREFIX",
    "descriptive_exif",
    "kept_exif",
    "kept_xmp",
    "load_pixels",
    "metadata_options",
    "parsed_exif",
]

EXIF_PREFIX: Final = b"Exif\x00\x00"
_XMP_TIFF_TAG: Final = 700
# tags of the first directory that describe the picture; the others describe the layout of the file it came from
_DESCRIPTIVE_TAGS: Final = frozenset(
    [0x010D, 0x010E, 0x010F, 0x0110, 0x0112, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x8298, *range(0x9C9B, 0x9CA0)]
)
_XMP_ORIENTATION: Final = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[0-9]+")
_JPEG_MARKER_BYTES: Final = 65_533
_JPEG_XMP_OVERHEAD: Final = 29


def parsed_exif(source: Image.Image | bytes, name: str) -> Image.Exif | None:
    """The EXIF of an image, or in some bytes; None if it is broken (then with a warning).

    To EXIF without an orientation Pillow adds what XMP asks for; that does not count here, as elsewhere.
    """
    try:
        if isinstance(source, Image.Image):
            exif = source.getexif()
            return _without_xmp(source) if ORIENTATION in exif and _is_turned_by_xmp(source) else exif
        exif = Image.Exif()
        exif.load(source)
        return exif
    except Exception as error:  # a third-party parser on hostile bytes
        warn(f"{name}: EXIF ignored, it is broken: {cause_of(error)}")
        return None


def load_pixels(image: Image.Image) -> None:
    """Loads the pixels, which Pillow turns on loading where it is a TIFF: by its tag, and not, as it would, by XMP."""
    xmp = image.info.pop("xmp", None) if image.format == "TIFF" else None
    try:
        image.load()
    finally:
        if xmp is not None:
            image.info["xmp"] = xmp


def _is_turned_by_xmp(image: Image.Image) -> bool:
    if hasattr(image, "tag_v2") or not ("xmp" in image.info or "XML:com.adobe.xmp" in image.info):
        return False
    return orientation_of(image.info.get("exif")) is None


def _without_xmp(image: Image.Image) -> Image.Exif:
    plain = Image.Image()
    plain.info = {key: image.info[key] for key in ("exif", "Raw profile type exif") if key in image.info}
    return plain.getexif()


def descriptive_exif(exif: Image.Exif, name: str) -> bytes:
    """EXIF of what describes the picture, without the tags that describe the layout of a TIFF file; b"" for nothing."""
    kept = Image.Exif()
    try:
        for tag in exif:
            if tag in _DESCRIPTIVE_TAGS:
                kept[tag] = exif[tag]
        for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            values = {tag: value for tag, value in exif.get_ifd(directory).items() if tag != ExifTags.IFD.Interop}
            if values:
                kept[directory] = values
        return kept.tobytes() if len(kept) else b""
    except Exception as error:  # a third-party parser on hostile bytes
        warn(f"{name}: EXIF ignored, it is broken: {cause_of(error)}")
        return b""


def kept_exif(image: Image.Image, exif: Image.Exif | None, name: str) -> bytes | None:
    """The EXIF that a picture keeps: without prefix, upright; None where it says nothing but the orientation."""
    if exif is None:
        return None
    data = image.info.get("exif")
    if not isinstance(data, bytes) or not data:
        data = descriptive_exif(exif, name)
    while data.startswith(EXIF_PREFIX):
        data = data[len(EXIF_PREFIX) :]
    if not data or set(exif) <= {ORIENTATION}:
        return None
    return exif_with_orientation(data, 1)


def kept_xmp(image: Image.Image) -> bytes | None:
    """The XMP packet that a picture keeps, upright."""
    data = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(data, str):
        data = data.encode("utf-8")
    return _XMP_ORIENTATION.sub(rb"\g<1>1", data) if isinstance(data, bytes) and data else None


def metadata_options(image: Image.Image, kind: str, name: str) -> dict[str, Any]:
    """Arguments for Pillow's `save` that write the metadata in `image.info`."""
    icc, exif = image.info.get("icc_profile"), image.info.get("exif")
    data = image.info.get("xmp")
    xmp = data.encode() if isinstance(data, str) else data
    if kind == "PPM":
        return {}
    if kind == "JPEG":
        if exif and len(exif) > _JPEG_MARKER_BYTES:
            warn(f"{name}: {len(exif)} bytes of EXIF do not fit into JPEG; left out")
            exif = None
        if xmp and len(xmp) > _JPEG_MARKER_BYTES - _JPEG_XMP_OVERHEAD:
            warn(f"{name}: {len(xmp)} bytes of XMP do not fit into JPEG; left out")
            xmp = None
    options: dict[str, Any] = {"icc_profile": icc} if icc else {}
    if exif and kind in ("AVIF", "TIFF"):  # where Pillow takes it apart; elsewhere the bytes are written as they are
        parsed = parsed_exif(exif, name)
        exif = None if parsed is None else exif if kind == "AVIF" else descriptive_exif(parsed, name)
    if kind == "TIFF":
        tags = Image.Exif()
        if exif:
            tags.load(exif)
        if xmp:
            tags[_XMP_TIFF_TAG] = xmp
        # libtiff, which compresses, cannot write the directories of EXIF; Pillow's own writer can
        return {**options, "exif": tags, "compression": "raw"} if len(tags) else options
    if exif:
        options["exif"] = exif
    if xmp and kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        options["pnginfo"] = text
    elif xmp:
        options["xmp"] = xmp
    return options
