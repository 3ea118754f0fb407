"""Kernel distances of two sets of patches, and how far chance moves them: KD-VGG16 over pictures, KID over patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.bench.metrics.sets.patches import Features
from unquant.errors import OptionError

__all__ = [
    "Bootstrap",
    "Comparison",
    "Estimate",
    "Matrix",
    "PatchFeatures",
    "bootstrap",
    "kernel_distance",
    "kid",
    "paired_kernels",
    "resampled",
]

RESAMPLES = 1000
ROWS = 256  # rows of the kernel matrix held at a time
SUBSETS, SUBSET = 100, 1000  # of KID: how many, and patches in each

Matrix = npt.NDArray[np.float64]


class PatchFeatures(NamedTuple):
    """features: (n, d), float64. image: (n,), the number of the picture that each patch is from."""

    features: Matrix
    image: npt.NDArray[np.int64]


class Estimate(NamedTuple):
    """A distance and its standard error."""

    value: float
    sigma: float


class Comparison(NamedTuple):
    """Two distances from the same originals; difference is first - second, sigma its standard error."""

    first: float
    second: float
    difference: float
    sigma: float


def _sums(a: PatchFeatures, b: PatchFeatures) -> Matrix:
    """(pictures of a, pictures of b), in ascending order of their numbers: the kernel summed over all pairs of patches."""
    rows, columns = (np.unique(each.image, return_inverse=True)[1] for each in (a, b))
    membership = np.eye(columns.max(initial=-1) + 1)[columns]
    total = np.zeros((rows.max(initial=-1) + 1, membership.shape[1]))
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        kernel = (a.features[part] @ b.features.T / a.features.shape[1] + 1) ** 3
        np.add.at(total, rows[part], kernel @ membership)
    return total


def _mean(a: PatchFeatures, b: PatchFeatures) -> float:
    """The mean of the kernel over the pairs of patches from different pictures."""
    (a_numbers, a_counts), (b_numbers, b_counts) = (np.unique(each.image, return_counts=True) for each in (a, b))
    different = a_numbers[:, None] != b_numbers
    if not different.any():
        raise OptionError("a kernel distance needs patches of at least two pictures")
    return float(_sums(a, b)[different].sum() / np.outer(a_counts, b_counts)[different].sum())


def kernel_distance(a: PatchFeatures, b: PatchFeatures) -> float:
    """The unbiased MMD² of two sets: mean within a + mean within b - 2·mean between them, over different pictures.

    A number that occurs in both sets means the same picture (an original and its decode); sets of unrelated pictures
    need numbers of their own. Unbiased, so it can fall below 0. Raises OptionError for fewer than two pictures.
    """
    return _mean(a, a) + _mean(b, b) - 2 * _mean(a, b)


def kid(a: Matrix | Features, b: Matrix | Features, seed: int = 0) -> float:
    """KID of two sets of features, (n, d) and (m, d): the unbiased MMD² averaged over 100 random subsets of 1000 patches.

    The subsets are of min(1000, n, m) patches; where those are all, one is enough. Can fall below 0. The estimate is
    torchmetrics'. Raises ImportError where it (extra `bench`) is not installed, OptionError for fewer than two patches.
    """
    from torchmetrics.image.kid import poly_mmd

    size = min(SUBSET, len(a), len(b))
    if size < 2:
        raise OptionError("KID needs at least two patches of each set")
    generator = np.random.default_rng(seed)

    def drawn(features: Matrix | Features) -> Tensor:
        rows = generator.choice(len(features), size, replace=False)
        return torch.from_numpy(features[rows].astype(np.float64))

    subsets = 1 if size == len(a) == len(b) else SUBSETS
    return float(np.mean([float(poly_mmd(drawn(a), drawn(b))) for _ in range(subsets)]))


@dataclass(frozen=True)
class Bootstrap:
    """Distances of several codecs from the same originals, and what they are over resampled pictures.

    values: (codecs,). draws: (codecs, resamples); one column is one resample, the same pictures for all codecs.
    """

    values: Matrix
    draws: Matrix

    def estimate(self, codec: int) -> Estimate:
        return Estimate(float(self.values[codec]), float(self.draws[codec].std(ddof=1)))

    def compare(self, first: int, second: int) -> Comparison:
        difference = self.draws[first] - self.draws[second]
        a, b = float(self.values[first]), float(self.values[second])
        return Comparison(a, b, a - b, float(difference.std(ddof=1)))


def bootstrap(
    reference: PatchFeatures, decoded: Sequence[PatchFeatures], resamples: int = RESAMPLES, seed: int = 0
) -> Bootstrap:
    """The distance of each of `decoded` from `reference`, and the same over pictures drawn with replacement.

    Pictures are drawn whole, with all their patches and in all sets alike, so that a difference of two codecs is a
    paired one. With w_i the times that picture i was drawn and h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)
    summed over the patches of originals x and decodes y, a draw is the sum of w_i·w_j·h_ij over i ≠ j, divided by the
    number of such pairs of patches: a picture drawn twice is never paired with itself or with its copy. Draws of one
    picture alone are left out. For sets that are equal but for chance the standard error is too large, by up to √3.
    Raises OptionError if the sets do not hold patches of the same pictures in one order, or of fewer than two.
    """
    numbers, counts = np.unique(reference.image, return_counts=True)
    if any(not np.array_equal(each.image, reference.image) for each in decoded):
        raise OptionError("patches of the same pictures in the same order expected")
    if len(numbers) < 2:
        raise OptionError("a kernel distance needs patches of at least two pictures")
    return resampled([paired_kernels(reference, each) for each in decoded], counts, resamples, seed)


def paired_kernels(reference: PatchFeatures, decoded: PatchFeatures) -> Matrix:
    """h of `bootstrap`, (pictures, pictures)."""
    between = _sums(reference, decoded)
    return _sums(reference, reference) + _sums(decoded, decoded) - between - between.T


def resampled(
    kernels: Sequence[Matrix], counts: npt.NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0
) -> Bootstrap:
    """kernels: h of each codec. counts: (pictures,), patches of each, of at least two pictures."""
    pictures = len(counts)
    drawn = np.random.default_rng(seed).multinomial(pictures, np.full(pictures, 1 / pictures), resamples)
    drawn = drawn[drawn.max(1) < pictures]
    weights = np.vstack([np.ones(pictures), drawn])

    def weighted(matrix: Matrix) -> Matrix:
        apart = matrix * (1 - np.eye(pictures))
        return (weights @ apart * weights).sum(1)

    pairs = weighted(np.outer(counts, counts).astype(np.float64))
    values = np.stack([weighted(each) / pairs for each in kernels]) if kernels else np.empty((0, len(weights)))
    return Bootstrap(values[:, 0], values[:, 1:])
