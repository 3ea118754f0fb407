"""Versions of a photograph, and what AV1 makes of them: a pair of pictures for `av1`.

A photograph is scaled, flipped and turned first, then coded as a whole, then cut: AV1's prediction and its filters are
directional and sit on the block grid, so a coded picture must never be turned, scaled or shifted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from unquant.codecs.avif import BASE, SUBSAMPLINGS, TUNES, AvifOptions, decode_avif, encode_avif, enlarge, reduce
from unquant.container.avif import parse_avif
from unquant.networks.av1 import Coding

__all__ = ["Made", "Version", "coding_of", "draw_version", "make_pair"]


class Version(NamedTuple):
    """How a version of a photograph is made: target size, flips, turn, the coder's options, half size."""

    size: tuple[int, int]
    flips: tuple[bool, bool]
    turn: bool
    options: AvifOptions
    half: bool


class Made(NamedTuple):
    """A pair of pictures (h, w, 3) uint8, how it was coded, the bytes and what they were made by."""

    x: npt.NDArray[np.uint8]
    x_q: npt.NDArray[np.uint8]
    coding: Coding
    version: Version
    data: bytes


def coding_of(data: bytes, pixels: int, *, half: bool = False) -> Coding:
    """What f is told of an .avif file that Pillow wrote. pixels: of the picture that is shown."""
    file = parse_avif(data)
    picture = file.picture
    assert picture.base_q_idx is not None
    bpp = 8 * file.coded_bytes / pixels
    return Coding(picture.base_q_idx, bpp, picture.using_qmatrix, picture.delta_q_present, picture.chroma, half)


def draw_version(
    shape: tuple[int, ...], smallest: int, base: float, half: float, uniform: Callable[[], float]
) -> Version:
    """A version of a photograph of a shape: scaled by 0.5 to 1 half of the time, never below crops of `smallest`.

    base, half: shares coded with the codec's own options, and at half size. uniform: draws from [0, 1).
    """

    def one_of(values: Sequence[Any]) -> Any:
        return values[int(uniform() * len(values))]

    height, width = shape[:2]
    scale = 1.0 if uniform() < 0.5 else 0.5 + 0.5 * uniform()
    scale = max(scale, smallest / min(height, width))
    size = max(smallest, round(height * scale)), max(smallest, round(width * scale))
    halved = uniform() < half
    # even over the qualities that are worth a network, thinner where the picture is nearly the original
    quality = int(5 + 55 * uniform()) if halved or uniform() < 0.75 else int(60 + 31 * uniform())
    speed = one_of((6, 6, 6, 7, 8))
    if uniform() < base:
        options = replace(BASE, quality=quality, speed=speed, deltaq_strength=one_of((BASE.deltaq_strength, 0, 25)))
    else:
        strength = one_of((None, 0, 20, 50))
        options = AvifOptions(quality, speed, one_of(TUNES), one_of(SUBSAMPLINGS), strength, one_of((None, None, 0, 2)))
    return Version(size, (uniform() < 0.5, uniform() < 0.5), uniform() < 0.5, options, halved)


def make_pair(photo: npt.NDArray[np.uint8], version: Version, data: bytes | None) -> Made:
    """The pair of a version of a photograph (h, w, 3). data: its coded bytes where they are known."""
    x = photo
    if x.shape[:2] != version.size:
        height, width = version.size
        x = np.array(PILImage.fromarray(x).resize((width, height), PILImage.Resampling.LANCZOS))
    x = x[:: -1 if version.flips[0] else 1, :: -1 if version.flips[1] else 1]
    x = np.ascontiguousarray(x.transpose(1, 0, 2) if version.turn else x)
    height, width = x.shape[:2]
    if data is None:
        data = encode_avif(reduce(x) if version.half else x, version.options)
    x_q, _ = decode_avif(data)
    if version.half:
        x_q = enlarge(x_q, height, width)
    return Made(x, x_q, coding_of(data, height * width, half=version.half), version, data)
