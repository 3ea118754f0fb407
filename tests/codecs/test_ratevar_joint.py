"""The codec with a reverse network that stands in front of g_s in every decode: a tiny one of random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import difference
from PIL import Image
from reversing import REVERSE, with_reverse

from unquant.bench.tuning.decoding import decode
from unquant.bench.tuning.setting import Setting
from unquant.codecs.ratevar import RatevarCodec
from unquant.container import parse
from unquant.networks.common import log2_q_of
from unquant.weights_file import Weights, read_weights

JOINT = replace(REVERSE, training="joint", noise_channels=0, sampler="deterministic", steps=1, project=False)


def codec_of(weights: Weights) -> RatevarCodec:
    codec = RatevarCodec(weights)
    codec.precision = torch.float32
    return codec


@pytest.fixture(scope="module")
def weights(tiny_weights: Path) -> Weights:
    return with_reverse(read_weights(tiny_weights), JOINT)


@pytest.fixture(scope="module")
def joint(weights: Weights) -> RatevarCodec:
    return codec_of(weights)


@pytest.fixture(scope="module")
def plain(tiny_weights: Path) -> RatevarCodec:
    return codec_of(read_weights(tiny_weights))


@pytest.fixture(scope="module")
def data(plain: RatevarCodec, picture: Image.Image) -> bytes:
    return plain.encode(picture, q_index=200)


def test_files_are_those_of_the_weights_without_it(joint: RatevarCodec, picture: Image.Image, data: bytes) -> None:
    assert joint.encode(picture, q_index=200) == data


def test_with_a_last_layer_of_0_every_picture_is_that_of_the_weights_without_it(
    weights: Weights, plain: RatevarCodec, data: bytes
) -> None:
    zero = {name: torch.zeros_like(t) for name, t in weights.tensors.items() if name.startswith("f.net.head.")}
    assert len(zero) == 2
    fresh = codec_of(replace(weights, tensors=weights.tensors | zero))
    for realism in (0.0, 0.5, 1.0):
        assert fresh.decode(data, realism=realism) == plain.decode(data, realism=realism)


def test_it_is_in_every_decode_but_one_of_no_steps(joint: RatevarCodec, plain: RatevarCodec, data: bytes) -> None:
    for realism in (0.0, 0.5, 1.0):
        drawn, without = joint.decode(data, realism=realism), plain.decode(data, realism=realism)
        assert difference(drawn, without) > 3
        assert joint.decode(data, realism=realism, seed=7) == drawn
        assert joint.decode(data, realism=realism, steps=0) == without
        assert difference(joint.decode(data, realism=realism, steps=3), drawn) > 0
    assert joint.decode(data, preview=True) == joint.decode(data, realism=0)
    assert joint.decode(data, preview=True, steps=2) == joint.decode(data, realism=0, steps=2)


def test_the_finest_step_goes_through_it_too(joint: RatevarCodec, plain: RatevarCodec, picture: Image.Image) -> None:
    data = joint.encode(picture, q_index=joint.q_index_range[0])
    assert difference(joint.decode(data, realism=0), plain.decode(data, realism=0)) > 0


def test_both_networks_are_told_the_realism(joint: RatevarCodec, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """f the step left in its state, q_T and ρ; g_s q_T twice and ρ."""
    f, g_s = joint.model.f, joint.model.g_s
    assert f is not None
    told: dict[str, list[list[float]]] = {"f": [], "g_s": []}
    for name, network in (("f", f), ("g_s", g_s)):
        condition = network.condition.forward

        def keep(scalars: torch.Tensor, name: str = name, condition: object = condition) -> torch.Tensor:
            told[name].append(scalars.flatten().tolist())
            assert callable(condition)
            return condition(scalars)

        monkeypatch.setattr(network.condition, "forward", keep)
    joint.decode(data, realism=0.5, steps=2)
    file, low = (log2_q_of(index) for index in (200, joint.q_index_range[0]))
    steps = [file / 3 - 1, (file + low) / 2 / 3 - 1]
    assert told["g_s"] == [pytest.approx([steps[0], steps[0], end]) for end in (-1, 1)]
    assert told["f"] == [pytest.approx([step, steps[0], end]) for end in (-1, 1) for step in steps]


def test_between_its_ends_the_knob_is_a_line(joint: RatevarCodec, data: bytes) -> None:
    low, high, middle = (np.asarray(joint.decode(data, realism=rho), dtype=float) for rho in (0, 1, 0.25))
    assert np.abs(low - high).max() > 3
    assert np.abs(0.75 * low + 0.25 * high - middle).max() <= 1


@pytest.mark.parametrize("realism", [0.0, 0.5, 1.0])
def test_tuning_decodes_as_the_codec_does(
    joint: RatevarCodec, picture: Image.Image, data: bytes, realism: float
) -> None:
    drawn = decode(joint.model, joint.dequantise(parse(data)), Setting(realism, JOINT).essence()).picture
    ours = (drawn.clamp(0, 1) * 255).round()[0, :, : picture.height, : picture.width].permute(1, 2, 0).numpy()
    assert np.abs(ours - np.asarray(joint.decode(data, realism=realism))).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("realism", [0.0, 0.5, 1.0])
def test_windows_and_regions_give_the_same_image(
    weights: Weights, photo: Image.Image, realism: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = codec_of(weights)
    assert codec.model.f is not None
    q_map = np.random.default_rng(0).integers(150, 345, (13, 30))
    data = codec.encode(photo.crop((0, 0, 480, 200)), q_index=q_map)
    for steps in (1, 2):
        whole = codec.decode(data, realism=realism, steps=steps)
        for x, y, w, h in ((37, 51, 60, 40), (300, 0, 180, 200), (0, 130, 3, 5)):
            part = codec.decode(data, realism=realism, steps=steps, region=(x, y, w, h))
            assert difference(part, whole.crop((x, y, x + w, y + h))) <= 1
        with monkeypatch.context() as patch:
            for window in (6, 10):
                patch.setattr(RatevarCodec, "window", window)
                assert difference(codec.decode(data, realism=realism, steps=steps), whole) <= 1
            patch.setattr(RatevarCodec, "window", 6)
            patch.setattr(codec.model.f, "halo", 0)
            assert difference(codec.decode(data, realism=realism, steps=steps), whole) > 3
