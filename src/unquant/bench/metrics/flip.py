"""LDR-FLIP (Andersson et al. 2020), the mean over the picture of the error seen when two pictures alternate.

The package is that of its authors at NVIDIA. Viewing conditions are its default: 0.7 m from a display 0.7 m and 3840
pixels wide, 67 pixels per degree.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unquant.bench.metrics.base import Metric, Score, library_version

__all__ = ["load"]


def _array(image: Image.Image) -> npt.NDArray[np.float32]:
    return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)


def _against(reference: Image.Image) -> Score:
    from flip_evaluator import evaluate

    target = _array(reference)
    # a dictionary of its own: the package's default one is shared by all calls
    return lambda image: float(evaluate(target, _array(image), "LDR", applyMagma=False, parameters={})[1])


def load(_: Path | None = None) -> Metric:
    """In [0, 1], 0 for equal pictures. Raises ImportError without the package."""
    return Metric(f"{library_version('flip-evaluator')}, 67 ppd", _against)
