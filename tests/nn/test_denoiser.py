"""The denoising U-Net of `cdc`: its published size, its budget, its start, what reaches its output, its windows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import kilo_macs, normal, parameter_count, shaken
from unquant.codecs.windows import run_windowed
from unquant.errors import OptionError
from unquant.nn.attention import AttentionResidual, ChannelNorm, LinearAttention
from unquant.nn.compressor import CompressorConfig, CompressorEncoder, Context, ContextDecoder
from unquant.nn.denoiser import Denoiser, DenoiserConfig

COMPRESSOR = CompressorConfig(latent=7, widths=(5, 6, 8), maps=(4, 9, 10))
PAPER_COMPRESSOR = replace(CompressorConfig.paper(), latent=8, widths=(4, 5, 6, 8), maps=(3, 7, 9, 10))
DEFAULT = DenoiserConfig(widths=(5, 8, 11), up_widths=(6, 7), cond=9)
PAPER = replace(DenoiserConfig.paper(), widths=(5, 6, 7, 8, 9, 10), up_widths=(4, 6, 11, 12, 13), cond=14)
CONFIGS = {
    "default": (DEFAULT, COMPRESSOR),
    "blocks": (replace(DEFAULT, attention="blocks", block=4), COMPRESSOR),
    "raw": (replace(DEFAULT, residual=False, skip=False), COMPRESSOR),
    "paper": (PAPER, PAPER_COMPRESSOR),
}
"""No two widths alike, so that one taken for another does not fit."""


def context_of(compressor: CompressorConfig, h16: int, w16: int, batch: int = 1) -> Context:
    """Random maps of the right shapes."""
    maps = tuple(
        normal(batch, width, h16 * 16 // (compressor.unshuffle << i), w16 * 16 // (compressor.unshuffle << i), seed=i)
        for i, width in enumerate(compressor.maps)
    )
    base = normal(batch, 3, 16 * h16, 16 * w16, seed=9) if compressor.linear else None
    return Context(maps, base, compressor.unshuffle)


def scalar(value: float, batch: int = 1) -> Tensor:
    return torch.full((batch,), value, dtype=torch.float64)


def told(network: Denoiser, realism: float, batch: int = 1, rate: float = 0.3) -> Tensor:
    """Realism and, for networks that hear it, the rate: (batch, scalars)."""
    return torch.tensor([[realism, rate]] * batch, dtype=torch.float64)[:, : network.config.scalars]


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_published_size() -> None:
    compressor = CompressorConfig.paper()
    with torch.device("meta"):
        network, decoder = Denoiser(DenoiserConfig.paper(), compressor), ContextDecoder(compressor)
        context, x, one = decoder(torch.rand(1, 256, 32, 48)), torch.rand(1, 3, 512, 768), torch.rand(1)
        out, macs = kilo_macs(lambda: network(x, one, context, one[:, None]), 512 * 768)
    assert out.shape == (1, 3, 512, 768)
    assert parameter_count(network) == pytest.approx(40.1e6, rel=0.01)
    assert macs * 512 * 768 / 1e6 == pytest.approx(387, rel=0.03)
    assert network.halo is None
    assert network.align is None


def test_default_keeps_its_budgets() -> None:
    """16 M parameters in all: 4 M and more are left to the entropy model."""
    compressor = CompressorConfig()
    encoder, decoder, network = (
        CompressorEncoder(compressor),
        ContextDecoder(compressor),
        Denoiser(DenoiserConfig(), compressor),
    )
    x, one = torch.rand(1, 3, 32, 48), torch.rand(1)
    with torch.no_grad():
        context = decoder(encoder(x))
    _, macs = kilo_macs(lambda: network(x, one, context, torch.rand(1, 2)), 32 * 48)
    assert macs <= 80
    assert parameter_count(encoder, decoder, network) <= 12_000_000
    assert (network.halo, network.align) == (15, 1)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_shapes_and_start(name: str, size: tuple[int, int]) -> None:
    """0 at the start; levels may be of odd size."""
    config, compressor = CONFIGS[name]
    network = Denoiser(config, compressor).double()
    context = context_of(compressor, *size, batch=2)
    x = normal(2, 3, 16 * size[0], 16 * size[1])
    out = network(x, scalar(0.5, 2), context, told(network, 0.9, 2))
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    assert not out.any()


def test_odd_levels_line_up() -> None:
    """What is rounded up on the way down is cut on the way up: far from the border nothing changes."""
    config, compressor = CONFIGS["paper"]
    network = shaken(Denoiser(replace(config, attention="none"), compressor)).requires_grad_(False)
    context, x = context_of(compressor, 1, 61), normal(1, 3, 16, 16 * 61)
    whole = network(x, scalar(0.5), context, told(network, 0.0))
    part = network(x[..., : 16 * 60], scalar(0.5), context.window(0, 1, 0, 60), told(network, 0.0))
    assert network.halo is not None
    assert network.halo < 50
    near = 16 * (60 - network.halo)
    torch.testing.assert_close(part[..., :near], whole[..., :near], rtol=1e-5, atol=1e-5)


# --- what depends on what -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_conditions_reach_the_output(name: str) -> None:
    config, compressor = CONFIGS[name]
    network = shaken(Denoiser(config, compressor)).requires_grad_(False)
    context, x = context_of(compressor, 2, 3), normal(1, 3, 32, 48)

    def run(
        x: Tensor = x, time: float = 0.5, context: Context = context, realism: float = 0.0, rate: float = 0.3
    ) -> Tensor:
        return network(x, scalar(time), context, told(network, realism, rate=rate))

    out = run()
    others = {"x_t": run(x=x + 0.1), "time": run(time=0.6), "realism": run(realism=0.9)}
    if config.scalars > 1:
        others["rate"] = run(rate=-0.4)
    for i, plane in enumerate(context.maps):
        maps = (*context.maps[:i], plane + normal(*plane.shape, seed=5), *context.maps[i + 1 :])
        others[f"map {i}"] = run(context=context._replace(maps=maps))
    if context.base is not None:
        others["base"] = run(context=context._replace(base=context.base.flip(-1)))
    for key, other in others.items():
        assert float((other - out).abs().max()) > 1e-3, key


def test_images_of_a_batch_are_on_their_own() -> None:
    config, compressor = CONFIGS["blocks"]
    network = shaken(Denoiser(config, compressor)).requires_grad_(False)
    context, x = context_of(compressor, 2, 3, batch=2), normal(2, 3, 32, 48)
    time, scalars = torch.tensor([0.2, 0.7]).double(), torch.tensor([[0.0, -0.4], [0.9, 0.3]]).double()
    together = network(x, time, context, scalars)
    for i in (0, 1):
        one = Context(tuple(m[i : i + 1] for m in context.maps), context.base[i : i + 1], context.stride)
        alone = network(x[i : i + 1], time[i : i + 1], one, scalars[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    config, compressor = CONFIGS[name]
    network = shaken(Denoiser(config, compressor))
    out = network(normal(2, 3, 64, 48), scalar(0.5, 2), context_of(compressor, 4, 3, batch=2), told(network, 0.9, 2))
    (out * normal(*out.shape, seed=7)).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        assert bool(parameter.grad.any()), key


# --- windows --------------------------------------------------------------------------------------------------------


def test_halo_is_the_receptive_field() -> None:
    config, compressor = CONFIGS["default"]
    for depths, up_depths, halo in (((1, 2, 1), (2, 1), 15), ((1, 1, 1), (1, 1), 13), ((2, 1, 2), (1, 2), 17)):
        network = Denoiser(replace(config, depths=depths, up_depths=up_depths), compressor)
        shaken(network).requires_grad_(False)
        length, centre = 2 * halo + 5, halo + 2
        x = normal(1, 3, 32, 16 * length).requires_grad_()
        out = network(x, scalar(0.5), context_of(compressor, 2, length), told(network, 0.0))
        out = out[..., 16 * centre : 16 * centre + 16]
        # by gradients, as far off the change of a value is below its rounding
        (gradient,) = torch.autograd.grad((out * normal(*out.shape, seed=3)).sum(), x)
        columns = gradient.abs().amax(dim=(0, 1, 2)).unflatten(0, (-1, 16)).amax(1).nonzero().flatten()
        felt = max(centre - int(columns.min()), int(columns.max()) - centre)
        assert network.halo == halo
        assert felt == halo


@pytest.mark.parametrize(("name", "window"), [("default", 7), ("blocks", 8)])
def test_in_windows(name: str, window: int) -> None:
    config, compressor = CONFIGS[name]
    network = shaken(Denoiser(config, compressor)).float().requires_grad_(False)
    assert network.halo is not None
    assert network.align is not None
    assert network.halo % network.align == window % network.align == 0
    size = (5, 2 * network.halo + 11)
    context = context_of(compressor, *size)
    context = Context(tuple(m.float() for m in context.maps), context.base.float(), context.stride)
    x, half = normal(1, 3, 16 * size[0], 16 * size[1]).float(), scalar(0.5).float()
    scalars = told(network, 0.5).float()

    def run(top: int, bottom: int, left: int, right: int) -> Tensor:
        part = x[..., 16 * top : 16 * bottom, 16 * left : 16 * right]
        return network(part, half, context.window(top, bottom, left, right), scalars)

    whole = run(0, size[0], 0, size[1])
    windowed = run_windowed(run, torch.empty_like(whole), size, window, network.halo, 16)
    torch.testing.assert_close(windowed, whole, rtol=1e-4, atol=1e-4)
    clipped = run_windowed(run, torch.empty_like(whole), size, window, 0, 16)
    assert not torch.allclose(clipped, whole, rtol=1e-4, atol=1e-2)  # so a halo that is too small is seen


def test_default_size_in_windows() -> None:
    compressor = CompressorConfig()
    torch.manual_seed(0)
    network = Denoiser(DenoiserConfig(), compressor).requires_grad_(False)
    nn.init.normal_(network.head.weight, std=0.1)
    assert network.halo == 15
    size = (1, 24)
    context = context_of(compressor, *size)
    context = Context(tuple(m.float() for m in context.maps), context.base.float(), context.stride)
    x, half = normal(1, 3, 16, 16 * 24).float(), scalar(0.5).float()
    scalars = told(network, 0.5).float()
    whole = network(x, half, context, scalars)
    part = network(x[..., 16 * 5 :], half, context.window(0, 1, 5, 24), scalars)
    torch.testing.assert_close(part[..., 16 * 15 :], whole[..., 16 * 20 :], rtol=1e-5, atol=1e-5)


# --- attention ------------------------------------------------------------------------------------------------------


def dense(attention: LinearAttention, x: Tensor) -> Tensor:
    """The attention by its n×n weights: w_ij = Σ_d q_di·softmax_j(k_d)_j / √d, for one plane (1, c, h, w)."""
    c = x.shape[1]
    flat = attention.qkv.weight[:, :, 0, 0] @ x[0].flatten(1)
    q, k, v = flat[:c], flat[c : 2 * c], flat[2 * c :]
    weights = q.T @ (k.exp() / k.exp().sum(1, keepdim=True)) / c**0.5
    out = attention.out.weight[:, :, 0, 0] @ (weights @ v.T).T + attention.out.bias[:, None]
    return out.view(1, c, *x.shape[2:])


@pytest.mark.parametrize("size", [(1, 1), (4, 8), (5, 11)])
def test_attention_against_its_dense_form(size: tuple[int, int]) -> None:
    x = normal(2, 6, *size)
    attention = shaken(LinearAttention(6)).requires_grad_(False)
    expected = torch.cat([dense(attention, plane[None]) for plane in x])
    torch.testing.assert_close(attention(x), expected)
    blocks = shaken(LinearAttention(6, 4)).requires_grad_(False)
    expected = torch.cat(
        [torch.cat([dense(attention, cell) for cell in row.split(4, 3)], dim=3) for row in x[:1].split(4, 2)], dim=2
    )
    torch.testing.assert_close(blocks(x)[:1], expected)


def test_attention_beside_its_input() -> None:
    residual = AttentionResidual(6, 4)
    nn.init.zeros_(residual.attention.out.weight)
    nn.init.zeros_(residual.attention.out.bias)
    x = normal(1, 6, 5, 5).float()
    assert torch.equal(residual(x), x)


def test_channel_norm() -> None:
    norm = shaken(ChannelNorm(6)).requires_grad_(False)
    x = normal(2, 6, 3, 5) * 4 + 2
    centred = x - x.mean(1, keepdim=True)
    expected = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


# --- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"widths": (64,)}, "widths"),
        ({"widths": (64, 0, 64)}, "widths.1"),
        ({"depths": (1, 1)}, "depths"),
        ({"up_widths": (1, 1, 1)}, "up_widths"),
        ({"up_depths": (1,)}, "up_depths"),
        ({"cond": 0}, "cond"),
        ({"octaves": -1}, "octaves"),
        ({"attention": "all"}, "attention"),
        ({"block": 0}, "block"),
        ({"kernel": 2}, "kernel"),
    ],
)
def test_sizes_out_of_range_are_refused(values: dict[str, Any], cause: str) -> None:
    with pytest.raises(OptionError, match=f"^{cause}: "):
        DenoiserConfig(**values)


def test_configurations_must_fit() -> None:
    with pytest.raises(OptionError, match=r"^widths: "):
        Denoiser(replace(DEFAULT, widths=(5, 8), depths=(1, 1), up_widths=(6,), up_depths=(2,)), COMPRESSOR)
    with pytest.raises(OptionError, match=r"^residual: "):
        Denoiser(replace(PAPER, residual=True), PAPER_COMPRESSOR)
