"""Run a convolutional network over a large plane in windows, as if it were one piece.

Each window is read with a halo of the network's receptive field, cut at the plane's own borders, so that every output
position sees exactly the inputs that it would see in one piece, padding included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from unquant.codecs.progress import counted
from unquant.diffusion.noise import seeded_noise
from unquant.nn.redraw import COARSE_NOISE, FINE_NOISE, RedrawNoise

__all__ = ["Window", "blocks", "redraw_noise", "run_windowed", "spans"]


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


def blocks(part: Window, side: int, *, by_rows: bool = False) -> list[Window]:
    """A part cut into squares of `side`, smaller ones at its right and bottom, one row or column after another: whichever is
    shorter, so that little lies between neighbours, unless by_rows."""
    rows = [(top, bottom) for top, bottom, *_ in spans(part.bottom, side, 0, part.top, part.bottom)]
    columns = [(left, right) for left, right, *_ in spans(part.right, side, 0, part.left, part.right)]
    if len(rows) < len(columns) and not by_rows:
        return [Window(*row, *column) for column in columns for row in rows]
    return [Window(*row, *column) for row in rows for column in columns]


def run_windowed(
    network: Callable[[int, int, int, int], Tensor],
    out: Tensor,
    size: tuple[int, int],
    window: int,
    halo: int,
    scale: int,
    part: Window | None = None,
) -> Tensor:
    """Fill `out` (b, c, scale·h, scale·w) by windows of a plane of `size` (h, w) positions; returns it.

    network(top, bottom, left, right): its output for that part of the plane, `scale` outputs per position. part: what `out`
    is to hold of the plane; None for all of it.
    """
    part = part or Window.whole(size)
    rows, columns = (part.top, part.bottom), (part.left, part.right)
    places = list(product(spans(size[0], window, halo, *rows), spans(size[1], window, halo, *columns)))
    for (top, bottom, read_top, read_bottom), (left, right, read_left, read_right) in counted(
        places, "windows", len(places)
    ):
        found = network(read_top, read_bottom, read_left, read_right)
        place, read = Window(top, bottom, left, right), Window(read_top, read_bottom, read_left, read_right)
        place.seen_from(part).times(scale).cut(out).copy_(place.seen_from(read).times(scale).cut(found))
    return out


def redraw_noise(seed: int | None, part: Window, device: torch.device, stream: int) -> RedrawNoise:
    """Noise of a `Redraw` for a part of a picture, in its positions; of the streams `stream` and `stream` + 1. Without a
    seed it is 0.
    """

    def plane(channels: int, scale: int, stream: int) -> Tensor:
        place = part.times(scale)
        if seed is None:
            return torch.zeros(1, channels, *place.size, device=device)
        return seeded_noise(seed, 0, channels, *place.size, stream=stream, top=place.top, left=place.left).to(device)

    return RedrawNoise(plane(COARSE_NOISE, 2, stream), plane(FINE_NOISE, 8, stream + 1))
