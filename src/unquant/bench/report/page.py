"""The report of a benchmark: one HTML file with everything in it, to be opened from disk without a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from unquant.bench.analysis.published import Point, dataset_of, read_points
from unquant.bench.analysis.study import Study
from unquant.bench.metrics import METRICS
from unquant.bench.report import tables, words
from unquant.bench.report.charts import legend_of, plane, rate_charts, shades
from unquant.bench.report.pictures import views_of
from unquant.bench.run.rows import Row
from unquant.errors import OptionError
from unquant.files import write_whole

__all__ = ["write_report"]

KODAK_IMAGES = 24


def write_report(
    out: Path,
    rows: Sequence[Row],
    *,
    original: Callable[[str], Image.Image],
    picture: Callable[[Row], Image.Image],
    distances: Mapping[str, Any] | None = None,
    published: Path | None = None,
    environments: Mapping[str, Mapping[str, Any]] = {},
) -> None:
    """Write the report in one step, so that a reader never sees half of it.

    original: the image of an image_id. picture: what the file of a row decodes to. Where either raises UnquantError, the
    picture is left out and the report says why. distances: set distances, {"images", "patches", "distances": [{"kind",
    "target", "setting", "value", "sigma"}], "differences": [...]}. published: a CSV of points, overlaid where its data set
    is the one of these images. environments: by the id in `Row.environment`.

    Raises OptionError without rows or without the libraries of the extra `bench`, InputError where `published` cannot be
    read or `out` cannot be written.
    """
    if not rows:
        raise OptionError(f"{out}: a report needs at least one row of results")
    study = Study(rows)
    dataset = dataset_of(study.images.values())
    points = read_points(published) if published else []
    points = [point for point in points if dataset and point.dataset.lower() == dataset]
    context = _charts(study, points, dataset, published, distances) | _tables(study, points, dataset, distances)
    context |= _pictures(study, original, picture) | _place(study, environments, published)
    drawings = [*(chart.svg for chart in context["charts"]), *(entry.swatch for entry in context["legend"])]
    drawings += [context["plane"].svg] if context["plane"] else []
    text = _render(context | {"shades": shades(drawings)})
    write_whole(out, text, force=True)


def _render(context: Mapping[str, Any]) -> str:
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as e:
        raise OptionError("a report needs jinja2; install unquant[bench]") from e
    here = files(__package__ or __name__)
    script, style = ((here / name).read_text("utf-8") for name in ("viewer.js", "style.css"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((here / "template.html").read_text("utf-8"))
    return template.render(**context, script=Markup(script), style=Markup(style), script_hash=allowed)


def _charts(
    study: Study,
    points: Sequence[Point],
    dataset: str | None,
    published: Path | None,
    distances: Mapping[str, Any] | None,
) -> dict[str, Any]:
    charts = rate_charts(study, points, distances)
    first = study.ranked_by or (charts[0].key if charts else "")
    notes: list[str] = []
    if published and not points:
        known = f"the data set {dataset}" if dataset else "no data set known by their names"
        notes.append(f"No published points: the images are of {known}, and {published.name} has none for it.")
    if points and dataset == "kodak" and len(study.images) < KODAK_IMAGES:
        notes.append(
            f"Published points are means over all {KODAK_IMAGES} images of kodak, the curves over {len(study.images)}."
        )
    flat = plane(study)
    return {
        "charts": charts,
        "first_chart": first,
        "legend": legend_of(charts, study.settings, points),
        "curve_notes": notes,
        "plane": flat,
        "dataset": dataset,
    }


def _tables(
    study: Study, points: Sequence[Point], dataset: str | None, distances: Mapping[str, Any] | None
) -> dict[str, Any]:
    sets = distances or {}
    over = [f"{sets[name]} {name}" for name in ("images", "patches") if name in sets]
    return {
        "headline": words.headline(study),
        "facts": words.facts(study, dataset),
        "verdict": words.verdict(study),
        "winners": tables.winner_table(study),
        "trained": study.trained_for,
        "bd": tables.bd_table(study),
        "differences": tables.difference_tables(study),
        "ranked_by": METRICS[study.ranked_by].title if study.ranked_by else "",
        "times": tables.time_table(study),
        "numbers": tables.number_table(study),
        "published": tables.published_table(points),
        "distances": tables.plain_table(sets.get("distances", [])),
        "distance_differences": tables.plain_table(sets.get("differences", [])),
        "distance_note": f" over {' and '.join(over)}" if over else "",
    }


def _pictures(
    study: Study, original: Callable[[str], Image.Image], picture: Callable[[Row], Image.Image]
) -> dict[str, Any]:
    views, notes = views_of(study, original, picture)
    targets = study.equal_targets
    return {
        "views": views,
        "view_notes": notes,
        "targets": targets,
        "first_target": targets[min(1, len(targets) - 1)] if targets else "",
        "model": study.models[0].name if study.models else "the codecs",
    }


def _place(study: Study, environments: Mapping[str, Mapping[str, Any]], published: Path | None) -> dict[str, Any]:
    machines = [
        f"{place.get('cpu', 'unknown processor')}, {place.get('threads', '?')} threads"
        for place in environments.values()
    ]
    return {
        "environments": words.environment_lists(environments),
        "versions": words.codec_list(study),
        "caveats": words.caveats(study),
        "command": words.command_of(study, published.name if published else None),
        "time_note": f"Measured on {'; '.join(dict.fromkeys(machines))}." if machines else "",
    }
