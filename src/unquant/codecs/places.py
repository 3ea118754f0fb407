"""Places in a plane: windows, and how a plane is cut into them. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Window", "blocks", "spans"]


class Window(NamedTuple):
    """A part of a plane: rows from `top` up to `bottom`, columns from `left` up to `right`."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def whole(cls, size: tuple[int, int]) -> Window:
        """All of a plane of `size` (h, w)."""
        return cls(0, size[0], 0, size[1])

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.bottom - self.top, self.right - self.left

    def covering(self, stride: int) -> Window:
        """The positions, each of `stride` × `stride` of the plane's, that it touches."""
        return Window(self.top // stride, -(-self.bottom // stride), self.left // stride, -(-self.right // stride))

    def times(self, scale: int) -> Window:
        """The same part of a plane `scale` times as large."""
        return Window(*(scale * side for side in self))

    def grown(self, halo: int, align: int = 1) -> Window:
        """Wider by `halo` on each side, then to multiples of `align`; it may reach beyond the plane."""
        wider = Window(self.top - halo, self.bottom + halo, self.left - halo, self.right + halo)
        return wider.covering(align).times(align)

    def within(self, other: Window) -> Window:
        """What both have; its sizes are not above 0 where that is nothing."""
        return Window(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def seen_from(self, other: Window) -> Window:
        """The same part, its numbers counted from the corner of another."""
        return Window(self.top - other.top, self.bottom - other.top, self.left - other.left, self.right - other.left)

    def cut(self, plane: Tensor) -> Tensor:
        """That part of a plane (…, h, w); of a single number that holds everywhere, that number."""
        return plane if plane.shape[-2:] == (1, 1) else plane[..., self.top : self.bottom, self.left : self.right]


def spans(
    length: int, window: int, halo: int, first: int = 0, last: int | None = None
) -> Iterator[tuple[int, int, int, int]]:
    """Windows over [first, last) of [0, length): (start, stop, read_start, read_stop), the last two widened by the halo and
    clipped. last: None for all."""
    last = length if last is None else last
    for start in range(first, last, window):
        stop = min(start + window, last)
        yield start, stop, max(0, start - halo), min(length, stop + halo)


def blocks(part: Window, side: int, *, by_rows: bool = False, even: bool = False) -> list[Window]:
    """A part cut into squares of `side`, smaller ones at its right and bottom, one row or column after another: whichever is
    shorter, so that little lies between neighbours, unless by_rows. even: as many, but of nearly one size."""
    down, across = (-(-length // -(-length // side)) if even else side for length in part.size)
    rows = [(top, bottom) for top, bottom, *_ in spans(part.bottom, down, 0, part.top, part.bottom)]
    columns = [(left, right) for left, right, *_ in spans(part.right, across, 0, part.left, part.right)]
    if len(rows) < len(columns) and not by_rows:
        return [Window(*row, *column) for column in columns for row in rows]
    return [Window(*row, *column) for row in rows for column in columns]
