"""Points that others published, from a CSV file: one codec at one rate on one data set a line, each with its source.

Columns: codec, dataset, bpp, then any number of metrics, then source. An empty field is a value that was not published.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from unquant.errors import InputError

__all__ = ["Point", "dataset_of", "read_points"]

_NAMES = ("codec", "dataset", "bpp", "source")
_LOW_TRUST = ("low trust", "third-party")
KODAK = frozenset(f"kodim{number:02}" for number in range(1, 25))
DIV2K = frozenset(f"{number:04}" for number in range(801, 901))


@dataclass(frozen=True, kw_only=True)
class Point:
    """One published point: means over a data set. bpp: bits per pixel. scores: what was published, by metric."""

    codec: str
    dataset: str
    bpp: float
    scores: Mapping[str, float]
    source: str

    @property
    def low_trust(self) -> bool:
        """Codec or source says that the value is second-hand."""
        return any(word in f"{self.codec} {self.source}".lower() for word in _LOW_TRUST)


def read_points(path: Path) -> list[Point]:
    """Every point of the file, in its order. Raises InputError naming file, line and cause."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: published points cannot be read: {getattr(e, 'strerror', None) or e}") from e
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(lines, [])
        missing = [name for name in _NAMES if name not in header]
        if missing or len(set(header)) < len(header):
            cause = f"no column {', '.join(missing)}" if missing else "a column stands twice"
            raise InputError(f"{path}, line 1: not a table of published points: {cause}")
        return [_point(header, line, f"{path}, line {lines.line_num}") for line in lines if any(line)]
    except csv.Error as e:
        raise InputError(f"{path}, line {lines.line_num}: not a CSV file: {e}") from e


def _point(header: list[str], line: list[str], place: str) -> Point:
    if len(line) != len(header):
        raise InputError(f"{place}: {len(header)} fields expected, got {len(line)}")
    values = dict(zip(header, line, strict=True))
    empty = [name for name in _NAMES if not values[name].strip()]
    if empty:
        raise InputError(f"{place}: no {', '.join(empty)}")

    def number(name: str) -> float:
        try:
            value = float(values[name])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{place}: {name} is not a number: {values[name]!r}")
        return value

    bpp = number("bpp")
    if bpp <= 0:
        raise InputError(f"{place}: bpp is not above 0: {values['bpp']}")
    scores = {name: number(name) for name in header if name not in _NAMES and values[name].strip()}
    codec, dataset, source = (values[name] for name in ("codec", "dataset", "source"))
    return Point(codec=codec, dataset=dataset, bpp=bpp, scores=scores, source=source)


def dataset_of(images: Iterable[str]) -> str | None:
    """The data set whose images these are, by their names: "kodak", "div2k" or None."""
    names = set(images)
    known = {"kodak": KODAK, "div2k": DIV2K}
    return next((dataset for dataset, all_names in known.items() if names and names <= all_names), None)
