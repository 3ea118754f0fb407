"""The compressor of `cdc`: its published size, its budgets, its start as a transform codec, its windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from networks import kilo_macs, parameter_count, shaken
from unquant.codecs.windows import run_windowed
from unquant.errors import OptionError
from unquant.nn.compressor import CompressorConfig, CompressorEncoder, Context, ContextDecoder
from unquant.nn.transforms import LATENT_GAIN, Analysis, Synthesis, klt_basis

SMALL = CompressorConfig(latent=7, widths=(8, 9, 11), maps=(10, 12, 13))
"""The default's depths; no two widths alike, so that one taken for another does not fit."""
SMALL_PAPER = replace(CompressorConfig.paper(), latent=8, widths=(9, 10, 11, 8), maps=(7, 12, 13, 14))
SHALLOW = replace(SMALL, unshuffle=8, widths=(8, 9), depths=(1, 1), maps=(10, 12), map_depths=(1, 2))
CONFIGS = {"default": SMALL, "paper": SMALL_PAPER, "shallow": SHALLOW}


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_published_size() -> None:
    """13.8 M parameters, of which 8.3 M are those of the published hyperprior, in whose place the Entroformer is."""
    config = CompressorConfig.paper()
    with torch.device("meta"):
        encoder, decoder = CompressorEncoder(config), ContextDecoder(config)
        y = encoder(torch.rand(1, 3, 96, 160))
        context = decoder(y)
    assert parameter_count(encoder, decoder) == 5_441_344
    assert y.shape == (1, 256, 6, 10)
    assert [tuple(m.shape[1:]) for m in context.maps] == [(64, 96, 160), (64, 48, 80), (128, 24, 40), (192, 12, 20)]
    assert (context.base, context.stride) == (None, 1)


def test_default_keeps_its_budgets() -> None:
    config = CompressorConfig()
    encoder, decoder = CompressorEncoder(config), ContextDecoder(config)
    y, analysis = kilo_macs(lambda: encoder(torch.rand(1, 3, 32, 48)), 32 * 48)
    context, synthesis = kilo_macs(lambda: decoder(y), 32 * 48)
    assert y.shape == (1, 256, 2, 3)
    assert [tuple(m.shape[1:]) for m in context.maps] == [(64, 8, 12), (128, 4, 6), (192, 2, 3)]
    assert context.base.shape == (1, 3, 32, 48)
    assert analysis <= 25
    assert synthesis <= 15
    assert parameter_count(encoder, decoder) <= 4_000_000


@pytest.mark.parametrize("name", CONFIGS)
def test_shapes(name: str) -> None:
    config = CONFIGS[name]
    encoder, decoder = CompressorEncoder(config), ContextDecoder(config)
    y = encoder(torch.rand(2, 3, 48, 80))
    assert y.shape == (2, config.latent, 3, 5)
    assert y.dtype == torch.float32
    context = decoder(y)
    assert context.stride == config.unshuffle
    strides = [config.unshuffle << i for i in range(len(config.maps))]
    expected = [(2, width, 48 // s, 80 // s) for width, s in zip(config.maps, strides, strict=True)]
    assert [tuple(m.shape) for m in context.maps] == expected
    part = context.window(1, 3, 2, 5)
    assert [tuple(m.shape) for m in part.maps] == [
        (2, width, 32 // s, 48 // s) for (_, width, *_), s in zip(expected, strides, strict=True)
    ]
    for whole, cut, s in zip(context.maps, part.maps, strides, strict=True):
        assert torch.equal(cut, whole[..., 16 // s :, 32 // s :])
    assert (part.base is None) == (not config.linear)
    if context.base is not None and part.base is not None:
        assert torch.equal(part.base, context.base[..., 16:, 32:])


# --- the linear path ------------------------------------------------------------------------------------------------


def test_starts_as_a_transform_codec(photo: Image.Image) -> None:
    x = torch.from_numpy(np.array(photo.crop((100, 100, 228, 196)))).permute(2, 0, 1)[None].float() / 255
    patches = nn.functional.pixel_unshuffle(x, 16).flatten(2)[0].T
    config = replace(SMALL, latent=40)
    encoder, decoder = CompressorEncoder(config), ContextDecoder(config)
    g_a, g_s = Analysis(40, 4, 0, 4, 0), Synthesis(40, 4, 0, 4, 0, 4)
    one = torch.ones(1, 1, 1, 1)
    for basis in (None, klt_basis(patches, 40)[0]):
        if basis is not None:
            for network in (encoder, decoder, g_a, g_s):
                network.start_from(basis)
        with torch.no_grad():
            y = encoder(x)
            torch.testing.assert_close(y, g_a(x))
            base = decoder(y.round()).base
            torch.testing.assert_close(base, g_s(y.round(), one, one, one))
    error = (base - x).square().mean().sqrt()
    assert error < 0.5 * (x - 0.5).square().mean().sqrt()
    # an orthonormal basis: the latent has the image's energy
    assert y.square().sum() <= LATENT_GAIN**2 * (x - 0.5).square().sum() * (1 + 1e-5)


def test_without_a_linear_path_there_is_nothing_to_start() -> None:
    for network in (CompressorEncoder(SMALL_PAPER), ContextDecoder(SMALL_PAPER)):
        assert network.linear is None
        with pytest.raises(AssertionError):
            network.start_from(torch.zeros(8, 768))


# --- what depends on what -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    config = CONFIGS[name]
    encoder, decoder = shaken(CompressorEncoder(config)), shaken(ContextDecoder(config))
    context: Context = decoder(encoder(random(1, 3, 32, 48)).double())
    loss = sum((m * random(*m.shape)).sum() for m in context.maps)
    if context.base is not None:
        loss = loss + context.base.square().sum()
    loss.backward()
    for network in (encoder, decoder):
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert bool(torch.isfinite(parameter.grad).all()), key
            assert bool(parameter.grad.any()), key


def reach(network: Callable[[Tensor], Tensor], read: Tensor, scale: int, out_scale: int) -> int:
    """How many positions off the middle one the input is felt in the middle one's output, along the last axis.

    read: an input of `scale` columns a position. By gradients, as far off the change of a value is below its rounding.
    """
    middle = read.shape[-1] // scale // 2
    read = read.clone().requires_grad_()
    out = network(read)[..., middle * out_scale : (middle + 1) * out_scale]
    (gradient,) = torch.autograd.grad((out * random(*out.shape, seed=2)).sum(), read)
    felt = gradient.abs().amax(dim=(0, 1, 2)).unflatten(0, (-1, scale)).amax(1).nonzero().flatten()
    return max(middle - int(felt.min()), int(felt.max()) - middle)


@pytest.mark.parametrize("name", CONFIGS)
def test_halos_are_the_receptive_fields(name: str) -> None:
    config = CONFIGS[name]
    encoder, decoder = shaken(CompressorEncoder(config)), shaken(ContextDecoder(config))
    assert reach(encoder, random(1, 3, 32, 16 * 21), 16, 1) == encoder.halo
    y = random(1, config.latent, 2, 21) * 16
    felt = [
        reach(lambda read, i=i: decoder(read).maps[i], y, 1, 16 // (config.unshuffle << i))
        for i in range(len(config.maps))
    ]
    assert max(felt) == felt[0] == decoder.halo


def test_default_in_windows() -> None:
    encoder, decoder = shaken(CompressorEncoder(SMALL)).float(), shaken(ContextDecoder(SMALL)).float()
    assert (encoder.halo, decoder.halo) == (
        CompressorEncoder(CompressorConfig()).halo,
        ContextDecoder(CompressorConfig()).halo,
    )
    x, size = random(1, 3, 16 * 11, 16 * 19).float(), (11, 19)
    with torch.no_grad():
        y = encoder(x)
        windowed = run_windowed(
            lambda t, b, lf, r: encoder(x[..., 16 * t : 16 * b, 16 * lf : 16 * r]),
            torch.empty_like(y),
            size,
            5,
            encoder.halo,
            1,
        )
        torch.testing.assert_close(windowed, y, rtol=1e-5, atol=1e-4)
        whole = decoder(y)
        for i, plane in enumerate(whole.maps):
            windowed = run_windowed(
                lambda t, b, lf, r, i=i: decoder(y[..., t:b, lf:r]).maps[i],
                torch.empty_like(plane),
                size,
                5,
                decoder.halo,
                4 >> i,
            )
            torch.testing.assert_close(windowed, plane, rtol=1e-5, atol=1e-4)


# --- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"latent": 0}, "latent"),
        ({"latent": 800}, "latent"),
        ({"latent": 300, "linear": False}, "latent"),
        ({"unshuffle": 3}, "unshuffle"),
        ({"unshuffle": 16}, "unshuffle"),
        ({"widths": (64,)}, "widths"),
        ({"widths": ()}, "widths"),
        ({"widths": (64, 0, 64)}, "widths.1"),
        ({"depths": (1, 1)}, "depths"),
        ({"maps": (4, 4, 4, 4)}, "maps"),
        ({"map_depths": (1, 1)}, "map_depths"),
        ({"kernel": 4}, "kernel"),
        ({"kernel": -1}, "kernel"),
    ],
)
def test_sizes_out_of_range_are_refused(values: dict[str, Any], cause: str) -> None:
    with pytest.raises(OptionError, match=f"^{cause}: "):
        CompressorConfig(**values)
