"""Fixtures of the tests of tuning: a tiny model with a reverse network, two pictures, distances of our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tuned_model import START

from unquant.bench.metrics import networks
from unquant.bench.metrics.base import Metric, to_tensor
from unquant.bench.tuning.judge import load_pictures
from unquant.codecs.ratevar import RatevarCodec
from unquant.networks.ratevar import Ratevar, RatevarConfig
from unquant.weights_file import read_weights, write_weights


@pytest.fixture(scope="module")
def weights_file(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a reverse network that is small and random, but not 0."""
    weights = read_weights(tiny_weights)
    config = {**weights.config, "reverse": asdict(START)}
    torch.manual_seed(3)
    model = Ratevar(RatevarConfig.from_dict(config))
    assert model.f is not None
    network = {f"f.{n}": (t + 0.1 * torch.randn_like(t)).half() for n, t in model.f.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "tiny-reverse.safetensors"
    write_weights(path, "ratevar", config, {**weights.tensors, **network}, weights.training)
    return path


@pytest.fixture
def model(weights_file: Path) -> Ratevar:
    """A fresh one for each test: tests patch it."""
    return RatevarCodec.from_file(weights_file).model


@pytest.fixture(scope="module")
def crops(photo: Image.Image) -> list[Image.Image]:
    return [photo.crop((x, y, x + 64, y + 48)) for x, y in ((200, 120), (60, 300))]


@pytest.fixture(scope="module")
def folder(crops: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for i, crop in enumerate(crops):
        crop.save(path / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def pictures(folder: Path) -> list[Image.Image]:
    return load_pictures(folder)


@pytest.fixture(scope="module")
def tensors(pictures: list[Image.Image]) -> list[Tensor]:
    """The pictures as networks take them, (1, 3, h, w)."""
    return [to_tensor(picture) for picture in pictures]


class Distance:
    """Stands for a distance: the mean absolute difference of pictures averaged down; counts what it extracts."""

    def __init__(self, scale: int) -> None:
        self.scale, self.extracted = scale, 0

    def extract(self, image: Image.Image) -> Tensor:
        self.extracted += 1
        return F.avg_pool2d(to_tensor(image), self.scale)

    def load(self, directory: Path | None = None) -> Metric:
        def against(reference: Image.Image) -> Callable[[Image.Image], float]:
            target = self.extract(reference)
            return lambda image: float((target - self.extract(image)).abs().mean())

        return Metric("1", against)


@pytest.fixture
def distances(monkeypatch: pytest.MonkeyPatch) -> tuple[Distance, Distance]:
    """What `Judge` finds as LPIPS and DISTS."""
    lpips, dists = Distance(1), Distance(2)
    monkeypatch.setattr(networks, "lpips_alex", lpips.load)
    monkeypatch.setattr(networks, "dists", dists.load)
    return lpips, dists
