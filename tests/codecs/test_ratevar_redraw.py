"""The `ratevar` codec whose synthesis ends in a `Redraw`: a tiny one of random weights, added to the tiny model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import difference
from PIL import Image

from unquant.bench.tuning.decoding import decode
from unquant.bench.tuning.setting import Setting
from unquant.codecs import windows
from unquant.codecs.decoder import Drawing
from unquant.codecs.ratevar import RatevarCodec
from unquant.codecs.windows import Window, blocks
from unquant.container import parse
from unquant.diffusion.noise import seeded_noise
from unquant.networks.common import SideInfo
from unquant.networks.ratevar import Ratevar, RatevarConfig
from unquant.nn.redraw import RedrawSizes
from unquant.weights_file import read_weights, write_weights

REDRAW = RedrawSizes(width8=6, depth8=1, width16=7, depth16=1, width2=4, cond=3)


@pytest.fixture(scope="module")
def weights_file(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_weights` with a redraw of random weights."""
    path = tmp_path_factory.mktemp("weights") / "redraw.safetensors"
    weights = read_weights(tiny_weights)
    config = weights.config | {"redraw": asdict(REDRAW)}
    redraw = Ratevar(RatevarConfig.from_dict(config)).g_s.redraw
    assert redraw is not None
    generator = torch.Generator().manual_seed(3)
    tensors = {
        f"g_s.redraw.{name}": torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5
        for name, tensor in redraw.state_dict().items()
    }
    write_weights(path, weights.family, config, weights.tensors | tensors, {"purpose": "tests only"})
    return path


@pytest.fixture
def codec(weights_file: Path) -> RatevarCodec:
    codec = RatevarCodec.from_file(weights_file)
    codec.precision = torch.float32
    return codec


@pytest.fixture(scope="module")
def part(photo: Image.Image) -> Image.Image:
    return photo.crop((20, 30, 220, 160))


def test_files_are_those_of_the_weights_without_it(codec: RatevarCodec, tiny_weights: Path, part: Image.Image) -> None:
    plain = RatevarCodec.from_file(tiny_weights)
    plain.precision = torch.float32
    assert codec.encode(part, q_index=200) == plain.encode(part, q_index=200)
    assert codec.weights_id != plain.weights_id


def test_realism_0_has_no_noise_and_realism_1_that_of_seed_and_place(
    codec: RatevarCodec, part: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = codec.encode(part, q_index=200)
    asked: list[tuple[int, ...]] = []

    def keep(*key: int, stream: int, top: int, left: int) -> torch.Tensor:
        asked.append((*key, stream, top, left))
        return seeded_noise(*key, stream=stream, top=top, left=left)

    monkeypatch.setattr(windows, "seeded_noise", keep)
    assert codec.decode(data, realism=0, seed=1) == codec.decode(data, realism=0, seed=2)
    assert asked == []
    first = codec.decode(data, realism=1, seed=7)
    assert asked == [(7, 0, 4, 18, 26, 2, 0, 0), (7, 0, 1, 72, 104, 3, 0, 0)]
    assert codec.decode(data, realism=1, seed=7) == first
    assert difference(codec.decode(data, realism=1, seed=8), first) > 3


def test_between_its_ends_the_knob_is_a_line(codec: RatevarCodec, part: Image.Image) -> None:
    data = codec.encode(part, q_index=200)
    low, high, middle = (np.asarray(codec.decode(data, realism=rho, seed=1), dtype=float) for rho in (0, 1, 0.25))
    assert np.abs(0.75 * low + 0.25 * high - middle).max() <= 1


def test_tuning_decodes_as_the_codec_does(codec: RatevarCodec, part: Image.Image) -> None:
    data = codec.encode(part, q_index=200)
    drawn = decode(codec.model, codec.dequantise(parse(data)), Setting(1.0, None)).picture
    ours = (drawn.clamp(0, 1) * 255).round()[0, :, : part.height, : part.width].permute(1, 2, 0).numpy()
    theirs, other = (np.asarray(codec.decode(data, realism=1, seed=seed)) for seed in (None, 1))
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - other).max() > 2


@pytest.mark.slow
def test_windows_give_the_same_image(codec: RatevarCodec, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    q_map = np.random.default_rng(0).integers(150, 345, (21, 13))
    data = codec.encode(photo.crop((0, 0, 200, 330)), q_index=q_map)
    whole = codec.decode(data, realism=1, seed=3)
    drafted: list[Window] = []
    draft = RatevarCodec._draft  # pyright: ignore[reportPrivateUsage]

    def keep(codec: RatevarCodec, side: SideInfo, drawing: Drawing, place: Window, read: Window) -> torch.Tensor:
        drafted.append(place)
        return draft(codec, side, drawing, place, read)

    monkeypatch.setattr(RatevarCodec, "_draft", keep)
    for window in (2, 5):
        monkeypatch.setattr(RatevarCodec, "window", window)
        drafted.clear()
        assert difference(codec.decode(data, realism=1, seed=3), whole) <= 1
        assert sorted(drafted) == sorted(blocks(Window.whole((21, 13)), window, even=True))  # each once
    middle = np.asarray(codec.decode(data, realism=0.5, seed=3, region=(50, 90, 77, 101)), dtype=int)
    ends = [np.asarray(codec.decode(data, realism=end, seed=3), dtype=float) for end in (0, 1)]
    assert np.abs(middle - (ends[0] + ends[1])[90:191, 50:127] / 2).max() <= 1.5
    for network in (codec.model.g_s, codec.model.g_s.redraw):
        with monkeypatch.context() as patch:
            patch.setattr(network, "draft_halo" if network is codec.model.g_s else "halo", 1)
            assert difference(codec.decode(data, realism=1, seed=3), whole) > 3
