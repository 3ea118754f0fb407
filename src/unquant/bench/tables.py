"""What the reports share: numbers with gaps, Markdown tables, files written in one step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

from unquant.files import write_whole

__all__ = ["markdown_table", "number", "write_json"]


def number(value: float | None, digits: int) -> str:
    """The value with so many decimals, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its columns padded to equal width; the first column to the left, the others to the right."""
    cells = [[*header], *([*row] for row in rows)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(header))]

    def line(values: Sequence[str]) -> str:
        first, *rest = (f"{value:>{width}}" for value, width in zip(values, widths, strict=True))
        return "| " + " | ".join([values[0].ljust(len(first)), *rest]) + " |"

    rule = "| " + " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]) + " |"
    return "\n".join([line(cells[0]), rule, *(line(values) for values in cells[1:])])


def _plain(value: object) -> object:
    """The value in what JSON knows: infinite and undefined numbers become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast(Mapping[object, object], value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast(Sequence[object], value)]
    return value


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write JSON in one step; what is not finite becomes null. Raises InputError where it cannot be written."""
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, text, force=True)
