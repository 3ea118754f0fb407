"""The report's charts: rate against every metric with published points, set distances, the realism–distortion plane."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from unquant.bench.analysis import curves
from unquant.bench.analysis.curves import Line
from unquant.bench.analysis.published import Point
from unquant.bench.analysis.study import REFERENCE, Setting, Study
from unquant.bench.metrics import METRICS
from unquant.bench.report import figures

__all__ = ["Chart", "Legend", "legend_of", "plane", "rate_charts", "shades"]

MARGIN = 1.3
"""How far published points may lie beyond the measured rates, as a factor, to be drawn."""


@dataclass(frozen=True)
class Chart:
    """One panel. key: unique on the page. outside: how many published points lie beyond the axes.
    steps: a path over steps is among the lines."""

    key: str
    title: str
    direction: str
    svg: str
    lines: Sequence[Line]
    outside: int = 0
    steps: bool = False


@dataclass(frozen=True)
class Legend:
    """One entry. detail: source or version. swatch: <svg> with the line's colour, dashes and marker."""

    name: str
    detail: str
    kind: str
    swatch: str


def rate_charts(study: Study, points: Sequence[Point], distances: Mapping[str, Any] | None) -> list[Chart]:
    """One chart a metric, then one for each kind of set distance."""
    charts: list[Chart] = []
    for metric in study.metrics:
        measured = _ordered(curves.lines_of(study.rows, "bpp", metric, "bpp"), study)
        drawn, outside = _within(_published(points, metric), measured)
        info = METRICS[metric]
        lines = [*drawn, *measured]
        charts.append(Chart(metric, info.label, info.direction, _svg(lines, metric, info.label), lines, outside))
    kinds = list(dict.fromkeys(str(entry["kind"]) for entry in (distances or {}).get("distances", [])))
    for number, kind in enumerate(kinds):
        lines = _distances(study, [entry for entry in (distances or {})["distances"] if entry["kind"] == kind])
        if lines:
            title = f"{kind}, with standard errors"
            charts.append(Chart(f"set{number}", title, "lower is better", _svg(lines, f"set{number}", kind), lines))
    return charts


def _svg(lines: Sequence[Line], key: str, title: str) -> str:
    names = ", ".join(line.name for line in lines if line.kind == "measured")
    labels = ["" if line.kind == "measured" else line.codec for line in lines]
    alt = f"{title} over bits per pixel: {names}; the values stand in the tables below"
    return figures.svg(lines, "bpp", name=f"c-{key}", alt=alt, labels=labels)


def _ordered(lines: Sequence[Line], study: Study) -> list[Line]:
    order = {setting.name: number for number, setting in enumerate(study.settings)}
    return sorted(lines, key=lambda line: order.get(line.name, len(order)))


def _published(points: Iterable[Point], metric: str) -> list[Line]:
    """One line for each codec of each source."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        if metric in point.scores:
            groups.setdefault((point.codec, point.source), []).append(point)
    names = published_names(points)
    lines: list[Line] = []
    for key, group in groups.items():
        each = sorted(group, key=lambda point: point.bpp)
        trust = ", low trust" if each[0].low_trust else ""
        notes = [
            f"{p.bpp:.4g} bits per pixel, {METRICS[metric].label} {p.scores[metric]:.4g}; published{trust}: {p.source}"
            for p in each
        ]
        kind = "low trust" if each[0].low_trust else "published"
        at = [(p.bpp, p.scores[metric]) for p in each]
        lines.append(Line(names[key], at, each[0].codec, kind=kind, notes=notes))
    return lines


def published_names(points: Iterable[Point]) -> dict[tuple[str, str], str]:
    """What each (codec, source) is called: the codec, with the source's first word where a codec has several."""
    keys = list(dict.fromkeys((point.codec, point.source) for point in points))
    codecs = [codec for codec, _ in keys]
    return {(c, source): f"{c} ({source.split()[0]})" if codecs.count(c) > 1 else c for c, source in keys}


def _within(lines: Iterable[Line], measured: Sequence[Line]) -> tuple[list[Line], int]:
    """What of the published lines lies near enough to the measured ones, so that these keep their room."""
    xs, ys = zip(*(point for line in measured for point in line.points), strict=True)
    room = 0.45 * (max(ys) - min(ys) or 1.0)
    kept, outside = list[Line](), 0
    for line in lines:
        inside = [
            number
            for number, (x, y) in enumerate(line.points)
            if min(xs) / MARGIN <= x <= max(xs) * MARGIN and min(ys) - room <= y <= max(ys) + room
        ]
        outside += len(line.points) - len(inside)
        if inside:
            notes = [line.notes[number] for number in inside] if line.notes else None
            kept.append(line._replace(points=[line.points[number] for number in inside], notes=notes))
    return kept, outside


def _distances(study: Study, entries: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The rate of a distance is the mean rate of its rows. Entries of settings and targets without rows are left out."""
    lines: list[Line] = []
    for setting in study.settings:
        at: list[tuple[float, float, float, str]] = []
        for entry in entries:
            rows = study.at(setting, entry["target"]).values() if entry["setting"] == setting.words else ()
            if rows and entry["value"] is not None:
                value, sigma = float(entry["value"]), float(entry.get("sigma") or 0)
                at.append(
                    (fmean(row.bpp for row in rows), value, sigma, f"{entry['target']}: {value:.4g} ± {sigma:.2g}")
                )
        if at:
            at.sort()
            variant = sum(line.codec == setting.codec for line in lines)
            points = [(bpp, value) for bpp, value, _, _ in at]
            sigmas, notes = [each[2] for each in at], [each[3] for each in at]
            lines.append(Line(setting.name, points, setting.codec, variant, sigmas=sigmas, notes=notes))
    return lines


def plane(study: Study) -> Chart | None:
    """PSNR against DISTS (else LPIPS): at each target a path over realism, and over steps where several were measured.

    The reference's points stand beside them. None without a model or without both metrics.
    """
    y = next((name for name in ("dists", "lpips_alex", "lpips_vgg") if name in study.metrics), None)
    models = [row for row in study.rows if study.setting_of(row).is_model and row.target_bpp is not None]
    both = [row for row in models if y and row.scores.get("psnr") is not None and row.scores.get(y) is not None]
    if y is None or not both:
        return None
    lines: list[Line] = []
    labels: list[str] = []
    for variant, along in enumerate(("realism", "steps")):
        if {getattr(row, along) for row in both} == {None}:
            continue
        for line in curves.lines_of(both, "psnr", y, along):
            if len(line.points) > 1:
                lines.append(line._replace(variant=2 * variant))
                labels.append(next((part for part in line.name.split(", ") if part.endswith("bpp")), ""))
    if not lines:
        return None
    anchor = [row for row in study.rows if row.codec == REFERENCE and row.target_bpp is not None]
    if any(row.scores.get(y) is not None for row in anchor):
        lines += curves.lines_of(anchor, "psnr", y, "bpp")
        labels += [line.name for line in lines[len(labels) :]]
    alt = f"PSNR against {METRICS[y].label}: a path over realism at each target; the values stand in the tables below"
    drawing = figures.svg(lines, "psnr", name="c-plane", alt=alt, labels=labels)
    steps = any(line.variant for line in lines)
    return Chart("plane", METRICS[y].label, METRICS[y].direction, drawing, lines, steps=steps)


def legend_of(charts: Sequence[Chart], settings: Sequence[Setting], points: Iterable[Point]) -> list[Legend]:
    """An entry for every line of any chart: measured settings in their order, then what was published."""
    sources = {name: source for (_, source), name in published_names(points).items()}
    versions = {setting.name: setting.version for setting in settings}
    lines = {line.name: line for chart in charts for line in chart.lines}
    order = [*versions, *(name for name in lines if name not in versions)]
    return [
        Legend(name, versions.get(name) or sources.get(name, ""), lines[name].kind, figures.swatch(lines[name]))
        for name in order
        if name in lines
    ]


def shades(drawings: Iterable[str]) -> dict[str, str]:
    """For every colour in the drawings, by its CSS variable, the shade that suits a dark page."""
    found = sorted({shade for drawing in drawings for shade in re.findall(r"var\(--h([0-9a-f]{6})", drawing)})
    return {f"--h{shade}": _on_dark(shade) for shade in found}


def _on_dark(shade: str) -> str:
    hue, light, saturation = colorsys.rgb_to_hls(*(int(shade[i : i + 2], 16) / 255 for i in (0, 2, 4)))
    # ink becomes paper and hairlines recede; colours keep their hue and get lighter
    light = 1 - light if saturation < 0.25 else 0.66
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, light, saturation))
