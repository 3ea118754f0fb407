"""JSON that is whole or not there."""

from __future__ import annotations

import json
import math
from pathlib import Path

from unquant.bench.run.json_files import read_json, write_json


def test_json_is_valid_and_leaves_no_part_behind(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.json"
    write_json(path, {"rows": [{"psnr": math.inf, "size": 3}, (1.5, "ü")]})
    assert json.loads(path.read_text("utf-8")) == {"rows": [{"psnr": None, "size": 3}, [1.5, "ü"]]}
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.json"]
    assert read_json(path) == {"rows": [{"psnr": None, "size": 3}, [1.5, "ü"]]}


def test_what_is_no_object_is_none(tmp_path: Path) -> None:
    for content in ("[1]", "{", ""):
        (tmp_path / "a.json").write_text(content)
        assert read_json(tmp_path / "a.json") is None
    assert read_json(tmp_path / "gone.json") is None
