"""Markdown tables with gaps."""

from __future__ import annotations

from unquant.bench.analysis.tables import markdown_table, number


def test_tables_are_aligned() -> None:
    table = markdown_table(["codec", "bpp"], [["jpeg", "0.15"], ["a longer name", "0.2"]])
    assert table.splitlines() == [
        "| codec         |  bpp |",
        "| ------------- | ---: |",
        "| jpeg          | 0.15 |",
        "| a longer name |  0.2 |",
    ]
    assert len(markdown_table(["a", "b"], []).splitlines()) == 2


def test_numbers_and_gaps() -> None:
    assert (number(1.23456, 2), number(None, 2)) == ("1.23", "–")
