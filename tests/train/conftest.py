"""Fixtures of the training tests: shards of real and made-up pictures, small recipes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unquant
from unquant.train.loop import Recipe, load_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
PHOTO = Path(unquant.__file__).with_name("demo") / "coffee.png"

ShardWriter = Callable[[Path, dict[str, bytes]], Path]


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from threads, and lose much where other programs want the same cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def configs() -> Path:
    """The folder of recipes."""
    return CONFIGS


@pytest.fixture(scope="session")
def shard() -> ShardWriter:
    """Writes a tar file of members by name; complete when it appears."""

    def write(path: Path, members: dict[str, bytes]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        with tarfile.open(partial, "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        partial.replace(path)
        return path

    return write


@pytest.fixture(scope="session")
def flat() -> Callable[..., bytes]:
    """The bytes of a PNG of one colour."""

    def make(width: int, height: int, colour: tuple[int, int, int] = (10, 20, 30)) -> bytes:
        data = io.BytesIO()
        Image.new("RGB", (width, height), colour).save(data, "PNG")
        return data.getvalue()

    return make


@pytest.fixture(scope="session")
def photographs() -> Callable[[str, int, int], dict[str, bytes]]:
    """JPEG crops of 128×128 at random places of the photograph that the package ships, by name."""
    photo = Image.open(PHOTO).convert("RGB")

    def cut(prefix: str, count: int, seed: int) -> dict[str, bytes]:
        random = np.random.default_rng(seed)
        members: dict[str, bytes] = {}
        for i in range(count):
            left, top = (int(random.integers(length - 127)) for length in photo.size)
            data = io.BytesIO()
            photo.crop((left, top, left + 128, top + 128)).save(data, "JPEG", quality=95)
            members[f"{prefix}{i:03d}.jpg"] = data.getvalue()
        return members

    return cut


@pytest.fixture(scope="session")
def smoke_recipe() -> Recipe:
    """`configs/ratevar-smoke.toml` with short intervals."""
    recipe = load_recipe(CONFIGS / "ratevar-smoke.toml")
    loop = replace(recipe.loop, log_every=0.5, validate_every=4.0, export_every=3.0)
    return replace(recipe, loop=loop)
