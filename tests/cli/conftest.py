"""Fixtures of the command line's tests: pictures, the commands in and out of process, a codec that needs no weights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
from fake_codec import STREAM_ID, FakeCodec
from typer.testing import CliRunner, Result

import unquant
import unquant.codecs
from unquant.cli.app import app
from unquant.codecs import registry

SOURCE = Path(unquant.__file__).parents[1]


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCodec:
    """The fake codec, installed as the only model: by the name of the default one, of the family that its files name."""
    name = registry.DEFAULT_MODEL
    fake = FakeCodec(name)
    path = tmp_path / "weights" / f"{name}.safetensors"
    entry = registry.ModelInfo(
        name, "ratevar", path, 12_300_000, STREAM_ID.hex(), "00c0ffee-12345678", 6_150_000, {"stage": 1}
    )

    def load(model: str = name, device: str | None = None, *, deterministic: bool = False) -> FakeCodec:
        if model != str(path):
            registry.find_model(model)
        return fake

    monkeypatch.setattr(registry, "models", lambda: [entry])
    monkeypatch.setattr(unquant.codecs, "load", load)
    monkeypatch.setattr(import_module("unquant.codecs.info"), "models", lambda: [entry])
    return fake


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """Runs a command in this process, in a fresh folder: `call("encode", "a.png", stdin=b"")`."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()

    def run(*arguments: object, stdin: bytes | None = None) -> Result:
        result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    yield run
    # `-j` limits torch's threads for good, which is for a process of its own; another number of them rounds differently
    torch.set_num_threads(threads)


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment in which a child process finds the package."""
    path = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1", "COLUMNS": "200"}


@pytest.fixture
def spawn(tmp_path: Path, environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs a command in a process of its own: `spawn("info", "a.unq", python=("-X", "importtime"))`."""

    def run(
        *arguments: object, stdin: bytes | None = None, python: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, *python, "-m", "unquant", *map(str, arguments)]
        return subprocess.run(
            command, input=stdin, capture_output=True, cwd=tmp_path, env=environment, timeout=120, check=False
        )

    return run


@pytest.fixture
def requires_weights() -> None:
    """Skips the test if the package comes without its weights."""
    for name in ("av1", "ratevar"):
        if not (Path(unquant.__file__).parent / "weights" / f"{name}.safetensors").is_file():
            pytest.skip(f"needs src/unquant/weights/{name}.safetensors")
