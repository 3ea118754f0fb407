"""KD-VGG16: how far the decoded pictures as a set are from the originals as a set, with its standard error.

    pictures ──►┤256-px patches├──►┤VGG16, averaged├──► 512 values a patch ──►┤kernel, MMD²├──► distance, 0 for equal sets

A kernel distance in the manner of KID, with the features of VGG16 where KID has Inception's: its values must not be
compared with those of KID. Patches as in HiFiC (Mentzer et al. 2020, arXiv 2006.09965, appendix); the kernel
(x·y/d + 1)³ as in Bińkowski et al. 2018, "Demystifying MMD GANs" (arXiv 1801.01401).

Pictures, not patches, are the independent draws: patches of one picture overlap and resemble each other, and an original
resembles its own decode. So each mean of the kernel goes over the pairs of patches from two *different* pictures, between
the two sets as within each: the U-statistic of Gretton et al. 2012 (JMLR 13, lemma 6) with pictures as the draws. Its
expectation is the distance itself, 0 for a set and itself; counting an original beside its own decode, as KID does,
would favour codecs for closeness of each picture instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from unquant.bench.metrics import to_tensor
from unquant.bench.report import markdown_table
from unquant.errors import OptionError
from unquant.perceptual import VGG16

__all__ = [
    "PATCH",
    "Bootstrap",
    "Collector",
    "Comparison",
    "Difference",
    "Distance",
    "Estimate",
    "PatchFeatures",
    "Results",
    "bootstrap",
    "compare",
    "extract",
    "kernel_distance",
    "patches",
    "report",
]

PATCH = 256
RESAMPLES = 1000
BATCH = 2  # patches in VGG16 at a time: more are no faster
ROWS = 256  # rows of the kernel matrix held at a time

Matrix = npt.NDArray[np.float64]


class PatchFeatures(NamedTuple):
    """features: (n, d), d = 512 from VGG16, float64. image: (n,), the number of the picture that each patch is from."""

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


def patches(image: Image.Image, size: int = PATCH) -> list[Image.Image]:
    """The whole size×size patches of the grid from the top left, then those of the grid shifted by half a patch.

    Row by row, as many as fit: 6 + 2 of a 768×512 image at 256. Raises OptionError for an image that holds none.
    """
    if min(image.size) < size:
        raise OptionError(f"images of at least {size}×{size} expected, got {image.width}×{image.height}")
    return [
        image.crop((left, top, left + size, top + size))
        for shift in (0, size // 2)
        for top in range(shift, image.height - size + 1, size)
        for left in range(shift, image.width - size + 1, size)
    ]


@torch.inference_mode()
def extract(images: Sequence[Image.Image], vgg: VGG16) -> PatchFeatures:
    """The features of the patches of all images, on the device of `vgg`; pictures are numbered from 0 in this order.

    Raises OptionError for an image smaller than 256×256.
    """
    features: list[Matrix] = [np.empty((0, 512))]
    numbers: list[int] = []
    for number, image in enumerate(images):
        crops = patches(image)
        for start in range(0, len(crops), BATCH):
            batch = torch.cat([to_tensor(crop) for crop in crops[start : start + BATCH]])
            features.append(vgg.extract(batch.to(vgg.mean.device)).double().cpu().numpy())
        numbers += [number] * len(crops)
    return PatchFeatures(np.concatenate(features), np.array(numbers, np.int64))


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
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), resamples)
    drawn = drawn[drawn.max(1) < len(numbers)]
    weights = np.vstack([np.ones(len(numbers)), drawn])

    def weighted(matrix: Matrix) -> Matrix:
        apart = matrix * (1 - np.eye(len(numbers)))
        return (weights @ apart * weights).sum(1)

    within, pairs = _sums(reference, reference), weighted(np.outer(counts, counts).astype(np.float64))
    values = np.empty((len(decoded), len(weights)))
    for codec, features in enumerate(decoded):
        between = _sums(reference, features)
        values[codec] = weighted(within + _sums(features, features) - between - between.T) / pairs
    return Bootstrap(values[:, 0], values[:, 1:])


def compare(
    reference: PatchFeatures,
    first: PatchFeatures,
    second: PatchFeatures,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """The distances of two codecs from the same originals and the standard error of their difference; see `bootstrap`."""
    return bootstrap(reference, [first, second], resamples, seed).compare(0, 1)


class Distance(NamedTuple):
    """A setting's distance from the originals and its standard error."""

    target: str
    setting: str
    value: float
    sigma: float


class Difference(NamedTuple):
    """The distance of `first` minus that of `second`, and its standard error."""

    target: str
    first: str
    second: str
    difference: float
    sigma: float


class Results(NamedTuple):
    """images, patches: how many were measured; distances of all settings; differences of all pairs at one target."""

    images: int
    patches: int
    distances: list[Distance]
    differences: list[Difference]

    def flat(self) -> dict[str, object]:
        """The results as JSON holds them."""
        counts: dict[str, object] = {"images": self.images, "patches": self.patches}
        distances = [each._asdict() for each in self.distances]
        return counts | {"distances": distances, "differences": [each._asdict() for each in self.differences]}


class Collector:
    """Gathers the features of originals and of their decodes at many settings, one picture after the other.

    notes: what was left out and why, each once. Pictures below 256×256 are left out.
    """

    def __init__(self, vgg: VGG16) -> None:
        self.notes: list[str] = []
        self._vgg = vgg
        self._originals: list[Matrix] = []
        self._decoded: dict[tuple[str, str], list[Matrix]] = {}
        self._results: Results | None = None

    def against(self, reference: Image.Image) -> Callable[[str, str, Image.Image], None]:
        """A function (target, setting, picture) that takes in decodes of `reference`, one for each setting.

        Every setting must be given every reference.
        """
        if min(reference.size) < PATCH:
            self._note(f"KD-VGG16: left out where a side is below {PATCH} pixels")
            return lambda *_: None
        self._results = None
        self._originals.append(extract([reference], self._vgg).features)

        def collect(target: str, setting: str, image: Image.Image) -> None:
            if image.size != reference.size:
                raise OptionError(f"pictures of one size expected, got {reference.size} and {image.size}")
            self._decoded.setdefault((target, setting), []).append(extract([image], self._vgg).features)

        return collect

    def results(self) -> Results:
        """What the pictures so far give; no distances, but a note, if they are fewer than two."""
        if self._results is None:
            self._results = self._measure()
        return self._results

    def _measure(self) -> Results:
        numbers = np.repeat(np.arange(len(self._originals)), [len(features) for features in self._originals])
        if len(self._originals) < 2:
            self._note("KD-VGG16: at least two pictures are needed")
            return Results(len(self._originals), len(numbers), [], [])
        reference, *decoded = (
            PatchFeatures(np.concatenate(features), numbers) for features in (self._originals, *self._decoded.values())
        )
        sampled = bootstrap(reference, decoded)
        settings = list(enumerate(self._decoded))
        distances = [Distance(*setting, *sampled.estimate(codec)) for codec, setting in settings]
        differences = [
            Difference(target, a, b, *sampled.compare(first, second)[2:])
            for (first, (target, a)), (second, (other, b)) in combinations(settings, 2)
            if target == other
        ]
        return Results(len(self._originals), len(numbers), distances, differences)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def report(results: Results) -> str:
    """The results as Markdown: a line for each setting, then one for each pair of settings of a target, all ×1000."""

    def scaled(*values: float) -> list[str]:
        return [f"{1000 * value:.3f}" for value in values]

    distances = [[each.target, each.setting, *scaled(each.value, each.sigma)] for each in results.distances]
    differences = [
        [each.target, each.first, each.second, *scaled(each.difference, each.sigma)] for each in results.differences
    ]
    parts = [
        f"KD-VGG16 ×1000 over {results.images} pictures, {results.patches} patches; σ by bootstrap over pictures:",
        markdown_table(["target", "setting", "KD-VGG16", "σ"], distances),
    ]
    if differences:
        parts.append(markdown_table(["target", "setting", "minus", "difference", "σ"], differences))
    return "\n\n".join(parts)
