"""A part of a picture, or a small copy of it: which pixels are asked for, and what becomes of what travels beside them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage
from torch import Tensor

from unquant.codecs.windows import Window
from unquant.images import from_arrays, metadata_of_part

__all__ = ["Beside", "part_image", "pixels_of", "shrunk"]

U8 = npt.NDArray[np.uint8]


class Beside(NamedTuple):
    """What a file holds beside its colours: alpha of the whole picture (h, w) uint8, and metadata."""

    alpha: U8 | None
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None


def pixels_of(out: Tensor, covered: Window, wanted: Window) -> U8:
    """The pixels `wanted`, (h, w, 3), of a plane (1, 3, h, w) uint8 that holds the pixels `covered` of the picture."""
    return wanted.seen_from(covered).cut(out)[0].permute(1, 2, 0).cpu().contiguous().numpy()


def shrunk(plane: U8, reduction: int) -> U8:
    """The mean of each square of `reduction` × `reduction` pixels of (h, w[, 3]); at the edges, of what there is of it."""
    return plane if reduction == 1 else np.asarray(PILImage.fromarray(plane).reduce(reduction))


def part_image(rgb: U8, beside: Beside, size: tuple[int, int], window: Window, reduction: int) -> PILImage.Image:
    """The PIL image of a part of a picture of `size` (h, w).

    rgb: of the pixels `window`, reduced already; alpha is cut and reduced here, and EXIF and XMP are made true for it.
    """
    alpha, icc, exif, xmp = beside
    if rgb.shape[:2] == size:
        return from_arrays(rgb, alpha, icc, exif, xmp)
    if alpha is not None:
        part = np.ascontiguousarray(alpha[window.top : window.bottom, window.left : window.right])
        alpha = shrunk(part, reduction)
    exif, xmp = metadata_of_part(exif, xmp, width=rgb.shape[1], height=rgb.shape[0])
    return from_arrays(rgb, alpha, icc, exif, xmp)
