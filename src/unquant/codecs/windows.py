"""Run a convolutional network over a large plane in windows, as if it were one piece.

Each window is read with a halo of the network's receptive field, cut at the plane's own borders, so that every output
position sees exactly the inputs that it would see in one piece, padding included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor

from unquant.codecs.places import Window, blocks, spans
from unquant.codecs.progress import counted
from unquant.diffusion.noise import seeded_noise
from unquant.nn.blocks import Margins
from unquant.nn.redraw import COARSE_NOISE, FINE_NOISE, RedrawNoise

__all__ = ["Window", "blocks", "margins_of", "redraw_noise", "run_windowed", "spans", "windows"]


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
