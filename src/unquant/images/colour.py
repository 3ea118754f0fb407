"""Colours of any mode to sRGB, transparency apart."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from unquant.errors import warn
from unquant.images.numbers import U8, gray_to_8_bit

__all__ = ["split_alpha", "to_srgb", "unless_opaque"]

_SAME_COLOUR: Final = 2  # a profile that moves no probe by more than this is taken for sRGB


def split_alpha(image: Image.Image) -> tuple[Image.Image, U8 | None]:
    """The colour, in mode L, RGB, CMYK or LAB, and the alpha plane if there is any."""
    mode, key = image.mode, image.info.get("transparency")
    if mode.startswith("I;16") or mode in ("I", "F"):
        values = np.asarray(image)
        alpha = _key_alpha(values == key) if isinstance(key, int) and mode != "F" else None
        return Image.fromarray(gray_to_8_bit(values, mode)), alpha
    if mode in ("1", "L"):
        gray = image.convert("L")
        if not isinstance(key, int):
            return gray, None
        return gray, _key_alpha(np.asarray(gray) == (255 if mode == "1" and key else key))
    if mode == "RGB" and isinstance(key, tuple) and len(cast("tuple[int, ...]", key)) == 3:
        colour = np.array(cast("tuple[int, int, int]", key))
        if colour.max() > 255:  # the key of a 16-bit file, whose pixels Pillow has cut to their high bytes
            colour >>= 8
        return image, _key_alpha((np.asarray(image) == colour).all(axis=2))
    if mode in ("CMYK", "LAB", "RGB"):
        return image, None
    if mode in ("LA", "La"):
        gray, alpha = image.convert("LA").split()
        return gray, np.array(alpha)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), np.array(rgba.getchannel("A"))
    return image.convert("RGB"), None


def to_srgb(image: Image.Image, icc: bytes | None, name: str) -> U8:
    """(h, w, 3) uint8. image: mode L, RGB, CMYK or LAB. icc: its profile; None is sRGB (D50 Lab for LAB)."""
    if icc:
        try:
            ImageCms.ImageCmsProfile(io.BytesIO(icc))  # for what it raises
            space = icc[16:20].decode("ascii", "replace").strip()
            if space == "RGB" and image.mode == "L":
                image = image.convert("RGB")
            if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(space) == image.mode:
                return _apply_profile(image, icc)
            warn(f"{name}: a colour profile for {space} does not fit a picture in {image.mode}; ignored")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            warn(f"{name}: colour profile ignored, it cannot be used: {error}")
    if image.mode == "LAB":
        return _apply_profile(image, None)
    return np.array(image.convert("RGB"))


def unless_opaque(alpha: U8 | None) -> U8 | None:
    """The alpha plane, (h, w) uint8; None where all is opaque."""
    return None if alpha is None or alpha.min() == 255 else alpha


def _apply_profile(image: Image.Image, icc: bytes | None) -> U8:
    transform = _transform(icc, image.mode)
    return np.array(image.convert("RGB") if transform is None else transform.apply(image))


@lru_cache(maxsize=16)
def _transform(icc: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile, or D50 Lab, to sRGB; None where no colour moves. Cached: it takes longer to make than to apply."""
    transform = ImageCms.ImageCmsTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(icc) if icc else ImageCms.createProfile("LAB")),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if mode in ("L", "RGB"):
        steps = np.linspace(0, 255, 9).round().astype(np.uint8)
        lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        probe = Image.fromarray(lattice if mode == "RGB" else np.arange(256, dtype=np.uint8)[None])
        moved = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
        if np.abs(moved).max() <= _SAME_COLOUR:
            return None
    return transform


def _key_alpha(is_key: npt.NDArray[np.bool_]) -> U8:
    return np.where(is_key, 0, 255).astype(np.uint8)
