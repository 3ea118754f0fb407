"""The smoke recipe from a photograph to a file and back: training, orders, new data, export, resume, several devices.

How far a run gets in a given time is the machine's affair, so the run here goes on until it has learnt something.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import rows

import unquant
from unquant.codecs.ratevar import RatevarCodec
from unquant.train.loop import train
from unquant.train.recipe import Recipe, Run, load_recipe
from unquant.train.schedule import learning_rate
from unquant.weights_file import SHARD_BYTES, join_shards, read_shards, read_weights

SOURCE = Path(unquant.__file__).parents[1]
BUDGET = 500.0
"""Seconds; an order ends the run long before that."""


@dataclass
class Finished:
    """A run that was stopped by an order, and what it told."""

    data: Path
    out: Path
    export: Path
    told: list[str]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    shard: Callable[..., Path],
    photographs: Callable[..., dict[str, bytes]],
    smoke_recipe: Recipe,
) -> Finished:
    """A run that is given a new shard as it goes, and an order to stop once its held-out loss has fallen."""
    folder = tmp_path_factory.mktemp("smoke")
    data, out = folder / "data", folder / "run"
    shard(data / "a.tar", photographs("a", 96, 1))
    told: list[str] = []

    def echo(line: str) -> None:
        told.append(line)
        if line.startswith("kind=train") and not (data / "b.tar").exists():
            shard(data / "b.tar", photographs("b", 32, 2))
        losses = [row["loss"] for row in rows(out, "validation")]
        if losses and losses[-1] < 0.93 * losses[0] and rows(out, "data"):
            (out / "orders.json").write_text('{"stop": true}')

    torch.manual_seed(0)
    export = train(smoke_recipe, Run(data, out, BUDGET, device="cpu"), echo)
    return Finished(data, out, export, told)


@pytest.mark.slow
def test_held_out_loss_falls(finished: Finished) -> None:
    losses = [row["loss"] for row in rows(finished.out, "validation")]
    assert len(losses) >= 2
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.slow
def test_the_order_ended_the_run_and_is_gone(finished: Finished) -> None:
    assert rows(finished.out)[-1]["seconds"] < BUDGET
    assert not (finished.out / "orders.json").exists()


@pytest.mark.slow
def test_metrics_say_what_happened(finished: Finished) -> None:
    first, second, *rest = rows(finished.out)
    assert (first["kind"], first["step"], first["init"], first["device"]) == ("start", 0, "klt", "cpu")
    assert first["parameters"] < 1_000_000
    assert first["recipe"]["loop"]["crop"] == 64
    assert first["images"] + first["held_out"] == 96
    assert (second["kind"], second["step"]) == ("validation", 0)
    assert {"loss", "gap", "bpp_111", "psnr_111"} <= second.keys()
    trained = [row for row in rest if row["kind"] == "train"]
    assert {"loss", "bpp", "distortion", "grad", "lr", "crops_s"} <= trained[0].keys()
    assert all("skipped" not in row and "lpips" not in row for row in trained)
    steps = [row["step"] for row in rows(finished.out)]
    assert steps == sorted(steps)
    assert all(row["crops"] == 8 * row["step"] for row in trained)
    assert len(finished.told) == len((finished.out / "metrics.jsonl").read_text().splitlines())


@pytest.mark.slow
def test_a_new_shard_is_picked_up(finished: Finished) -> None:
    (row,) = rows(finished.out, "data")
    assert row["new_shards"] == 1
    assert row["images"] + row["held_out"] == 128


@pytest.mark.slow
def test_a_picture_for_every_validation(finished: Finished) -> None:
    pictures = sorted((finished.out / "samples").glob("*.png"))
    assert [int(p.stem) for p in pictures] == [row["step"] for row in rows(finished.out, "validation")]
    with Image.open(pictures[-1]) as picture:
        # four crops a row; the originals, then three steps at two values of realism
        assert picture.size == (4 * 64, 7 * 64)
        assert np.asarray(picture).std() > 10


@pytest.mark.slow
def test_nothing_unfinished_is_left(finished: Finished) -> None:
    names = {p.relative_to(finished.out).parts[0] for p in finished.out.rglob("*")}
    assert names == {"checkpoint.ckpt", "export", "metrics.jsonl", "samples"}
    assert not [path for pattern in ("*.part", ".unquant-*") for path in finished.out.rglob(pattern)]


@pytest.mark.slow
def test_exported_weights_encode_and_decode(finished: Finished, tmp_path: Path) -> None:
    assert finished.export == finished.out / "export"
    shards = list(finished.export.glob("*.safetensors"))
    assert shards
    assert all(p.stat().st_size <= SHARD_BYTES + 2**20 for p in shards)
    joined = join_shards(finished.export, tmp_path / "smoke.safetensors")
    assert joined.training["steps"] == rows(finished.out)[-1]["step"]
    assert (joined.training["stage"], joined.training["lpips"]) == (1, None)
    assert read_weights(tmp_path / "smoke.safetensors").weights_id == joined.weights_id
    codec = RatevarCodec.from_file(tmp_path / "smoke.safetensors")
    photo = Image.open(SOURCE / "unquant/demo/coffee.png").convert("RGB").crop((150, 100, 310, 220))
    sizes: list[int] = []
    for q_index, least in ((344, 20.0), (204, 24.0), (64, 30.0)):
        file = codec.encode(photo, q_index=q_index)
        sizes.append(len(file))
        decoded = codec.decode(file)
        error = np.asarray(decoded, dtype=np.float64) - np.asarray(photo, dtype=np.float64)
        assert decoded.size == photo.size
        assert 10 * np.log10(255**2 / (error**2).mean()) > least
    assert sizes[0] < sizes[1] < sizes[2]


def copy_of(finished: Finished, out: Path) -> Path:
    """The run's folder as it was left, elsewhere."""
    return Path(shutil.copytree(finished.out, out))


@pytest.mark.slow
def test_resume_goes_on_where_it_stopped(finished: Finished, tmp_path: Path, smoke_recipe: Recipe) -> None:
    out = copy_of(finished, tmp_path / "run")
    state = torch.load(out / "checkpoint.ckpt", weights_only=True)
    before = rows(out)
    # a crash in the middle of a row and of a save
    with (out / "metrics.jsonl").open("a") as f:
        f.write('{"kind": "tra')
    (out / ".unquant-0123456789abcdef.tmp").write_bytes(b"half a checkpoint")
    planned = 3 * state["position"]
    train(smoke_recipe, Run(finished.data, out, 1.5, planned_total=planned, resume=True, device="cpu"), lambda _: None)
    after = rows(out)
    assert after[: len(before)] == before
    start, new = after[len(before)], [row for row in after[len(before) :] if row["kind"] == "train"]
    assert (start["kind"], start["init"], start["step"]) == ("start", "resume", state["steps"])
    assert start["seconds"] == pytest.approx(state["position"], abs=0.06)
    assert start["planned_seconds"] == planned
    assert start["images"] + start["held_out"] == 128
    # the next row is of steps, not a validation of the same weights again
    assert after[len(before) + 1]["kind"] == "train"
    assert new[0]["step"] > state["steps"]
    assert new[0]["crops"] == 8 * new[0]["step"]
    # on the cosine, a third of the way or a little more, and warming up again
    highest = learning_rate(smoke_recipe.loop, state["position"], planned, new[0]["step"] - state["steps"] - 1)
    assert 0 < new[0]["lr"] <= highest
    again = torch.load(out / "checkpoint.ckpt", weights_only=True)
    assert again["position"] > state["position"]
    assert int(again["ema"]["n_averaged"]) == again["steps"] > state["steps"]
    assert read_shards(out / "export").training["planned_seconds"] == planned
    assert not list(out.glob(".unquant-*"))


@pytest.mark.slow
def test_a_new_run_from_an_export_keeps_its_place(finished: Finished, tmp_path: Path, smoke_recipe: Recipe) -> None:
    training = read_shards(finished.export).training
    run = Run(finished.data, tmp_path / "run", 1.0, init=str(finished.export), device="cpu")
    train(smoke_recipe, run, lambda _: None)
    start, *_, last = rows(tmp_path / "run")
    assert start["seconds"] == pytest.approx(training["schedule_seconds"], abs=0.06)
    assert start["planned_seconds"] == pytest.approx(training["schedule_seconds"] + 1.0)
    assert (start["step"], start["crops"]) == (training["steps"], training["crops"])
    # it starts from what was learnt, not from the beginning
    assert last["kind"] == "validation"
    assert last["loss"] < 0.97 * rows(finished.out, "validation")[0]["loss"]


@pytest.mark.slow
def test_a_training_machine_needs_neither_coder_nor_type_checker(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('constriction', 'beartype', 'skimage', 'torchvision'): sys.modules[name] = None\n"
        "from unquant.train.loop import train\n"
        "from unquant.train.recipe import Run, load_recipe\n"
        "from unquant.weights_file import read_shards, write_shards\n"
        "from unquant.families import FAMILIES\n"
        "for family in FAMILIES.values(): family.load('training')\n"
        f"print(load_recipe(__import__('pathlib').Path({str(tmp_path / 'r.toml')!r})).loop.crop)\n"
    )
    (tmp_path / "r.toml").write_text("[loop]\ncrop = 96\n")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["96"]


@pytest.mark.slow
def test_two_devices_agree_when_to_stop(
    tmp_path: Path, shard: Callable[..., Path], photographs: Callable[..., dict[str, bytes]], configs: Path
) -> None:
    """Two processes on the CPU: one writes, both end, and the gradients keep their weights the same."""
    shard(tmp_path / "data" / "a.tar", photographs("a", 48, 1))
    script = tmp_path / "run.py"
    script.write_text(
        "import hashlib, sys, torch\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from unquant.train import loop, recipe, trainer\n"
        "torch.set_num_threads(1)\n"
        "folder, config = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "given = recipe.load_recipe(config)\n"
        "given = replace(given, loop=replace(given.loop, batch=2, export_every=0.5, validate_every=1.0))\n"
        "kept = []\n"
        "class Kept(trainer.Trainer):\n"
        "    def __init__(self, *args):\n"
        "        super().__init__(*args); kept.append(self)\n"
        "loop.Trainer = Kept\n"
        "loop.train(given, recipe.Run(folder / 'data', folder / 'run', 4.0, device='cpu', devices=2))\n"
        "t = kept[0]\n"
        "digest = hashlib.sha256(b''.join(p.detach().numpy().tobytes() for p in t.model.parameters())).hexdigest()\n"
        "draw = int(torch.randint(2**40, (), generator=t.generator))\n"
        "(folder / f'rank{t.fabric.global_rank}').write_text(f'{t.schedule.steps} {digest} {draw}')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, str(script), str(tmp_path), str(configs / "ratevar-smoke.toml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"rank{rank}").read_text().split() for rank in (0, 1))
    assert first[:2] == second[:2]
    assert first[2] != second[2], "both devices draw the same crops"
    starts = rows(tmp_path / "run", "start")
    assert [row["devices"] for row in starts] == [2]
    last = rows(tmp_path / "run", "train")[-1]
    assert last["crops"] == 2 * 2 * last["step"] == 4 * int(first[0])


def test_the_shipped_recipe_is_the_one_tested(configs: Path, smoke_recipe: Recipe) -> None:
    recipe = load_recipe(configs / "ratevar-smoke.toml")
    intervals = {name: getattr(recipe.loop, name) for name in ("log_every", "validate_every", "export_every")}
    assert replace(smoke_recipe.loop, **intervals) == recipe.loop
    assert (smoke_recipe.model, smoke_recipe.tables) == (recipe.model, recipe.tables)
