"""How a picture is to be turned: the tag of EXIF, read, set and taken out."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Final

from PIL import ExifTags, Image

from unquant.errors import InputError, warn
from unquant.images.tiff import SHORT, Tiff

__all__ = [
    "ORIENTATION",
    "exif_with_orientation",
    "orientation_of",
    "split_orientation",
    "swaps_sides",
    "transpose_by",
    "transpose_of",
    "with_orientation",
]

ORIENTATION: Final = int(ExifTags.Base.Orientation)
"""The tag."""
_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def transpose_of(exif: Image.Exif | None) -> Image.Transpose | None:
    """What turns the picture upright; None where it is, or where nothing sensible is said of it."""
    return transpose_by(exif.get(ORIENTATION) if exif else None)


def swaps_sides(exif: Image.Exif | None) -> bool:
    """Whether turning the picture upright swaps its width and height."""
    return bool(exif) and exif.get(ORIENTATION) in (5, 6, 7, 8)


def transpose_by(orientation: object) -> Image.Transpose | None:
    """The same for the value of the tag."""
    return _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None


def orientation_of(exif: bytes | None) -> int | None:
    """The tag's value in a TIFF structure; None where there is none, or where it is broken."""
    parsed = Image.Exif()
    try:
        if exif:
            parsed.load(exif)
        value = parsed.get(ORIENTATION)
    except Exception:  # a third-party parser on foreign bytes
        return None
    return value if isinstance(value, int) else None


def exif_with_orientation(data: bytes, orientation: int) -> bytes:
    """The same TIFF structure with the orientation (1..8) that its first directory has changed, all other bytes as they
    were; one that has none stays as it is."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return data
    changed = bytearray(data)
    with suppress(struct.error):  # a directory that runs over the end
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            if struct.unpack_from(order + "H", data, entry)[0] == ORIENTATION:
                struct.pack_into(order + "HHIHH", changed, entry, ORIENTATION, 3, 1, orientation, 0)
    return bytes(changed)


def with_orientation(exif: bytes | None, orientation: int) -> bytes | None:
    """EXIF that asks for an orientation (1..8), whatever it asked for before, the rest of it as it was.

    None where there is none, and none needed. Broken EXIF is left out with an UnquantWarning.
    """
    found = orientation_of(exif)
    if (1 if found is None else found) == orientation:
        return exif
    if exif is not None and found is not None:
        return exif_with_orientation(exif, orientation)
    return _with_new_tag(exif, orientation)


def split_orientation(exif: bytes | None) -> tuple[int, bytes | None]:
    """The orientation in EXIF, 1 without, and the EXIF without it: the tag set to 1, None where there is no other."""
    found = orientation_of(exif)
    if exif is None or found is None or found not in range(2, 9):
        return 1, exif
    parsed = Image.Exif()
    parsed.load(exif)
    return found, None if set(parsed) == {ORIENTATION} else exif_with_orientation(exif, 1)


def _with_new_tag(exif: bytes | None, orientation: int) -> bytes:
    try:
        tiff = Tiff(exif)
    except InputError:
        warn("EXIF left out but for the orientation: it is broken")
        tiff = Tiff()
    tiff.add({ORIENTATION: (SHORT, tiff.packed(orientation, kind=SHORT))})
    return tiff.to_bytes()
