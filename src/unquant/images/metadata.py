"""EXIF, XMP and resolution: where image files have them, what is kept and made true, how Pillow is told to write it."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from PIL import ExifTags, Image, PngImagePlugin

from unquant.errors import InputError, warn
from unquant.images.checks import cause_of
from unquant.images.iptc import xmp_of_iptc
from unquant.images.orientation import ORIENTATION, exif_with_orientation, orientation_of
from unquant.images.tiff import EXIF_PREFIX, RATIONAL, Tiff
from unquant.images.xmp import JPEG_MARKER_BYTES, XMP_PREFIX, jpeg_segments, true_xmp, whole_xmp

__all__ = [
    "descriptive_exif",
    "drop_raw_profiles",
    "exif_of",
    "kept_exif",
    "kept_xmp",
    "load_pixels",
    "metadata_options",
    "parsed_exif",
    "resolution_of",
    "xmp_of",
]

_XMP_TIFF_TAG: Final = 700
# tags of the first directory that describe the picture; the others describe the layout of the file it came from
_DESCRIPTIVE_TAGS: Final = frozenset(
    [0x010D, 0x010E, 0x010F, 0x0110, 0x0112, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x8298, *range(0x9C9B, 0x9CA0)]
)
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
_NO_UNIT, _CENTIMETRE, _CENTIMETRES = 1, 3, 2.54
_DEFAULT_DPI: Final = (72, 72)
_MOST_DPI: Final = 65_535
_ROUNDING: Final = 0.05
_EXIF_DIRECTORY, _INTEROP_DIRECTORY = 0x8769, 0xA005
_COLOR_SPACE, _SRGB, _INTEROP_INDEX = 0xA001, 1, 1
_ON_ITS_SIDE: Final = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
_RAW_PROFILE: Final = re.compile(r"\s*[^\n]*\n\s*([0-9]{1,9})\s*\n([0-9a-fA-F\s]*)")
_IPTC_RESOURCE, _TIFF_IPTC, _TIFF_PHOTOSHOP = 0x0404, 33_723, 34_377


def parsed_exif(source: Image.Image | bytes, name: str) -> Image.Exif | None:
    """The EXIF of an image, or in some bytes; None if it is broken (then with a warning).

    To EXIF without an orientation Pillow adds what XMP asks for; that does not count here, as elsewhere.
    """
    try:
        if isinstance(source, Image.Image):
            if source.info.get("exif") or not (data := _raw_exif(source, name)):
                exif = source.getexif()
                return _without_xmp(source) if ORIENTATION in exif and _is_turned_by_xmp(source) else exif
            source = data
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


def exif_of(image: Image.Image, exif: Image.Exif, name: str) -> bytes:
    """The EXIF of an image, parsed and as bytes without prefix, wherever its file has it; b"" for none."""
    data = image.info.get("exif")
    if not isinstance(data, bytes) or not data:
        data = _raw_exif(image, name) or descriptive_exif(exif, name)
    while data.startswith(EXIF_PREFIX):
        data = data[len(EXIF_PREFIX) :]
    return data


def xmp_of(image: Image.Image, name: str) -> bytes | None:
    """The XMP packet of an image, wherever its file has it: whole, from a raw profile, or made of its IPTC."""
    data = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or _raw_profile(image, name, "xmp")
    if not data and (found := _raw_profile(image, name, "APP1")) and found.startswith(XMP_PREFIX):
        data = found.removeprefix(XMP_PREFIX)
    if isinstance(data, str):
        data = data.encode("utf-8")
    if not isinstance(data, bytes) or not data:
        iptc = _iptc(image, name)
        return None if iptc is None else xmp_of_iptc(iptc)
    return whole_xmp(data, getattr(image, "applist", ()), name)


def kept_exif(
    image: Image.Image,
    exif: Image.Exif | None,
    transpose: Image.Transpose | None,
    name: str,
    *,
    width: int,
    height: int,
) -> bytes | None:
    """The EXIF that a picture keeps: without prefix, true for an upright sRGB picture of width by height pixels, with the
    resolution; None where there is nothing to say. transpose: what turned the picture."""
    data = b"" if exif is None else exif_of(image, exif, name)
    tiff = None
    if exif is not None and data and not set(exif) <= {ORIENTATION}:
        data = exif_with_orientation(data, 1)
        try:
            tiff = Tiff(data)
        except InputError:  # of a kind that Pillow reads nevertheless
            return data
        _make_true(tiff, transpose, width, height)
    dpi = _dpi_of(image)
    if dpi is not None and (tiff is None or tiff.rational(tiff.first, _X_RESOLUTION) is None):
        tiff = tiff or Tiff()
        tiff.add(
            {
                tag: (RATIONAL, tiff.packed(*_ratio(v)))
                for tag, v in zip((_X_RESOLUTION, _Y_RESOLUTION), dpi, strict=True)
            }
        )
    return None if tiff is None else tiff.to_bytes()


def kept_xmp(image: Image.Image, name: str, *, width: int, height: int) -> bytes | None:
    """The XMP packet that a picture keeps, true for it as in `kept_exif`."""
    packet = xmp_of(image, name)
    return None if packet is None else true_xmp(packet, width, height)


def resolution_of(exif: bytes) -> tuple[float, float] | None:
    """Dots per inch, horizontally and vertically, by EXIF with or without prefix; None where it says nothing."""
    try:
        tiff = Tiff(exif.removeprefix(EXIF_PREFIX))
    except InputError:
        return None
    x, y = (tiff.rational(tiff.first, tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    unit = tiff.number(tiff.first, _RESOLUTION_UNIT)
    if not x or not y or unit == _NO_UNIT:
        return None
    scale = _CENTIMETRES if unit == _CENTIMETRE else 1.0
    return x * scale, y * scale


def metadata_of_part(
    exif: bytes | None, xmp: bytes | None, *, width: int, height: int
) -> tuple[bytes | None, bytes | None]:
    """EXIF (without prefix) and XMP of a picture of which a part is left, or a small copy, of width by height pixels: its
    size, and no thumbnail."""
    if exif is not None:
        try:
            tiff = Tiff(exif)
        except InputError:  # of a kind that Pillow reads nevertheless
            return exif, None if xmp is None else true_xmp(xmp, width, height)
        tiff.drop_thumbnail()
        _set_size(tiff, width, height)
        exif = tiff.to_bytes()
    return exif, None if xmp is None else true_xmp(xmp, width, height)


def _make_true(tiff: Tiff, transpose: Image.Transpose | None, width: int, height: int) -> None:
    shot = tiff.below(tiff.first, _EXIF_DIRECTORY)
    interop = tiff.below(shot, _INTEROP_DIRECTORY)
    if transpose is not None or tiff.number(shot, _COLOR_SPACE) not in (None, _SRGB):
        tiff.drop_thumbnail()  # it lies on its side, or is of other colours
    if transpose in _ON_ITS_SIDE:
        tiff.swap(tiff.first, _X_RESOLUTION, _Y_RESOLUTION)
    _set_size(tiff, width, height)
    tiff.set_number(shot, _COLOR_SPACE, _SRGB)
    tiff.set_text(interop, _INTEROP_INDEX, b"R03\0", b"R98\0")


def _set_size(tiff: Tiff, width: int, height: int) -> None:
    shot = tiff.below(tiff.first, _EXIF_DIRECTORY)
    interop = tiff.below(shot, _INTEROP_DIRECTORY)
    for directory, across, down in (
        (tiff.first, 0x0100, 0x0101),  # ImageWidth, ImageLength
        (shot, 0xA002, 0xA003),  # PixelXDimension, PixelYDimension
        (interop, 0x1001, 0x1002),  # RelatedImageWidth, RelatedImageLength
    ):
        tiff.set_number(directory, across, width)
        tiff.set_number(directory, down, height)


def _dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """What an image file says beside EXIF; None for EXIF's default and for nonsense."""
    given = image.info.get("dpi")
    if not isinstance(given, tuple) or len(cast("tuple[Any, ...]", given)) != 2:
        return None
    try:
        x, y = (float(value) for value in cast("tuple[Any, Any]", given))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (1 < x < _MOST_DPI and 1 < y < _MOST_DPI) or (round(x), round(y)) == _DEFAULT_DPI:
        return None
    return x, y


def _ratio(value: float) -> tuple[int, int]:
    whole = round(value)  # pHYs counts in metres: 299.9994
    return (whole, 1) if whole and abs(value - whole) < _ROUNDING else (round(value * 1000), 1000)


def _raw_exif(image: Image.Image, name: str) -> bytes:
    for kind in ("exif", "APP1"):
        data = _raw_profile(image, name, kind)
        if data and data.startswith((EXIF_PREFIX, b"II", b"MM")):
            return data
    return b""


def _raw_profile(image: Image.Image, name: str, kind: str) -> bytes | None:
    """Metadata that ImageMagick and others keep in a text of PNG: its name, its length and its bytes in hex."""
    text = image.info.get(f"Raw profile type {kind}")
    if not isinstance(text, str):
        return None
    match = _RAW_PROFILE.match(text)
    digits = "".join(match[2].split()) if match else ""
    size = int(match[1]) if match else 0
    if match is None or len(digits) < 2 * size:
        warn(f"{name}: the raw profile {kind} is left out, it is broken")
        return None
    return bytes.fromhex(digits[: 2 * size])


def drop_raw_profiles(image: Image.Image) -> None:
    """Takes those texts out of `image.info`, once they have been read."""
    for key in [key for key in image.info if str(key).startswith("Raw profile type ")]:
        del image.info[key]


def _iptc(image: Image.Image, name: str) -> bytes | None:
    """IPTC, bare or among the resources of Photoshop, where an image has it."""
    for kind in ("iptc", "8bim"):
        if data := _raw_profile(image, name, kind):
            return data
    resources, tags = image.info.get("photoshop"), getattr(image, "tag_v2", {})
    found = (
        resources.get(_IPTC_RESOURCE)
        if isinstance(resources, dict)
        else tags.get(_TIFF_IPTC) or tags.get(_TIFF_PHOTOSHOP)
    )
    return found if isinstance(found, bytes) else None


def metadata_options(image: Image.Image, kind: str, name: str) -> dict[str, Any]:
    """Arguments for Pillow's `save` that write the metadata in `image.info`."""
    if kind == "PPM":
        return {}
    icc, exif = image.info.get("icc_profile"), image.info.get("exif")
    data = image.info.get("xmp")
    xmp = data.encode() if isinstance(data, str) else data
    options: dict[str, Any] = {"icc_profile": icc} if icc else {}
    if exif and (dpi := resolution_of(exif)) and max(dpi) < _MOST_DPI:
        options["dpi"] = dpi
    if kind == "JPEG":
        if exif and len(exif) > JPEG_MARKER_BYTES:
            warn(f"{name}: {len(exif)} bytes of EXIF do not fit into JPEG; left out")
            exif = None
        if xmp:
            options["extra"] = jpeg_segments(xmp)
            xmp = None
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
