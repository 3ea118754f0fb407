"""The reverse network and its path: the rounding error's moments, what f sees, and where every sampler ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unquant.codecs.windows import run_windowed
from unquant.entropy.gaussian import ScaleGrid
from unquant.errors import OptionError, WeightsError
from unquant.networks.common import SideInfo, log2_q_of
from unquant.networks.ratevar import EntropyConfig, Ratevar, RatevarConfig
from unquant.networks.reverse import (
    NETWORK_NOISE,
    SAMPLERS,
    STATE_NOISE,
    UNIFORM_STD,
    Reverse,
    ReverseConfig,
    project,
    reverse_path,
    rounding_error,
)
from unquant.nn.unet import UNet

LATENT = 5
GRID = ScaleGrid()
CONFIG = ReverseConfig(width=6, depth=1, noise_channels=2)
JOINT = ReverseConfig("joint", 6, 1, 0, sampler="deterministic", project=False)
MODEL = RatevarConfig(
    latent=LATENT,
    analysis_width8=4,
    analysis_depth8=0,
    analysis_width16=4,
    analysis_depth16=0,
    synthesis_width16=4,
    synthesis_depth16=0,
    synthesis_width8=4,
    synthesis_depth8=0,
    cond=4,
    entropy=EntropyConfig(hyper=4, width=8, context=8, hidden=8, cond=4),
    reverse=CONFIG,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def shaken(network: Any, seed: int = 0) -> Any:
    """All weights moved off their start, where the last layers are 0."""
    draws = generator(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draws))
    return network.requires_grad_(False)


def reverse_network(config: ReverseConfig = CONFIG, *, shake: bool = True) -> Reverse:
    torch.manual_seed(0)
    f = Reverse(LATENT, config, GRID)
    return shaken(f) if shake else f


def side_info(batch: int, height: int, width: int, *, mapped: bool = False, seed: int = 0) -> SideInfo:
    """Symbols, means and scales as a decoder has them; about one position in eight is not coded."""
    draws = generator(seed)
    shape = batch, LATENT, height, width
    size = (height, width) if mapped else (1, 1)
    log2_q = log2_q_of(torch.randint(16, 300, (batch, 1, *size), generator=draws))
    t = torch.randint(-8, GRID.count, shape, generator=draws).clamp(min=-1).float()
    mu = torch.randint(-128, 128, shape, generator=draws) / 64
    k = (torch.randn(shape, generator=draws) * GRID.sigma(t)).round().where(t >= 0, torch.zeros(()))
    return SideInfo((k + mu) * torch.exp2(log2_q), log2_q, mu, t)


def cut(side: SideInfo, *where: slice) -> SideInfo:
    return SideInfo(*(part if part.shape[-2:] == (1, 1) else part[(..., *where)] for part in side))


def coded(side: SideInfo) -> Tensor:
    return side.t >= 0


# --- the rounding error -----------------------------------------------------------------------------------------------

NODES, NODE_WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(200))


def integrated(k: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a Gaussian within a cell of width 1, less the cell's middle, by Gauss-Legendre."""
    k, sigma = k.double(), sigma.double()
    low = torch.minimum(k.abs() - 0.5, 5 * sigma)  # so far out the cell is taken to be no farther
    peak = (-low).clamp(0, 1)  # where in the cell the density is highest
    moments = [torch.zeros_like(sigma) for _ in range(3)]
    for sign, length in ((-1, peak), (1, 1 - peak)):
        reach = torch.minimum(length, 40 * sigma)[..., None]
        at = peak[..., None] + sign * reach * (NODES + 1) / 2
        exponent = ((at + low[..., None]) ** 2 - (peak + low)[..., None] ** 2) / (2 * sigma[..., None] ** 2)
        mass = torch.exp(-exponent) * reach * NODE_WEIGHTS / 2
        moments = [m + (mass * (at - 0.5) ** power).sum(-1) for power, m in enumerate(moments)]
    mean = moments[1] / moments[0]
    return torch.sign(k) * mean, (moments[2] / moments[0] - mean**2).sqrt()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rounding_error_against_integration(dtype: torch.dtype) -> None:
    ks = torch.tensor([0, 1, 2, 3, 5, 8, 14, 15, 16, 30, 100, 300, 1000, 10_000], dtype=dtype)
    ks = torch.cat([-ks.flip(0), ks])
    sigmas = [*np.geomspace(0.01, 300, 60), 2.99, 3.0, 3.01]
    k, sigma = torch.meshgrid(ks, torch.tensor(sigmas, dtype=dtype), indexing="ij")
    mean, std = integrated(k, sigma)
    found = rounding_error(k, sigma)
    assert found.mean.dtype == found.std.dtype == dtype
    torch.testing.assert_close(found.mean.double(), mean, rtol=0, atol=6e-4)
    torch.testing.assert_close(found.std.double(), std, rtol=3e-4, atol=0)
    narrow = sigma <= 3  # the closed form
    tight = 1e-9 if dtype == torch.float64 else 5e-6
    torch.testing.assert_close(found.mean.double()[narrow], mean[narrow], rtol=0, atol=tight)


@settings(max_examples=200, deadline=None)
@given(st.integers(-10_000, 10_000), st.floats(-3, 4), st.sampled_from([torch.float32, torch.float64]))
def test_rounding_error_keeps_its_range(k: int, log_sigma: float, dtype: torch.dtype) -> None:
    """Finite, towards 0, of the symbol's sign, never wider than uniform, and what integration gives."""
    symbols = torch.tensor([k, -k], dtype=dtype)
    sigma = torch.full((2,), 10.0**log_sigma, dtype=dtype)
    mean, std = rounding_error(symbols, sigma)
    assert bool(torch.isfinite(mean).all() and torch.isfinite(std).all())
    assert bool((mean.abs() <= 0.5).all() and (mean * symbols <= 0).all())
    assert bool((std > 0).all() and (std <= UNIFORM_STD).all())
    assert float(mean[0]) == -float(mean[1])
    assert float(std[0]) == float(std[1])
    for found, expected in zip((mean, std), integrated(symbols, sigma), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=6e-4)


def test_limits_of_the_rounding_error() -> None:
    zero = torch.zeros(3)
    narrow = torch.tensor([1e-3, 0.02, 0.1])
    mean, std = rounding_error(zero, narrow)
    assert not bool(mean.any())
    torch.testing.assert_close(std, narrow, rtol=1e-4, atol=0)
    mean, std = rounding_error(torch.tensor([0.0, 3.0, -40.0]), torch.tensor([1e4, 1e4, 1e4]))
    torch.testing.assert_close(std, torch.full((3,), UNIFORM_STD), rtol=1e-6, atol=0)
    torch.testing.assert_close(mean, zero, rtol=0, atol=1e-6)
    spread = rounding_error(torch.zeros(64), torch.from_numpy(np.geomspace(0.05, 50, 64)).float()).std
    assert bool((spread[1:] >= spread[:-1] - 1e-5).all())


def test_tau_is_the_rounding_error_of_the_file_s_own_symbols() -> None:
    f = reverse_network()
    for height, mapped in ((4, False), (4, True), (1, True), (33, False), (33, True)):
        side = side_info(2, height, 6, mapped=mapped)
        k = (side.y_file * torch.exp2(-side.log2_q_file) - side.mu).round()
        assert bool(k.any())
        assert not bool(k[~coded(side)].any())
        torch.testing.assert_close(f.tau(side), rounding_error(k, GRID.sigma(side.t)).std)
    constant = f.tau(side, "constant")
    assert constant.shape == (1, 1, 1, 1)
    assert float(constant) == pytest.approx(12**-0.5)


# --- f ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [CONFIG, ReverseConfig("mse", 6, 1, 0), ReverseConfig("bridge", 6, 1, 0, side=False), JOINT]
)
def test_f_starts_as_the_identity(config: ReverseConfig) -> None:
    f, side = reverse_network(config, shake=False), side_info(2, 5, 4, mapped=True)
    y = side.y_file + normal(2, LATENT, 5, 4)
    xi = normal(2, config.noise_channels, 5, 4) if config.noise_channels else None
    told = (torch.ones(2, 1, 1, 1),) if config.joint else ()
    assert torch.equal(f(y, side.log2_q_file - 1, side, xi, *told), y)


def test_f_sees_all_its_inputs() -> None:
    f, side = reverse_network(), side_info(1, 6, 4)
    y, xi, log2_q = side.y_file + 1, normal(1, 2, 6, 4), side.log2_q_file - 0.5
    inputs: dict[str, Any] = {"y": y, "log2_q": log2_q, "side": side, "xi": xi}
    plain = f(**inputs)
    for change in (
        {"y": y + normal(1, LATENT, 6, 4, seed=1)},
        {"log2_q": log2_q - 1},
        {"xi": -xi},
        {"side": side._replace(log2_q_file=side.log2_q_file + 0.5)},
        {"side": side._replace(y_file=side.y_file + 3)},
        {"side": side._replace(mu=side.mu - 2)},
        {"side": side._replace(t=(side.t + 20) % GRID.count)},
    ):
        assert not torch.allclose(f(**(inputs | change)), plain, atol=1e-3), change.keys()
    blind = reverse_network(replace(CONFIG, side=False))
    other = side._replace(mu=side.mu - 2, t=(side.t + 20) % GRID.count)
    assert torch.equal(blind(**inputs), blind(**(inputs | {"side": other})))


@pytest.mark.slow
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (24, 31), (33, 26)])
def test_f_in_windows_is_f_in_one_piece(size: tuple[int, int], mapped: bool) -> None:
    f, side = reverse_network(), side_info(1, *size, mapped=mapped)
    y, xi, log2_q = side.y_file + normal(1, LATENT, *size), normal(1, 2, *size), side.log2_q_file - 0.5
    whole = f(y, log2_q, side, xi)

    def windowed(window: int, halo: int) -> Tensor:
        def network(top: int, bottom: int, left: int, right: int) -> Tensor:
            where = slice(top, bottom), slice(left, right)
            step = log2_q[(..., *where)] if mapped else log2_q
            return f(y[(..., *where)], step, cut(side, *where), xi[(..., *where)])

        return run_windowed(network, torch.full_like(y, torch.nan), size, window, halo, 1)

    for window in (2, 4, 10):
        torch.testing.assert_close(windowed(window, f.halo), whole, rtol=1e-4, atol=1e-3)
    if min(size) > 20:
        assert not torch.allclose(windowed(4, f.halo - 4), whole, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("axis", [-1, -2])
def test_the_halo_is_the_receptive_field(depth: int, axis: int) -> None:
    net = shaken(UNet(3, 2, 4, depth, 5)).double()
    assert net.halo % 2 == 0
    length = 2 * net.halo + 3
    x, cond = normal(1, 3, 1, length).double(), normal(1, 5, 1, length, seed=1).double()

    def run(x: Tensor, cond: Tensor) -> Tensor:
        return net(x, cond) if axis == -1 else net(x.mT.contiguous(), cond.mT.contiguous()).mT

    plain, felt = run(x, cond), []
    for centre in (net.halo, net.halo + 1):  # at the start and at the end of a cell of the fold
        for touched in (0, 1):
            planes = [x.clone(), cond.clone()]
            planes[touched][..., centre] += 1
            places = (run(*planes) - plain).abs().amax((0, 1, 2)).nonzero().flatten()
            felt += [centre - int(places.min()), int(places.max()) - centre]
    assert net.halo - 1 <= max(felt) <= net.halo


def test_each_image_of_a_batch_stands_alone() -> None:
    f, side = reverse_network(), side_info(3, 6, 9)
    y, xi, log2_q = side.y_file + normal(3, LATENT, 6, 9), normal(3, 2, 6, 9), side.log2_q_file - 0.25
    together = f(y, log2_q, side, xi)
    for i in range(3):
        one = slice(i, i + 1)
        alone = f(y[one], log2_q[one], SideInfo(*(part[one] for part in side)), xi[one])
        torch.testing.assert_close(together[one], alone, rtol=1e-5, atol=1e-4)


def test_a_constant_map_is_the_scalar() -> None:
    f, side = reverse_network(), side_info(1, 5, 7)
    mapped = side._replace(log2_q_file=side.log2_q_file.expand(1, 1, 5, 7))
    y, xi = side.y_file + normal(1, LATENT, 5, 7), normal(1, 2, 5, 7)
    results = [f(y, s.log2_q_file - 0.5, s, xi) for s in (side, mapped)]
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-4)


def test_every_weight_of_f_learns() -> None:
    f, side = reverse_network().requires_grad_(True), side_info(2, 6, 6)
    f(side.y_file + 1, side.log2_q_file, side, normal(2, 2, 6, 6)).square().mean().backward()
    for name, parameter in f.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all() and parameter.grad.any()), name


# --- projection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("scale", [0.1, 3.0, 1e6])
def test_project(mapped: bool, scale: float) -> None:
    side = side_info(2, 6, 5, mapped=mapped)
    half = torch.exp2(side.log2_q_file) / 2
    wild = (side.y_file + scale * half * normal(2, LATENT, 6, 5)).requires_grad_(True)
    tame = project(wild, side)
    assert bool((tame <= side.y_file + half)[coded(side)].all())
    assert bool((tame >= side.y_file - half)[coded(side)].all())
    assert torch.equal(tame[~coded(side)], wild[~coded(side)])
    inside = (wild - side.y_file).abs() < 0.999 * half
    assert torch.equal(tame[inside], wild[inside])
    assert bool((tame != wild).any()) == (scale > 1)
    assert torch.equal(project(tame, side), tame)
    with torch.no_grad():
        assert torch.equal(project(wild, side), tame)
    weights = normal(2, LATENT, 6, 5, seed=1)
    (tame * weights).sum().backward()
    assert wild.grad is not None
    assert torch.equal(wild.grad, weights)


# --- the path ---------------------------------------------------------------------------------------------------------


class Noise:
    """A source of noise that keeps what it was asked for."""

    def __init__(self, side: SideInfo) -> None:
        self.batch, _, self.height, self.width = side.y_file.shape
        self.asked: list[tuple[int, int, int]] = []

    def __call__(self, stream: int, step: int, channels: int) -> Tensor:
        self.asked.append((stream, step, channels))
        seed = 1000 * stream + step
        return normal(self.batch, channels, self.height, self.width, seed=seed)


def knows(y: Tensor) -> Callable[..., Tensor]:
    """A network that gives this latent whatever it is asked."""
    return lambda *_: y


def clean_in_cell(side: SideInfo) -> Tensor:
    """A latent that may have been rounded to ŷ_T."""
    return side.y_file + torch.exp2(side.log2_q_file) * (torch.rand(side.y_file.shape, generator=generator(5)) - 0.5)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_ends_at_the_last_step(sampler: str, power: float, steps: int) -> None:
    """With the truth from f and no randomness, what is left of the rounding error is known: (q/q_T) or its square."""
    config = replace(CONFIG, sampler=sampler, schedule_power=power, alpha_first=0.0, alpha_last=0.0)
    side = side_info(1, 6, 5, mapped=True)
    clean, end = clean_in_cell(side), side.log2_q_file - 2 * torch.rand(1, 1, 6, 5, generator=generator(6))
    noise, seen = Noise(side), []

    def network(y: Tensor, log2_q: Tensor, given: SideInfo, xi: Tensor | None) -> Tensor:
        assert given is side
        assert xi is not None
        seen.append(log2_q)
        return clean

    y = reverse_path(reverse_network(config), side, end, noise, steps=steps, network=network)
    left = torch.exp2(end - side.log2_q_file) ** (2 if sampler == "bridge" else 1)
    torch.testing.assert_close(y, clean + left * (side.y_file - clean), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen[0], side.log2_q_file)
    assert len(seen) == steps
    for before, after in pairwise(seen):
        assert bool((after < before).all() and (after > end).all())
    assert noise.asked == [(NETWORK_NOISE, step, 2) for step in range(steps)]


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("tau", ["constant", "coefficient"])
@pytest.mark.parametrize("sampler", ["ancestral", "bridge"])
def test_noise_of_the_state(sampler: str, tau: str, steps: int) -> None:
    """At full randomness the state at the end is that of the bridge between the clean latent and ŷ_T, at any N."""
    config = replace(CONFIG, sampler=sampler, tau=tau)
    side = side_info(1, 48, 48)
    f, noise, end = reverse_network(config), Noise(side), side.log2_q_file - 1
    clean = clean_in_cell(side)
    y = reverse_path(f, side, end, noise, steps=steps, network=knows(clean))
    w = 0.25
    drawn = (y - clean - w * (side.y_file - clean)) * torch.exp2(-end) / f.tau(side) / (1 - w) ** 0.5
    assert abs(float(drawn.mean())) < 0.05
    assert float(drawn.std()) == pytest.approx(1, abs=0.05)
    assert {(stream, channels) for stream, _, channels in noise.asked} == {(NETWORK_NOISE, 2), (STATE_NOISE, LATENT)}
    assert sorted(noise.asked) == [(s, step, c) for s, c in ((0, LATENT), (1, 2)) for step in range(steps)]


def test_the_configured_steps_and_another_configuration() -> None:
    f, side = reverse_network(replace(CONFIG, steps=3, alpha_first=0.0, alpha_last=0.0)), side_info(1, 3, 3)
    calls: list[Tensor] = []

    def network(y: Tensor, log2_q: Tensor, given: SideInfo, xi: Tensor | None) -> Tensor:
        calls.append(log2_q)
        return f(y, log2_q, given, xi)

    end = side.log2_q_file - 1
    plain = reverse_path(f, side, end, Noise(side), network=network)
    assert len(calls) == 3
    assert torch.equal(plain, reverse_path(f, side, end, Noise(side), steps=3))
    other = replace(f.config, steps=2, sampler="deterministic", project=False)
    assert not torch.equal(reverse_path(f, side, end, Noise(side), config=other), plain)
    reverse_path(f, side, end, Noise(side), config=other, network=network)
    assert len(calls) == 5


@pytest.mark.parametrize("training", ["mse", "bridge"])
def test_networks_without_noise_get_none(training: str) -> None:
    f, side = reverse_network(ReverseConfig(training, 6, 1, 0, sampler="deterministic")), side_info(1, 4, 4)
    noise = Noise(side)
    y = reverse_path(f, side, side.log2_q_file - 1, noise)
    assert noise.asked == []
    assert not torch.allclose(y, side.y_file)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_path_can_be_learned_through(sampler: str) -> None:
    """f learns at every step, and only from images of which anything is reversed."""
    f, side = reverse_network(replace(CONFIG, sampler=sampler)), side_info(2, 4, 4)
    f.requires_grad_(True)
    end = side.log2_q_file - torch.tensor([1.0, 0.0])[:, None, None, None]
    y = reverse_path(f, side, end, Noise(side), steps=2)
    y[1].square().sum().backward(retain_graph=True)
    assert not any(bool(p.grad.any()) for p in f.parameters() if p.grad is not None)
    y[0].square().sum().backward()
    for name, parameter in f.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all() and parameter.grad.any()), name


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_projected_path_never_leaves_the_cell(sampler: str) -> None:
    """One step without randomness, f as wild as it may be: a coded position still rounds to its symbol."""
    config = replace(CONFIG, sampler=sampler, alpha_first=0.0)
    side = side_info(1, 8, 6, mapped=True)
    q = torch.exp2(side.log2_q_file)
    wild = side.y_file + 20 * q * normal(1, LATENT, 8, 6)

    def run(config: ReverseConfig) -> Tensor:
        f = reverse_network(config)
        return (reverse_path(f, side, side.log2_q_file - 3, Noise(side), network=knows(wild)) - side.y_file).abs() / q

    assert float(run(config)[coded(side)].max()) <= 0.5 + 1e-4
    assert float(run(config)[~coded(side)].max()) > 1
    assert float(run(replace(config, project=False))[coded(side)].max()) > 1


# --- the realism knob -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Ratevar:
    torch.manual_seed(0)
    model = Ratevar(MODEL)
    assert model.f is not None
    shaken(model.f)
    return model.requires_grad_(False)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_path_ends_at_the_finest_step(model: Ratevar, sampler: str, mapped: bool) -> None:
    side, config = side_info(3, 4, 6, mapped=mapped), replace(CONFIG, sampler=sampler)
    for steps in (1, 3):
        y, log2_q = model.reverse(side, Noise(side), config=config, steps=steps)
        assert log2_q.shape == side.log2_q_file.shape
        assert bool((log2_q == log2_q_of(MODEL.q_index_min)).all())
        assert not torch.allclose(y, side.y_file, atol=0.1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_finest_is_left_alone(model: Ratevar, sampler: str) -> None:
    """Nothing is reversed where q_T is already the finest step, the rest of a map is."""
    side, config = side_info(1, 4, 6, mapped=True), replace(CONFIG, sampler=sampler)
    finest = torch.zeros(1, 1, 4, 6, dtype=torch.bool)
    finest[..., :3] = True
    side = side._replace(log2_q_file=torch.where(finest, 0.25, side.log2_q_file))
    y, log2_q = model.reverse(side, Noise(side), config=config, steps=2)
    assert bool((log2_q[finest] == 0.25).all())
    kept = finest.expand_as(y)
    assert torch.equal(y[kept], side.y_file[kept])
    assert not torch.allclose(y[~kept], side.y_file[~kept], atol=0.1)


@pytest.mark.slow
def test_one_step_for_a_whole_batch() -> None:
    """One q_T for many images: powers of equal logarithms may differ in the last bit, and nothing is reversed yet."""
    f, side, count = reverse_network(), side_info(40, 1, 1), 40
    for index in range(16, 345):
        one = side._replace(log2_q_file=torch.full((1, 1, 1, 1), log2_q_of(index)))
        end = one.log2_q_file.repeat(count, 1, 1, 1)
        y = reverse_path(f, one, end, Noise(side), network=knows(torch.zeros_like(side.y_file)))
        assert torch.equal(y, side.y_file)


# --- a joint f --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3])
def test_a_joint_path_ends_at_the_last_estimate(steps: int) -> None:
    """At the finest step as well, where any other path does nothing, and told ρ."""
    f, side = reverse_network(JOINT), side_info(2, 4, 6)
    finest = side._replace(log2_q_file=torch.full((2, 1, 1, 1), log2_q_of(MODEL.q_index_min)))
    zero, one = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    model = Ratevar(replace(MODEL, reverse=replace(JOINT, steps=steps))).requires_grad_(False)
    assert model.f is not None
    model.f.load_state_dict(f.state_dict())
    for info in (side, finest):
        y, ratio = info.y_file, (log2_q_of(MODEL.q_index_min) - info.log2_q_file) / steps
        for step in range(steps):
            estimate = f(y, info.log2_q_file + step * ratio, info, None, one)
            y = estimate + torch.exp2(ratio) * (y - estimate)
        torch.testing.assert_close(model.restored(info, one), estimate, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(estimate, info.y_file, atol=0.1)
        assert not torch.allclose(model.restored(info, zero), estimate, atol=0.1)
        _, told = model.reverse(info, Noise(info), realism=one)
        assert torch.equal(told, info.log2_q_file)


def test_without_a_joint_f_the_synthesis_draws_from_the_file(model: Ratevar) -> None:
    side = side_info(1, 3, 3)
    assert model.restored(side, torch.ones(1, 1, 1, 1)) is side.y_file


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("training", "gan"),
        ("sampler", "euler"),
        ("tau", "none"),
        ("width", 0),
        ("depth", 0),
        ("steps", 0),
        ("steps", -3),
        ("alpha_first", -0.1),
        ("alpha_first", float("nan")),
        ("alpha_last", 1.5),
        ("schedule_power", 0.0),
        ("schedule_power", -1.0),
        ("schedule_power", float("nan")),
        ("schedule_power", float("inf")),
        ("noise_channels", 0),
        ("noise_channels", -1),
    ],
)
def test_values_out_of_range_name_their_field(field: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"^{field}: .*{value}"):
        ReverseConfig(**{field: value})
    with pytest.raises(WeightsError, match=field):
        RatevarConfig.from_dict({"reverse": {field: value}})


@pytest.mark.parametrize("training", ["mse", "bridge", "joint"])
def test_only_energy_takes_noise(training: str) -> None:
    with pytest.raises(OptionError, match="noise_channels"):
        ReverseConfig(training=training, sampler="deterministic")
    assert ReverseConfig(training=training, noise_channels=0, sampler="deterministic").noise_channels == 0


@pytest.mark.parametrize("sampler", ["bridge", "ancestral"])
def test_a_joint_path_draws_nothing(sampler: str) -> None:
    with pytest.raises(OptionError, match=f"^sampler: deterministic for the training joint, not {sampler}"):
        replace(JOINT, sampler=sampler)
