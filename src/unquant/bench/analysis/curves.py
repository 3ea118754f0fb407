"""Curves from rows of results: one metric against another, means over the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from unquant.bench.metrics import METRICS
from unquant.bench.run import rows as rows_file
from unquant.bench.run.rows import Row
from unquant.bench.subjects.anchors import title_of
from unquant.errors import OptionError

__all__ = ["ALONG", "AXES", "Line", "codec_names", "lines_of", "read_rows", "setting_name"]

AXES: dict[str, str] = {
    "bpp": "bits per pixel",
    **{name: metric.label for name, metric in METRICS.items()},
    "realism": "realism ρ",
    "steps": "steps of the reverse path",
}
"""What can stand on an axis, and how it is labelled."""
ALONG = ("bpp", "realism", "steps")


class Line(NamedTuple):
    """One curve: its name in the legend and its points (x, y), in order.

    codec: decides colour and marker. variant: counts the curves of one codec, decides the dashes. kind: "published" is
    drawn faintly, "low trust" with hollow markers as well. sigmas: standard errors of y, drawn as bars. notes: a text for
    each point, shown where the figure is pointed at.
    """

    name: str
    points: list[tuple[float, float]]
    codec: str = ""
    variant: int = 0
    kind: Literal["measured", "published", "low trust"] = "measured"
    sigmas: list[float] | None = None
    notes: list[str] | None = None


def read_rows(paths: Sequence[Path]) -> list[Row]:
    """The rows of several result files, of rows with one key the last. Raises InputError naming the file that is none."""
    return list({row.key: row for path in paths for row in rows_file.read_rows(path)}.values())


def lines_of(rows: Sequence[Row], x: str, y: str, along: str) -> list[Line]:
    """One line for every codec and combination of the other settings; its points are the values of `along`, ascending.

    x, y: keys of AXES. along: "bpp" (one point a target), "realism" or "steps". Rows without a value are left out. Two
    versions of one codec are two codecs. Realism 0 takes no steps and so belongs to the path of every number of steps.
    Raises OptionError for an unknown name or where nothing is left.
    """
    if x not in AXES or y not in AXES or along not in ALONG:
        raise OptionError(f"axes: {', '.join(AXES)}; along: {', '.join(ALONG)}; not {x}, {y}, {along}")
    groups: dict[_Fixed, dict[Any, list[Row]]] = {}
    for row in rows:
        place = _target(row) if along == "bpp" else getattr(row, along)
        if place is not None and _value(row, x) is not None and _value(row, y) is not None:
            groups.setdefault(_fixed(row, along), {}).setdefault(place, []).append(row)
    if along == "realism":
        _share_the_start(groups)
    if not groups:
        raise OptionError(f"no row has {x}, {y} and {along}")
    names = codec_names(rows)
    lines: list[Line] = []
    for key, places in sorted(groups.items(), key=lambda item: item[0].order):
        at = {place: (_mean(each, x), _mean(each, y)) for place, each in places.items()}
        # a target's rate is measured: files without a target stand where their bytes put them
        order = sorted(at, key=lambda place: at[place][0]) if along == "bpp" and x == "bpp" else sorted(at)
        notes = [_note(*at[place], x, y, places[place], along) for place in order]
        name = setting_name(names[key.codec, key.version], key.target_words, key.realism, key.steps)
        variant = sum(line.codec == key.codec for line in lines)
        lines.append(Line(name, [at[place] for place in order], key.codec, variant, notes=notes))
    return lines


def codec_names(rows: Iterable[Row]) -> dict[tuple[str, str], str]:
    """What each (codec, version) is called: an anchor by its title; with the version where a codec has several."""
    pairs = sorted({(row.codec, row.version) for row in rows})
    counts = Counter(codec for codec, _ in pairs)
    return {(c, version): f"{title_of(c)} {version}" if counts[c] > 1 else title_of(c) for c, version in pairs}


def setting_name(codec: str, target: str, realism: float | None, steps: int | None) -> str:
    """What a curve is called, without what is empty or None."""
    rho = f"realism {realism:g}" if realism is not None else ""
    return ", ".join(filter(None, [codec, target, rho, f"{steps} steps" if steps is not None else ""]))


class _Fixed(NamedTuple):
    """What the points of a line have in common; None for what they differ in."""

    codec: str
    version: str
    target: tuple[float, float, float] | None
    target_words: str
    realism: float | None
    steps: int | None

    @property
    def order(self) -> tuple[Any, ...]:
        low = -1  # what is not set stands last, the highest realism first
        steps = low if self.steps is None else self.steps
        return self.codec, self.version, self.target or (), -(low if self.realism is None else self.realism), steps


def _fixed(row: Row, along: str) -> _Fixed:
    return _Fixed(
        row.codec,
        row.version,
        None if along == "bpp" else _target(row),
        "" if along == "bpp" else row.target,
        None if along == "realism" else row.realism,
        None if along == "steps" else row.steps,
    )


def _share_the_start(groups: dict[_Fixed, dict[Any, list[Row]]]) -> None:
    for key, places in list(groups.items()):
        others = [other for other in groups if other._replace(steps=None) == key and other.steps is not None]
        if key.steps is None and set(places) == {0} and others:
            del groups[key]
            for other in others:
                groups[other].setdefault(0.0, places[0.0])


def _target(row: Row) -> tuple[float, float, float]:
    """What the file was asked for, in an order in which targets ascend; what the search for a size found is not in it."""
    if row.target_bpp is not None:
        return row.target_bpp, 0.0, 0.0
    return (0.0, row.quality, 0.0) if row.quality is not None else (0.0, 0.0, -float(row.q_index or 0))


def _value(row: Row, axis: str) -> float | None:
    return getattr(row, axis) if axis in ALONG else row.scores.get(axis)


def _mean(rows: Sequence[Row], axis: str) -> float:
    return fmean(value for row in rows if (value := _value(row, axis)) is not None)


def _note(at_x: float, at_y: float, x: str, y: str, rows: Sequence[Row], along: str) -> str:
    first = rows[0]
    place = {"bpp": first.target, "realism": f"realism {first.realism or 0:g}", "steps": f"{first.steps} steps"}[along]
    missed = sum(not row.reached for row in rows)
    images = f"mean of {len(rows)} images" if len(rows) > 1 else first.image
    larger = f", {missed} of them larger than asked for" if missed else ""
    return f"{place}: {AXES[x]} {at_x:.4g}, {AXES[y]} {at_y:.4g}; {images}{larger}"
