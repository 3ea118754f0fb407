"""Unsigned LEB128 integers and the bounds-checked cursor that every field of a `.unq` file is read with."""

from __future__ import annotations

import operator
from typing import TypeAlias

from unquant.errors import CorruptStream, OptionError

BytesLike: TypeAlias = bytes | bytearray | memoryview

MAX_VARINT = 2**64 - 1
_MAX_VARINT_BYTES = 10


def checked_int(name: str, value: int, low: int, high: int) -> int:
    """`value` as a Python int. Raises OptionError if it is no whole number in low..high (`name` is for the message)."""
    try:
        number = operator.index(value)
    except TypeError:
        raise OptionError(f"{name} must be a whole number, not {value!r}") from None
    if not low <= number <= high:
        raise OptionError(f"{name} must be in {low}..{high}, not {number}")
    return number


def byte_view(data: BytesLike) -> memoryview:
    """The data as single bytes, whatever its items are."""
    view = memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")


def encode_varint(value: int) -> bytes:
    """Little-endian groups of 7 bits, high bit set on all but the last byte; always the shortest form.

    value: 0..2^64-1, gives 1 to 10 bytes. Raises OptionError outside that range.
    """
    rest = checked_int("a varint", value, 0, MAX_VARINT)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


class Reader:
    """A cursor over bytes that never reads past their end. Every method raises CorruptStream, naming `what`."""

    __slots__ = ("_data", "position")

    def __init__(self, data: BytesLike) -> None:
        self._data = byte_view(data)
        self.position = 0

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self.position

    def since(self, start: int) -> bytes:
        """A copy of the bytes from offset `start` to the cursor."""
        return bytes(self._data[start : self.position])

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes. The length is checked before anything is copied."""
        if count > self.remaining:
            raise CorruptStream(f"{what}: {count} bytes expected, {self.remaining} left (truncated or damaged)")
        start = self.position
        self.position += count
        return bytes(self._data[start : self.position])

    def byte(self, what: str) -> int:
        """The next byte, 0..255."""
        return self.take(1, what)[0]

    def uint32(self, what: str) -> int:
        """The next four bytes, little-endian."""
        return int.from_bytes(self.take(4, what), "little")

    def uint(self, size: int, what: str) -> int:
        """The next `size` bytes, big-endian, as the boxes of ISO have them."""
        return int.from_bytes(self.take(size, what), "big")

    def varint(self, what: str) -> int:
        """The next varint, 0..2^64-1. One that is longer than it need be, or above 64 bits, is corrupt."""
        value = 0
        for index in range(_MAX_VARINT_BYTES):
            byte = self.byte(what)
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise CorruptStream(f"{what}: integer not in its shortest form")
                if value > MAX_VARINT:
                    break
                return value
        raise CorruptStream(f"{what}: integer above 64 bits")
