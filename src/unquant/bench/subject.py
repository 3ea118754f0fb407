"""The codec under test, as the benchmarks see it: the public surface and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from PIL import Image, ImageOps, UnidentifiedImageError

import unquant
from unquant.errors import BitstreamError, InputError

__all__ = ["Codec", "find_images", "load", "q_index_of", "read_image"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm"})


class Codec(Protocol):
    """What the benchmarks ask of a codec; the object that `unquant.load` gives satisfies it."""

    @property
    def weights_id(self) -> str: ...

    def encode(
        self,
        image: Image.Image,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        target_bytes: int | None = None,
        q_index: int | None = None,
    ) -> bytes: ...

    def decode(
        self, data: bytes, *, realism: float | None = None, steps: int | None = None, seed: int | None = None
    ) -> Image.Image: ...


def load(name: str) -> Codec:
    """The codec called `name` (see `unquant models`). Raises ModelMissing."""
    return unquant.load(name)


def q_index_of(data: bytes) -> int | None:
    """The q index in a file's header; None for a file that is not of this format."""
    try:
        return unquant.info(data).q_index
    except BitstreamError:
        return None


def find_images(folder: Path) -> list[Path]:
    """The image files directly in `folder` (or the one file given), sorted by name. Raises InputError if none."""
    if folder.is_file():
        return [folder]
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{folder}: no image files in this folder")
    return paths


def read_image(path: Path) -> Image.Image:
    """The picture as 8-bit RGB, upright, without metadata. Raises InputError."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path}: {error}") from error
    image.info.clear()
    return image
