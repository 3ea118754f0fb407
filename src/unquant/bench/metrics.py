"""How far a picture is from its original: PSNR, MS-SSIM, LPIPS (AlexNet) and DISTS, on 8-bit RGB at full resolution;
and how much of its fine detail is there, right or wrong.

What cannot be computed (weights that are not installed, an image too small for five scales) is None with a note; the
other figures go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unquant.errors import ModelMissing, OptionError
from unquant.perceptual import DISTS, LPIPS, load_dists, load_lpips

__all__ = ["Meter", "Scores", "gradient_energy", "ms_ssim", "psnr", "to_tensor"]

T = TypeVar("T")

MS_SSIM_SMALLEST = 176  # five scales with an 11-tap window
LPIPS_SMALLEST, DISTS_SMALLEST = 31, 16
LUMINANCE = (0.299, 0.587, 0.114)  # of R', G', B': ITU-R BT.601


class Scores(NamedTuple):
    """psnr in dB (inf for equal pictures) and ms_ssim: higher is better; lpips and dists: lower; gradient: 1 is best.

    None: not measured.
    """

    psnr: float | None = None
    ms_ssim: float | None = None
    lpips: float | None = None
    dists: float | None = None
    gradient: float | None = None


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


def gradient_energy(reference: Image.Image, image: Image.Image) -> float:
    """How much fine detail `image` has, as a multiple of that of `reference`, a picture of the same size; ≥ 0.

    The ratio of their mean squared luminance gradients: below 1 smoother than the original, above 1 noisier or
    sharper. It does not tell right detail from wrong. Flat references: 1 for a flat picture, else inf.
    """
    expected, found = _gradient_square(reference), _gradient_square(image)
    if expected > 0:
        return found / expected
    return 1.0 if found == 0 else math.inf


def to_tensor(image: Image.Image) -> Tensor:
    """(1, 3, h, w), float32 in [0, 1]."""
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def ms_ssim(reference: Image.Image, image: Image.Image) -> float:
    """Multi-scale SSIM with five scales (Wang et al. 2003), mean of the RGB channels; sides of at least 176 pixels.

    Raises ImportError where torchmetrics (extra `bench`) is not installed.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

    value = measure(to_tensor(image), to_tensor(reference), data_range=1.0)
    assert isinstance(value, Tensor)
    return float(value)


class Meter:
    """Loads the networks once and compares many pictures.

    directory: the folder of metric weights, see `unquant.perceptual`; None takes `UNQUANT_METRICS`.
    dists: False to leave DISTS out (it needs the larger network).
    notes: what could not be measured and why, each once; grows as pictures are compared.
    """

    def __init__(self, directory: Path | None = None, *, dists: bool = True) -> None:
        self.notes: list[str] = []
        self._lpips = self._try_to_load("LPIPS", lambda: load_lpips("alex", directory))
        self._dists = self._try_to_load("DISTS", lambda: load_dists(directory)) if dists else None

    def against(self, reference: Image.Image) -> Callable[[Image.Image], Scores]:
        """A function that scores pictures against `reference`, whose features are computed once.

        It raises OptionError for a picture of another size.
        """
        smaller = min(reference.size)
        lpips = self._distance(self._lpips, reference, "LPIPS", LPIPS_SMALLEST)
        dists = self._distance(self._dists, reference, "DISTS", DISTS_SMALLEST)

        def score(image: Image.Image) -> Scores:
            if image.size != reference.size:
                raise OptionError(f"pictures of one size expected, got {reference.size} and {image.size}")
            structure = self._ms_ssim(reference, image) if smaller >= MS_SSIM_SMALLEST else None
            return Scores(
                psnr(reference, image), structure, lpips(image), dists(image), gradient_energy(reference, image)
            )

        if smaller < MS_SSIM_SMALLEST:
            self._note(f"MS-SSIM: left out where a side is below {MS_SSIM_SMALLEST} pixels")
        return score

    def _ms_ssim(self, reference: Image.Image, image: Image.Image) -> float | None:
        try:
            return ms_ssim(reference, image)
        except ImportError as error:
            self._note(f"MS-SSIM: {error}; install unquant[bench]")
            return None

    def _distance(
        self, network: LPIPS | DISTS | None, reference: Image.Image, name: str, smallest: int
    ) -> Callable[[Image.Image], float | None]:
        if network is None or min(reference.size) < smallest:
            if network is not None:
                self._note(f"{name}: left out where a side is below {smallest} pixels")
            return lambda _: None
        with torch.inference_mode():
            target = network.extract(to_tensor(reference))

        @torch.inference_mode()
        def distance(image: Image.Image) -> float:
            # the sum of float32 terms can fall a rounding below the 0 of equal pictures
            return max(0.0, float(network.compare(target, network.extract(to_tensor(image)))))

        return distance

    def _try_to_load(self, name: str, load: Callable[[], T]) -> T | None:
        try:
            return load()
        except ModelMissing as error:
            self._note(f"{name}: {error}")
            return None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
