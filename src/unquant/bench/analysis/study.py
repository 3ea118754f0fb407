"""What the rows say, as numbers: means, who is best, BD-rates, differences an image, ratios of seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median
from typing import NamedTuple

from unquant.bench.analysis import bd
from unquant.bench.analysis.curves import codec_names, setting_name
from unquant.bench.metrics import METRICS
from unquant.bench.run.rows import Row
from unquant.bench.subjects import anchors
from unquant.families import FAMILIES

__all__ = ["REFERENCE", "BDRate", "Best", "Difference", "Seconds", "Setting", "Study"]

REFERENCE = "avif"
"""The codec that everything is compared with."""


@dataclass(frozen=True)
class Setting:
    """One curve over the rates. words: what `Row.setting` calls it; name: for readers, with the version if it matters."""

    codec: str
    version: str
    realism: float | None
    steps: int | None
    words: str
    name: str

    @property
    def is_model(self) -> bool:
        return anchors.find(self.codec) is None


class Best(NamedTuple):
    """The best setting on one metric at one target. images: how many were compared, those where all met the target."""

    setting: Setting
    value: float
    images: int


class BDRate(NamedTuple):
    """per_image: mean of one BD-rate an image. of_means: BD-rate of the curves averaged over the images."""

    per_image: bd.Average
    of_means: bd.Delta


class Difference(NamedTuple):
    """One image: scores minus the reference's at equal bytes, means over the targets that both met."""

    image: str
    image_id: str
    targets: int
    scores: dict[str, float]


class Seconds(NamedTuple):
    """Medians: seconds and their ratio to the reference's, of rows of one image, target and environment."""

    encode: float | None
    decode: float | None
    encode_ratio: float | None
    decode_ratio: float | None


class Study:
    """The rows of one benchmark, of rows with one key the last."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list({row.key: row for row in rows}.values())
        self._names = codec_names(self.rows)

    def setting_of(self, row: Row) -> Setting:
        name = setting_name(self._names[row.codec, row.version], "", row.realism, row.steps)
        return Setting(row.codec, row.version, row.realism, row.steps, row.setting, name)

    @cached_property
    def settings(self) -> list[Setting]:
        """Models first, the highest realism first; then the reference and the other anchors."""

        def order(setting: Setting) -> tuple[object, ...]:
            place = 0 if setting.is_model else 1 if setting.codec == REFERENCE else 2
            return place, setting.codec, setting.version, -(setting.realism or 0.0), setting.steps or 0

        return sorted({self.setting_of(row) for row in self.rows}, key=order)

    @property
    def models(self) -> list[Setting]:
        return [setting for setting in self.settings if setting.is_model]

    @property
    def reference(self) -> Setting | None:
        return next((setting for setting in self.settings if setting.codec == REFERENCE), None)

    @cached_property
    def metrics(self) -> list[str]:
        """Those with a value, in the order of METRICS; unknown names are left out."""
        present = {name for row in self.rows for name in row.scores if score(row, name) is not None}
        return [name for name in METRICS if name in present]

    @cached_property
    def trained_for(self) -> dict[str, list[str]]:
        """The measured metrics that each family here was trained for, by its name."""
        families = [FAMILIES[name] for name in dict.fromkeys(s.codec for s in self.models) if name in FAMILIES]
        found = {family.name: [name for name in family.trained_for if name in self.metrics] for family in families}
        return {name: metrics for name, metrics in found.items() if metrics}

    @property
    def ranked_by(self) -> str | None:
        """The metric that best and worst images are chosen by: the first perceptual one, else the first."""
        return next(iter(sorted(self.metrics, key=lambda name: not METRICS[name].is_perceptual)), None)

    @cached_property
    def images(self) -> dict[str, str]:
        """Names by image_id, in the order of names."""
        return dict(sorted({row.image_id: row.image for row in self.rows}.items(), key=lambda item: item[1]))

    @cached_property
    def targets(self) -> list[str]:
        """In words, by ascending mean rate; equal-bytes targets first."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.target, []).append(row)

        def order(target: str) -> tuple[object, ...]:
            asked = groups[target][0].target_bpp
            return asked is None, asked or fmean(row.bpp for row in groups[target])

        return sorted(groups, key=order)

    @property
    def equal_targets(self) -> list[str]:
        """The targets that ask for a size."""
        sized = {row.target for row in self.rows if row.target_bpp is not None}
        return [target for target in self.targets if target in sized]

    @cached_property
    def _cells(self) -> dict[tuple[Setting, str], dict[str, Row]]:
        cells: dict[tuple[Setting, str], dict[str, Row]] = {}
        for row in self.rows:
            cells.setdefault((self.setting_of(row), row.target), {})[row.image_id] = row
        return cells

    def at(self, setting: Setting, target: str) -> dict[str, Row]:
        """The rows of one setting at one target, by image_id."""
        return self._cells.get((setting, target), {})

    def mean(self, setting: Setting, target: str, metric: str) -> float | None:
        """Over the images that have the value."""
        return _mean(score(row, metric) for row in self.at(setting, target).values())

    def best(self, metric: str, target: str) -> Best | None:
        """Over the images where every contender met the target; a contender met it on at least half of the images.

        None where fewer than two codecs contend.
        """
        met: dict[Setting, dict[str, float]] = {}
        for setting in self.settings:
            values = {i: score(row, metric) for i, row in self.at(setting, target).items() if row.reached}
            known = {i: value for i, value in values.items() if value is not None}
            if known and 2 * len(known) >= len(self.images):
                met[setting] = known
        common = set[str].intersection(*(set(values) for values in met.values())) if met else set[str]()
        if not common or len({(setting.codec, setting.version) for setting in met}) < 2:
            return None
        means = {setting: fmean(values[i] for i in sorted(common)) for setting, values in met.items()}
        winner = min(means, key=lambda setting: METRICS[metric].badness(means[setting]))
        return Best(winner, means[winner], len(common))

    def bd_rate(self, setting: Setting, metric: str) -> BDRate | None:
        """Against the reference; None without one, for itself, or where the metric has no better direction."""
        better, reference = METRICS[metric].better, self.reference
        if reference is None or setting == reference or better == "one":
            return None

        def curve(of: Setting, image_id: str) -> list[tuple[float, float]]:
            rows = [row for target in self.targets if (row := self.at(of, target).get(image_id))]
            return [(row.bpp, value) for row in rows if (value := score(row, metric)) is not None]

        def means(of: Setting) -> list[tuple[float, float]]:
            every = [[row for row in self.at(of, t).values() if score(row, metric) is not None] for t in self.targets]
            return [
                (fmean(r.bpp for r in rows), _mean(score(r, metric) for r in rows) or 0.0) for rows in every if rows
            ]

        deltas = [bd.compare(curve(reference, i), curve(setting, i), better=better) for i in self.images]
        return BDRate(bd.over_images(deltas), bd.compare(means(reference), means(setting), better=better))

    def differences(self, setting: Setting) -> list[Difference]:
        """One an image, the best by `ranked_by` first; none without a reference."""
        reference, found = self.reference, list[Difference]()
        if reference is None:
            return found
        for image_id, image in self.images.items():
            pairs: list[tuple[Row, Row]] = []
            for target in self.equal_targets:
                ours, theirs = self.at(setting, target).get(image_id), self.at(reference, target).get(image_id)
                if ours and theirs and ours.reached and theirs.reached:
                    pairs.append((ours, theirs))
            means = {name: _mean(_minus(score(a, name), score(b, name)) for a, b in pairs) for name in self.metrics}
            scores = {name: value for name, value in means.items() if value is not None}
            if scores:
                found.append(Difference(image, image_id, len(pairs), scores))
        by = self.ranked_by
        if by is None:
            return found
        sign = -1 if METRICS[by].better == "higher" else 1
        return sorted(found, key=lambda difference: sign * difference.scores.get(by, math.inf * sign))

    def seconds(self, setting: Setting) -> Seconds:
        """Of all rows that were timed; ratios only within one environment."""
        values: dict[str, list[float]] = {name: [] for name in ("encode", "decode", "encode_ratio", "decode_ratio")}
        for target in self.targets:
            theirs = self.at(self.reference, target) if self.reference else {}
            for image_id, row in self.at(setting, target).items():
                other = theirs.get(image_id)
                for name, own in (("encode", row.encode_s), ("decode", row.decode_s)):
                    if own is None:
                        continue
                    values[name].append(own)
                    base = (other.encode_s if name == "encode" else other.decode_s) if other else None
                    if base and other and other.environment == row.environment:
                        values[f"{name}_ratio"].append(own / base)
        return Seconds(**{name: median(each) if each else None for name, each in values.items()})


def score(row: Row, metric: str) -> float | None:
    """The value of a metric where it is finite."""
    value = row.scores.get(metric)
    return value if value is not None and math.isfinite(value) else None


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
