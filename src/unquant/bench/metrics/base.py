"""What the files of metrics share: what a metric is, tensors of pictures, and versions for the keys of stored results."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Metric", "Score", "library_version", "to_tensor", "weights_version"]

Score = Callable[[Image.Image], float]


@dataclass(frozen=True)
class Metric:
    """One way to score a picture, ready to be used.

    version: of the library or the weights, with whatever else decides the values. against: takes a reference, computes
    its features and gives the function that scores pictures of the same size; all pictures are 8-bit RGB. smallest: the
    least side in pixels that it can score.
    """

    version: str
    against: Callable[[Image.Image], Score]
    smallest: int = 1


def to_tensor(image: Image.Image) -> Tensor:
    """(1, 3, h, w), float32 in [0, 1]."""
    import torch

    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def library_version(package: str, install: str = "unquant[bench]") -> str:
    """`package` and its version; nothing is imported. Raises ImportError naming what to install if it is missing."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError as error:
        raise ImportError(f"{package} is not installed; install {install}") from error


def weights_version(*paths: Path) -> str:
    """The first 12 hexadecimal digits of a SHA-256 over those of the files' contents."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]
