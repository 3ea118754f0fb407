"""The report's tables, ready to print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from unquant.bench.analysis.published import Point
from unquant.bench.analysis.study import Setting, Study
from unquant.bench.analysis.tables import number
from unquant.bench.metrics import METRICS
from unquant.bench.report.looks import colour

__all__ = [
    "MARK",
    "Cell",
    "Table",
    "bd_table",
    "difference_tables",
    "number_table",
    "plain_table",
    "published_table",
    "time_table",
    "winner_table",
]

MARK = "†"
"""Beside a metric that a model was trained for."""


class Cell(NamedTuple):
    """small: a second line. note: shown when pointed at. look: CSS classes. dot: a colour before the text."""

    text: str
    small: str = ""
    note: str = ""
    look: str = ""
    dot: str = ""


class Table(NamedTuple):
    """Rows in groups; a group has a heading, or "". The first cell of a row is its heading."""

    header: list[Cell]
    groups: list[tuple[str, list[list[Cell]]]]
    caption: str = ""


def _metric(study: Study, name: str) -> Cell:
    info = METRICS[name]
    arrow = " → 1" if info.better == "one" else ""
    trained = [codec for codec, names in study.trained_for.items() if name in names]
    note = f"{', '.join(trained)} was trained for this metric" if trained else ""
    return Cell(info.head + arrow + (f" {MARK}" if trained else ""), note=note)


def winner_table(study: Study) -> Table:
    """A row a metric, a column a target: the best setting and its mean."""
    rows: list[list[Cell]] = []
    for metric in study.metrics:
        cells = [_metric(study, metric)]
        for target in study.equal_targets:
            best = study.best(metric, target)
            if best is None:
                cells.append(Cell("–", "no two codecs", "fewer than two codecs met this size on half of the images"))
                continue
            value = number(best.value, METRICS[metric].digits)
            fewer = f", {best.images} images" if best.images < len(study.images) else ""
            look = "ours" if best.setting.is_model else ""
            cells.append(Cell(best.setting.name, value + fewer, look=look, dot=colour(best.setting.codec)))
        rows.append(cells)
    return Table([Cell(""), *(Cell(target) for target in study.equal_targets)], [("", rows)])


def bd_table(study: Study) -> Table | None:
    """A row a setting, a column a metric; None without a reference."""
    metrics = [name for name in study.metrics if METRICS[name].better != "one"]
    if study.reference is None or not metrics:
        return None
    rows = [
        [Cell(setting.name, dot=colour(setting.codec)), *(_bd_cell(study, setting, name) for name in metrics)]
        for setting in study.settings
        if setting != study.reference
    ]
    return Table([Cell(""), *(_metric(study, name) for name in metrics)], [("", rows)])


def _bd_cell(study: Study, setting: Setting, metric: str) -> Cell:
    found = study.bd_rate(setting, metric)
    if found is None:
        return Cell("–")
    each, means = found
    if means.rate is not None:
        small = f"means {_signed(means.rate, 1)} %"
        overlap = f"curves of means share {means.overlap:.0%} of their range"
    else:
        small, overlap = "means –", f"curves of means: {means.reason}"
    if each.rate is None or not each.is_of_most:
        only = f"{each.defined} of {each.total} images only" if each.defined else ""
        return Cell(
            "–", small if means.rate is not None else only or each.reason, f"{only} {each.reason}; {overlap}".strip()
        )
    shares = f"{each.defined} of {each.total} images" if each.defined < each.total else ""
    error = f" ± {each.sigma:.1f}" if each.sigma is not None else ""
    note = f"mean of {each.defined} images{error}; their curves share {each.overlap:.0%} of their range; {overlap}"
    note += f"; the others: {each.reason}" if each.reason else ""
    look = "good" if each.rate < 0 else "bad"
    return Cell(f"{_signed(each.rate, 1)} %", "; ".join(filter(None, [shares, small])), note, look)


def difference_tables(study: Study) -> list[tuple[str, Table]]:
    """For each setting of a model: every image against the reference, the best first."""
    tables: list[tuple[str, Table]] = []
    for setting in study.models:
        rows: list[list[Cell]] = []
        for each in study.differences(setting):
            cells = [Cell(each.image), Cell(str(each.targets))]
            for name in study.metrics:
                info, value = METRICS[name], each.scores.get(name)
                better = {"higher": 1, "lower": -1, "one": 0}[info.better] * (value or 0)
                text = "–" if value is None else _signed(value, info.digits)
                cells.append(Cell(text, look="good" if better > 0 else "bad" if better < 0 else ""))
            rows.append(cells)
        header = [Cell("image"), Cell("rates"), *(_metric(study, name) for name in study.metrics)]
        if rows:
            tables.append((setting.name, Table(header, [("", rows)])))
    return tables


def time_table(study: Study) -> Table | None:
    """Ratios to the reference's seconds, with the seconds; None where nothing was timed."""
    rows: list[list[Cell]] = []
    for setting in study.settings:
        seconds = study.seconds(setting)
        if seconds.encode is None and seconds.decode is None:
            continue
        cells = [Cell(setting.name, dot=colour(setting.codec))]
        for ratio, value in ((seconds.encode_ratio, seconds.encode), (seconds.decode_ratio, seconds.decode)):
            text = "–" if ratio is None else f"{ratio:.3g} ×"
            cells.append(Cell(text, "not timed" if value is None else f"{value:.3g} s"))
        rows.append(cells)
    return Table([Cell(""), Cell("encode"), Cell("decode")], [("", rows)]) if rows else None


def number_table(study: Study) -> Table:
    """Means over the images: a group a target, a row a setting."""
    header = [Cell("means over the images"), Cell("images"), Cell("met"), Cell("bpp")]
    groups: list[tuple[str, list[list[Cell]]]] = []
    for target in study.targets:
        lines: list[list[Cell]] = []
        for setting in study.settings:
            rows = list(study.at(setting, target).values())
            if not rows:
                continue
            met = sum(row.reached for row in rows)
            values = [number(study.mean(setting, target, name), METRICS[name].digits) for name in study.metrics]
            bpp = sum(row.bpp for row in rows) / len(rows)
            head = [Cell(setting.name), Cell(str(len(rows))), Cell(str(met), look="bad" if met < len(rows) else "")]
            lines.append([*head, Cell(f"{bpp:.3f}"), *map(Cell, values)])
        groups.append((target, lines))
    return Table([*header, *(_metric(study, name) for name in study.metrics)], groups)


def published_table(points: Sequence[Point]) -> Table | None:
    """Every value of the points that match, as it was published."""
    metrics = list(dict.fromkeys(name for point in points for name in point.scores))
    header = ["codec", "bpp", *(METRICS[name].label if name in METRICS else name for name in metrics), "source"]
    rows = [
        [Cell(p.codec), Cell(f"{p.bpp:.4g}"), *(Cell(_short(p.scores.get(name))) for name in metrics), Cell(p.source)]
        for p in points
    ]
    return Table([*map(Cell, header)], [("", rows)]) if rows else None


def plain_table(entries: Iterable[Mapping[str, Any]]) -> Table | None:
    """Any list of flat records with one set of names."""
    found = list(entries)
    names = list(dict.fromkeys(name for entry in found for name in entry))
    rows = [[Cell(_short(entry.get(name))) for name in names] for entry in found]
    return Table([Cell(name) for name in names], [("", rows)]) if rows else None


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _short(value: object) -> str:
    return "–" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
