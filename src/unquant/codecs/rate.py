"""Rate control: from a quality, or from a target size, to a q index."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable
from typing import Final

from unquant.errors import OptionError

__all__ = ["QUALITY_MAX", "nominal_base_q_idx", "quality_to_q_index", "search_q_index", "slack"]

QUALITY_MAX = 100
_TYPICAL: Final = (
    (0.05, 245),
    (0.1, 225),
    (0.2, 200),
    (0.4, 175),
    (0.8, 145),
    (1.6, 100),
    (2.5, 60),
    (4.0, 25),
    (6.0, 10),
)
"""Bits per pixel and base_q_idx of photographs in AV1 (Kodak, the options of the family av1)."""


def quality_to_q_index(quality: float, low: int, high: int) -> int:
    """Map quality 0..100 geometrically to q: 0 is the coarsest index `high`, 100 the finest, `low`."""
    if not (isinstance(quality, int | float) and 0 <= quality <= QUALITY_MAX):
        raise OptionError(f"quality must lie in 0..{QUALITY_MAX}, got {quality!r}")
    return round(high + (low - high) * quality / QUALITY_MAX)


def search_q_index(size_at: Callable[[int], float], target: float, low: int, high: int) -> int:
    """The finest q index in [low, high] whose estimated size is at most the target; `high` if none is.

    size_at: estimated bytes at an index, falling as the index grows. Bracketing with log-linear interpolation: log size is
    nearly linear in the index, so three or four estimates do where bisection takes nine.
    """
    sizes: dict[int, float] = {}

    def at(index: int) -> float:
        if index not in sizes:
            sizes[index] = max(size_at(index), 1.0)
        return sizes[index]

    if at(low) <= target:
        return low
    if at(high) > target:
        return high
    # invariant: size at `low` is above the target, size at `high` is not
    interpolate = True
    while high - low > 1:
        middle = (low + high) // 2
        if interpolate:
            span = math.log(at(low)) - math.log(at(high))
            fraction = (math.log(at(low)) - math.log(target)) / span if span > 0 else 0.5
            middle = min(max(round(low + fraction * (high - low)), low + 1), high - 1)
        before = high - low
        if at(middle) <= target:
            high = middle
        else:
            low = middle
        # one side stuck: let the next step bisect
        interpolate = high - low <= before // 2
    return high


def nominal_base_q_idx(bpp: float) -> int:
    """AV1's quantiser index, 10..245, of a photograph of that many bits per pixel, for headers that do not tell it."""
    place = bisect(_TYPICAL, bpp, key=lambda point: point[0])
    if place in (0, len(_TYPICAL)):
        return _TYPICAL[min(place, len(_TYPICAL) - 1)][1]
    (low, above), (high, below) = _TYPICAL[place - 1 : place + 1]
    return round(above + (below - above) * math.log(bpp / low) / math.log(high / low))


def slack(target: int) -> float:
    """Bytes below a target from which on a file is close enough: 2%, or 16."""
    return max(0.02 * target, 16)
