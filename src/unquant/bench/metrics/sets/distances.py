"""The distances of many settings from the same originals, and of the settings of a target from each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unquant.bench.metrics.sets.frechet import frechet_distance
from unquant.bench.metrics.sets.kernel import Estimate, Matrix, PatchFeatures, kid, paired_kernels, resampled
from unquant.bench.metrics.sets.kinds import SetDistance, kinds_of
from unquant.bench.metrics.sets.patches import PATCH, Features
from unquant.errors import OptionError

__all__ = ["Difference", "Distance", "Results", "distances"]


class Distance(NamedTuple):
    """A setting's distance from the originals and its standard error, over so many images.

    kind: a name of `kinds.KINDS`. value: None where it cannot be measured; sigma: None without one.
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
    def _over_pictures(self) -> Estimate:
        return resampled([self.kernels], self.counts).estimate(0)

    @cached_property
    def _over_patches(self) -> float:
        return kid(self.originals.features, self.decoded.features)

    @cached_property
    def _frechet(self) -> float | None:
        count, dimensions = self.originals.features.shape
        return frechet_distance(self.originals.features, self.decoded.features) if count > dimensions else None

    def distance(self, kind: SetDistance) -> tuple[float | None, float | None]:
        """A distance and its standard error, None for what cannot be had."""
        match kind.statistic:
            case "kernel over pictures":
                return self._over_pictures
            case "kernel over patches":
                return self._over_patches, self._over_pictures.sigma
            case "frechet":
                return self._frechet, None

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
    return _Set(images, reference, found, paired_kernels(reference, found), counts)


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
    kinds = kinds_of(extractor)
    originals = {image: features for image, features in originals.items() if len(features)}
    found: list[Distance] = []
    differences: list[Difference] = []
    notes: list[str] = []
    sets: dict[tuple[str, str], _Set] = {}
    for (target, setting), features in decoded.items():
        images = [image for image in originals if image in features]
        if len(images) < 2:
            few = f"fewer than two pictures of {PATCH}×{PATCH} or more"
            notes.append(f"{kinds[0].name}: {setting} at {target} has {few}")
            continue
        made = sets[target, setting] = _set(images, originals, features)
        for kind in kinds:
            value, sigma = made.distance(kind)
            found.append(Distance(kind.name, target, setting, value, sigma, len(images)))
            if value is None:
                count, dimensions = made.originals.features.shape
                notes.append(f"{kind.name}: more than {dimensions} patches are needed, there are {count}")
    for (one, first), (other, second) in combinations(sets.items(), 2):
        common = [image for image in first.images if image in second.images]
        if one[0] == other[0] and len(common) >= 2:
            a, b = first.only(common), second.only(common)
            apart = resampled([a.kernels, b.kernels], a.counts).compare(0, 1)
            for kind in kinds:
                if kind.statistic != "frechet":
                    values = a.distance(kind)[0], b.distance(kind)[0]
                    difference = (values[0] or 0) - (values[1] or 0)
                    entry = Difference(kind.name, one[0], one[1], other[1], difference, apart.sigma, len(common))
                    differences.append(entry)
    total = sum(len(features) for features in originals.values())
    return Results(len(originals), total, found, differences, list(dict.fromkeys(notes)))
