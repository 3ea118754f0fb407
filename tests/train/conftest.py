"""Fixtures of the training tests: shards of real and made-up pictures, small recipes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import changed
from safetensors.torch import save_file

import unquant
from unquant.perceptual import LPIPS, LPIPS_FILES
from unquant.train.av1 import objective as av1_objective
from unquant.train.av1 import pairs
from unquant.train.recipe import Recipe, Run, load_recipe
from unquant.train.trainer import Trainer

CONFIGS = Path(__file__).parents[2] / "configs"
PHOTO = Path(unquant.__file__).with_name("demo") / "coffee.png"

ShardWriter = Callable[[Path, dict[str, bytes]], Path]
Photographs = Callable[[str, int, int], dict[str, bytes]]


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
def photographs() -> Photographs:
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


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory, shard: ShardWriter, photographs: Photographs) -> Path:
    """A data folder of 96 crops of the photograph."""
    folder = tmp_path_factory.mktemp("pieces")
    shard(folder / "a.tar", photographs("a", 96, 1))
    return folder


@pytest.fixture(scope="session")
def reverse_recipe() -> Callable[[str], Recipe]:
    """`configs/ratevar-smoke-reverse.toml` with short intervals, for a training of the reverse network."""
    recipe = load_recipe(CONFIGS / "ratevar-smoke-reverse.toml")
    loop = replace(recipe.loop, log_every=0.3, validate_every=4.0, export_every=3.0)

    def make(training: str) -> Recipe:
        assert recipe.model.reverse is not None
        noise = recipe.model.reverse.noise_channels if training == "energy" else 0
        reverse = replace(recipe.model.reverse, training=training, noise_channels=noise)
        return replace(recipe, loop=loop, model=replace(recipe.model, reverse=reverse))

    return make


@dataclass(frozen=True)
class Trained:
    """A run of some steps: its trainer, its folder as it was saved, and rows of validation before and after."""

    trainer: Any
    out: Path
    before: dict[str, float]
    after: dict[str, float]


@pytest.fixture(scope="session")
def run_steps(pieces: Path) -> Callable[..., Trained]:
    """Starts a run and makes some steps of it, whatever the time that takes; saves it."""

    def run(recipe: Recipe, out: Path, steps: int, **options: Any) -> Trained:
        torch.manual_seed(0)
        trainer = Trainer(recipe, Run(**{"data": pieces, "out": out, "time_budget": 100.0, "device": "cpu", **options}))
        arguments = trainer.photos, recipe.loop.crop, recipe.loop.validation_crops
        before = trainer.objective.validate(trainer.ema.module, *arguments)
        for _ in range(steps):
            trainer.step()
        trainer.schedule.seconds = 0.1 * steps
        trainer.save()
        return Trained(trainer, out, before, trainer.objective.validate(trainer.ema.module, *arguments))

    return run


@pytest.fixture(scope="session")
def stage2_run(
    tmp_path_factory: pytest.TempPathFactory,
    run_steps: Callable[..., Trained],
    reverse_recipe: Callable[[str], Recipe],
    tiny_weights: Path,
) -> Callable[[str], Trained]:
    """80 steps of stage 2 on the tiny weights by a training of the reverse network; tests must leave it as it is."""

    @cache
    def run(training: str) -> Trained:
        out = tmp_path_factory.mktemp(training) / "run"
        out.mkdir()
        return run_steps(reverse_recipe(training), out, 80, init=str(tiny_weights), stage=2)

    return run


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory, shard: ShardWriter) -> Path:
    """A data folder of 48 pictures of discs of a few colours, 96×96, for `av1`: its errors at their edges are soon learnt."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:96, :96]
    members: dict[str, bytes] = {}
    for i in range(48):
        picture = np.full((96, 96, 3), 70, np.uint8)
        for _ in range(40):
            top, left, radius = random.integers(96), random.integers(96), random.integers(2, 9)
            picture[(y - top) ** 2 + (x - left) ** 2 < radius**2] = random.choice([70, 190], 3)
        data = io.BytesIO()
        Image.fromarray(picture).save(data, "PNG")
        members[f"a{i:03d}.png"] = data.getvalue()
    return shard(tmp_path_factory.mktemp("shapes") / "a.tar", members).parent


@pytest.fixture(scope="session")
def av1_recipe() -> Recipe:
    """`configs/av1-smoke.toml` with a small pool, few crops to validate on, and half the batch."""
    recipe = load_recipe(CONFIGS / "av1-smoke.toml")
    loop = replace(recipe.loop, batch=4, lr=5e-3, validation_crops=2)
    return changed(replace(recipe, loop=loop), pairs.PairsConfig, pool=12, reuse=32.0, half=0.0)


@pytest.fixture(scope="session")
def shapes_run(
    tmp_path_factory: pytest.TempPathFactory, run_steps: Callable[..., Trained], av1_recipe: Recipe, shapes: Path
) -> Trained:
    """100 steps of stage 1 of `av1` at one quality, tune ssim and AV1's fastest speed; tests must leave it as it is."""
    out = tmp_path_factory.mktemp("av1") / "run"
    out.mkdir()
    original, options = pairs.draw_version, replace(pairs.BASE, quality=8, speed=9, tune="ssim", deltaq_strength=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "BASE", options)
        patch.setattr(pairs, "draw_version", lambda *args: original(*args)._replace(size=(96, 96), options=options))
        patch.setattr(av1_objective, "VALIDATION_QUALITIES", (8,))
        trained = run_steps(av1_recipe, out, 100, data=shapes)
    trained.trainer.objective.close()
    return trained


@pytest.fixture(scope="session")
def feature_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of metric weights with a random AlexNet, under the names of the real one."""
    folder = tmp_path_factory.mktemp("features")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state = LPIPS("alex").state_dict()
    names = {k: f"lpips.lin{k.removeprefix('heads.')}.weight" if k.startswith("heads.") else k for k in state}
    save_file({names[k]: v for k, v in state.items()}, folder / LPIPS_FILES["alex"])
    return folder
