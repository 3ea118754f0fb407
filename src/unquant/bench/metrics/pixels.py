"""Metrics of the pixels themselves: PSNR, SSIM and MS-SSIM, and how much fine detail there is, right or wrong."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from unquant.bench.metrics.base import Metric, Score, library_version, to_tensor

__all__ = ["gradient_energy", "load_gradient", "load_ms_ssim", "load_psnr", "load_ssim", "ms_ssim", "psnr", "ssim"]

SSIM_SMALLEST = 11  # the window
MS_SSIM_SMALLEST = 176  # five scales of it
LUMINANCE = (0.299, 0.587, 0.114)  # of R', G', B': ITU-R BT.601


def psnr(reference: Image.Image, image: Image.Image) -> float:
    """10·log10(255² / MSE) over all pixels and the three channels, in dB; inf for equal pictures."""
    difference = np.asarray(reference.convert("RGB"), np.float64) - np.asarray(image.convert("RGB"), np.float64)
    error = float(np.mean(np.square(difference)))
    return 10 * math.log10(255**2 / error) if error > 0 else math.inf


def _gradient_square(image: Image.Image) -> float:
    """The mean over the pixels of the squared differences of luminance to the right and downwards, in 8-bit steps²."""
    luminance = np.asarray(image.convert("RGB"), np.float64) @ np.array(LUMINANCE)
    right, down = np.diff(luminance, axis=1), np.diff(luminance, axis=0)
    return float(np.square(right).sum() + np.square(down).sum()) / luminance.size


def _multiple(found: float, expected: float) -> float:
    if expected > 0:
        return found / expected
    return 1.0 if found == 0 else math.inf


def gradient_energy(reference: Image.Image, image: Image.Image) -> float:
    """How much fine detail `image` has, as a multiple of that of `reference`, a picture of the same size; ≥ 0.

    The ratio of their mean squared luminance gradients: below 1 smoother than the original, above 1 noisier or
    sharper. It does not tell right detail from wrong. Flat references: 1 for a flat picture, else inf.
    """
    return _multiple(_gradient_square(image), _gradient_square(reference))


def ssim(reference: Image.Image, image: Image.Image) -> float:
    """SSIM (Wang et al. 2004), the mean over the RGB channels; at most 1; sides of at least 11 pixels.

    Raises ImportError where torchmetrics (extra `bench`) is not installed.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as measure

    return float(measure(to_tensor(image), to_tensor(reference), data_range=1.0))  # pyright: ignore[reportArgumentType]


def ms_ssim(reference: Image.Image, image: Image.Image) -> float:
    """Multi-scale SSIM with five scales (Wang et al. 2003), in [0, 1], mean of the RGB channels; sides of at least 176.

    Raises ImportError where torchmetrics (extra `bench`) is not installed.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

    return float(measure(to_tensor(image), to_tensor(reference), data_range=1.0))


def load_psnr(_: Path | None = None) -> Metric:
    return Metric("1", lambda reference: lambda image: psnr(reference, image))


def load_ssim(_: Path | None = None) -> Metric:
    """Raises ImportError without torchmetrics."""
    return Metric(
        library_version("torchmetrics"), lambda reference: lambda image: ssim(reference, image), SSIM_SMALLEST
    )


def load_ms_ssim(_: Path | None = None) -> Metric:
    """Raises ImportError without torchmetrics."""
    return Metric(
        library_version("torchmetrics"), lambda reference: lambda image: ms_ssim(reference, image), MS_SSIM_SMALLEST
    )


def load_gradient(_: Path | None = None) -> Metric:
    def against(reference: Image.Image) -> Score:
        expected = _gradient_square(reference)
        return lambda image: _multiple(_gradient_square(image), expected)

    return Metric("1", against)
