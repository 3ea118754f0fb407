"""The Fréchet distance is the formula of Gaussians, and torchmetrics'."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unquant.bench.metrics.sets.frechet import frechet_distance
from unquant.errors import OptionError


def gaussians(generator: np.random.Generator, d: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Means and covariances of two Gaussians."""
    means = [generator.normal(0, 1, d) for _ in range(2)]
    roots = [generator.normal(0, 1, (d, d)) for _ in range(2)]
    return means, [root @ root.T for root in roots]


def square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eig(matrix)
    return (vectors * np.sqrt(values)) @ np.linalg.inv(vectors)


def exact_sample(generator: np.random.Generator, mean: np.ndarray, covariance: np.ndarray, n: int) -> np.ndarray:
    """A sample with exactly this mean and this covariance."""
    x = generator.normal(0, 1, (n, len(mean)))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def test_the_frechet_distance_of_gaussians_is_the_formula() -> None:
    generator = np.random.default_rng(20)
    means, covariances = gaussians(generator)
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(
        covariances[0] + covariances[1] - 2 * square_root(covariances[0] @ covariances[1]).real
    )
    a, b = (exact_sample(generator, m, c, n) for m, c, n in zip(means, covariances, (40, 50), strict=True))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 0.5) == pytest.approx(6 * 0.25)
    assert frechet_distance(a, 3 * (a - means[0]) + means[0]) == pytest.approx(4 * np.trace(covariances[0]))


def test_the_frechet_distance_is_that_of_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Same(torch.nn.Module):
        num_features = 6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    generator = np.random.default_rng(21)
    a, b = generator.gamma(2, 1, (60, 6)), generator.gamma(3, 1, (70, 6))
    fid = FrechetInceptionDistance(Same())
    fid.update(torch.from_numpy(a), real=True)
    fid.update(torch.from_numpy(b), real=False)
    assert frechet_distance(a, b) == pytest.approx(float(fid.compute()), rel=1e-6)


def test_a_frechet_distance_needs_more_patches_than_dimensions() -> None:
    features = np.random.default_rng(22).normal(0, 1, (7, 6))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    with pytest.raises(OptionError, match="more than 6 patches"):
        frechet_distance(features[:6], features)
