"""The codec under test, as the benchmarks see it: the public surface and no more."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from PIL import Image

import unquant
from unquant.errors import BitstreamError, InputError
from unquant.families import Family, family_of
from unquant.files import IMAGE_SUFFIXES
from unquant.images import read_rgb

__all__ = ["Codec", "family_of_file", "find_images", "load", "pixels_id", "q_index_of", "read_image"]


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


def family_of_file(data: bytes) -> Family | None:
    """The family of a file; None for one that is not of this format."""
    try:
        return family_of(unquant.info(data).family)
    except BitstreamError:
        return None


def q_index_of(data: bytes) -> int | None:
    """The q index in a file's header; None for a file that is not of this format."""
    try:
        return unquant.info(data).q_index
    except BitstreamError:
        return None


def find_images(folder: Path, *, recursive: bool = False, without: Path | None = None) -> list[Path]:
    """The image files in `folder` (or the one file given), sorted; hidden ones are left out. Raises InputError if none.

    recursive: those of its folders as well. without: a folder whose files are no inputs, such as that of the results.
    """
    if not folder.is_dir():
        return [folder]
    excluded = None if without is None else without.resolve()
    paths = [
        path
        for path in sorted(folder.rglob("*") if recursive else folder.glob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (excluded is None or excluded not in path.resolve().parents)
    ]
    if not paths:
        raise InputError(f"{folder}: no image files in this folder")
    return paths


def pixels_id(image: Image.Image) -> str:
    """What names a picture by its content: 16 hex digits of the SHA-256 of its size and its 8-bit RGB pixels."""
    head = f"{image.width}x{image.height} "
    return hashlib.sha256(head.encode() + image.convert("RGB").tobytes()).hexdigest()[:16]


def read_image(path: Path) -> Image.Image:
    """The picture in a file, 8-bit sRGB and upright, without alpha and metadata. Raises InputError, ImageTooLarge."""
    return Image.fromarray(read_rgb(path))
