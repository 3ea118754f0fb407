"""The networks of `ratevar`: what they cost, what they start as, and what depends on what."""

from __future__ import annotations

import itertools
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from networks import kilo_macs
from unquant.codecs.ratevar import RatevarCodec
from unquant.entropy.base import hyper_size, positions_of
from unquant.entropy.gaussian import ScaleGrid
from unquant.entropy.quantise import quantise
from unquant.errors import OptionError, WeightsError
from unquant.networks.common import SideInfo
from unquant.networks.ratevar import EntropyConfig, Ratevar, RatevarConfig, ReverseConfig
from unquant.networks.reverse import Reverse
from unquant.nn.blocks import Film, resize_map
from unquant.nn.transforms import LATENT_GAIN, Analysis, Synthesis, klt_basis

SMALL = RatevarConfig(
    latent=12,
    analysis_width8=8,
    analysis_depth8=1,
    analysis_width16=10,
    analysis_depth16=1,
    synthesis_width16=10,
    synthesis_depth16=1,
    synthesis_width8=8,
    synthesis_depth8=1,
    cond=6,
    entropy=EntropyConfig(hyper=5, width=14, context=9, hidden=11, cond=7),
)
"""No two widths alike, so that one taken for another does not fit."""
SLICED = replace(SMALL, entropy=replace(SMALL.entropy, slices=(0.25, 0.75)))


def small(config: RatevarConfig = SMALL, seed: int = 0, *, shaken: bool = True) -> Ratevar:
    """A small model, its weights moved off their start, where the last layers are 0."""
    torch.manual_seed(seed)
    model = Ratevar(config)
    if shaken:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def plane(photo: Image.Image, box: tuple[int, int, int, int]) -> Tensor:
    return torch.from_numpy(np.array(photo.crop(box))).permute(2, 0, 1)[None].float() / 255


def scalar(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value)


# --- budgets (docs/design.md) -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def default() -> Ratevar:
    return Ratevar(RatevarConfig())


@pytest.mark.parametrize("mapped", [False, True])
def test_budgets_of_computation(default: Ratevar, mapped: bool) -> None:
    side, latent = 256, (16, 16)
    x = torch.zeros(1, 3, side, side)
    y = torch.zeros(1, default.config.latent, *latent)
    log2_q = torch.zeros(1, 1, *latent) if mapped else scalar(2.0)
    z = torch.zeros(1, default.config.entropy.hyper, *hyper_size(*latent))

    def entropy() -> None:
        net = default.entropy
        net.hyper_analysis(y, log2_q)
        cond = net.condition_of(log2_q)
        net.hyper_prior(cond, hyper_size(*latent))
        features = net.hyper_synthesis(z, cond, latent)
        for number, group in enumerate(net.groups):
            net.group_params(number, features, y, cond, log2_q, group.positions(latent))

    costs = {
        "g_a": kilo_macs(lambda: default.g_a(x), side * side)[1],
        "g_s": kilo_macs(lambda: default.g_s(y, log2_q, log2_q, scalar(1.0)), side * side)[1],
        "entropy": kilo_macs(entropy, side * side)[1],
    }
    budgets = {"g_a": 60.0, "g_s": 200.0, "entropy": 15.0}
    print(costs)
    assert {name: cost for name, cost in costs.items() if not 0.1 * budgets[name] < cost <= budgets[name]} == {}


SHIPPED_REVERSE = ReverseConfig(width=208, depth=1, noise_channels=4)
"""That of the small model; the full-size one has the default's."""


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("config", [ReverseConfig(), SHIPPED_REVERSE], ids=["default", "shipped"])
def test_budget_of_a_reverse_step(config: ReverseConfig, mapped: bool) -> None:
    side, latent = 256, (16, 16)
    f = Reverse(320, config, ScaleGrid())
    y, xi = torch.zeros(1, 320, *latent), torch.zeros(1, config.noise_channels, *latent)
    log2_q = torch.ones(1, 1, *latent) if mapped else scalar(2.0)
    assert 4 < kilo_macs(lambda: f(y, log2_q, SideInfo(y, log2_q, y, y), xi), side * side)[1] <= 40


def test_the_count_is_right() -> None:
    """The counter against a sum by hand: a 1×1 and a 3×3 layer at 1/16."""
    g_a = Analysis(12, 8, 0, 10, 1)
    at8 = 192 * 8 / 64
    at16 = (32 * 10 + 2 * 9 * 10 * 10 + 10 * 12 + 768 * 12) / 256
    x = torch.zeros(1, 3, 64, 64)
    # the borders of a padded convolution are counted as if they were inside
    assert kilo_macs(lambda: g_a(x), 64 * 64)[1] * 1000 == pytest.approx(at8 + at16)


def test_budget_of_parameters(default: Ratevar) -> None:
    parameters = sum(p.numel() for p in default.parameters())
    assert 5e6 < parameters <= 20e6
    assert default.config.reverse is None


def test_budget_of_parameters_with_the_reverse_network() -> None:
    small_model = tomllib.loads((Path(__file__).parents[2] / "configs" / "ratevar-cpu.toml").read_text())["model"]
    for base, reverse in ((RatevarConfig(), ReverseConfig()), (RatevarConfig.from_dict(small_model), SHIPPED_REVERSE)):
        with torch.device("meta"):
            model = Ratevar(replace(base, reverse=reverse))
        assert model.f is not None
        assert sum(p.numel() for p in model.f.parameters()) > 3e6
        assert 10e6 < sum(p.numel() for p in model.parameters()) <= 20e6


def test_the_shipped_weights_keep_the_budgets(shipped: RatevarCodec, shipped_weights: Any) -> None:
    assert sum(p.numel() for p in shipped.model.parameters()) <= 20e6
    assert shipped_weights.stat().st_size <= 40e6
    x = torch.zeros(1, 3, 128, 128)
    y = shipped.model.g_a(x)
    assert kilo_macs(lambda: shipped.model.g_a(x), 128 * 128)[1] <= 60
    assert kilo_macs(lambda: shipped.model.g_s(y, scalar(2.0), scalar(2.0), scalar(1.0)), 128 * 128)[1] <= 200
    assert kilo_macs(lambda: shipped.model.quantise(y, scalar(2.0), noise=False), 128 * 128)[1] <= 15
    if (f := shipped.model.f) is not None:
        xi = torch.zeros(1, f.config.noise_channels, *y.shape[-2:]) if f.config.noise_channels else None
        given = SideInfo(y, scalar(2.0), torch.zeros_like(y), torch.zeros_like(y))
        realism = scalar(1.0) if f.config.joint else None
        assert kilo_macs(lambda: f(y, scalar(2.0), given, xi, realism), 128 * 128)[1] <= 40


# --- the start: a transform codec -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def patches(photo: Image.Image) -> Tensor:
    return F.pixel_unshuffle(plane(photo, (0, 0, 592, 400)), 16).movedim(1, -1).reshape(-1, 768)


def test_klt_is_orthonormal_and_sorted(patches: Tensor) -> None:
    basis, std = klt_basis(patches, 320)
    assert basis.shape == (320, 768)
    torch.testing.assert_close(basis.double() @ basis.double().T, torch.eye(320).double(), atol=1e-5, rtol=0)
    assert bool((std[:-1] >= std[1:]).all())
    coefficients = LATENT_GAIN * (patches - 0.5) @ basis.T
    torch.testing.assert_close(coefficients.square().mean(0).sqrt(), std, rtol=1e-3, atol=1e-2)


def test_more_directions_hold_more(patches: Tensor, photo: Image.Image) -> None:
    """The start reconstructs as well as the projection onto its directions, and more of them hold more."""
    x = plane(photo, (0, 0, 592, 400))
    quality = []
    for count in (3, 12, 48, 192):
        basis, _ = klt_basis(patches, count)
        g_a, g_s = Analysis(count, 8, 0, 8, 0), Synthesis(count, 8, 0, 8, 0, 4)
        g_a.start_from(basis)
        g_s.start_from(basis)
        with torch.no_grad():
            y = g_a(x)
            x_hat = g_s(y, scalar(0.0), scalar(0.0), scalar(0.0))
        torch.testing.assert_close(
            y.movedim(1, -1).reshape(-1, count), LATENT_GAIN * (patches - 0.5) @ basis.T, atol=1e-3, rtol=1e-4
        )
        projected = 0.5 + (patches - 0.5) @ basis.T @ basis
        torch.testing.assert_close(
            F.pixel_unshuffle(x_hat, 16).movedim(1, -1).reshape(-1, 768), projected, atol=1e-4, rtol=0
        )
        quality.append(-10 * float((x_hat - x).square().mean().log10()))
    assert all(b > a + 2 for a, b in itertools.pairwise(quality))
    assert quality[-1] > 30


def test_the_networks_start_silent(photo: Image.Image) -> None:
    """With the last layers at 0 the pair is its linear paths, and the entropy model says N(0, σ) of every channel."""
    model = small(shaken=False)
    x = plane(photo, (0, 0, 64, 48))
    y = model.g_a(x)
    linear = F.conv2d(F.pixel_unshuffle(x - 0.5, 16), model.g_a.linear[:, :, None, None])
    assert torch.equal(y, linear)
    x_hat = model.g_s(y, scalar(2.0), scalar(2.0), scalar(1.0))
    back = F.pixel_shuffle(F.conv2d(y / LATENT_GAIN**2, model.g_s.linear.T[:, :, None, None]), 16)
    torch.testing.assert_close(x_hat, 0.5 + back)
    basis = model.g_a.linear / LATENT_GAIN  # the DCT, before any KLT
    torch.testing.assert_close(basis @ basis.T, torch.eye(12), atol=1e-5, rtol=0)
    std = torch.linspace(1, 40, 12)
    model.entropy.start_from(std)
    cond = model.entropy.condition_of(scalar(2.0))
    features = torch.randn(1, 14, 3, 4)
    params = model.entropy.group_params(0, features, torch.zeros(1, 12, 3, 4), cond, scalar(2.0), positions_of(0, 3, 4))
    assert not bool(params.mu.any())
    sigma = model.entropy.grid.sigma(params.t)[0, :, 0, 0]
    assert bool((sigma[1:] > sigma[:-1]).all())
    assert bool((params.t.std(dim=2) == 0).all())


# --- what depends on what -------------------------------------------------------------------------------------------


def test_the_latent_never_sees_the_step(photo: Image.Image) -> None:
    model, x = small(), plane(photo, (0, 0, 64, 48))
    outputs = [model(x, scalar(q), scalar(0.0)) for q in (0.25, 5.0)]
    assert torch.equal(outputs[0].y, outputs[1].y)
    assert not torch.equal(outputs[0].y_hat, outputs[1].y_hat)


def test_the_synthesis_sees_all_its_conditions() -> None:
    model = small()
    y = torch.randn(1, 12, 3, 4) * 10
    plain = model.g_s(y, scalar(2.0), scalar(2.0), scalar(0.0))
    for conditions in ((3.0, 2.0, 0.0), (2.0, 3.0, 0.0), (2.0, 2.0, 1.0)):
        assert not torch.allclose(model.g_s(y, *map(scalar, conditions)), plain)


@pytest.mark.parametrize("size", [(4, 8), (3, 5), (1, 6), (1, 1)])
def test_a_constant_map_is_the_scalar(size: tuple[int, int]) -> None:
    model = small()
    y = torch.randn(2, 12, *size) * 10
    q, rho = torch.full((2, 1, 1, 1), 2.5), torch.full((2, 1, 1, 1), 0.25)
    q_map, rho_map = (m.expand(2, 1, *size).contiguous() for m in (q, rho))
    torch.testing.assert_close(model.g_s(y, q_map, q_map, rho_map), model.g_s(y, q, q, rho), atol=1e-5, rtol=1e-5)
    a, b = model.quantise(y, q, noise=False), model.quantise(y, q_map, noise=False)
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_each_image_of_a_batch_stands_alone(photo: Image.Image) -> None:
    model = small()
    x = torch.cat([plane(photo, (0, 0, 64, 48)), plane(photo, (200, 100, 264, 148))])
    q = torch.tensor([1.0, 4.0])[:, None, None, None]
    y = model.g_a(x)
    both = model.quantise(y, q, noise=False)
    for i in (0, 1):
        one = model.quantise(y[i : i + 1], q[i : i + 1], noise=False)
        torch.testing.assert_close(both.v_hat[i : i + 1], one.v_hat, atol=1e-4, rtol=1e-4)


def test_quantise(photo: Image.Image) -> None:
    """ŷ is within half a step of y wherever a symbol is coded; uncoded positions cost nothing and take the mean."""
    model = small()
    with torch.no_grad():
        model.entropy.passes[0].head.bias[12:] -= 0.1 * torch.arange(12)  # some scales fall below the lowest table
    y = model.g_a(plane(photo, (100, 100, 228, 196))).detach()
    for q in (0.5, 3.0, 5.0):
        out = model.quantise(y, scalar(q), noise=False)
        error = (out.v_hat - y * 2.0**-q).abs()
        coded = out.bits_y > 0
        assert bool((error[coded] <= 0.5 + 1e-4).all())
        assert bool((out.bits_y >= 0).all())
        noisy = model.quantise(y, scalar(q), noise=True)
        torch.testing.assert_close(noisy.v_hat, out.v_hat)
        assert bool(torch.isfinite(noisy.bits_y).all())


@pytest.mark.parametrize(("config", "name"), [(SMALL, "TwoPassEntropy"), (SLICED, "SlicedEntropy")])
def test_quantising_by_masks_is_for_models_that_know_them(config: RatevarConfig, name: str) -> None:
    with pytest.raises(OptionError, match=name):
        quantise(small(config).entropy, torch.zeros(1, 12, 3, 4), scalar(1.0), noise=False, hidden=torch.tensor([1, 5]))


@pytest.mark.parametrize("config", [SMALL, SLICED])
def test_every_weight_learns(photo: Image.Image, config: RatevarConfig) -> None:
    model = small(config)
    x = plane(photo, (100, 100, 228, 196))
    out = model(x, scalar(1.0), scalar(0.5))
    loss = out.bits_y.mean() + out.bits_z.mean() + (out.x_hat - x).square().mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name


# --- conditions -----------------------------------------------------------------------------------------------------


def test_resize_map() -> None:
    m = torch.arange(6.0).view(1, 1, 2, 3)
    assert torch.equal(resize_map(m, 2, 3), m)
    one = torch.ones(1, 1, 1, 1)
    assert resize_map(one, 5, 7) is one
    assert resize_map(one, 5, 7, 4) is one
    grown = resize_map(m, 4, 6)
    assert grown[0, 0].tolist() == [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2
    assert resize_map(m, 3, 5)[0, 0].tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    assert resize_map(m[:, :, :1], 2, 6)[0, 0].tolist() == [[0, 0, 1, 1, 2, 2]] * 2


def test_shrinking_a_map_follows_the_grid() -> None:
    """A shrunk position covers the same latents as a position of z does, whatever the size of the map."""
    m = torch.arange(5.0).view(1, 1, 1, 5)
    assert resize_map(m, 1, 2, 4)[0, 0].tolist() == [[1.5, 4.0]]
    assert resize_map(m, 2, 4, 2)[0, 0].tolist() == [[0.5, 2.5, 4.0, 4.0]] * 2
    square = torch.arange(4.0).view(1, 1, 2, 2)
    assert resize_map(square, 1, 1, 4)[0, 0].tolist() == [[(0 + 3 * 1 + 3 * 2 + 9 * 3) / 16]]
    assert resize_map(square, 2, 2, 2)[0, 0].tolist() == [[1.5, 2.0], [2.5, 3.0]]
    exact = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize_map(exact, 2, 3, 4), F.avg_pool2d(exact, 4))


def test_film_starts_as_identity() -> None:
    film = Film(4, 6)
    x = torch.randn(2, 6, 5, 3)
    for cond in (torch.randn(2, 4, 1, 1), torch.randn(2, 4, 5, 3)):
        assert torch.equal(film(x, cond), x)
    with torch.no_grad():
        film.proj.weight.normal_()
        film.proj.bias.normal_()
        cond = torch.randn(2, 4, 5, 3)
        scale, shift = film.proj(cond).chunk(2, dim=1)
        torch.testing.assert_close(film(x, cond), x * (1 + scale) + shift)


# --- configuration --------------------------------------------------------------------------------------------------


def test_config_round_trip() -> None:
    for config in (RatevarConfig(), SMALL, RatevarConfig(reverse=ReverseConfig(training="energy", noise_channels=2))):
        assert RatevarConfig.from_dict(config.to_dict()) == config
    assert RatevarConfig.from_dict({}) == RatevarConfig()
    assert RatevarConfig.from_dict({"entropy": {"hyper": 7}}).entropy == EntropyConfig(hyper=7)
    assert RatevarConfig.from_dict({"entropy": {"passes": 2}}) == RatevarConfig()  # as weights of before say
    whole = RatevarConfig.from_dict({"default_realism": 1, "reverse": {"schedule_power": 2}})
    assert whole == RatevarConfig(reverse=ReverseConfig(schedule_power=2.0))


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"latents": 3}, "latents"),
        ({"latent": "3"}, "latent"),
        ({"tile": 64.0}, "tile"),
        ({"default_realism": 1.5}, "default_realism"),
        ({"entropy": None}, "entropy"),
        ({"entropy": {"scales": None}}, r"entropy\.scales"),
        ({"entropy": {"hypers": 3}}, r"entropy\.hypers: unknown key"),
        ({"entropy": {"passes": 4}}, r"entropy\.passes: must be 2, not 4"),
        ({"reverse": {"stages": 2}}, "stages"),
        ({"reverse": {"steps": 0}}, "steps"),
        ({"reverse": 3}, "reverse"),
        ({"reverse": {"steps": "two"}}, r"configuration: ratevar\.reverse\.steps"),
        ({"reverse": {"steps": 1.5}}, r"reverse\.steps"),
        ({"reverse": {"steps": True}}, r"reverse\.steps"),
        ({"reverse": {"project": 1}}, r"reverse\.project"),
        ({"reverse": {"training": ["energy"]}}, r"reverse\.training"),
        ({"reverse": {"alpha_last": 1.01}}, "alpha_last"),
    ],
)
def test_unknown_keys_and_values_are_refused(values: dict[str, Any], cause: str) -> None:
    with pytest.raises(WeightsError, match=cause):
        RatevarConfig.from_dict(values)
