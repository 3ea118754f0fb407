"""Bjøntegaard deltas: by how much one rate–quality curve lies beside another, as one number.

Signs: a *rate* of −20 says that the tested codec needs 20% fewer bits than the anchor for the same quality, so negative
saves bits. A *quality* is tested minus anchor at the same rate, in the metric's own unit: for PSNR +1 is 1 dB better,
for a distance such as LPIPS −0.01 is better.

Method: log10 of the rate against quality, interpolated piecewise by monotone cubics (PCHIP, as in the common test
conditions of JVET), integrated over the range that both curves cover; by the library `bjontegaard`. Over several images
the practice of JVET holds: one delta an image, then the arithmetic mean, see `over_images`. Deltas of curves averaged
over the images beforehand, as papers on learned codecs give them, come from `compare` on those.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

import numpy as np

from unquant.errors import OptionError

__all__ = ["LEAST_OVERLAP", "LEAST_POINTS", "Average", "Curve", "Delta", "Method", "compare", "over_images"]

LEAST_POINTS = 4
LEAST_OVERLAP = 0.25
"""Of the range that the two curves cover together; below it a delta would speak of a corner of them."""

Curve = Sequence[tuple[float, float]]
"""Points (rate, quality) in any order; rates in bits per pixel or bytes, above 0."""
Method = Literal["pchip", "akima", "cubic"]


class Delta(NamedTuple):
    """The distance of two curves. rate: percent; quality: in the metric's unit; None where not defined, and `reason`
    says why. overlap: the share of the qualities covered by either curve that both cover.
    """

    rate: float | None
    quality: float | None
    overlap: float = 0.0
    reason: str = ""


class Average(NamedTuple):
    """The mean of several deltas' rates, percent. sigma: its standard error, None for one. defined: how many deltas were,
    of `total`. overlap: their mean. reason: the most frequent one of the others.
    """

    rate: float | None
    sigma: float | None
    defined: int
    total: int
    overlap: float
    reason: str

    @property
    def is_of_most(self) -> bool:
        """Whether at least half of the images have one."""
        return 2 * self.defined >= self.total


def compare(anchor: Curve, test: Curve, *, better: str = "higher", method: Method = "pchip") -> Delta:
    """Deltas of `test` over `anchor`. better: "higher" or "lower", what the metric's good values are.

    Equal points count once. Raises OptionError for another direction, rates that are not positive, values that are not
    finite, and without the library (extra `bench`).
    """
    if better not in ("higher", "lower"):
        raise OptionError(f"a BD-rate needs a metric whose better values are higher or lower, not {better!r}")
    sign = 1.0 if better == "higher" else -1.0  # the library wants quality to rise with the rate
    curves = [sorted({(float(rate), sign * float(value)) for rate, value in curve}) for curve in (anchor, test)]
    if not all(rate > 0 and math.isfinite(rate) and math.isfinite(value) for curve in curves for rate, value in curve):
        raise OptionError("a BD-rate needs rates above 0 and finite values")
    for name, curve in zip(("anchor", "tested curve"), curves, strict=True):
        if len(curve) < LEAST_POINTS:
            return Delta(None, None, reason=f"{name} has {len(curve)} points, {LEAST_POINTS} needed")
        if not all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(curve)):
            return Delta(None, None, reason=f"{name} does not rise with the rate")
    overlap = _overlap(*([value for _, value in curve] for curve in curves))
    if overlap < LEAST_OVERLAP:
        return Delta(None, None, overlap, f"only {overlap:.0%} of the qualities are covered by both")
    columns = [column for curve in curves for column in zip(*curve, strict=True)]
    rate, quality = _deltas(columns, method)
    shared = _overlap(*([math.log(rate) for rate, _ in curve] for curve in curves))
    return Delta(rate, sign * quality if shared >= LEAST_OVERLAP else None, overlap)


def over_images(deltas: Iterable[Delta]) -> Average:
    """The mean over the images of the deltas that are defined."""
    every = list(deltas)
    found = [(delta.rate, delta.overlap) for delta in every if delta.rate is not None]
    reasons = Counter(delta.reason for delta in every if delta.rate is None)
    reason = reasons.most_common(1)[0][0] if reasons else ""
    if not found:
        return Average(None, None, 0, len(every), 0.0, reason)
    rates = [rate for rate, _ in found]
    sigma = stdev(rates) / math.sqrt(len(rates)) if len(rates) > 1 else None
    return Average(fmean(rates), sigma, len(found), len(every), fmean(overlap for _, overlap in found), reason)


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    whole = max(*a, *b) - min(*a, *b)
    return max(0.0, min(max(a), max(b)) - max(min(a), min(b))) / whole


def _deltas(columns: Sequence[Sequence[float]], method: Method) -> tuple[float, float]:
    """Rate in percent and quality, of (rates, qualities) of the anchor and of the tested curve, ascending."""
    try:
        import bjontegaard
    except ImportError as e:
        raise OptionError("BD-rates need the library bjontegaard; install unquant[bench]") from e
    options: dict[str, Any] = {"method": method, "require_matching_points": False, "min_overlap": 0}
    curves: list[Any] = [np.array(column) for column in columns]
    rate: Any = bjontegaard.bd_rate(*curves, **options)
    quality: Any = bjontegaard.bd_psnr(*curves, **options)
    return float(rate), float(quality)
