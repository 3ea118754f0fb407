"""`unquant export onnx`: a file that says what it is, without torch, or a line that says why not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from unquant.cli.exits import Code

onnx = pytest.importorskip("onnx")

Call = Callable[..., Result]


def test_the_file_says_what_it_is(call: Call, tmp_path: Path, tiny_av1_weights: Path) -> None:
    result = call("export", "onnx", "a.onnx", "-m", tiny_av1_weights, "--json")
    assert result.exit_code == 0
    row = json.loads(result.stdout)
    data = (tmp_path / "a.onnx").read_bytes()
    assert row == {
        "model": "tiny_av1",
        "output": "a.onnx",
        "bytes": len(data),
        "halo": 5,
        "default_realism": 0.5,
        "weights_id": "e8f09115-1afb60f0",
        "stream_id": "e8f09115",
    }
    said = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
    assert said["weights_id"] == "e8f09115-1afb60f0"
    assert said["halo"] == "5"
    again = call("export", "onnx", "a.onnx", "-m", tiny_av1_weights)
    assert again.exit_code == Code.INPUT
    assert "exists already" in again.stderr
    assert call("export", "onnx", "a.onnx", "-m", tiny_av1_weights, "--force").exit_code == 0


def test_the_name_is_the_models(call: Call, tmp_path: Path, tiny_av1_weights: Path) -> None:
    assert call("export", "onnx", "-m", tiny_av1_weights).exit_code == 0
    assert (tmp_path / "tiny_av1.onnx").is_file()


def test_other_families_are_refused(call: Call, tmp_path: Path, tiny_weights: Path) -> None:
    result = call("export", "onnx", "a.onnx", "-m", tiny_weights)
    assert result.exit_code == Code.USAGE
    assert "family ratevar" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_it_says_what_to_install(
    call: Call, tmp_path: Path, tiny_av1_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = call("export", "onnx", "a.onnx", "-m", tiny_av1_weights)
    assert result.exit_code == Code.MODEL
    assert "unquant[onnx]" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_takes_no_torch(
    spawn: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path, tiny_av1_weights: Path
) -> None:
    done = spawn("export", "onnx", "a.onnx", "-m", tiny_av1_weights, python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    imported = {line.rsplit(b"|", 1)[-1].strip() for line in done.stderr.splitlines() if b"|" in line}
    assert b"onnx" in imported
    assert b"torch" not in imported
