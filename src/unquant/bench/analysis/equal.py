"""Two codecs at exactly equal bytes: each image's metric is read off its curve over log bytes, then averaged.

A codec with few qualities stays below a target by some per cent, which a finer one would count as its own gain. So nothing is
compared file by file: for each image PCHIP goes through a codec's points (log bytes, metric), and both curves are read at the
same number of bytes. An image counts where both codecs have files on both sides of the rate, no further apart than `WIDEST`.
A distance between sets of pictures has one curve, over the means of log bits per pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

from unquant.bench.analysis.tables import markdown_table, number
from unquant.bench.metrics import METRICS
from unquant.bench.metrics.sets.kinds import KINDS
from unquant.bench.run.rows import Row
from unquant.errors import OptionError

__all__ = ["RATES", "WIDEST", "Pair", "against", "at_rate", "equal_table", "sets_against"]

RATES = (0.1, 0.15, 0.2, 0.3, 0.5)
"""Bits per pixel at which codecs are compared unless others are asked for."""
WIDEST = 2.0
"""The largest ratio of the bytes of two files between which a curve is read."""

Curve = Mapping[float, float]
"""A metric by rate."""


class Pair(NamedTuple):
    """A metric of two codecs at equal bytes, means over the images whose curves both cover the rate; None where none do."""

    ours: float | None
    anchor: float | None
    images: int

    @property
    def difference(self) -> float | None:
        return None if self.ours is None or self.anchor is None else self.ours - self.anchor

    @property
    def ratio(self) -> float | None:
        return self.ours / self.anchor if self.ours is not None and self.anchor else None


def at_rate(curve: Curve, rate: float) -> float | None:
    """The metric at a rate, by PCHIP over log rate; None outside of the curve or in a gap wider than `WIDEST`.

    Raises OptionError for a rate that is not positive, and without scipy (extra `bench`).
    """
    points = sorted(curve.items())
    if not rate > 0 or (points and not points[0][0] > 0):
        raise OptionError("curves are read over log rate: rates must be above 0")
    if rate in curve:
        return curve[rate]
    if not any(low < rate < high <= WIDEST * low for (low, _), (high, _) in pairwise(points)):
        return None
    try:
        from scipy.interpolate import PchipInterpolator
    except ImportError as e:
        raise OptionError("curves need scipy; install unquant[bench]") from e
    rates, values = zip(*points, strict=True)
    read: Any = PchipInterpolator([math.log(each) for each in rates], values)
    return float(read(math.log(rate)))


def against(rows: Iterable[Row], ours: str, anchor: str, metric: str, bpp: float) -> Pair:
    """One metric of two codecs, each called as in `Row.setting`, at `bpp` bits per pixel of every image."""
    curves: dict[str, dict[str, dict[float, float]]] = {ours: {}, anchor: {}}
    pixels: dict[str, int] = {}
    for row in rows:
        value = row.scores.get(metric)
        if row.setting in curves and value is not None and math.isfinite(value):
            curves[row.setting].setdefault(row.image_id, {})[float(row.bytes)] = value
            pixels[row.image_id] = row.width * row.height
    found: list[tuple[float, float]] = []
    for image in curves[ours].keys() & curves[anchor].keys():
        here, there = (at_rate(curves[name][image], bpp * pixels[image] / 8) for name in (ours, anchor))
        if here is not None and there is not None:
            found.append((here, there))
    if not found:
        return Pair(None, None, 0)
    return Pair(fmean(here for here, _ in found), fmean(there for _, there in found), len(found))


def sets_against(
    rows: Iterable[Row], distances: Mapping[str, Any], ours: str, anchor: str, kind: str, bpp: float
) -> Pair:
    """One distance between sets of pictures, of two codecs at `bpp` bits per pixel, each called as in `Row.setting`.

    distances: as `metrics.sets.distances.Results.flat` gives them for the rows; kind: such as "KD-VGG16".
    """
    sizes: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        sizes.setdefault((row.setting, row.target), {})[row.image_id] = math.log(row.bpp)
    curves: dict[str, dict[float, float]] = {ours: {}, anchor: {}}
    for each in distances.get("distances", ()):
        rates = sizes.get((each["setting"], each["target"]))
        if each["kind"] == kind and each["setting"] in curves and each["value"] is not None and rates:
            curves[each["setting"]][math.exp(fmean(rates.values()))] = float(each["value"])
    here, there = (at_rate(curves[name], bpp) for name in (ours, anchor))
    if here is None or there is None:
        return Pair(None, None, 0)
    return Pair(here, there, min(len(rates) for (name, _), rates in sizes.items() if name in curves))


def equal_table(
    rows: Sequence[Row],
    anchor: str,
    metrics: Sequence[str],
    *,
    distances: Mapping[str, Any] | None = None,
    ours: Sequence[str] = (),
    rates: Sequence[float] = RATES,
    names: Mapping[str, str] | None = None,
) -> str:
    """Codecs beside an anchor as a Markdown table: a line for every rate and setting of `ours`, all others if empty.

    A cell has the metric and, against the anchor on the same images, its ratio where lower is better, else its difference. At
    each rate the anchor stands first. distances: between the sets, see `sets_against`; KD-VGG16 and KID are shown ×1000.
    names: what settings are called. Raises OptionError for a codec without rows.
    """
    settings = {row.setting: row.codec for row in rows}
    for name in (anchor, *ours):
        if name not in settings.values():
            raise OptionError(f"no results of {name!r}; there are {', '.join(dict.fromkeys(settings.values()))}")
    reference = next(setting for setting, codec in settings.items() if codec == anchor)
    others = [setting for setting, codec in settings.items() if codec != anchor and (not ours or codec in ours)]
    kinds = [KINDS[name] for name in dict.fromkeys(each["kind"] for each in (distances or {}).get("distances", ()))]
    lines: list[list[str]] = []
    for rate in rates:
        for setting in (reference, *others):
            alone = setting == reference
            pairs = [against(rows, setting, reference, name, rate) for name in metrics]
            sets = [sets_against(rows, distances or {}, setting, reference, kind.name, rate) for kind in kinds]
            images = min((pair.images for pair in pairs or sets if pair.images), default=0)
            infos = [METRICS[name] for name in metrics]
            cells = [_cell(p, i.better, i.digits, alone=alone) for p, i in zip(pairs, infos, strict=True)]
            cells += [_cell(p, "lower", 2, alone=alone, scale=k.scale) for p, k in zip(sets, kinds, strict=True)]
            lines.append([(names or {}).get(setting, setting), f"{rate:g}", str(images), *cells])
    heads = [*(METRICS[name].head for name in metrics), *(f"{kind.title} ↓" for kind in kinds)]
    return markdown_table(["codec", "bpp", "images", *heads], lines)


def _cell(pair: Pair, better: str, digits: int, *, alone: bool, scale: float = 1) -> str:
    text = number(pair.ours if pair.ours is None else scale * pair.ours, digits)
    if alone or pair.difference is None:
        return text
    if better != "lower":
        return f"{text} ({pair.difference:+.{digits}f})"
    return text if pair.ratio is None else f"{text} (×{pair.ratio:.2f})"
