"""Run a convolutional network over a large plane in windows, as if it were one piece.

Each window is read with a halo of the network's receptive field, cut at the plane's own borders, so that every output
position sees exactly the inputs that it would see in one piece, padding included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

__all__ = ["run_windowed", "spans"]


def spans(length: int, window: int, halo: int) -> Iterator[tuple[int, int, int, int]]:
    """Windows over [0, length): (start, stop, read_start, read_stop), the last two widened by the halo and clipped."""
    for start in range(0, length, window):
        stop = min(start + window, length)
        yield start, stop, max(0, start - halo), min(length, stop + halo)


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
    for top, bottom, read_top, read_bottom in spans(size[0], window, halo):
        for left, right, read_left, read_right in spans(size[1], window, halo):
            part = network(read_top, read_bottom, read_left, read_right)
            out[..., top * scale : bottom * scale, left * scale : right * scale] = part[
                ...,
                (top - read_top) * scale : (bottom - read_top) * scale,
                (left - read_left) * scale : (right - read_left) * scale,
            ]
    return out
