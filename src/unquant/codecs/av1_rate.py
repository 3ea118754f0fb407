"""Rate control of the family `av1`: qualities of libavif, deltaq between two of them, and half size where they are low."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable
from typing import Final

from unquant.codecs.options import QUALITY_MAX
from unquant.codecs.progress import tell
from unquant.codecs.rate import is_close, search_q_index, slack_of, unreachable, warn_unless_close

__all__ = ["base_q_idx_of", "largest_file", "nominal_base_q_idx"]


def _quantiser(quality: int) -> int:
    """libavif's for tune iq, 0 … 63, by which it picks AV1's base_q_idx (`codec_aom.c` of libavif 1.4)."""
    if quality == QUALITY_MAX:
        return 0
    if quality >= 54:
        return 35 - (3 * (quality - 54) + 2) // 4
    if quality >= 29:
        return 50 - (6 * (quality - 29) + 5) // 10
    return 61 - (quality - 6) // 2 if quality >= 7 else 63 - quality // 3


# one quality for each of the quantisers; the best one first
_QUALITIES: Final = sorted({_quantiser(q): q for q in range(QUALITY_MAX + 1)}.values(), reverse=True)
_MOST_STRENGTH: Final = 70
"""Of deltaq, up to which a file is filled: more of it costs quality."""
_LEAST_FULL: Final = 11
"""The lowest quality of full size where there is half size: below it a picture of half size is drawn better."""
_START: Final = next(i for i, quality in enumerate(_QUALITIES) if quality <= _LEAST_FULL)
"""Where a search begins; of full size that file is there already."""
_TYPICAL: Final = (
    (0.05, 245),
    (0.1, 225),
    (0.2, 200),
    (0.4, 175),
    (0.8, 145),
    (1.6, 100),
    (2.5, 60),
    (4.0, 25),
    (6.0, 10),
)
"""Bits per pixel and base_q_idx of photographs in AV1 (Kodak, tune ssim, 4:4:4)."""

FileAt = Callable[[int, int, bool], bytes]
"""The file of a quality, a strength of deltaq, and whether it is coded at half size."""


def largest_file(file_at: FileAt, target: int, strength: int, *, may_halve: bool, metadata: int = 0) -> bytes:
    """The largest file of at most `target` bytes: by quality, then by deltaq-strength; at half size where quality is low.

    strength: of deltaq as a rule. may_halve: whether there are files of half size. metadata: bytes of it in every file. Each
    file is made once. Where the highest rate is far below the target there is a warning. Raises RateUnreachable where even
    the smallest file is larger.
    """
    files: dict[tuple[int, int, bool], bytes] = {}

    def at(quality: int, deltaq: int, half: bool) -> bytes:
        key = quality, deltaq, half
        if key not in files:
            tell("trials of AV1", len(files))
            files[key] = file_at(*key)
        return files[key]

    half, slack = may_halve and len(at(_LEAST_FULL, strength, False)) > target, slack_of(target)
    index = search_q_index(
        lambda i: len(at(_QUALITIES[i], strength, half)), target, 0, len(_QUALITIES) - 1, start=_START, slack=slack
    )
    best, above = _QUALITIES[index], _QUALITIES[max(index - 1, 0)]
    size = len(at(best, strength, half))
    if size > target and len(at(best, 0, half)) > target:
        raise unreachable(min(len(data) for data in files.values()), target, metadata)

    def fill(quality: int, weak: int, strong: int) -> None:
        """Make files of a quality, of strengths between two, until one is close below the target."""
        search_q_index(lambda i: len(at(quality, strong - i, half)), target, 0, strong - weak, slack=slack)

    if size > target:
        fill(best, 0, strength)
    elif best != above and not is_close(size, target):
        # deltaq grows a file by more than the next quality does
        fill(*((above, 0, strength) if len(at(above, 0, half)) <= target else (best, strength, _MOST_STRENGTH)))
    data = max((data for data in files.values() if len(data) <= target), key=len)
    if index == 0:
        warn_unless_close(len(data), target)
    return data


def base_q_idx_of(quality: int) -> int:
    """AV1's quantiser index, 0..255, of a quality of 0..100 in tune iq (libaom's `quantizer_to_qindex`)."""
    quantiser = _quantiser(quality)
    return {62: 249, 63: 255}.get(quantiser, 4 * quantiser)


def nominal_base_q_idx(bpp: float) -> int:
    """AV1's quantiser index, 10..245, of a photograph of that many bits per pixel, for headers that do not tell it."""
    place = bisect(_TYPICAL, bpp, key=lambda point: point[0])
    if place in (0, len(_TYPICAL)):
        return _TYPICAL[min(place, len(_TYPICAL) - 1)][1]
    (low, above), (high, below) = _TYPICAL[place - 1 : place + 1]
    return round(above + (below - above) * math.log(bpp / low) / math.log(high / low))
