"""A region of interest: from a mask to finer steps there and coarser ones elsewhere, for both kinds of codec.

A latent has a step for each position: its q index is moved by `q_offsets`. AV1 has one for each superblock, and libaom takes
a map that guides it: the share of the bits that each block of 16×16 pixels is to have (`rate_guide`).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image as PILImage

__all__ = ["BLOCK", "mask_weights", "q_offsets", "rate_guide"]

BLOCK: Final = 16
"""Pixels a side of a latent position, and of a block of libaom's guide."""
_GRAIN: Final = 4
"""Offsets are multiples of it: a soft mask then takes few bytes."""
_PART: Final = 8
"""Pixels a side of the blocks that libaom estimates rates by."""
_BAND: Final = 256
"""Rows of a picture at a time, for the memory that they take."""
_DEADZONE: Final = 0.4
"""What is added before a coefficient is cut to its level."""
_LUMA: Final = (0.2126, 0.7152, 0.0722)


def mask_weights(mask: UInt8[np.ndarray, "a b"], height: int, width: int) -> Float[np.ndarray, "h16 w16"]:
    """How much each block of a picture of that size belongs to the region, 0 … 1: the mean of the mask, scaled to it."""
    grey = PILImage.fromarray(mask)
    if grey.size != (width, height):
        grey = grey.resize((width, height), PILImage.Resampling.BILINEAR)
    return _blocks(np.asarray(grey, np.float32), BLOCK).mean((2, 3)) / 255


def q_offsets(weights: Float[np.ndarray, "h16 w16"], gain: float) -> Int[np.ndarray, "h16 w16"]:
    """What is added to the q index at each position, so that the step where the weight is 1 is that elsewhere over `gain`."""
    from unquant.networks.common import Q_INDEX_OCTAVE  # takes torch, which what else is here does not

    return _GRAIN * np.rint(-Q_INDEX_OCTAVE * math.log2(gain) / _GRAIN * weights).astype(np.int64)


def rate_guide(
    rgb: UInt8[np.ndarray, "h w 3"], weights: Float[np.ndarray, "h16 w16"], gain: float, step: float, even: float = 0
) -> Float[np.ndarray, "h16 w16"]:
    """The bits that libaom's mode of a guided step is to aim at, by blocks, so that steps come out as in `q_offsets`.

    step: of the quantiser, in levels. libaom (`get_rate_guided_quantizer` of its allintra_vis.c) divides the step of a
    superblock by 2^d, where 1 + d is the guide over what it estimates the block to take, the sums of both over the picture
    made equal. So the guide is our own estimate times 1 + d, with d = log2(gain)·(weight − mean), the mean one of bits. d
    ends at −1. even: the share in which all blocks are to have the same, 0 … 1: smooth ones then become finer, and the file
    larger.
    """
    bands = (rgb[top : top + _BAND] @ np.array(_LUMA, np.float32) for top in range(0, rgb.shape[0], _BAND))
    rates = np.concatenate([_estimated_rates(band, step) for band in bands])
    wanted = rates + even * (rates.mean() - rates)
    shift = math.log2(gain) * (weights - (rates * weights).sum() / rates.sum())
    return wanted * np.maximum(1 + shift, 0)


def _blocks(plane: Float[np.ndarray, "h w"], side: int) -> Float[np.ndarray, "rows columns side side"]:
    """A plane in squares, its edge repeated to whole blocks of `BLOCK`."""
    height, width = plane.shape
    plane = np.pad(plane, ((0, -height % BLOCK), (0, -width % BLOCK)), mode="edge")
    return plane.reshape(plane.shape[0] // side, side, -1, side).swapaxes(1, 2)


def _estimated_rates(luma: Float[np.ndarray, "h w"], step: float) -> Float[np.ndarray, "h16 w16"]:
    """About what libaom's pass before the encode finds: of each 8×8 the best of three predictions from its borders, and a bit
    or more for each coefficient up to the last that is not 0."""
    parts = _blocks(luma, _PART)
    rows, columns = parts.shape[:2]
    above = np.concatenate([parts[:1, :, 0], parts[:-1, :, -1]])[:, :, None, :]
    before = np.concatenate([parts[:, :1, :, 0], parts[:, :-1, :, -1]], 1)[:, :, :, None]
    mean = (above.mean(-1, keepdims=True) + before.mean(-2, keepdims=True)) / 2
    k = np.arange(_PART)
    dct = np.cos(np.pi * (2 * k + 1) * k[:, None] / (2 * _PART), dtype=np.float32) / 2
    dct[0] /= np.sqrt(2)
    predicted = [np.abs(dct @ (parts - guess) @ dct.T) for guess in (above, before, mean)]
    best = np.argmin([found.sum((2, 3)) for found in predicted], 0)
    found = np.take_along_axis(np.stack(predicted), best[None, :, :, None, None], 0)[0]
    levels = np.floor(found / step + _DEADZONE).reshape(rows, columns, -1)
    levels = levels[:, :, np.argsort(np.add.outer(k, k), axis=None, kind="stable")]
    coded = np.flip(np.logical_or.accumulate(np.flip(levels > 0, 2), 2), 2)
    bits = 1 + (coded * (1 + np.floor(np.log2(1 + levels)) + (levels > 0))).sum(2)
    return bits.reshape(rows // 2, 2, columns // 2, 2).sum((1, 3))
