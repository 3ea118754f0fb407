"""Bits of AV1 headers, by the descriptors of the specification (section 4.10)."""

from __future__ import annotations

from unquant.errors import CorruptStream

__all__ = ["Bits"]


class Bits:
    """A cursor over bits, the most significant first, that never reads past the end: CorruptStream names `what`."""

    __slots__ = ("_data", "_what", "position")

    def __init__(self, data: memoryview, what: str) -> None:
        self._data = data
        self._what = what
        self.position = 0

    @property
    def bytes_left(self) -> int:
        """Whole bytes after the one that the cursor stands in."""
        return len(self._data) - (self.position + 7) // 8

    def f(self, count: int) -> int:
        """An unsigned number of `count` bits."""
        end = self.position + count
        if end > 8 * len(self._data):
            raise CorruptStream(f"AV1 {self._what}: cut short or damaged")
        last = (end + 7) // 8
        window = int.from_bytes(self._data[self.position // 8 : last], "big")
        self.position = end
        return window >> (8 * last - end) & ((1 << count) - 1)

    def flag(self) -> bool:
        return self.f(1) == 1

    def su(self, count: int) -> int:
        """A signed number of `count` bits, the sign included."""
        value = self.f(count)
        return value - (1 << count) if value >> (count - 1) else value

    def ns(self, n: int) -> int:
        """A number below n."""
        width = n.bit_length()
        short = (1 << width) - n
        value = self.f(width - 1)
        return value if value < short else (value << 1) - short + self.f(1)

    def uvlc(self) -> None:
        """Passes over one variable-length number."""
        zeros = 0
        while zeros < 32 and not self.flag():
            zeros += 1
        if zeros < 32:
            self.f(zeros)
