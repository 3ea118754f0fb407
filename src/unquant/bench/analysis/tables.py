"""Numbers with gaps, and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["markdown_table", "number"]


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
