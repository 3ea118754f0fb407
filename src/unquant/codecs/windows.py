"""Run a convolutional network over a large plane in windows, as if it were one piece.

Each window is read with a halo of the network's receptive field, cut at the plane's own borders, so that every output
position sees exactly the inputs that it would see in one piece, padding included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from unquant.codecs.places import Window, blocks, spans
from unquant.codecs.progress import counted
from unquant.diffusion.noise import seeded_noise
from unquant.nn.blocks import Margins
from unquant.nn.redraw import COARSE_NOISE, FINE_NOISE, RedrawNoise

__all__ = ["Kept", "Window", "blocks", "margins_of", "redraw_noise", "run_windowed", "spans", "windows"]


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
    for place, read in windows(size, window, halo, part):
        found = network(*read)
        place.seen_from(part).times(scale).cut(out).copy_(place.seen_from(read).times(scale).cut(found))
    return out


def windows(size: tuple[int, int], window: int, halo: int, part: Window) -> Iterator[tuple[Window, Window]]:
    """The windows of a part of a plane of `size` (h, w) positions, each with what is read for it."""
    rows = spans(size[0], window, halo, part.top, part.bottom)
    places = list(product(rows, spans(size[1], window, halo, part.left, part.right)))
    for (top, bottom, *read_rows), (left, right, *read_columns) in counted(places, "windows", len(places)):
        yield Window(top, bottom, left, right), Window(*read_rows, *read_columns)


def margins_of(place: Window, read: Window) -> Margins:
    """How far what is read reaches beyond its window."""
    return Margins(place.top - read.top, read.bottom - place.bottom, place.left - read.left, read.right - place.right)


class Kept:
    """A plane that is made block by block: a block where a part first needs it; it is kept while another one will.

    make: the values of a block, (b, c, scale·h, scale·w). blocks: that do not overlap. parts: as `cut` will be asked for,
    once each, and each within the blocks.
    """

    def __init__(
        self, make: Callable[[Window], Tensor], blocks: Sequence[Window], parts: Sequence[Window], scale: int
    ) -> None:
        self._make, self._blocks, self._scale = make, blocks, scale
        self._uses = Counter(number for part in parts for number in self._touched(part))
        self._held: dict[int, Tensor] = {}

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the blocks that are kept."""
        return tuple(self._held)

    def _touched(self, part: Window) -> list[int]:
        return [number for number, block in enumerate(self._blocks) if min(block.within(part).size) > 0]

    def cut(self, part: Window) -> Tensor:
        """A part, (b, c, scale·h, scale·w)."""
        out: Tensor | None = None
        for number in self._touched(part):
            block = self._blocks[number]
            if number not in self._held:
                self._held[number] = self._make(block)
            values = self._held[number]
            if out is None:
                sides = (self._scale * side for side in part.size)
                out = values.new_empty(*values.shape[:2], *sides)
            shared = block.within(part)
            place = shared.seen_from(part).times(self._scale).cut(out)
            place.copy_(shared.seen_from(block).times(self._scale).cut(values))
            self._uses[number] -= 1
            if not self._uses[number]:
                del self._held[number]
        assert out is not None
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
