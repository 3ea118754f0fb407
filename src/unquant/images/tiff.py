"""The TIFF structure of EXIF, edited where it lies: what points into its bytes, such as a camera's own notes, stays true.

Names are those of TIFF 6.0 and EXIF 2.32: a directory is a list of entries of 12 bytes, and a pointer to the next one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from unquant.errors import InputError

__all__ = ["EXIF_PREFIX", "LONG", "RATIONAL", "SHORT", "Directory", "Tiff"]

EXIF_PREFIX: Final = b"Exif\x00\x00"
"""What JPEG puts before it."""
SHORT, LONG, RATIONAL = 3, 4, 5
_SHORTS, _LONGS = (SHORT, 8), (LONG, 9)  # programs write sizes signed as well
_EMPTY: Final = b"MM\x00*\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00"
_JPEG_OFFSET, _JPEG_LENGTH = 0x0201, 0x0202
_ORDERS: Final = {b"II": "<", b"MM": ">"}
_HEADER_BYTES: Final = 8

Directory = Mapping[int, int]
"""Tags to the places of their entries."""


class Tiff:
    """An editable TIFF structure, without prefix. data: None for an empty one. Raises InputError for what is none; a
    directory that runs over the end is empty."""

    def __init__(self, data: bytes | None = None) -> None:
        self._data = bytearray(_EMPTY if data is None else data)
        order = _ORDERS.get(bytes(self._data[:2]))
        if order is None or len(self._data) < _HEADER_BYTES or self._get("2xH", order=order) != 42:
            raise InputError("EXIF: not a TIFF structure")
        self._order = order
        self._start = int(self._get("4xI"))
        self.first, self._count = self._directory(self._start)

    def to_bytes(self) -> bytes:
        """The structure."""
        return bytes(self._data)

    def below(self, directory: Directory, tag: int) -> Directory:
        """The directory that an entry points to; empty where there is none."""
        start = self.number(directory, tag)
        return {} if start is None else self._directory(start)[0]

    def number(self, directory: Directory, tag: int) -> int | None:
        """The one whole number of an entry."""
        place = directory.get(tag)
        if place is None:
            return None
        kind, count = struct.unpack_from(f"{self._order}HI", self._data, place + 2)
        if count != 1 or kind not in _SHORTS + _LONGS:
            return None
        return int(self._get("H" if kind in _SHORTS else "I", place + 8))

    def rational(self, directory: Directory, tag: int) -> float | None:
        """The one RATIONAL of an entry."""
        place = directory.get(tag)
        if place is None or struct.unpack_from(f"{self._order}HI", self._data, place + 2) != (RATIONAL, 1):
            return None
        where = int(self._get("I", place + 8))
        if where + 8 > len(self._data):
            return None
        above, below = struct.unpack_from(f"{self._order}II", self._data, where)
        return above / below if below else None

    def set_number(self, directory: Directory, tag: int, value: int) -> None:
        """Sets the one number of an entry; one that is missing, or of another kind, stays as it is."""
        if self.number(directory, tag) is not None:
            packed = self._packed(value)
            place = directory[tag]
            self._data[place + 2 : place + 12] = packed

    def set_text(self, directory: Directory, tag: int, old: bytes, new: bytes) -> None:
        """Replaces a text of up to 4 bytes that stands in an entry by one of the same length."""
        place = directory.get(tag)
        if place is not None and self._data.startswith(old, place + 8):
            self._data[place + 8 : place + 8 + len(new)] = new

    def swap(self, directory: Directory, one: int, other: int) -> None:
        """Exchanges the values of two entries."""
        if one in directory and other in directory:
            a, b = directory[one] + 2, directory[other] + 2
            self._data[a : a + 10], self._data[b : b + 10] = self._data[b : b + 10], self._data[a : a + 10]

    def add(self, entries: Mapping[int, tuple[int, bytes]]) -> None:
        """Adds entries to the first directory, or replaces them: tags to the type and the bytes, in the order of `packed`, of
        one value. The directory moves to the end; the bytes that it leaves are zero."""
        count, placed = self._count, dict[bytes, int]()
        raw = {tag: bytes(self._data[place : place + 12]) for tag, place in self.first.items()}
        follower = bytes(self._data[self._start + 2 + 12 * count :][:4]).ljust(4, b"\0")
        self._erase(self._start, self._start + 6 + 12 * count)
        if self._start + 6 + 12 * count >= len(self._data):
            del self._data[max(self._start, _HEADER_BYTES) :]
        self._data += bytes(len(self._data) % 2)
        for tag, (kind, value) in entries.items():
            where = value.ljust(4, b"\0")
            if len(value) > 4:
                if value not in placed:
                    placed[value] = len(self._data)
                    self._data += value
                where = self.packed(placed[value])
            raw[tag] = struct.pack(f"{self._order}HHI", tag, kind, 1) + where
        self._start = len(self._data)
        struct.pack_into(f"{self._order}I", self._data, 4, self._start)
        self._data += struct.pack(f"{self._order}H", len(raw)) + b"".join(raw[tag] for tag in sorted(raw)) + follower
        self.first, self._count = self._directory(self._start)

    def packed(self, *values: int, kind: int = LONG) -> bytes:
        """Numbers in the order of the structure's bytes."""
        return struct.pack(f"{self._order}{len(values)}{'H' if kind == SHORT else 'I'}", *values)

    def drop_thumbnail(self) -> None:
        """Unlinks the second directory, and erases it and its JPEG picture."""
        pointer = self._start + 2 + 12 * self._count
        if not self.first or pointer + 4 > len(self._data):
            return
        start = int(self._get("I", pointer))
        if start == 0:
            return
        second, count = self._directory(start)
        picture, length = self.number(second, _JPEG_OFFSET), self.number(second, _JPEG_LENGTH)
        self._data[pointer : pointer + 4] = bytes(4)
        if second:
            self._erase(start, start + 6 + 12 * count)
        if picture is None or length is None or not self._erase(picture, picture + length):
            return
        if picture + length + 1 >= len(self._data):
            del self._data[picture:]

    def _erase(self, start: int, end: int) -> bool:
        """Zeros a range, if it lies within the data and touches neither header nor first directory."""
        first = range(self._start, self._start + 6 + 12 * self._count)
        inside = _HEADER_BYTES <= start <= end <= len(self._data)
        if not inside or (start != self._start and start < first.stop and end > first.start):
            return False
        self._data[start:end] = bytes(end - start)
        return True

    def _directory(self, start: int) -> tuple[dict[int, int], int]:
        """The places of entries by tag, of several with one tag the first, and how many entries there are."""
        if not _HEADER_BYTES <= start <= len(self._data) - 2:
            return {}, 0
        count = int(self._get("H", start))
        if start + 2 + 12 * count > len(self._data):
            return {}, 0
        places = range(start + 2, start + 2 + 12 * count, 12)
        return {int(self._get("H", place)): place for place in reversed(places)}, count

    def _packed(self, value: int) -> bytes:
        kind = SHORT if value < 1 << 16 else LONG
        return struct.pack(f"{self._order}HI", kind, 1) + self.packed(value, kind=kind).ljust(4, b"\0")

    def _get(self, code: str, place: int = 0, *, order: str | None = None) -> int:
        (value,) = struct.unpack_from((order or self._order) + code, self._data, place)
        return value
