"""The images that codecs are measured on: found, read, named by their pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image

from unquant.errors import InputError
from unquant.images import read_rgb, readable_suffixes

__all__ = ["find_images", "pixels_id", "read_image"]


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
        if path.suffix.lower() in readable_suffixes()
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
