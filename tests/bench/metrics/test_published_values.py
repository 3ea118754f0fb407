"""SSIMULACRA 2 and FLIP give the values that their authors publish."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unquant.bench.metrics import Meter


def grey(level: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def one(name: str, reference: Image.Image, image: Image.Image) -> float | None:
    return Meter([name]).against(reference)(image)[name]


def horizontal_ramp(side: int) -> Image.Image:
    levels = (np.arange(side) * 255 // (side - 1)).astype(np.uint8)
    return Image.fromarray(np.repeat(np.tile(levels, (side, 1))[..., None], 3, -1))


def noise_of_64_bits(side: int) -> Image.Image:
    """Bits 33 to 40 of a linear congruential generator from 42."""
    state, values = 42, []
    for _ in range(side * side * 3):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append(state >> 33 & 255)
    return Image.fromarray(np.array(values, np.uint8).reshape(side, side, 3))


@pytest.mark.parametrize(
    ("reference", "image", "expected"),
    [
        (horizontal_ramp(64), grey(128, (64, 64)), -64.56872148),
        (noise_of_64_bits(64), grey(128, (64, 64)), -47.33572558),
        (grey(128, (64, 64)), grey(178, (64, 64)), -8.75942256),
        (grey(128, (128, 128)), grey(148, (128, 128)), 54.27883917),
        (grey(128, (256, 256)), grey(178, (256, 256)), -0.39085784),
    ],
)
def test_ssimulacra2_gives_the_values_of_libjxl(reference: Image.Image, image: Image.Image, expected: float) -> None:
    """Scores of the C++ program, as github.com/imazen/ssimulacra2 records them in src/reference_data.rs.

    It computes in float32, whose rounding counts where pictures are flat.
    """
    assert one("ssimulacra2", reference, image) == pytest.approx(expected, abs=0.05)


def test_flip_of_green_and_blue_is_the_largest_distance() -> None:
    green, blue = (Image.new("RGB", (40, 30), colour) for colour in ((0, 255, 0), (0, 0, 255)))
    assert one("flip", green, blue) == pytest.approx(1, abs=1e-4)
