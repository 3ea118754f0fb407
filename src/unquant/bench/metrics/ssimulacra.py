"""SSIMULACRA 2.1 (Sneyers, Cloudinary, 2023): 100 for equal pictures, 90 no visible difference, 70 high quality, 30 low.

The package `ssimulacra2` has the colour space, the maps and the weights of the reference implementation in libjxl. Its
loop over the scales stops one scale too early for pictures below 256 pixels, its blur reflects the picture at two of its
sides, and it takes paths only; here are the loop and the blur of libjxl instead, and the reference is prepared once.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from unquant.bench.metrics.base import Metric, Score, library_version

__all__ = ["load"]

SCALES = 6
SMALLEST = 8
SIGMA = 1.5

Array = npt.NDArray[np.float64]


class _Scale(NamedTuple):
    """A picture at one scale, (w, h, 3) each: XYB made positive, its blur, and the blur of its square."""

    xyb: Array
    mean: Array
    square: Array


@cache
def _window() -> Array:
    """The 11 taps of libjxl's recursive Gaussian, a sum of three cosines.

    Charalampidis 2016, "Recursive Implementation of the Gaussian Filter Using Truncated Cosine Functions"; the numbers
    in brackets are its equations.
    """
    radius = round(3.2795 * SIGMA + 0.2546)  # (57)
    omega = np.array([1, 3, 5]) * np.pi / (2 * radius)
    sign = np.array([1, -1, 1])
    p = sign / np.tan(omega / 2)  # (37)
    r = sign * p**2 / np.sin(omega)  # (44)
    rho = np.exp(-((SIGMA * omega) ** 2) / 2) / radius  # (50)
    first, second, third = (p[i] * r[j] - r[i] * p[j] for i, j in ((0, 1), (1, 2), (2, 0)))
    zeta = np.array([second / first, third / first, 1])  # (52)
    beta = np.linalg.solve(np.stack([p, r, zeta]), np.array([1, radius**2 - SIGMA**2, zeta @ rho]))
    return np.asarray(beta @ np.cos(omega[:, None] * np.arange(-radius, radius + 1)), np.float64)


def _blur(planes: Array) -> Array:
    """Over the first two axes, with zeros outside of the picture as in libjxl."""
    from scipy.ndimage import convolve1d

    rows: Array = convolve1d(planes, _window(), axis=0, mode="constant")
    return convolve1d(rows, _window(), axis=1, mode="constant")


def _scales(image: Image.Image) -> list[_Scale]:
    """The picture at the scales 1, 1/2, … 1/32: six, or fewer below 128 pixels, as many as libjxl has."""
    from ssimulacra2 import ssimulacra2 as parts

    linear: Array = parts.srgb_to_linear(np.asarray(image.convert("RGB")))
    scales: list[_Scale] = []
    while len(scales) < SCALES and min(linear.shape[:2]) >= SMALLEST:
        if scales:
            linear = parts.downsample(linear, 2, 2)
        xyb: Array = parts.make_positive_xyb(parts.linear_rgb_to_xyb(linear))
        scales.append(_Scale(xyb, _blur(xyb), _blur(xyb * xyb)))
    return scales


def _against(reference: Image.Image) -> Score:
    from ssimulacra2 import ssimulacra2 as parts

    prepared = _scales(reference)

    def score(image: Image.Image) -> float:
        total = parts.Msssim()
        for a, b in zip(prepared, _scales(image), strict=True):
            scale = parts.MsssimScale()
            scale.avg_ssim = parts.ssim_map(a.mean, b.mean, a.square, b.square, _blur(a.xyb * b.xyb))
            scale.avg_edgediff = parts.edge_diff_map(a.xyb, a.mean, b.xyb, b.mean)
            total.scales.append(scale)
        return float(total.score())

    return score


def load(_: Path | None = None) -> Metric:
    """At most 100, below 0 for very poor pictures. Raises ImportError without the package."""
    return Metric(f"{library_version('ssimulacra2')}, blur of libjxl", _against, SMALLEST)
