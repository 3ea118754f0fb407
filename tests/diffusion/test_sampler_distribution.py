"""What the samplers do to distributions, on latents y ~ N(0, 1) with denoisers that are exact.

Figures of variance are over that of the y drawn; 200 000 samples leave about 0.3% of chance in each.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from posteriors import (
    TAU,
    gaussian_noise,
    given_gaussian,
    given_uniform,
    in_the_cell,
    latents,
    on_the_path,
    scalar,
)
from torch import Tensor

from unquant.diffusion import geometric, randomness, sample_ancestral, sample_bridge, sample_deterministic

COUNT = 200_000
STEPS = (1, 4, 16, 64)
Denoise = Callable[[Tensor, Tensor], Tensor]


def slope(x: list[float], y: list[float]) -> float:
    """Of the regression of log y on log x."""
    points = torch.tensor([x, y], dtype=torch.float64).log()
    centred = points - points.mean(1, keepdim=True)
    return ((centred[0] * centred[1]).sum() / centred[0].square().sum()).item()


def ks_distance(a: Tensor, b: Tensor) -> float:
    """Kolmogorov–Smirnov: the largest distance between two empirical distribution functions."""
    a, b = a.flatten().sort().values, b.flatten().sort().values
    both = torch.cat([a, b])
    below = [torch.searchsorted(x, both, right=True) / len(x) for x in (a, b)]
    return (below[0] - below[1]).abs().max().item()


@pytest.mark.parametrize("denoise", [given_uniform, given_gaussian])
@pytest.mark.parametrize(("q", "power"), [(1.0, 1.5), (2.0, 1.0)])
def test_order_of_the_deterministic_sampler(denoise: Denoise, q: float, power: float) -> None:
    """Root mean square error at the end, over 8 … 128 steps, against a very fine schedule: order 1."""
    y, u = latents(500, 3)
    start = y + q * u

    def end(steps: int) -> Tensor:
        return sample_deterministic(denoise, start, geometric(scalar(q), scalar(q / 16), steps, power))

    reference = end(4096)
    counts = [8, 16, 32, 64, 128]
    errors = [(end(steps) - reference).square().mean().sqrt().item() for steps in counts]
    assert slope([float(n) for n in counts], errors) == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize("q", [1.0, 2.0, 3.0])
def test_deterministic_carries_the_distribution(q: float) -> None:
    """From y + q·u to y, with the posterior mean for uniform noise: variance, kurtosis and distribution function."""
    y, u = latents(COUNT // 4, 4)
    end = sample_deterministic(given_uniform, y + q * u, geometric(scalar(q), scalar(q / 64), 128))
    assert (end.var() / y.var()).item() == pytest.approx(1, abs=0.03)
    assert (end.pow(4).mean() / end.var() ** 2).item() == pytest.approx(3, abs=0.12)
    assert ks_distance(end, y) < 0.015  # the two are dependent; 0.0086 is the 1 in 20 level of independent ones


def test_deterministic_carries_gaussian_noise() -> None:
    """The same with Gaussian noise and its own posterior mean, along a path that is known: y is scaled."""
    q, last = 2.0, 0.02
    y, _ = latents(COUNT // 4, 5)
    start = y + q * TAU * gaussian_noise(y, 6)(0)
    end = sample_deterministic(given_gaussian, start, geometric(scalar(q), scalar(last), 1024))
    exact = start * math.sqrt((1 + (last * TAU) ** 2) / (1 + (q * TAU) ** 2))
    torch.testing.assert_close(end, exact, rtol=2e-3, atol=1e-6)


def test_deterministic_from_rounding_stays_on_as_many_values() -> None:
    """A rounded latent takes a few values, and a deterministic sampler moves each of them to one: no new detail."""
    y, _ = latents(10_000, 7)
    rounded = 2 * (y / 2).round()
    end = sample_deterministic(given_uniform, rounded, geometric(scalar(2), scalar(2 / 64), 32))
    assert len(end.unique()) <= len(rounded.unique()) < 10


def variances(sampler: Callable[..., Tensor], start: Tensor, denoise: Denoise, q: float, y: Tensor) -> list[float]:
    """Of the ends at full randomness, over var(y), for each number of steps."""
    found: list[float] = []
    for steps in STEPS:
        qs = geometric(scalar(q), scalar(q / 64), steps)
        end = sampler(denoise, start, qs, randomness(1, 1, steps), gaussian_noise(start, 100 + steps))
        found.append((end.var() / y.var()).item())
    return found


def assert_approaches_one(found: list[float], smooth: float) -> None:
    """`smooth`: the variance of the posterior mean, which one step is close to."""
    errors = [abs(v - 1) for v in found]
    assert found[0] == pytest.approx(smooth, abs=0.01)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "q"), [(sample_bridge, 1.0), (sample_ancestral, 2.0)])
def test_variance_from_uniform_noise(sampler: Callable[..., Tensor], q: float) -> None:
    """At 1, 4, 16, 64 steps: 0.92, 0.93, 0.97, 0.99 for q = 1; 0.75, 0.79, 0.91, 0.98 for q = 2."""
    y, u = latents(COUNT, 8)
    start, denoise = y + q * u, on_the_path(q)
    smooth = (denoise(start, scalar(q)).var() / y.var()).item()
    assert smooth < {1.0: 0.94, 2.0: 0.77}[q]
    assert_approaches_one(variances(sampler, start, denoise, q, y), smooth)


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "q"), [(sample_ancestral, 2.5), (sample_bridge, 3.0)])
def test_variance_from_real_rounding(sampler: Callable[..., Tensor], q: float) -> None:
    """At 1, 4, 16, 64 steps: 0.63, 0.66, 0.87, 0.96 for q = 2.5; 0.50, 0.57, 0.84, 0.96 for q = 3.

    The denoiser knows the cell. At finer steps a few reverse steps do not pay: up to q = 1.5 the variance at 4 lies up to
    1% below that at one (q = 1: 0.923, 0.916, 0.960, 0.988), at q = 2 it is equal (0.747, 0.748, 0.895, 0.969). So that
    the error falls with every number of steps is asserted for coarser q only; that it is small at 64 holds for all.
    """
    y, _ = latents(COUNT, 9)
    rounded = q * (y / q).round()
    denoise = in_the_cell(rounded, q)
    smooth = (denoise(rounded, scalar(q)).var() / y.var()).item()
    assert smooth < {2.5: 0.65, 3.0: 0.52}[q]
    assert_approaches_one(variances(sampler, rounded, denoise, q, y), smooth)


def test_distribution_from_real_rounding() -> None:
    """From the few values of q = 3, 87% of them 0, back to the distribution of y, for every τ."""
    y, _ = latents(COUNT // 4, 10)
    q, steps = 3.0, 96
    rounded = q * (y / q).round()
    error_std = ((rounded - y).std() / q).item()
    assert error_std < 0.95 * TAU
    qs = geometric(scalar(q), scalar(q / 64), steps)
    for tau in (TAU, error_std):
        noise = gaussian_noise(y, 11)
        end = sample_bridge(in_the_cell(rounded, q, tau), rounded, qs, randomness(1, 1, steps), noise, tau=tau)
        assert (end.var() / y.var()).item() == pytest.approx(1, abs=0.06)
        assert ks_distance(end, y) < 0.02
        assert ((end - y).var() / (rounded - y).var()).item() > 1.2  # detail that fits, not the detail that was lost


def test_a_denoiser_for_uniform_noise_falls_short_from_coarse_rounding() -> None:
    """The limit of training on y + q·u alone: where most symbols are 0, no number of steps brings the variance back.

    At q = 3 the ends hold 0.81 of it at 64 steps and 0.85 at 1024 with the ancestral sampler, 0.72 with the deterministic
    one at either; the bridge with a denoiser that knows the rounded latent holds 0.96 at 64. At q = 2 the loss is 2%.
    """
    y, _ = latents(COUNT // 4, 12)
    q, steps = 3.0, 128
    rounded = q * (y / q).round()
    qs = geometric(scalar(q), scalar(q / 64), steps)
    ends = (
        sample_ancestral(given_uniform, rounded, qs, randomness(1, 1, steps), gaussian_noise(y, 13)),
        sample_deterministic(given_uniform, rounded, qs),
    )
    for end in ends:
        assert (end.var() / y.var()).item() < 0.88
