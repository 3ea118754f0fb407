"""Rate control: from a quality, or from a target size, to a q index and the file that is made with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from unquant.codecs.options import QUALITY_MAX, checked_quality
from unquant.errors import RateUnreachable, warn

__all__ = [
    "is_close",
    "largest_file",
    "quality_to_q_index",
    "search_q_index",
    "slack_of",
    "unreachable",
    "warn_unless_close",
]

_LOG_PER_INDEX: Final = 0.11
"""Of the sizes whose search has a start: how much log size falls from one of AV1's quantisers to the next, about."""


def quality_to_q_index(quality: float, low: int, high: int) -> int:
    """Map quality 0..100 geometrically to q: 0 is the coarsest index `high`, 100 the finest, `low`. Raises OptionError."""
    return round(high + (low - high) * checked_quality(quality) / QUALITY_MAX)


def search_q_index(
    size_at: Callable[[int], float],
    target: float,
    low: int,
    high: int,
    *,
    start: int | None = None,
    slack: float = 0.0,
) -> int:
    """The finest q index in [low, high] whose estimated size is at most the target; `high` if none is.

    size_at: estimated bytes at an index, falling as the index grows. Bracketing with log-linear interpolation: log size is
    nearly linear in the index, so three or four estimates do where bisection takes nine. start: where the search begins, for
    sizes that cost something; without one it begins at both ends. slack: a size that fits ends the search if it is less
    than so many bytes below the target.
    """
    sizes: dict[int, float] = {}

    def at(index: int) -> float:
        if index not in sizes:
            sizes[index] = size_at(index)
        return sizes[index]

    if start is not None:
        low, high = _bracket(at, target, low, high, start, slack)
    if at(low) <= target:
        return low
    if at(high) > target:
        return high
    # invariant: size at `low` is above the target, size at `high` is not
    goal = _log(target - slack / 2)
    interpolate = True
    while high - low > 1 and at(high) <= target - slack:
        middle = (low + high) // 2
        if interpolate:
            span = _log(at(low)) - _log(at(high))
            fraction = (_log(at(low)) - goal) / span if span > 0 else 0.5
            middle = min(max(round(low + fraction * (high - low)), low + 1), high - 1)
        before = high - low
        if at(middle) <= target:
            high = middle
        else:
            low = middle
        # one side stuck: let the next step bisect
        interpolate = high - low <= before // 2
    return high


def _bracket(
    at: Callable[[int], float], target: float, low: int, high: int, start: int, slack: float
) -> tuple[int, int]:
    """Two indices between which the target lies, found from `start` by log-linear extrapolation.

    Both are on one side of it where it lies beyond an end, or where the finer one is close below it.
    """
    before = index = start
    fits = at(start) <= target
    end = low if fits else high
    slope, least = _LOG_PER_INDEX, 1
    while index != end and (at(index) <= target - slack if fits else at(index) > target):
        if index != before:
            slope = max((_log(at(before)) - _log(at(index))) / (index - before), 1e-9)
            least *= 2  # for sizes that are far from geometric
        step = max(least // 2, 1, math.ceil(abs(_log(at(index)) - _log(target)) / slope))
        before, index = index, max(index - step, low) if fits else min(index + step, high)
    return min(before, index), max(before, index)


def _log(size: float) -> float:
    """Of a size of a byte at least."""
    return math.log(max(size, 1.0))


def largest_file(
    size_at: Callable[[int], float],
    file_at: Callable[[int], bytes],
    target: int,
    low: int,
    high: int,
    *,
    metadata: int = 0,
) -> bytes:
    """The file of the finest q index in [low, high] that is no larger than the target.

    size_at: estimated bytes at an index, cheap. file_at: the file itself. metadata: bytes of it in every file. Where the
    highest rate is far below the target there is a warning. Raises RateUnreachable where even the coarsest file is larger.
    """
    index = search_q_index(size_at, target, low, high)
    data = file_at(index)
    # the estimate errs by a few bytes: step until the file fits, or until a finer step would not
    while len(data) > target and index < high:
        index += 1
        data = file_at(index)
    if len(data) > target:
        raise unreachable(len(data), target, metadata)
    while index > low and not is_close(len(data), target):
        finer = file_at(index - 1)
        if len(finer) > target:
            break
        index, data = index - 1, finer
    if index == low:
        warn_unless_close(len(data), target)
    return data


def is_close(size: int, target: int) -> bool:
    """Whether a file of `size` bytes is at or below the target and close enough to it."""
    return 0 <= target - size <= slack_of(target)


def slack_of(target: int) -> float:
    """How many bytes below the target are close enough to it: 2% of it, or 16."""
    return max(0.02 * target, 16)


def unreachable(smallest: int, target: int, metadata: int) -> RateUnreachable:
    """The error for a target below the smallest file. metadata: bytes of it in that file."""
    message = f"the smallest file of this image is {smallest} bytes, the target is {target}"
    if metadata:
        message += f"; {metadata} bytes of it are metadata, which --no-metadata (metadata=False) leaves out"
    return RateUnreachable(message, smallest)


def warn_unless_close(largest: int, target: int) -> None:
    """A warning if the largest file there is, which fits, is far below the target."""
    if not is_close(largest, target):
        warn(f"the target of {target} bytes is above the highest rate: {largest} bytes")
