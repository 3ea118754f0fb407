"""The Fréchet distance of two sets of patches: FD-VGG16 and FID."""

from __future__ import annotations

import torch

from unquant.bench.metrics.sets.kernel import Matrix
from unquant.bench.metrics.sets.patches import Features
from unquant.errors import OptionError

__all__ = ["frechet_distance"]


def frechet_distance(a: Matrix | Features, b: Matrix | Features) -> float:
    """The Fréchet distance of the Gaussians with the means and covariances of two sets of features, (n, d) and (m, d).

    |μ_a - μ_b|² + Tr(A + B - 2·(AB)^½), ≥ 0 but for rounding. The eigenvalues of AB are those of the symmetric A^½BA^½,
    which is faster and safer than torchmetrics' general ones. Raises OptionError unless n, m > d.
    """
    if min(len(a), len(b)) <= a.shape[1]:
        raise OptionError(f"more than {a.shape[1]} patches needed, got {len(a)} and {len(b)}")
    x, y = (torch.from_numpy(each).double() for each in (a, b))
    first, second = torch.cov(x.T), torch.cov(y.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + first.trace() + second.trace() - 2 * shared)
