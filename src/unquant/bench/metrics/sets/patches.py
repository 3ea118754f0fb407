"""The patches of a picture, and what a network says of each."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unquant.bench.metrics.base import to_tensor, weights_version
from unquant.bench.metrics.sets.kinds import kinds_of
from unquant.errors import ModelMissing, OptionError
from unquant.perceptual import INCEPTION_FILE, LPIPS_FILES, find_weights, load_inception, load_vgg16

__all__ = [
    "EXTRACTORS",
    "PATCH",
    "Extractor",
    "Features",
    "extractor_versions",
    "load_extractor",
    "patch_features",
    "patches",
]

EXTRACTORS = {"VGG16": LPIPS_FILES["vgg"], "Inception": INCEPTION_FILE}  # and the files of their weights
PATCH = 256
BATCH = 4  # patches in a network at a time: more are no faster

Features = npt.NDArray[np.float32]


class Extractor(Protocol):
    """A network that describes patches. name: a key of `EXTRACTORS`. dimensions: d, of its features."""

    name: ClassVar[str]
    dimensions: ClassVar[int]

    def extract(self, x: Float[Tensor, "b 3 h w"], /) -> Float[Tensor, "b d"]: ...


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
            notes.append(f"{' and '.join(kind.name for kind in kinds_of(name))}: {error}")
    return versions, notes


def load_extractor(name: str, directory: Path | None = None) -> Extractor:
    """The extractor on the CPU. Raises OptionError for an unknown name, ModelMissing, WeightsError."""
    if name not in EXTRACTORS:
        raise OptionError(f"unknown extractor {name}; known: {', '.join(EXTRACTORS)}")
    if name == "Inception":
        return load_inception(directory)
    # a fifth faster with the channels last
    return load_vgg16(directory).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
