"""Seeded Gaussian noise that depends on the position only, so that tiles, windows and the whole plane agree.

Counter-based (`unquant.philox`). The normal distribution is reached by inverting its distribution function in float64, one
word a value.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from unquant.errors import OptionError
from unquant.philox import uniform_row

__all__ = ["seeded_noise"]

_WORD = 2**64
_SIDE = 2**32


def seeded_noise(
    seed: int,
    step: int,
    channels: int,
    height: int,
    width: int,
    *,
    stream: int = 0,
    top: int = 0,
    left: int = 0,
) -> Float[Tensor, "1 c h w"]:
    """Standard normal noise, float32 on the CPU, for the window of `height`×`width` positions at (top, left).

    A value depends on (seed, stream, step, channel, row, column) only, rows and columns counted from the corner of the
    whole plane: a window equals that part of the whole, and a wider or taller plane keeps the values that it had.
    The number of channels enters, so it is fixed for a stream.

    seed, stream, step: 0 … 2^64 − 1; stream tells apart draws for different uses at one step. channels, height,
    width ≥ 1; top, left: 0 … 2^32 − 1. The bits are the same on every machine; the values agree up to rounding.
    Raises OptionError for anything out of range.
    """
    for name, value in (("seed", seed), ("stream", stream), ("step", step)):
        if not 0 <= value < _WORD:
            raise OptionError(f"{name} must be 0 to 2^64 - 1, not {value}")
    for name, value in (("top", top), ("left", left)):
        if not 0 <= value < _SIDE:
            raise OptionError(f"{name} must be 0 to 2^32 - 1, not {value}")
    for name, value in (("channels", channels), ("height", height), ("width", width)):
        if value < 1:
            raise OptionError(f"{name} must be at least 1, not {value}")
    out = torch.empty(1, channels, height, width)
    for row in range(height):
        uniform = uniform_row(seed, stream, step, top + row, left * channels, width * channels)
        out[0, :, row] = torch.special.ndtri(torch.from_numpy(uniform)).reshape(width, channels).T
    return out
