"""Run a convolutional network over a large plane in windows, as if it were one piece.

Each window is read with a halo of the network's receptive field, cut at the plane's own borders, so that every output
position sees exactly the inputs that it would see in one piece, padding included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from unquant.codecs.progress import counted
from unquant.diffusion.noise import seeded_noise
from unquant.nn.redraw import COARSE_NOISE, FINE_NOISE, RedrawNoise

__all__ = ["redraw_noise", "run_windowed", "run_windows", "spans"]


def spans(length: int, window: int, halo: int) -> Iterator[tuple[int, int, int, int]]:
    """Windows over [0, length): (start, stop, read_start, read_stop), the last two widened by the halo and clipped."""
    for start in range(0, length, window):
        stop = min(start + window, length)
        yield start, stop, max(0, start - halo), min(length, stop + halo)


def run_windows(
    network: Callable[[int, int, int, int], Sequence[Tensor]],
    outs: Sequence[Tensor],
    scales: Sequence[int],
    size: tuple[int, int],
    window: int,
    halo: int,
) -> None:
    """Fill several planes, each (b, c, scale·h, scale·w) with a scale of its own, by windows of one of `size` (h, w).

    network(top, bottom, left, right): its outputs for that part of the plane, one for each of `outs`.
    """
    places = list(product(*(spans(length, window, halo) for length in size)))
    for (top, bottom, read_top, read_bottom), (left, right, read_left, read_right) in counted(
        places, "windows", len(places)
    ):
        parts = network(read_top, read_bottom, read_left, read_right)
        for out, part, scale in zip(outs, parts, scales, strict=True):
            out[..., top * scale : bottom * scale, left * scale : right * scale] = part[
                ...,
                (top - read_top) * scale : (bottom - read_top) * scale,
                (left - read_left) * scale : (right - read_left) * scale,
            ]


def run_windowed(
    network: Callable[[int, int, int, int], Tensor],
    out: Tensor,
    size: tuple[int, int],
    window: int,
    halo: int,
    scale: int,
) -> Tensor:
    """Fill `out` (b, c, scale·h, scale·w) by windows of a plane of `size` (h, w) positions; returns it.

    network(top, bottom, left, right): its output for that part of the plane, `scale` outputs per position.
    """
    run_windows(lambda *part: [network(*part)], [out], [scale], size, window, halo)
    return out


def redraw_noise(seed: int | None, part: tuple[int, int, int, int], device: torch.device, stream: int) -> RedrawNoise:
    """Noise of a `Redraw` for the part (top, bottom, left, right) of a picture, in its positions; of the streams `stream` and
    `stream` + 1. Without a seed it is 0.
    """

    def plane(channels: int, scale: int, stream: int) -> Tensor:
        top, bottom, left, right = (scale * side for side in part)
        size = bottom - top, right - left
        if seed is None:
            return torch.zeros(1, channels, *size, device=device)
        return seeded_noise(seed, 0, channels, *size, stream=stream, top=top, left=left).to(device)

    return RedrawNoise(plane(COARSE_NOISE, 2, stream), plane(FINE_NOISE, 8, stream + 1))
