"""Colours of any mode to sRGB, transparency apart."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from unquant.errors import warn
from unquant.images.cicp import HLG, Cicp
from unquant.images.hdr import tone_mapped
from unquant.images.numbers import U8, U16, checked_16_bit, from_16_bit, gray_to_8_bit
from unquant.images.profiles import Space

__all__ = ["deep_to_srgb", "split_alpha", "to_srgb", "unless_opaque"]

_SAME_COLOUR: Final = 2  # a profile that moves no probe by more than this is taken for sRGB
_GRAYS: Final = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
_UNUSABLE: Final = (ImageCms.PyCMSError, OSError, ValueError, TypeError, RuntimeError)
_MODES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""Pillow's modes by the names of colour spaces in ICC profiles."""


def split_alpha(image: Image.Image) -> tuple[Image.Image, U8 | None]:
    """The colour, in mode L, I;16, RGB, CMYK or LAB, and the alpha plane if there is any."""
    mode, key = image.mode, image.info.get("transparency")
    if mode == "F":
        return Image.fromarray(gray_to_8_bit(np.asarray(image))), None
    if mode.startswith("I;16") or mode == "I":
        values = checked_16_bit(np.asarray(image), mode)
        return Image.fromarray(values), _key_alpha(values == key) if isinstance(key, int) else None
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


def to_srgb(image: Image.Image, space: Space, name: str) -> U8:
    """(h, w, 3) uint8. image: mode L, I;16, RGB, CMYK or LAB. space: of its numbers; None is sRGB (D50 Lab for LAB).

    Light of a high dynamic range is mapped to that of sRGB (`hdr`), with an UnquantWarning. A profile that cannot be used is
    ignored with one. CMYK without a profile becomes R = (1 - C)·(1 - K) and so on, with one too.
    """
    if image.mode == "I;16":
        return deep_to_srgb(np.asarray(image)[:, :, None], space, name)
    if isinstance(space, Cicp):
        return _from_hdr(np.asarray(image.convert("RGB")), space, name)
    if space:
        with _unusable_profile_ignored(name):
            ImageCms.ImageCmsProfile(io.BytesIO(space))  # for what it raises
            found = _icc_space(space)
            image = _as_described(image, found)
            if _MODES.get(found) == image.mode:
                return _apply_profile(image, space)
            warn(f"{name}: a colour profile for {found} does not fit a picture in {image.mode}; ignored")
    if image.mode == "LAB":
        return _apply_profile(image, None)
    if image.mode == "CMYK":
        warn(f"{name}: CMYK without a profile: its colours in sRGB are a guess")
    return np.array(image.convert("RGB"))


def deep_to_srgb(values: U16, space: Space, name: str) -> U8:
    """(h, w, 3) uint8 of (h, w, 1 | 3) uint16 at full scale, converted with all bits (with a profile, and without
    imagecodecs, with 8). space, warnings: as in `to_srgb`."""
    if values.shape[2] == 3 and isinstance(space, bytes) and _icc_space(space) == "GRAY" and _is_gray(values):
        values = values[:, :, :1]
    if isinstance(space, Cicp):
        return _from_hdr(np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values, space, name)
    if not space:
        rounded = from_16_bit(values)
        return np.repeat(rounded, 3, axis=2) if values.shape[2] == 1 else rounded
    rounded = Image.fromarray(from_16_bit(values).squeeze(2) if values.shape[2] == 1 else from_16_bit(values))
    mode = _MODES.get(_icc_space(space))
    if importlib.util.find_spec("imagecodecs") is not None and mode in ("L", "RGB"):
        with suppress(*_UNUSABLE):  # of which there is a warning below
            if _transform(space, mode) is None:  # sRGB's own
                return deep_to_srgb(values, None, name)
            if mode == "RGB" or values.shape[2] == 1:
                return _apply_deep_profile(values, space, mode)
    return to_srgb(rounded, space, name)


def unless_opaque(alpha: U8 | None) -> U8 | None:
    """The alpha plane, (h, w) uint8; None where all is opaque."""
    return None if alpha is None or alpha.min() == 255 else alpha


def _from_hdr(values: npt.NDArray[Any], cicp: Cicp, name: str) -> U8:
    warn(f"{name}: a high dynamic range ({'HLG' if cicp.transfer == HLG else 'PQ'}), mapped to that of sRGB (BT.2390)")
    return tone_mapped(values, cicp)


def _icc_space(icc: bytes) -> str:
    return icc[16:20].decode("ascii", "replace").strip()


@contextmanager
def _unusable_profile_ignored(name: str) -> Generator[None]:
    try:
        yield
    except _UNUSABLE as error:
        warn(f"{name}: colour profile ignored, it cannot be used: {error}")


def _as_described(image: Image.Image, space: str) -> Image.Image:
    """Grey as RGB for a profile of RGB, and the reverse for grey that came as RGB."""
    if space == "RGB" and image.mode == "L":
        return image.convert("RGB")
    return image.getchannel(0) if space == "GRAY" and image.mode == "RGB" and _is_gray(np.asarray(image)) else image


def _is_gray(values: npt.NDArray[Any]) -> bool:
    return bool((values[:, :, 0] == values[:, :, 1]).all() and (values[:, :, 0] == values[:, :, 2]).all())


def _apply_deep_profile(values: U16, icc: bytes, mode: str) -> U8:
    """LittleCMS with its optimisation, which interpolates between points too far apart for dark colours, left out."""
    import imagecodecs

    levels = np.arange(65_536, dtype=np.uint16)[None] if mode == "L" else None
    rgb = imagecodecs.cms_transform(
        np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3))) if levels is None else levels,
        icc,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        colorspace="rgb" if levels is None else "gray",
        outcolorspace="rgb",
        outdtype="uint8",
        intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
        flags=imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION | imagecodecs.CMS.FLAGS.NOOPTIMIZE,
    )
    return rgb if levels is None else rgb[0][values[:, :, 0]]


def _apply_profile(image: Image.Image, icc: bytes | None) -> U8:
    transform = _transform(icc, image.mode)
    if transform is None:
        return np.array(image.convert("RGB"))
    if image.mode == "L":
        return np.asarray(transform.apply(_GRAYS))[0][np.asarray(image)]
    return np.array(transform.apply(image))


@lru_cache(maxsize=16)
def _transform(icc: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile, or D50 Lab, to sRGB; None where no colour moves. Cached: it takes longer to make than to apply."""
    transform = ImageCms.ImageCmsTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(icc) if icc else ImageCms.createProfile("LAB")),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        # of grey, LittleCMS's optimisation interpolates between points too far apart for dark levels
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION | (ImageCms.Flags.NOOPTIMIZE if mode == "L" else 0),
    )
    if mode in ("L", "RGB"):
        steps = np.linspace(0, 255, 9).round().astype(np.uint8)
        lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        probe = Image.fromarray(lattice) if mode == "RGB" else _GRAYS
        moved = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
        if np.abs(moved).max() <= _SAME_COLOUR:
            return None
    return transform


def _key_alpha(is_key: npt.NDArray[np.bool_]) -> U8:
    return np.where(is_key, 0, 255).astype(np.uint8)
