"""`unquant decode --engine onnx`: files of av1 without torch, and a line for whatever it does not draw."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from unquant.cli.exits import Code

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

Call = Callable[..., Result]
GOLDEN = Path(__file__).parents[1] / "golden"
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # whoever imports it fails
from unquant.cli import main
main()
"""


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.int16)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_it_draws_without_torch(
    call: Call, tmp_path: Path, environment: dict[str, str], tiny_av1_weights: Path, jobs: int
) -> None:
    inputs = [GOLDEN / "tiny_av1-plain.unq", GOLDEN / "tiny_av1-chroma.avif"]
    arguments = ["decode", *map(str, inputs), "-m", str(tiny_av1_weights), "--realism", "0.6"]
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments, "-o", str(tmp_path / "onnx"), "--engine", "onnx"]
    done = subprocess.run([*command, "-j", str(jobs)], capture_output=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert call(*arguments, "-o", "torch", "--deterministic").exit_code == 0
    for path in inputs:
        one, other = (pixels(tmp_path / engine / f"{path.stem}.png") for engine in ("onnx", "torch"))
        assert np.abs(one - other).max() <= 1


def test_what_it_does_not_draw(call: Call, tmp_path: Path, tiny_weights: Path, tiny_av1_weights: Path) -> None:
    other = call("decode", GOLDEN / "tiny-fine.unq", "a.png", "-m", tiny_weights, "--engine", "onnx")
    assert other.exit_code == Code.USAGE
    assert "family ratevar" in other.stderr
    plain = GOLDEN / "tiny_av1-plain.unq"
    for options in (("--device", "cuda"), ("--uncertainty", "b.png")):
        refused = call("decode", plain, "a.png", "-m", tiny_av1_weights, "--engine", "onnx", *options)
        assert refused.exit_code == Code.USAGE
        assert "--engine onnx" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_the_runtime_it_says_what_to_install(
    call: Call, tmp_path: Path, tiny_av1_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unquant.codecs.av1_engine import onnx_decoder

    onnx_decoder.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = call("decode", GOLDEN / "tiny_av1-plain.unq", "a.png", "-m", tiny_av1_weights, "--engine", "onnx")
    assert done.exit_code == Code.MODEL
    assert "unquant[onnx]" in done.stderr
    assert list(tmp_path.iterdir()) == []
