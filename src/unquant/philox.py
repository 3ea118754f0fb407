"""Random numbers by their place: Philox-4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

Through numpy's raw bit stream, which numpy keeps stable across versions; its own normal variates are not. No torch.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.random import Philox

__all__ = ["uniform_row"]

_BLOCK: Final = 4  # words that Philox-4x64 makes from one counter


def uniform_row(seed: int, stream: int, step: int, row: int, first: int, count: int) -> npt.NDArray[np.float64]:
    """Numbers first … first + count − 1 of a row, uniform in (0, 1): 52 bits and a half, exact in float64, symmetric about ½.

    Word i is number i mod 4 of Philox's block at the counter (i div 4 + 1, row, step, stream) and the key (seed, 0):
    numpy counts up before it makes a block.
    """
    block, skip = divmod(first, _BLOCK)
    counter = np.array([block, row, step, stream], dtype=np.uint64)
    key = np.array([seed, 0], dtype=np.uint64)
    words: Any = Philox(counter=counter, key=key).random_raw(skip + count)[skip:]
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
