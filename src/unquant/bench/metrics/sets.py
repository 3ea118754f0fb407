"""How far the decoded pictures as a set are from the originals as a set: KD-VGG16, FD-VGG16, KID and FID.

    pictures ──►┤256-px patches├──►┤VGG16 or Inception├──► features of patches, (n, d) a picture ──► stored
    features of originals, of decodes ──►┤kernel or Fréchet distance├──► value, standard error; 0 for equal sets

Patches as in HiFiC (Mentzer et al. 2020, arXiv 2006.09965, appendix). Inception gives KID (Bińkowski et al. 2018,
"Demystifying MMD GANs", arXiv 1801.01401) and FID (Heusel et al. 2017, arXiv 1706.08500) as they are usually computed.
With the features of VGG16 they are called KD-VGG16 and FD-VGG16: their values must not be compared with those of KID and
FID. A Fréchet distance is measured only where patches outnumber the dimensions of the features, as its covariances are
singular elsewhere.

KD-VGG16 differs from KID in one more thing. Pictures, not patches, are the independent draws: patches of one picture
overlap and resemble each other, and an original resembles its own decode. So each mean of the kernel (x·y/d + 1)³ goes
over the pairs of patches from two *different* pictures, between the two sets as within each: the U-statistic of Gretton
et al. 2012 (JMLR 13, lemma 6) with pictures as the draws. Its expectation is the distance itself, 0 for a set and
itself; counting an original beside its own decode, as KID does, favours codecs for closeness of each picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unquant.bench.metrics.base import to_tensor, weights_version
from unquant.bench.tables import markdown_table, number
from unquant.errors import ModelMissing, OptionError
from unquant.perceptual import INCEPTION_FILE, LPIPS_FILES, find_weights, load_inception, load_vgg16

__all__ = [
    "PATCH",
    "Bootstrap",
    "Comparison",
    "Difference",
    "Distance",
    "Estimate",
    "Extractor",
    "PatchFeatures",
    "Results",
    "bootstrap",
    "compare",
    "distances",
    "extractor_versions",
    "frechet_distance",
    "kernel_distance",
    "kid",
    "load_extractor",
    "patch_features",
    "patches",
    "report",
]

PATCH = 256
RESAMPLES = 1000
BATCH = 4  # patches in a network at a time: more are no faster
ROWS = 256  # rows of the kernel matrix held at a time
SUBSETS, SUBSET = 100, 1000  # of KID: how many, and patches in each
EXTRACTORS = {"VGG16": LPIPS_FILES["vgg"], "Inception": INCEPTION_FILE}  # and the files of their weights
KINDS = {"VGG16": ("KD-VGG16", "FD-VGG16"), "Inception": ("KID", "FID")}

Matrix = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]


class Extractor(Protocol):
    """A network that describes patches. name: a key of `EXTRACTORS`. dimensions: d, of its features."""

    name: ClassVar[str]
    dimensions: ClassVar[int]

    def extract(self, x: Float[Tensor, "b 3 h w"], /) -> Float[Tensor, "b d"]: ...


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
def patch_features(image: Image.Image, extractor: Extractor) -> Features:
    """(n, d), float32, contiguous: the features of the patches of the image, in the order of `patches`.

    n is 0 for an image below 256×256.
    """
    crops = patches(image) if min(image.size) >= PATCH else []
    features = [np.empty((0, extractor.dimensions), np.float32)]
    for start in range(0, len(crops), BATCH):
        batch = torch.cat([to_tensor(crop) for crop in crops[start : start + BATCH]])
        features.append(extractor.extract(batch).float().numpy())
    return np.concatenate(features)


def extractor_versions(directory: Path | None = None) -> tuple[dict[str, str], list[str]]:
    """The extractors whose weights are installed, with the hash of the weights; and a note for each of the others.

    directory: the folder of metric weights, see `unquant.perceptual`; None takes `UNQUANT_METRICS`.
    """
    versions: dict[str, str] = {}
    notes: list[str] = []
    for name, file in EXTRACTORS.items():
        try:
            versions[name] = weights_version(find_weights(file, directory))
        except ModelMissing as error:
            notes.append(f"{' and '.join(KINDS[name])}: {error}")
    return versions, notes


def load_extractor(name: str, directory: Path | None = None) -> Extractor:
    """The extractor on the CPU. Raises OptionError for an unknown name, ModelMissing, WeightsError."""
    if name not in EXTRACTORS:
        raise OptionError(f"unknown extractor {name}; known: {', '.join(EXTRACTORS)}")
    if name == "Inception":
        return load_inception(directory)
    # a fifth faster with the channels last
    return load_vgg16(directory).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


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
    return _resampled([_kernels(reference, each) for each in decoded], counts, resamples, seed)


def _kernels(reference: PatchFeatures, decoded: PatchFeatures) -> Matrix:
    """h of `bootstrap`, (pictures, pictures)."""
    between = _sums(reference, decoded)
    return _sums(reference, reference) + _sums(decoded, decoded) - between - between.T


def _resampled(
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
    """A setting's distance from the originals and its standard error, over so many images.

    kind: "KD-VGG16", "FD-VGG16", "KID" or "FID". value: None where it cannot be measured; sigma: None without one.
    """

    kind: str
    target: str
    setting: str
    value: float | None
    sigma: float | None
    images: int


class Difference(NamedTuple):
    """The distance of `first` minus that of `second` over the images that both have, and its standard error."""

    kind: str
    target: str
    first: str
    second: str
    difference: float
    sigma: float
    images: int


class Results(NamedTuple):
    """images, patches: of the originals; distances of all settings; differences of all pairs at one target; notes.

    notes: what could not be measured and why.
    """

    images: int
    patches: int
    distances: list[Distance]
    differences: list[Difference]
    notes: list[str]

    def joined(self, other: Results) -> Results:
        """With the results of another extractor on the same pictures."""
        return Results(
            self.images,
            self.patches,
            self.distances + other.distances,
            self.differences + other.differences,
            self.notes + other.notes,
        )

    def flat(self) -> dict[str, object]:
        """The results as JSON holds them."""
        lists = {name: [each._asdict() for each in getattr(self, name)] for name in ("distances", "differences")}
        return {**self._asdict(), **lists}


@dataclass(frozen=True)
class _Set:
    """A setting's pictures against their originals. images: their ids. kernels: h of `bootstrap`. counts: of patches."""

    images: list[str]
    originals: PatchFeatures
    decoded: PatchFeatures
    kernels: Matrix
    counts: npt.NDArray[np.int64]

    @cached_property
    def kid(self) -> float:
        return kid(self.originals.features, self.decoded.features)

    def only(self, images: list[str]) -> _Set:
        """The same with some of its images alone."""
        if images == self.images:
            return self
        rows = np.array([self.images.index(image) for image in images])
        originals, decoded = (
            PatchFeatures(each.features[kept], each.image[kept])
            for each in (self.originals, self.decoded)
            for kept in (np.isin(each.image, rows),)
        )
        return _Set(images, originals, decoded, self.kernels[np.ix_(rows, rows)], self.counts[rows])


def _set(images: list[str], originals: Mapping[str, Features], decoded: Mapping[str, Features]) -> _Set:
    for image in images:
        if originals[image].shape != decoded[image].shape:
            raise OptionError(f"{image}: the picture has other patches than its original")
    counts = np.array([len(originals[image]) for image in images], np.int64)
    numbers = np.repeat(np.arange(len(images)), counts)
    reference, found = (
        PatchFeatures(np.concatenate([each[image] for image in images]).astype(np.float64), numbers)
        for each in (originals, decoded)
    )
    return _Set(images, reference, found, _kernels(reference, found), counts)


def distances(
    originals: Mapping[str, Features],
    decoded: Mapping[tuple[str, str], Mapping[str, Features]],
    extractor: str = "VGG16",
) -> Results:
    """The distances of every setting from the originals, and the differences of the settings of each target.

    originals: features of `patch_features` by the id of the image. decoded: the same of the decodes of each (target,
    setting). A setting is compared over the pictures that it has, two settings over those that both have; images without
    patches, and decodes without an original, are left out. extractor: the name of the one that made the features.

    Standard errors are by `bootstrap`, for KID too, whose value is over the same pairs of patches and, besides, the few
    within a picture. Fréchet distances have none, and no differences, as theirs would have no standard error.
    Raises OptionError for an unknown extractor, or where a picture's patches are not as many as its original's.
    """
    if extractor not in KINDS:
        raise OptionError(f"unknown extractor {extractor}; known: {', '.join(KINDS)}")
    kernel_kind, frechet_kind = KINDS[extractor]
    originals = {image: features for image, features in originals.items() if len(features)}
    found: list[Distance] = []
    differences: list[Difference] = []
    notes: list[str] = []
    sets: dict[tuple[str, str], _Set] = {}
    for (target, setting), features in decoded.items():
        images = [image for image in originals if image in features]
        if len(images) < 2:
            notes.append(f"{kernel_kind}: {setting} at {target} has fewer than two pictures of {PATCH}×{PATCH} or more")
            continue
        made = sets[target, setting] = _set(images, originals, features)
        value, sigma = _resampled([made.kernels], made.counts).estimate(0)
        value = made.kid if extractor == "Inception" else value
        found.append(Distance(kernel_kind, target, setting, value, sigma, len(images)))
        count, dimensions = made.originals.features.shape
        enough = count > dimensions
        value = frechet_distance(made.originals.features, made.decoded.features) if enough else None
        found.append(Distance(frechet_kind, target, setting, value, None, len(images)))
        if not enough:
            notes.append(f"{frechet_kind}: more than {dimensions} patches are needed, there are {count}")
    for (one, first), (other, second) in combinations(sets.items(), 2):
        common = [image for image in first.images if image in second.images]
        if one[0] == other[0] and len(common) >= 2:
            a, b = first.only(common), second.only(common)
            apart = _resampled([a.kernels, b.kernels], a.counts).compare(0, 1)
            difference = a.kid - b.kid if extractor == "Inception" else apart.difference
            differences.append(Difference(kernel_kind, one[0], one[1], other[1], difference, apart.sigma, len(common)))
    total = sum(len(features) for features in originals.values())
    return Results(len(originals), total, found, differences, list(dict.fromkeys(notes)))


def report(results: Results) -> str:
    """The results as Markdown: a line for each distance, then one for each pair of settings of a target.

    Kernel distances are ×1000.
    """

    def scaled(kind: str, *values: float | None) -> list[str]:
        factor = 1 if kind in ("FD-VGG16", "FID") else 1000
        return [number(None if value is None else factor * value, 3) for value in values]

    rows = [
        [each.kind, each.target, each.setting, *scaled(each.kind, each.value, each.sigma), str(each.images)]
        for each in results.distances
    ]
    differences = [
        [each.kind, each.target, each.first, each.second, *scaled(each.kind, each.difference, each.sigma)]
        for each in results.differences
    ]
    parts = [
        f"Distances of sets over {results.images} pictures, {results.patches} patches; KD-VGG16 and KID ×1000; σ by "
        "bootstrap over pictures:",
        markdown_table(["kind", "target", "setting", "distance", "σ", "pictures"], rows),
    ]
    if differences:
        parts.append(markdown_table(["kind", "target", "setting", "minus", "difference", "σ"], differences))
    return "\n\n".join(parts)
