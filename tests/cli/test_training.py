"""`unquant train` on a tiny recipe: a run that goes on from its export, a cooldown, and the weights files of it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import Result

import unquant
from unquant.cli.exits import Code

Call = Callable[..., Result]

PHOTO = Path(unquant.__file__).with_name("demo") / "coffee.png"
RECIPE = """
[model]
latent = 128
q_index_min = 64
analysis_width8 = 16
analysis_depth8 = 1
analysis_width16 = 16
analysis_depth16 = 1
synthesis_width16 = 64
synthesis_depth16 = 1
synthesis_width8 = 16
synthesis_depth8 = 1
cond = 8
default_realism = 0.0
[model.entropy]
hyper = 8
width = 16
context = 16
hidden = 32
cond = 8
[loop]
crop = 64
batch = 2
optimizer = "muon"
schedule = "constant"
lr = 1e-3
lr_end = 1e-5
warmup_steps = 2
log_every = 0.01
validation_crops = 2
[stage1]
lpips_weight = 0
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def train(call: Call, tmp_path: Path) -> Callable[..., Result]:
    """Calls `unquant train stage1` with a recipe of a constant rate and a folder of photographs."""
    (tmp_path / "r.toml").write_text(RECIPE)
    (tmp_path / "data").mkdir()
    photo = Image.open(PHOTO).convert("RGB")
    with tarfile.open(tmp_path / "data" / "a.tar", "w") as tar:
        for i in range(40):
            data = io.BytesIO()
            photo.crop((8 * i, 4 * i, 8 * i + 80, 4 * i + 80)).save(data, "PNG")
            info = tarfile.TarInfo(f"{i}.png")
            info.size = data.tell()
            tar.addfile(info, io.BytesIO(data.getvalue()))
    return lambda *options: call("train", "stage1", "--config", "r.toml", "--data", "data", "--device", "cpu", *options)


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    parsed = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in parsed if row["kind"] == kind]


@pytest.mark.slow
def test_a_run_over_several_machines_and_its_cooldown(train: Callable[..., Result], call: Call, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train("--out", "run", "--steps", 6, "--resume").exit_code == 0
    # another machine has the export alone
    (run / "checkpoint.ckpt").unlink()
    result = train("--out", "run", "--steps", 5, "--resume")
    assert result.exit_code == 0, result.stderr
    assert "going on from its export" in result.stderr
    starts = rows(run, "start")
    assert [(row["step"], row["crops"], row["schedule"]) for row in starts] == [(0, 0, "constant"), (6, 12, "constant")]
    assert all("planned_steps" not in row for row in starts)
    assert rows(run, "train")[-1]["lr"] == pytest.approx(1e-3)

    result = train("--out", "cool", "--cooldown", "--steps", 50, "--init", "run/export")
    assert result.exit_code == 0, result.stderr
    (start,) = rows(tmp_path / "cool", "start")
    assert (start["step"], start["schedule"], start["planned_steps"]) == (11, "cooldown", 61)
    rates = [row["lr"] for row in rows(tmp_path / "cool", "train")]
    # the last of 50 steps: 1 − √(49/50) of the way up from lr_end
    assert rates[-1] == pytest.approx(1e-5 + 0.99e-3 * 0.01005, rel=1e-3)

    sizes: dict[str, int] = {}
    for name, options in (("half", ()), ("small", ("--int8",))):
        result = call("train", "export", "cool", "-o", f"{name}.safetensors", *options)
        assert result.exit_code == 0, result.stderr
        sizes[name] = (tmp_path / f"{name}.safetensors").stat().st_size
    assert sizes["small"] < sizes["half"]
    photo = tmp_path / "photo.png"
    Image.open(PHOTO).convert("RGB").crop((100, 100, 164, 148)).save(photo)
    # a file of the one is read by the other
    assert call("encode", "photo.png", "a.unq", "-m", "./half.safetensors").exit_code == 0
    (tmp_path / "small").mkdir()
    (tmp_path / "small.safetensors").rename(tmp_path / "small" / "small.safetensors")
    for model in ("./half.safetensors", "./small/small.safetensors"):
        result = call("decode", "a.unq", "a.png", "-m", model, "--force")
        assert result.exit_code == 0, result.stderr


def test_a_cooldown_by_the_clock(train: Callable[..., Result], tmp_path: Path) -> None:
    assert train("--out", "run", "--cooldown", "--time-budget", "1s").exit_code == 0
    (start,) = rows(tmp_path / "run", "start")
    assert (start["schedule"], start["planned_seconds"]) == ("cooldown", 1.0)


def test_a_constant_schedule_has_no_planned_total(train: Callable[..., Result], tmp_path: Path) -> None:
    result = train("--out", "run", "--time-budget", "1s", "--planned-total", "1h")
    assert result.exit_code == Code.USAGE
    assert 'schedule = "cosine"' in result.stderr
    assert not (tmp_path / "run" / "export").exists()
