"""Figures from the rows that `unquant.bench rd --out` writes: one metric against another, means over the images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from unquant.errors import InputError, OptionError

__all__ = ["AXES", "Line", "draw", "lines_of", "read_rows"]

AXES = {
    "bpp": "bits per pixel",
    "psnr": "PSNR, dB",
    "ms_ssim": "MS-SSIM",
    "lpips": "LPIPS (AlexNet)",
    "dists": "DISTS",
    "gradient": "gradient energy over the original's",
    "realism": "realism ρ",
    "steps": "steps of the reverse path",
}
"""What can stand on an axis, and how it is labelled."""


class Line(NamedTuple):
    """One curve: its name in the legend and its points (x, y), in order."""

    name: str
    points: list[tuple[float, float]]


def read_rows(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The rows of several result files. Raises InputError naming the file that is none."""
    rows: list[dict[str, Any]] = []
    for path in paths:
        try:
            rows += json.loads(path.read_text(encoding="utf-8"))["rows"]
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise InputError(f"{path}: not a result file of `unquant.bench rd --out`: {e}") from e
    return rows


def lines_of(rows: Sequence[dict[str, Any]], x: str, y: str, along: str) -> list[Line]:
    """One line for every codec and combination of the other settings; its points are the values of `along`, ascending.

    x, y: keys of AXES. along: "bpp" (one point a target), "realism" or "steps". Rows without a value are left out. Raises
    OptionError for an unknown name or where nothing is left.
    """
    if x not in AXES or y not in AXES or along not in ("bpp", "realism", "steps"):
        raise OptionError(f"axes: {', '.join(AXES)}; along: bpp, realism or steps; not {x}, {y}, {along}")
    settings = {"bpp": "target_bpp", "realism": "realism", "steps": "steps"}
    fixed = [key for name, key in settings.items() if name != along]
    groups: dict[tuple[Any, ...], dict[float, list[tuple[float, float]]]] = {}
    for row in rows:
        place = row.get(settings[along])
        if place is None or row.get(x) is None or row.get(y) is None:
            continue
        name = (row["codec"], *(row.get(key) for key in fixed))
        groups.setdefault(name, {}).setdefault(float(place), []).append((row[x], row[y]))
    if not groups:
        raise OptionError(f"no row has {x}, {y} and {along}")

    def label(name: tuple[Any, ...]) -> str:
        words = {"target_bpp": "{:g} bpp", "realism": "ρ {:g}", "steps": "{} steps"}
        return ", ".join(
            [name[0], *(words[k].format(v) for k, v in zip(fixed, name[1:], strict=True) if v is not None)]
        )

    return [
        Line(label(name), [(fmean(p[0] for p in at), fmean(p[1] for p in at)) for _, at in sorted(points.items())])
        for name, points in groups.items()
    ]


def draw(lines: Sequence[Line], x: str, y: str, out: Path) -> None:
    """Write the figure as SVG or PNG, by the extension.

    Raises OptionError for another extension and without matplotlib (extra `bench`), InputError where it cannot be written.
    """
    kind = out.suffix.lower()
    if kind not in (".svg", ".png"):
        raise OptionError(f"{out}: figures are .svg or .png")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as e:
        raise OptionError(f"{out}: figures need matplotlib; install unquant[bench]") from e
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for line in lines:
        axes.plot(*zip(*line.points, strict=True), marker="o", markersize=4, label=line.name)
    axes.set(xlabel=AXES[x], ylabel=AXES[y])
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    # no date and no random ids: the same rows give the same bytes
    metadata = {"Date": None} if kind == ".svg" else {}
    try:
        with mpl.rc_context({"svg.hashsalt": "unquant"}):
            figure.savefig(out, metadata=metadata, dpi=150)
    except OSError as e:
        raise InputError(f"{out}: cannot be written: {e.strerror or e}") from e
