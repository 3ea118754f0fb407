"""The energy score: proper, finite, and enough to learn a distribution with two peaks in one evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unquant.train.energy import energy_score, latent_energy_score


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def distance_of(mean: float, scale: float) -> float:
    """E|X| of a Gaussian."""
    return scale * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * scale**2)) + mean * math.erf(
        mean / (scale * math.sqrt(2))
    )


def test_one_dimensional_gaussians_have_the_score_of_the_closed_form() -> None:
    """The target is N(0, 1), the candidates N(m, s²): the mean score is least at m = 0, s = 1."""
    first, second, target = (normal(1, 1, 1, 200_000, seed=seed) for seed in range(3))
    scores: dict[tuple[float, float], float] = {}
    for mean, scale in [(0.0, 1.0), (0.5, 1.0), (-0.5, 1.0), (0.0, 0.6), (0.0, 1.6), (0.0, 0.0), (0.3, 1.3)]:
        (score,) = energy_score(mean + scale * first, mean + scale * second, target)
        expected = distance_of(mean, math.hypot(1, scale)) - (scale / math.sqrt(math.pi))
        scores[mean, scale] = float(score)
        assert float(score) == pytest.approx(expected, abs=0.008)
    assert min(scores, key=scores.__getitem__) == (0.0, 1.0)


def test_equal_point_masses_score_nothing() -> None:
    point = normal(2, 3, 4, 5, seed=0)
    score = energy_score(point, point, point)
    assert score.shape == (2,)
    assert score.tolist() == pytest.approx([0, 0], abs=1e-4)
    # a point mass elsewhere: its distance, in root mean square over dimension 2
    assert energy_score(point + 0.5, point + 0.5, point).tolist() == pytest.approx([0.5, 0.5], abs=1e-3)


def test_the_gradient_is_finite_where_samples_coincide() -> None:
    target = normal(2, 1, 3, 4, seed=0)
    first, second = (target.clone().requires_grad_() for _ in range(2))
    energy_score(first, second, target).sum().backward()
    for sample in (first, second):
        assert sample.grad is not None
        assert torch.isfinite(sample.grad).all()


def test_groups_see_variance_in_the_wrong_channels() -> None:
    """The target has its variance in the first 16 channels, the swapped samples have theirs in the last 16."""
    scale = torch.cat([torch.full((16,), 2.0), torch.full((16,), 0.5)]).view(1, 32, 1, 1)
    first, second, target = (normal(64, 32, 8, 8, seed=seed) for seed in range(3))

    def excess(group: int) -> float:
        right = latent_energy_score(scale * first, scale * second, scale * target, group, 1)
        swapped = latent_energy_score(scale.flip(1) * first, scale.flip(1) * second, scale * target, group, 1)
        return float((swapped - right).mean())

    assert excess(16) > 0.15
    # one norm over all channels sees little but their sum
    assert abs(excess(32)) < 0.2 * excess(16)


def test_blocks_see_whether_neighbours_belong_together() -> None:
    """In the target all positions of a block are equal; the samples have its marginals, and independent positions."""
    first, second, target = (normal(64, 16, 2, 2, seed=seed).repeat_interleave(4, 2) for seed in range(3))
    first, second, target = (t.repeat_interleave(4, 3) for t in (first, second, target))
    apart = [normal(64, 16, 8, 8, seed=seed) for seed in (3, 4)]

    def excess(group: int, block: int) -> float:
        together = latent_energy_score(first, second, target, group, block)
        return float((latent_energy_score(apart[0], apart[1], target, group, block) - together).mean())

    assert abs(excess(1, 1)) < 0.02
    assert excess(1, 4) > 0.06
    # the more independent channels in one norm, the less it sees of this
    assert 0 < excess(16, 4) < 0.2 * excess(1, 4)


@pytest.mark.parametrize(("size", "block"), [((3, 9), 4), ((9, 10), 4), ((1, 1), 1)])
def test_sizes_that_blocks_do_not_divide(size: tuple[int, int], block: int) -> None:
    samples = [normal(2, 20, *size, seed=seed) for seed in range(3)]
    score = latent_energy_score(samples[0], samples[1], samples[2], 8, block)
    assert score.shape == (2,)
    assert torch.isfinite(score).all()


# ---- a one-dimensional latent with two peaks -------------------------------------------------------------------------


def two_peaks(side: Tensor, generator: torch.Generator) -> Tensor:
    """Targets (n, 1) given side information (n, 1): ±(1 + side) with equal odds, with a spread of 0.15."""
    sign = 2 * torch.randint(0, 2, side.shape, generator=generator) - 1
    return sign * (1 + side) + 0.15 * torch.randn(side.shape, generator=generator)


def trained(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> nn.Module:
    """A small f(ξ, side), given a loss of two outputs and the target."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    f = nn.Sequential(nn.Linear(2, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1))
    adam = torch.optim.Adam(f.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 500)
    for _ in range(500):
        side = torch.rand(1024, 1, generator=generator)
        target = two_peaks(side, generator)
        both = f(torch.cat([torch.randn(2048, 1, generator=generator), side.repeat(2, 1)], 1))
        adam.zero_grad()
        loss(*both.chunk(2), target).backward()
        adam.step()
        schedule.step()
    return f


def kolmogorov_smirnov(f: nn.Module, side: float, count: int = 4000) -> float:
    """The largest gap between the distribution functions of samples of f at N = 1 and of fresh targets."""
    generator = torch.Generator().manual_seed(1)
    given = torch.full((count, 1), side)
    with torch.no_grad():
        samples = f(torch.cat([torch.randn(count, 1, generator=generator), given], 1)).flatten().sort().values
    targets = two_peaks(given, generator).flatten().sort().values
    at = torch.cat([samples, targets])
    functions = [torch.searchsorted(s, at, right=True) / count for s in (samples, targets)]
    return float((functions[0] - functions[1]).abs().max())


@pytest.mark.slow
def test_two_peaks_come_out_of_one_evaluation() -> None:
    """A gap below 0.15 at every side: 0.5 is what one peak, or their mean, has at best."""
    f = trained(lambda first, second, target: energy_score(*(t[..., None] for t in (first, second, target))).mean())
    for side in (0.0, 0.5, 1.0):
        assert kolmogorov_smirnov(f, side) < 0.15


def test_squared_error_collapses_to_the_middle() -> None:
    f = trained(lambda first, second, target: 0.5 * ((first - target).square() + (second - target).square()).mean())
    for side in (0.0, 0.5, 1.0):
        assert kolmogorov_smirnov(f, side) > 0.45
