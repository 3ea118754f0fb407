"""Markdown tables with gaps; JSON that is whole or not there."""

from __future__ import annotations

import json
import math
from pathlib import Path

from unquant.bench.tables import markdown_table, number, write_json


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


def test_json_is_valid_and_leaves_no_part_behind(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.json"
    write_json(path, {"rows": [{"psnr": math.inf, "size": 3}, (1.5, "ü")]})
    assert json.loads(path.read_text("utf-8")) == {"rows": [{"psnr": None, "size": 3}, [1.5, "ü"]]}
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.json"]
