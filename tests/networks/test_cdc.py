"""The conditional diffusion codec as one module: sizes, what depends on what, and its sampler with known denoisers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import kilo_macs
from unquant.codecs.cdc import CdcCodec
from unquant.diffusion.parameterisation import diffuse
from unquant.entropy.entroformer import Entroformer, EntroformerConfig
from unquant.entropy.two_pass import TwoPassEntropy
from unquant.errors import OptionError, WeightsError
from unquant.networks.cdc import Cdc, CdcConfig, CdcOutput
from unquant.networks.config import EntropyConfig
from unquant.networks.ratevar import Ratevar, RatevarConfig
from unquant.nn.compressor import CompressorConfig, Context
from unquant.nn.denoiser import DenoiserConfig

ENTROFORMER = EntroformerConfig(hyper=6, width=16, heads=2, depth=1, hidden=24, top=4, window=4, cond=6)
TINY = CdcConfig(
    train_steps=1000,
    compressor=CompressorConfig(16, 4, (6, 8, 8), (1, 1, 1), (6, 8, 8), (1, 1, 1)),
    denoiser=DenoiserConfig((8, 10, 12), (1, 1, 1), (10, 12), (1, 1), 12, 2),
    entropy=EntropyConfig(entroformer=ENTROFORMER),
)
EPSILON = replace(TINY, parameterisation="epsilon", schedule="linear")


def random_model(config: CdcConfig = TINY, seed: int = 1) -> Cdc:
    """A model none of whose weights are zero."""
    torch.manual_seed(seed)
    model = Cdc(config)
    for p in model.parameters():
        nn.init.normal_(p, std=0.1)
    return model


def photo(batch: int = 2, height: int = 48, width: int = 32) -> Tensor:
    rows = torch.linspace(0.2, 0.8, height)[:, None] * torch.ones(width)
    return torch.stack([torch.stack([rows, rows.flip(0), rows * 0.5]) + 0.05 * i for i in range(batch)])


def run(
    model: Cdc, x: Tensor, *, log2_q: float = 2.0, realism: float = 0.9, level: int = 300, seed: int = 4
) -> CdcOutput:
    torch.manual_seed(seed)
    one = torch.ones(len(x), 1, 1, 1)
    noise = torch.randn(x.shape)
    return model(x, log2_q * one, realism * one, torch.full((len(x),), level), noise)


def test_budgets() -> None:
    with torch.device("meta"):
        default, paper = Cdc(CdcConfig()), Cdc(CdcConfig.paper())
    sizes = [sum(p.numel() for p in m.parameters()) for m in (default, paper.f, paper.g_a, paper.g_s, paper.entropy)]
    assert sizes[0] <= 16_000_000
    assert sizes[1] == pytest.approx(40.1e6, rel=0.01)
    # the published 13.8 M count a hyperprior of 8.3 M, in whose place the Entroformer is
    assert sizes[2] + sizes[3] == pytest.approx(13.8e6 - 8.3e6, rel=0.02)
    assert isinstance(default.entropy, Entroformer)
    assert isinstance(paper.entropy, Entroformer)


def test_the_shipped_weights_keep_the_budgets(shipped_cdc: CdcCodec, shipped_cdc_weights: Path) -> None:
    """≤ 16 M parameters, ≤ 80 k multiply-accumulates a pixel and step; all families of the package together ≤ 72 MB."""
    model = shipped_cdc.model
    assert sum(p.numel() for p in model.parameters()) <= 16_000_000
    assert sum(path.stat().st_size for path in shipped_cdc_weights.parent.glob("*.safetensors")) <= 72e6
    x, told = torch.zeros(1, 3, 128, 128), torch.zeros(1, 2)
    context = model.g_s(torch.zeros(1, shipped_cdc.config.latent, 8, 8))
    _, macs = kilo_macs(lambda: model.f(x, torch.zeros(1), context, told), 128**2)
    assert 10 < macs <= 80


def test_the_configuration_survives_json() -> None:
    for config in (CdcConfig(), EPSILON, CdcConfig.paper(), replace(TINY, entropy=EntropyConfig(hyper=8))):
        assert CdcConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    ratevar = RatevarConfig(entropy=EntropyConfig(entroformer=ENTROFORMER))
    assert RatevarConfig.from_dict(json.loads(json.dumps(ratevar.to_dict()))) == ratevar


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"parameterisation": "v"}, "parameterisation: must be 'x' or 'epsilon', not 'v'"),
        ({"schedule": "sigmoid"}, "schedule: must be 'cosine' or 'linear', not 'sigmoid'"),
        ({"steps": 0}, "steps: must be at least 1 and at most 256, not 0"),
        ({"train_steps": 100, "steps": 101}, r"steps: at most train_steps \(100\), not 101"),
        ({"gamma": 1.5}, "gamma: must be at least 0 and at most 1, not 1.5"),
        (
            {"compressor": {"widths": [64, 0, 192]}},
            "cdc.compressor.widths.1: must be greater than or equal to 1, not 0",
        ),
        ({"compressor": {"widths": [64, 1.5, 192]}}, "cdc.compressor.widths.1: must be a valid integer, not 1.5"),
        ({"denoiser": {"widths": 3}}, "cdc.denoiser.widths: must be a valid array, not 3"),
        ({"entropy": {"entroformer": {"heads": 3}}}, "width: a multiple of heads"),
    ],
)
def test_bad_configurations_name_the_key(values: dict[str, Any], words: str) -> None:
    with pytest.raises((OptionError, WeightsError), match=words):
        CdcConfig.from_dict(values)


@pytest.mark.parametrize("config", [TINY, EPSILON, replace(TINY, entropy=EntropyConfig(hyper=8, width=16, context=16))])
def test_one_pass_reaches_every_parameter(config: CdcConfig) -> None:
    model = random_model(config)
    out = run(model, photo(height=144, width=128))  # z of 3×2: a single position attends to nothing
    assert out.denoised.shape == (2, 3, 144, 128)
    assert out.error.shape == (2,)
    assert out.bits_y.shape == (2, 16, 9, 8)
    (out.error.mean() + out.denoised.square().mean() + 1e-3 * (out.bits_y.sum() + out.bits_z.sum())).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_the_first_estimate_is_the_linear_decode() -> None:
    """At the start of training f adds nothing to the transform codec, whatever the noise."""
    torch.manual_seed(0)
    model = Cdc(TINY)
    for level in (0, 400, 999):
        out = run(model, photo(), level=level)
        assert out.base is not None
        torch.testing.assert_close(out.denoised, out.base, rtol=1e-4, atol=1e-5)


def test_in_epsilon_the_first_estimate_is_the_posterior_around_the_linear_decode() -> None:
    """Near the linear decode in much noise, at x_t in little; every number of steps then draws the linear decode."""
    torch.manual_seed(0)
    model = Cdc(replace(EPSILON, denoiser=replace(EPSILON.denoiser, residual_std=0.1))).requires_grad_(False)
    x = photo()
    much, little = run(model, x, level=999), run(model, x, level=0)
    assert much.base is not None
    assert little.base is not None
    torch.testing.assert_close(much.denoised, much.base, rtol=0, atol=0.01)
    assert float((little.denoised - x).abs().max()) < 0.05 < float((little.base - x).abs().max())
    context = model.g_s(model.g_a(x))
    assert context.base is not None
    for steps in (1, 17, 100):
        drawn = model.sample(context, torch.zeros(2, 1, 1, 1), 0.0, None, steps=steps)
        torch.testing.assert_close(drawn, context.base, rtol=0, atol=2e-3)


def test_time_is_told_alike_in_training_and_in_sampling() -> None:
    heard: list[Tensor] = []
    model = random_model().requires_grad_(False)
    model.f.register_forward_pre_hook(lambda module, args: heard.append(args[1].clone()))
    for level in (0, 499, 999):
        run(model, photo(1), level=level)
    trained, heard[:] = [float(t) for t in heard], []
    context = model.g_s(model.g_a(photo(1)))
    model.sample(context, torch.zeros(1, 1, 1, 1), 0.0, None, steps=3)
    assert [float(t) for t in heard] == pytest.approx(trained[::-1], abs=1e-6)


# ---- the sampler -----------------------------------------------------------------------------------------------------


def context_of(x: Tensor) -> Context:
    b, _, h, w = x.shape
    return Context((torch.zeros(b, 1, h // 4, w // 4),), None, 4)


@pytest.mark.parametrize("config", [TINY, EPSILON], ids=["x", "epsilon"])
@pytest.mark.parametrize("steps", [1, 2, 17, 100])
@pytest.mark.parametrize("realism", [0.0, 1.0])
def test_an_oracle_returns_the_image(config: CdcConfig, steps: int, realism: float) -> None:
    model, x = random_model(config), photo()
    clean = 2 * x - 1

    def oracle(x_t: Tensor, time: Tensor, context: Context, told: Tensor) -> Tensor:
        if model.config.parameterisation == "x":
            return clean
        alpha = model.alphas[(time[0] * 1000).round().long() - 1]
        return ((x_t - alpha.sqrt() * clean) / (1 - alpha).sqrt()).to(x_t)

    start = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) if realism else None
    out = model.sample(context_of(x), torch.zeros(2, 1, 1, 1), realism, start, steps=steps, network=oracle)
    torch.testing.assert_close(out, x, rtol=1e-3, atol=2e-4)


def test_on_gaussian_pixels_the_exact_denoiser_gives_their_distribution() -> None:
    """x0 ~ N(m, s²): E[x0 | x_t] is linear in x_t, and from γ = 1 the probability flow ends at N(m, s²)."""
    mean, std = 0.1, 0.3
    model = Cdc(replace(TINY, gamma=1.0))

    def exact(x_t: Tensor, time: Tensor, context: Context, told: Tensor) -> Tensor:
        alpha = model.alphas[(time[0] * 1000).round().long() - 1]
        gain = alpha.sqrt() * std**2 / (alpha * std**2 + 1 - alpha)
        return (mean + gain * (x_t - alpha.sqrt() * mean)).to(x_t)

    shape = (1, 3, 256, 256)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    context = context_of(torch.zeros(shape))
    spreads: list[float] = []
    for steps in (17, 200):
        out = 2 * model.sample(context, torch.zeros(1, 1, 1, 1), 1.0, noise, steps=steps, network=exact) - 1
        assert float(out.mean()) == pytest.approx(mean, abs=0.005)
        spreads.append(float(out.std()))
    assert spreads[1] == pytest.approx(std, rel=0.02)
    assert abs(spreads[0] - std) > abs(spreads[1] - std)


def test_the_start_is_scaled_by_realism_and_realism_and_rate_are_told() -> None:
    model = random_model().requires_grad_(False)
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(x_t: Tensor, time: Tensor, context: Context, told: Tensor) -> Tensor:
        seen.append((x_t.clone(), told.clone()))
        return torch.zeros_like(x_t)

    noise = torch.randn(1, 3, 32, 32)
    context = context_of(noise)
    log2_q = torch.tensor([[1.0, 3.0], [3.0, 5.0]])[None, None]
    model.sample(context, log2_q, 0.5, noise, steps=1, network=spy)
    model.sample(context, log2_q, 0.0, None, steps=1, network=spy)
    torch.testing.assert_close(seen[0][0], 0.8 * 0.5 * noise)
    assert not seen[1][0].any()
    torch.testing.assert_close(seen[0][1], torch.tensor([[0.5, 0.0]]))  # the mean of the map is 3, the middle


def test_levels_are_those_of_the_schedule() -> None:
    model, x = random_model(), photo(1)
    heard: list[Tensor] = []
    model.f.register_forward_pre_hook(lambda module, args: heard.append(args[0].clone()))
    run(model, x, level=250)
    torch.manual_seed(4)
    noise = torch.randn(x.shape)
    torch.testing.assert_close(heard[0], diffuse(2 * x - 1, noise, model.alphas[250]))


def test_either_family_takes_either_entropy_model() -> None:
    small = EntropyConfig(hyper=8, width=16, context=16, hidden=24, cond=6)
    for entropy, kind in ((small, TwoPassEntropy), (EntropyConfig(entroformer=ENTROFORMER), Entroformer)):
        for model in (Cdc(replace(TINY, entropy=entropy)), Ratevar(RatevarConfig(latent=32, entropy=entropy))):
            assert isinstance(model.entropy, kind)
            y = 20 * torch.randn(1, model.config.latent, 3, 2)
            coded = model.quantise(y, torch.full((1, 1, 1, 1), 1.0), noise=False)
            assert float((coded.v_hat.detach() * 2 - y).abs().max()) <= 1.0 + 1e-4
