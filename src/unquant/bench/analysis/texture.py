"""Regular texture that a decoder draws where there is none: the spectrum of its error in smooth areas.

A decoder that works at 1/8 and 1/4 of the picture can leave its own grid in it: dots or stripes of period 8 or 4, which the
eye finds at once on a sky or a painted surface, and which distances of features hardly see. In the spectrum of its error they
stand at multiples of 1/8 and 1/4 cycles a pixel, above what lies around them. Block edges of the codec below stand there as
well: judge by the same figure of the picture without the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from unquant.bench.analysis.tables import markdown_table, number
from unquant.bench.subjects.models import Codec, family_of_file

__all__ = ["Texture", "TextureRow", "regular_texture", "table", "texture_of"]

Pixels = npt.NDArray[np.float64]

_WINDOW, _HOP = 64, 32
_SMOOTH = 4.0
"""Root mean square of the differences of neighbouring pixels, in levels, up to which a window is smooth."""
_PERIOD = _WINDOW // 8
_ROUNDING = 1 / 12
"""Squared levels that rounding to 8 bits leaves as white noise: an error below that has no texture to be seen."""


class Texture(NamedTuple):
    """Energy at multiples of 1/8 cycles a pixel that are none of 1/4, and at those of 1/4, each over its neighbours'.

    About 1 without a regular texture; the mean over the multiples in both directions. None without a smooth window.
    windows: how many are smooth.
    """

    windows: int
    eighth: float | None
    quarter: float | None


@dataclass(frozen=True, slots=True)
class TextureRow:
    """One image's file, and what is seen at realism 1 and 0; base: of AV1's own picture, where the file is one of AV1."""

    name: str
    bpp: float
    drawn: Texture
    plain: Texture
    base: Texture | None


def regular_texture(x: Pixels, x_hat: Pixels) -> Texture:
    """How much regular texture of period 8 and 4 the error x̂ − x has in windows of 64×64 pixels where x is smooth.

    x, x_hat: (h, w, 3) in levels, 0 to 255.
    """
    taper = np.outer(*[np.hanning(_WINDOW + 1)[:-1]] * 2)[..., None]
    power, windows = np.zeros((_WINDOW, _WINDOW)), 0
    for top in range(0, x.shape[0] - _WINDOW + 1, _HOP):
        for left in range(0, x.shape[1] - _WINDOW + 1, _HOP):
            place = slice(top, top + _WINDOW), slice(left, left + _WINDOW)
            if _activity(x[place]) > _SMOOTH:
                continue
            error = x_hat[place] - x[place]
            spectrum = np.fft.fft2((error - error.mean((0, 1))) * taper, axes=(0, 1))
            power += (np.abs(spectrum) ** 2).sum(-1)
            windows += 1
    if not windows:
        return Texture(0, None, None)
    floor = _ROUNDING * windows * x.shape[-1] * float((taper**2).sum())
    ratios = {place: _over_neighbours(power + floor, place) for place in _lattice()}
    quarter = [ratio for place, ratio in ratios.items() if not any(i % (2 * _PERIOD) for i in place)]
    eighth = [ratio for place, ratio in ratios.items() if any(i % (2 * _PERIOD) for i in place)]
    return Texture(windows, float(np.mean(eighth)), float(np.mean(quarter)))


def texture_of(codec: Codec, name: str, image: Image.Image, bpp: float) -> TextureRow:
    """Codes an image at a rate, decodes it, and measures. Raises RateUnreachable."""
    data = codec.encode(image, bpp=bpp)
    x = np.asarray(image.convert("RGB"), dtype=np.float64)

    def seen(realism: float, steps: int | None = None) -> Texture:
        decoded = codec.decode(data, realism=realism, steps=steps).convert("RGB")
        return regular_texture(x, np.asarray(decoded, dtype=np.float64))

    family = family_of_file(data)
    # AV1's own picture, where the file holds one
    base = seen(0.0, 0) if family is not None and family.draws_avif else None
    return TextureRow(name, 8 * len(data) / (image.width * image.height), seen(1.0), seen(0.0), base)


def table(rows: Sequence[TextureRow]) -> str:
    """The rows and their means as a Markdown table: period 8, then period 4."""

    def cells(row: TextureRow) -> list[str]:
        textures = (row.drawn, row.plain, row.base)
        pairs = [(None, None) if t is None else (t.eighth, t.quarter) for t in textures]
        return [f"{number(eighth, 2)} / {number(quarter, 2)}" for eighth, quarter in pairs]

    def mean(name: str) -> Texture:
        found = [t for t in (getattr(row, name) for row in rows) if t is not None and t.windows]
        eighth, quarter = (float(np.mean([t[i] for t in found])) if found else None for i in (1, 2))
        return Texture(sum(t.windows for t in found), eighth, quarter)

    total = TextureRow("mean", float(np.mean([r.bpp for r in rows])), mean("drawn"), mean("plain"), mean("base"))
    header = ["image", "bpp", "smooth windows", "realism 1", "realism 0", "AV1 alone"]
    return markdown_table(
        header, ([row.name, number(row.bpp, 3), str(row.drawn.windows), *cells(row)] for row in [*rows, total])
    )


def _activity(x: Pixels) -> float:
    """Root mean square of the differences of neighbouring pixels, in levels."""
    return float(np.sqrt(np.mean([np.mean(np.diff(x, axis=axis) ** 2) for axis in (0, 1)])))


@cache
def _lattice() -> list[tuple[int, int]]:
    """Bins at multiples of 1/8 cycles a pixel. The mean is left out, and so is 1/2: there stand the traces of a camera's
    colour filter, which the original has and a codec takes away.
    """
    steps = [i for i in range(0, _WINDOW, _PERIOD) if i != _WINDOW // 2]
    return [(i, j) for i in steps for j in steps if (i, j) != (0, 0)]


def _over_neighbours(power: Pixels, place: tuple[int, int]) -> float:
    """A bin's power over the mean of those 3 and 4 bins away, out of reach of the window's own width."""
    offsets = np.arange(-4, 5)
    ring = np.maximum(*(np.abs(o) for o in np.meshgrid(offsets, offsets, indexing="ij"))) >= 3
    rows, columns = ((offsets + i) % _WINDOW for i in place)
    return float(power[place] / power[np.ix_(rows, columns)][ring].mean())
