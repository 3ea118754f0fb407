"""Several machines: two processes on the CPU that meet over the network of this machine, and what befalls them."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import rows

import unquant
from unquant.errors import TrainingError
from unquant.train.devices import exchanging
from unquant.train.loop import train
from unquant.train.recipe import Recipe, Run, load_recipe
from unquant.train.trainer import Trainer

SOURCE = Path(unquant.__file__).parents[1]
OF_A_LAUNCHER = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK", "RANK", "WORLD_SIZE")
SHORT = {"batch": "2", "log_every": "0.5", "export_every": "1.0", "validate_every": "1e6", "validation_crops": "2"}

# `unquant`, whose trainer leaves a digest of all that is trained in each process
TELLING = """
import hashlib, os, pathlib, sys
import torch
from unquant.cli import main
from unquant.train import loop, trainer
kept = []
class Kept(trainer.Trainer):
    def __init__(self, *args):
        super().__init__(*args)
        kept.append(self)
loop.Trainer = Kept
folder = pathlib.Path(sys.argv.pop(1))
try:
    main()
finally:
    t, digest = kept[0], hashlib.sha256()
    moments = [m for s in t.optimisers.adam.state_dict()["state"].values() for m in s.values()]
    for part in (*t.model.state_dict().values(), *t.ema.state_dict().values(), *moments):
        digest.update(part.detach().float().numpy().tobytes())
    draw = int(torch.randint(2**40, (), generator=t.generator))
    (folder / f"rank{t.fabric.global_rank}").write_text(f"{t.schedule.steps} {digest.hexdigest()} {draw}")
"""

# the trainer's own steps on given batches: each process takes its part of them, with the same noise for every image
GIVEN = """
import pathlib, sys
from unittest import mock
import torch
from unquant.train import recipe, trainer
def steps(folder, config, nodes):
    run = recipe.Run(folder / "data", folder / "run", steps=4, init="random", device="cpu", num_nodes=nodes)
    t = trainer.Trainer(recipe.load_recipe(config), run)
    begin = torch.cat([p.detach().flatten() for p in t.model.parameters()])
    generator, count = torch.Generator().manual_seed(5), 8 // nodes
    def part(values):
        return values[t.fabric.global_rank * count :][:count]
    def batch(photos, n, size, *rest):
        x = photos.crops(8, size, generator)
        draw = t.objective.draw(8, size // 16, generator, t.device)
        return part(x), draw._replace(log2_q=part(draw.log2_q), realism=part(draw.realism), zeros=count)
    t.objective.batch = batch
    with mock.patch("torch.rand_like", lambda x: torch.full_like(x, 0.3)):
        t._backward()
        gradient = torch.cat([p.grad.flatten() for p in t.model.parameters() if p.grad is not None])
        t.objective.zero_grad()
        for _ in range(4):
            t.step()
    weights = torch.cat([p.detach().flatten() for p in t.model.parameters()])
    return gradient, weights, weights - begin, t.fabric.global_rank
if __name__ == "__main__":
    *found, rank = steps(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), 2)
    torch.save(found, pathlib.Path(sys.argv[1]) / f"given{rank}.pt")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alone() -> dict[str, str]:
    """The environment without what a launcher would have put there."""
    return {k: v for k, v in os.environ.items() if k not in OF_A_LAUNCHER} | {"PYTHONPATH": str(SOURCE)}


Pair = Callable[..., list["subprocess.Popen[str]"]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Starts a command twice, as the machines 0 and 1 of a cluster of two would, by Lightning's names for them."""
    started: list[subprocess.Popen[str]] = []

    def start(*command: object) -> list[subprocess.Popen[str]]:
        port = free_port()
        for rank in (0, 1):
            cluster = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": str(rank)}
            arguments = [sys.executable, *map(str, command)]
            started.append(subprocess.Popen(arguments, env=alone() | cluster, stderr=subprocess.PIPE, text=True))
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory,
    shard: Callable[..., Path],
    photographs: Callable[..., dict[str, bytes]],
) -> Path:
    folder = tmp_path_factory.mktemp("several") / "data"
    shard(folder / "a.tar", photographs("a", 48, 1))
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, configs: Path) -> Path:
    """The smoke recipe in float32, with two crops a process and short intervals."""
    lines = (configs / "ratevar-smoke.toml").read_text().splitlines()
    lines = [f"{key} = {SHORT[key]}" if (key := line.partition(" ")[0]) in SHORT else line for line in lines]
    path = tmp_path_factory.mktemp("recipe") / "short.toml"
    path.write_text("\n".join(lines).replace("[loop]", '[loop]\nprecision = "32-true"'))
    return path


def command(config: Path, data: Path, out: Path, steps: int) -> list[str]:
    options = {"config": config, "data": data, "out": out, "steps": steps, "device": "cpu", "init": "random"}
    return ["train", "stage1", *(str(part) for k, v in options.items() for part in (f"--{k}", v)), "--num-nodes", "2"]


@pytest.mark.slow
def test_two_machines_hold_the_same_weights(config: Path, data: Path, tmp_path: Path) -> None:
    """50 steps of `unquant train`, started by torchrun on each: weights, average and moments are equal, bit for bit."""
    script = tmp_path / "telling.py"
    script.write_text(TELLING)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launcher += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    rest = [str(script), str(tmp_path), *command(config, data, tmp_path / "run", 50)]
    other = subprocess.Popen([*launcher, "--node-rank", "1", *rest], env=alone(), stderr=subprocess.DEVNULL)
    try:
        first = subprocess.run([*launcher, "--node-rank", "0", *rest], env=alone(), capture_output=True, timeout=400)
        assert (first.returncode, other.wait(60)) == (0, 0), first.stderr.decode()
    finally:
        other.kill()
        other.wait()
    told = [(tmp_path / f"rank{rank}").read_text().split() for rank in (0, 1)]
    assert told[0][:2] == told[1][:2]
    assert told[0][0] == "50"
    assert told[0][2] != told[1][2], "both draw the same crops"
    assert [row["devices"] for row in rows(tmp_path / "run", "start")] == [2]
    assert rows(tmp_path / "run", "train")[-1]["crops"] == 50 * 2 * 2


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(config: Path, data: Path, tmp_path: Path, pair: Pair) -> None:
    """The gradient of halves of a batch is that of all of it to 1e-6 of its norm; after 4 steps the weights have parted by
    less than 1e-4 of the way that they went: AdamW magnifies rounding where a gradient is nearly nothing."""
    (tmp_path / "data").symlink_to(data)
    script = tmp_path / "given.py"
    script.write_text(GIVEN)
    processes = pair(script, tmp_path, config)
    gradient, weights, way, _ = runpy.run_path(str(script))["steps"](tmp_path, config, 1)
    for process in processes:
        assert process.wait(400) == 0, process.stderr and process.stderr.read()
    first, second = (torch.load(tmp_path / f"given{rank}.pt") for rank in (0, 1))
    assert torch.equal(first[1], second[1])
    size = torch.linalg.vector_norm
    assert size(first[0] - gradient) < 1e-6 * size(gradient)
    assert size(first[1] - weights) < 1e-4 * size(way)


@pytest.mark.slow
def test_the_death_of_a_process_ends_the_run_and_resume_goes_on(
    config: Path, data: Path, tmp_path: Path, pair: Pair
) -> None:
    out = tmp_path / "run"
    processes = pair("-m", "unquant", *command(config, data, out, 100_000))
    end = time.monotonic() + 300
    while not (out / "checkpoint.ckpt").exists():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < end
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGKILL)
    _, told = processes[0].communicate(timeout=60)
    assert processes[0].returncode == 1
    last = told.strip().splitlines()[-1]
    assert last.startswith("unquant: error: another process of the run ended or cannot be reached")
    assert "--resume" in last
    assert "Traceback" not in told
    assert not list(out.glob(".unquant-*"))
    steps = torch.load(out / "checkpoint.ckpt", weights_only=True)["steps"]
    assert steps > 0
    train(load_recipe(config), Run(data, out, steps=2, resume=True, device="cpu"), lambda line: None)
    start = rows(out, "start")[-1]
    assert (start["init"], start["step"], start["devices"]) == ("resume", steps, 1)
    assert torch.load(out / "checkpoint.ckpt", weights_only=True)["steps"] == steps + 2


def make(recipe: Recipe, data: Path, out: Path, **options: Any) -> Trainer:
    return Trainer(recipe, Run(data, out, 1.0, init="random", device="cpu", **options))


def test_machines_that_nothing_describes(
    data: Path, tmp_path: Path, smoke_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OF_A_LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(TrainingError, match="torchrun or srun, or set MASTER_PORT, NODE_RANK on each"):
        make(smoke_recipe, data, tmp_path, num_nodes=2)


@pytest.mark.parametrize(
    ("launcher", "named"),
    [
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4"}, "TorchElastic"),
        ({"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "train"}, "SLURM"),
    ],
)
def test_other_processes_than_those_asked_for(
    launcher: dict[str, str],
    named: str,
    data: Path,
    tmp_path: Path,
    smoke_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else each of them would be a run of its own, in one folder."""
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=rf"4 processes were started \({named}\), and 1 are asked for"):
        make(smoke_recipe, data, tmp_path)


def test_a_folder_that_is_not_shared(
    data: Path, tmp_path: Path, smoke_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that does not see the checkpoint would train other weights than the first."""
    import lightning.fabric

    monkeypatch.setattr(lightning.fabric.Fabric, "broadcast", lambda self, value: (True, "elsewhere"))
    with pytest.raises(TrainingError, match="all machines must share this folder"):
        make(smoke_recipe, data, tmp_path)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), exchanging():
        raise RuntimeError("shapes do not match")
    with (
        pytest.raises(TrainingError, match=r"--resume goes on .*Timed out waiting 1800000ms for recv operation"),
        exchanging(),
    ):
        raise RuntimeError("[/x/gloo/buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete\nmore")
