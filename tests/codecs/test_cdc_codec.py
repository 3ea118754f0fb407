"""What is particular to the codec of `cdc`: how it draws, what steps and seeds mean to it, and every way to build it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import difference
from PIL import Image
from torch import Tensor

import unquant
from unquant.codecs import cdc
from unquant.codecs.cdc import CdcCodec
from unquant.codecs.latent import AnyLatentCodec
from unquant.codecs.ratevar import RatevarCodec
from unquant.coding import gaussian_tables, scale_grid
from unquant.container import parse, parse_header
from unquant.diffusion.noise import seeded_noise
from unquant.errors import ModelMissing, OptionError, WeightsError
from unquant.families import family_of
from unquant.networks.cdc import CdcConfig
from unquant.networks.common import log2_q_of
from unquant.networks.config import EntropyConfig
from unquant.networks.ratevar import RatevarConfig
from unquant.nn.compressor import CompressorConfig
from unquant.nn.denoiser import DenoiserConfig
from unquant.weights_file import Weights, group_hashes, read_weights


def untrained(config: RatevarConfig | CdcConfig, seed: int = 0) -> Weights:
    """Weights of random numbers, small enough for symbols to stay small."""
    family = {CdcConfig: "cdc", RatevarConfig: "ratevar"}[type(config)]
    torch.manual_seed(seed)
    tensors = {
        name: 0.2 * torch.randn(tensor.shape) / max(1, tensor[0].numel() if tensor.ndim else 1) ** 0.5
        if "linear" not in name
        else tensor
        for name, tensor in family_of(family).load("model")(config).state_dict().items()
    }
    grid = scale_grid(config.entropy.scale_low, config.entropy.scale_high, config.entropy.scales)
    tables = gaussian_tables(grid).to_arrays()
    tensors |= {f"tables.{name}": torch.from_numpy(array.copy()) for name, array in tables.items()}
    return Weights(family, config.to_dict(), tensors, group_hashes(family, config.to_dict(), tensors), {})


@pytest.fixture(scope="module")
def codec(tiny_cdc_weights: Path) -> CdcCodec:
    """A codec in float32 throughout: bfloat16 would round what windows leave the same."""
    codec = CdcCodec.from_file(tiny_cdc_weights)
    codec.precision = torch.float32
    return codec


@pytest.fixture(scope="module")
def data(codec: CdcCodec, picture: Image.Image) -> bytes:
    return codec.encode(picture, q_index=200)


# --- the drawing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("realism", "steps"), [(0.0, 1), (0.0, 3), (1.0, 2)])
def test_a_decode_is_the_model_s_sampler(codec: CdcCodec, data: bytes, realism: float, steps: int) -> None:
    """On ŷ, in one piece, from seeded noise that covers the padding too."""
    side = codec.dequantise(parse(data))
    noise = seeded_noise(5, 0, 3, 144, 208) if realism else None
    with torch.inference_mode():
        x = codec.model.sample(codec.model.g_s(side.y_file), side.log2_q_file, realism, noise, steps=steps)
    expected = x[0, :, :140, :200].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    found = np.asarray(codec.decode(data, realism=realism, steps=steps, seed=5), int)
    assert np.abs(found - expected).max() <= 1


def test_between_its_ends_the_knob_is_a_line(codec: CdcCodec, data: bytes) -> None:
    """(1−ρ)·x̂_0 + ρ·x̂_1, rounded once."""
    plain, drawn = (np.asarray(codec.decode(data, realism=rho), float) for rho in (0.0, 1.0))
    assert np.abs(plain - drawn).max() > 3
    for rho in (0.25, 0.9):
        found = np.asarray(codec.decode(data, realism=rho), float)
        assert np.abs(found - (1 - rho) * plain - rho * drawn).max() <= 1.0


@pytest.mark.slow
def test_one_seed_gives_one_image_and_realism_0_needs_none(codec: CdcCodec, photo: Image.Image, data: bytes) -> None:
    other = codec.encode(photo.crop((300, 200, 333, 217)), q_index=250)
    for seed in (0, 2**64 - 1):
        first = codec.decode(data, realism=1, seed=seed)
        assert codec.decode([other, data, other, data], realism=1, seed=seed)[1::2] == [first, first]
    assert difference(codec.decode(data, realism=1, seed=1), codec.decode(data, realism=1, seed=2)) > 3
    assert codec.decode(data, realism=0, seed=1) == codec.decode(data, realism=0, seed=2)


def test_the_noise_is_that_of_the_seed(codec: CdcCodec, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw for the whole plane, padding included: what an image looks like hangs on this key."""
    asked: list[tuple[int, ...]] = []

    def keep(*key: int, top: int, left: int) -> Tensor:
        assert (top, left) == (0, 0)
        asked.append(key)
        return seeded_noise(*key)

    monkeypatch.setattr(cdc, "seeded_noise", keep)
    codec.decode(data, realism=1, seed=7)
    codec.decode(data, realism=0, seed=7)
    assert asked == [(7, 0, 3, 144, 208)]


def test_one_file_serves_every_realism(codec: CdcCodec, picture: Image.Image, data: bytes) -> None:
    asking = codec.encode(picture, q_index=200, realism=0.9, steps=5, seed=3)
    assert [tile.stream for tile in parse(asking).tiles] == [tile.stream for tile in parse(data).tiles]
    assert codec.decode(asking) == codec.decode(data, realism=0.9, steps=5, seed=3)
    assert codec.decode(asking, realism=0, steps=2) == codec.decode(data, realism=0, steps=2)


# --- windows --------------------------------------------------------------------------------------------------------


def with_attention(weights: Weights, attention: str) -> CdcCodec:
    """The tiny model with untrained attention in f, blocks of 2×2 coarsest positions."""
    config = CdcConfig.from_dict(weights.config)
    changed = replace(config, denoiser=replace(config.denoiser, attention=attention, block=2))
    codec = CdcCodec(replace(weights, config=changed.to_dict(), tensors=untrained(changed).tensors | weights.tensors))
    codec.precision = torch.float32
    return codec


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["none", "blocks"])
def test_windows_give_the_same_image(
    tiny_cdc_weights: Path, photo: Image.Image, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = with_attention(read_weights(tiny_cdc_weights), attention)
    q_map = np.random.default_rng(0).integers(150, 345, (21, 13))
    data = codec.encode(photo.rotate(90, expand=True).crop((0, 0, 200, 330)), q_index=q_map)
    whole = codec.decode(data, realism=1, seed=3)
    for window in (1, 6, 11):
        monkeypatch.setattr(CdcCodec, "window", window)
        assert difference(codec.decode(data, realism=1, seed=3), whole) <= 1
    monkeypatch.setattr(codec.model.f, "halo", 0)
    assert difference(codec.decode(data, realism=1, seed=3), whole) > 3


def test_global_attention_is_run_in_one_piece(
    tiny_cdc_weights: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = with_attention(read_weights(tiny_cdc_weights), "global")
    data = codec.encode(photo.crop((0, 0, 200, 90)), q_index=200)
    whole = codec.decode(data, realism=1)
    monkeypatch.setattr(CdcCodec, "window", 2)
    assert difference(codec.decode(data, realism=1), whole) <= 1


# --- steps ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_steps(codec: CdcCodec, picture: Image.Image, data: bytes) -> None:
    images = {steps: codec.decode(data, realism=1, steps=steps) for steps in (1, 2, 5, 200)}
    assert len({image.tobytes() for image in images.values()}) == 4
    assert codec.decode(data, realism=1) == images[codec.config.steps]
    assert parse_header(data)[0].steps is parse_header(codec.encode(picture, steps=2))[0].steps is None
    asking = codec.encode(picture, q_index=200, steps=5, realism=1.0)
    assert unquant.info(asking).steps == 5
    assert codec.decode(asking) == images[5]
    # a preview is as fast as it can be had, whatever the file asks for
    assert codec.decode(asking, preview=True) == codec.decode(data, realism=0, steps=1)
    assert codec.decode(asking, preview=True, steps=3) == codec.decode(data, realism=0, steps=3)


def test_f_is_run_as_often_as_asked(tiny_cdc_weights: Path, picture: Image.Image) -> None:
    codec = CdcCodec.from_file(tiny_cdc_weights)
    calls: list[int] = []
    codec.model.f.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    asking = codec.encode(picture, q_index=150, steps=3)
    counts: list[int] = []
    for options in ({"realism": 0.0}, {"realism": 0.0, "steps": 5}, {"preview": True}, {"realism": 0.5}):
        calls.clear()
        codec.decode(asking, **options)
        counts.append(len(calls))
    assert counts == [3, 5, 1, 6]


@pytest.mark.parametrize("steps", [0, -1, 257, 2.0, True])
def test_steps_out_of_range(codec: CdcCodec, picture: Image.Image, data: bytes, steps: Any) -> None:
    for work in (lambda: codec.decode(data, steps=steps), lambda: codec.encode(picture, steps=steps)):
        with pytest.raises(OptionError, match=rf"^steps must be a whole number in 1..256, got {steps}$"):
            work()


@pytest.mark.slow
def test_a_schedule_of_few_levels(tiny_cdc_weights: Path, codec: CdcCodec, picture: Image.Image) -> None:
    """Weights of the same stream id may have fewer levels than a file asks steps for; a caller is told."""
    weights = read_weights(tiny_cdc_weights)
    few = CdcCodec(replace(weights, config=weights.config | {"train_steps": 40}))
    assert few.stream_id == codec.stream_id
    asking = codec.encode(picture, q_index=200, steps=100)
    assert few.decode(asking) == few.decode(asking, steps=40)
    with pytest.raises(OptionError, match=r"in 1\.\.40, got 41"):
        few.decode(asking, steps=41)


# --- beside the other family ----------------------------------------------------------------------------------------


def test_families_are_told_apart(
    codec: CdcCodec,
    tiny: RatevarCodec,
    tiny_weights: Path,
    tiny_cdc_weights: Path,
    picture: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, other = codec.encode(picture, q_index=100), tiny.encode(picture, q_index=100)
    with pytest.raises(ModelMissing, match="this file needs cdc weights"):
        tiny.decode(data)
    with pytest.raises(ModelMissing, match="this file needs ratevar weights"):
        codec.decode(other)
    with pytest.raises(WeightsError, match="of the family 'cdc', not ratevar"):
        RatevarCodec.from_file(tiny_cdc_weights)
    with pytest.raises(WeightsError, match="of the family 'ratevar', not cdc"):
        CdcCodec.from_file(tiny_weights)
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(tiny_weights.parent))
    assert isinstance(unquant.load("tiny_cdc"), CdcCodec)
    assert [unquant.info(each).family for each in (data, other)] == ["cdc", "ratevar"]
    assert unquant.decode(other, realism=0) == tiny.decode(other, realism=0)
    assert unquant.decode(data, preview=True).size == picture.size


# --- every way to build it ------------------------------------------------------------------------------------------

SMALL = EntropyConfig(hyper=8, width=16, context=16, hidden=24, cond=8, scale_high=32.0, scales=32)
PAPER_LIKE = CdcConfig(
    compressor=CompressorConfig(16, 1, (4, 6, 8, 16), (1, 1, 1, 1), (4, 4, 6, 8), (1, 1, 1, 1), 7, False),
    denoiser=DenoiserConfig(
        (4, 6, 8, 8, 8, 8), (1,) * 6, (4, 6, 8, 8, 8), (1,) * 5, 8, 0, 1, "global", 16, False, 7, False
    ),
    entropy=SMALL,
)


def build(weights: Weights, which: str) -> AnyLatentCodec:
    trained = CdcConfig.from_dict(weights.config)
    match which:
        case "epsilon":
            config: CdcConfig = replace(trained, parameterisation="epsilon", schedule="linear", train_steps=2000)
        case "checkerboard":
            config = replace(trained, entropy=SMALL)
        case "as published":
            config = PAPER_LIKE
        case _:
            config = RatevarConfig(
                latent=16, analysis_width8=8, analysis_width16=8, synthesis_width16=8, synthesis_width8=8, synthesis_depth8=1,
                cond=8, tile=8, entropy=trained.entropy,
            )  # fmt: skip
    made = untrained(config)
    # of realism, more than rounding is to be seen in the picture
    drawing = "f." if isinstance(config, CdcConfig) else "g_s."
    made.tensors.update(
        {name: 8 * tensor for name, tensor in made.tensors.items() if name.startswith(drawing) and "linear" not in name}
    )
    return CdcCodec(made) if isinstance(config, CdcConfig) else RatevarCodec(made)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["epsilon", "checkerboard", "as published", "ratevar with an Entroformer"])
def test_other_configurations_make_files(tiny_cdc_weights: Path, photo: Image.Image, which: str) -> None:
    codec = build(read_weights(tiny_cdc_weights), which)
    picture = photo.crop((100, 80, 270, 150))
    data = codec.encode(picture, q_index=100)
    images = [codec.decode(data, realism=1), codec.decode(data, realism=1), codec.decode(data, realism=0)]
    assert images[0] == images[1]
    assert np.abs(np.asarray(images[0], int) - np.asarray(images[2], int)).max() > 1
    assert {image.size for image in images} == {(170, 70)}
    side = codec.dequantise(parse(data))
    y = codec.analyse(np.asarray(picture))
    # but for what is not coded, ŷ is within half a step of y, and where that saves bits a step further towards 0
    coded = side.t >= 0
    assert bool(coded.any())
    assert float(((side.y_file - y).abs() * coded).max()) <= 1.51 * 2 ** log2_q_of(100)
