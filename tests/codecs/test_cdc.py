"""The `cdc` codec on a small model: a transform codec at the start of training, with an entropy model that says something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import exactness
import numpy as np
import pytest
import torch
from PIL import Image

import unquant
from unquant.codecs.cdc import CdcCodec
from unquant.codecs.ratevar import RatevarCodec
from unquant.coding import gaussian_tables, scale_grid
from unquant.container import parse
from unquant.entropy.entroformer import EntroformerConfig
from unquant.entropy.exact import GUARD
from unquant.errors import CorruptStream, ModelMissing, OptionError, WeightsError
from unquant.models.cdc import Cdc, CdcConfig
from unquant.models.config import EntropyConfig
from unquant.nn.compressor import CompressorConfig
from unquant.nn.denoiser import DenoiserConfig
from unquant.weights import Weights, read_weights, write_weights

CONFIG = CdcConfig(
    tile=8,
    train_steps=1000,
    steps=3,
    default_realism=0.5,
    compressor=CompressorConfig(16, 4, (6, 8, 8), (1, 1, 1), (6, 8, 8), (1, 1, 1)),
    denoiser=DenoiserConfig((8, 10, 12), (1, 1, 1), (10, 12), (1, 1), 12, 2),
    entropy=EntropyConfig(
        scale_high=32.0,
        scales=32,
        entroformer=EntroformerConfig(hyper=6, width=16, heads=2, depth=1, hidden=24, top=4, window=4, cond=6),
    ),
)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = Cdc(CONFIG)
    for module in (model.entropy, model.f, model.g_s.stages, model.g_s.ups):
        for p in module.parameters():
            if p is not model.entropy.log2_std and p.ndim > 1:
                torch.nn.init.normal_(p, std=0.05)
    tables = gaussian_tables(scale_grid(0.12, 32.0, 32)).to_arrays()
    tensors = {name: tensor.half() for name, tensor in model.state_dict().items()}
    tensors |= {f"tables.{name}": torch.from_numpy(array.copy()) for name, array in tables.items()}
    path = tmp_path_factory.mktemp("cdc") / "small.safetensors"
    write_weights(path, "cdc", CONFIG.to_dict(), tensors, {})
    return path


@pytest.fixture(scope="module")
def weights(weights_file: Path) -> Weights:
    return read_weights(weights_file)


@pytest.fixture(scope="module")
def codec(weights: Weights) -> CdcCodec:
    codec = CdcCodec(weights)
    codec._precision = torch.float32
    return codec


@pytest.fixture(scope="module")
def picture(photo: Image.Image) -> Image.Image:
    """Neither side a multiple of 16; four tiles."""
    return photo.crop((200, 120, 350, 265))


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float)


def test_a_file_comes_back(codec: CdcCodec, picture: Image.Image) -> None:
    fine, coarse = codec.encode(picture, q_index=16), codec.encode(picture, q_index=250)
    assert len(parse(fine).tiles) == 4
    assert len(coarse) < len(fine)
    assert parse(fine).header.family == "cdc"
    for data in (fine, coarse):
        assert codec.decode(data).size == picture.size
        # the encoder's symbols are the decoder's, to the last bit
        with exactness.recorded_tiles(codec.exact) as tiles:
            again = codec.encode(picture, q_index=parse(data).header.q_index)
            codec.decode(again)
        assert again == data
        half = len(tiles) // 2
        assert exactness.digest(tiles[:half]) == exactness.digest(tiles[half:])


def test_targets_are_met_from_below(codec: CdcCodec, picture: Image.Image) -> None:
    high = len(codec.encode(picture, quality=60))
    data = codec.encode(picture, target_bytes=high)
    assert 0.98 * high - 16 <= len(data) <= high


def test_realism_is_the_line_between_two_decodes(codec: CdcCodec, picture: Image.Image) -> None:
    data = codec.encode(picture, q_index=150)
    plain, drawn, half = (array(codec.decode(data, realism=rho)) for rho in (0.0, 1.0, 0.5))
    assert np.abs(plain - drawn).max() > 2
    assert np.abs(half - (plain + drawn) / 2).max() <= 1
    assert np.array_equal(array(codec.decode(data)), half)  # the weights' default
    assert not np.array_equal(array(codec.decode(data, realism=1.0, seed=1)), drawn)
    assert np.array_equal(array(codec.decode(data, realism=0.0, seed=1)), plain)  # nothing is drawn there


def test_steps_and_preview(codec: CdcCodec, picture: Image.Image) -> None:
    calls: list[int] = []
    codec.model.f.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    data = codec.encode(picture, q_index=150, steps=2)
    counts: list[int] = []
    for options in ({"realism": 0.0}, {"realism": 0.0, "steps": 5}, {"preview": True}, {"realism": 0.5}):
        calls.clear()
        codec.decode(data, **options)
        counts.append(len(calls))
    codec.model.f._forward_pre_hooks.clear()
    assert counts == [2, 5, 1, 4]  # the file asks for two steps, which a preview does not wait for
    bare = codec.encode(picture, q_index=150)
    assert np.array_equal(array(codec.decode(bare, preview=True)), array(codec.decode(bare, realism=0.0, steps=1)))
    for steps in (0, 257, 1.5, True):
        with pytest.raises(OptionError, match="steps must be a whole number in 1"):
            codec.decode(bare, steps=steps)


@pytest.mark.parametrize("attention", ["none", "blocks", "global"])
def test_windows_give_the_same_picture(
    weights: Weights, picture: Image.Image, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, denoiser=replace(CONFIG.denoiser, attention=attention, block=4))
    torch.manual_seed(1)
    fresh = {name: tensor.half() for name, tensor in Cdc(config).state_dict().items()}
    codec = CdcCodec(Weights("cdc", config.to_dict(), fresh | weights.tensors, weights.hashes, {}))
    codec._precision = torch.float32
    data = codec.encode(picture, q_index=150)
    whole = array(codec.decode(data, realism=1.0))
    monkeypatch.setattr(CdcCodec, "window", 4)
    assert np.abs(array(codec.decode(data, realism=1.0)) - whole).max() <= 1


def test_the_same_symbols_whatever_the_rounding(codec: CdcCodec, picture: Image.Image) -> None:
    data, right = exactness.encode_recorded(codec, picture, q_index=60)
    with exactness.recorded_grids() as clean:
        assert exactness.decode_digest(codec, data) == right
    for seed in (1, 2):
        with exactness.recorded_grids() as grids, exactness.disturbed(codec.exact, 1e-12, seed) as noise:
            assert exactness.decode_digest(codec, data) == right
        assert sum(noise.disturbed.values()) > 40
        assert 1e-14 < exactness.deviation(clean, grids) < GUARD


def test_damage_is_an_error(codec: CdcCodec, picture: Image.Image) -> None:
    data = codec.encode(picture, q_index=100)
    stream = parse(data).tiles[2].stream
    place = data.index(stream) + len(stream) // 2
    with pytest.raises(CorruptStream):
        codec.decode(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])


def test_families_are_told_apart(
    codec: CdcCodec, weights: Weights, tiny: RatevarCodec, tiny_weights: Path, picture: Image.Image
) -> None:
    with pytest.raises(ModelMissing, match="this file needs cdc weights"):
        tiny.decode(codec.encode(picture, q_index=100))
    with pytest.raises(ModelMissing, match="this file needs ratevar weights"):
        codec.decode(tiny.encode(picture, q_index=100))
    with pytest.raises(WeightsError, match="of the family 'cdc', not ratevar"):
        RatevarCodec(weights)
    with pytest.raises(WeightsError, match="of the family 'ratevar', not cdc"):
        CdcCodec(read_weights(tiny_weights))


def test_the_public_surface_finds_the_family(
    weights_file: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(weights_file.parent))
    data = unquant.encode(picture, model="small", q_index=100)
    assert isinstance(unquant.load("small"), CdcCodec)
    assert unquant.info(data).family == "cdc"
    assert unquant.decode(data, preview=True).size == picture.size


def test_groups_of_the_hashes(weights: Weights) -> None:
    """What is not needed for the symbols may change without breaking a file."""
    assert set(weights.hashes) == {"analysis", "stream", "synthesis", "reverse"}
    latents = [Cdc(replace(CONFIG, compressor=replace(CONFIG.compressor, latent=n))).config.to_dict() for n in (16, 24)]
    from unquant.weights import group_hashes

    assert group_hashes("cdc", latents[0], {})["stream"] != group_hashes("cdc", latents[1], {})["stream"]
