"""PSNR, SSIM, MS-SSIM and gradient energy have the values of their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unquant.bench.metrics import Meter
from unquant.bench.metrics.pixels import gradient_energy, ms_ssim, psnr, ssim


def grey(level: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


@pytest.mark.parametrize("offset", [1, 5, 100])
def test_psnr_of_a_constant_offset(offset: int) -> None:
    assert psnr(grey(20), grey(20 + offset)) == pytest.approx(20 * math.log10(255 / offset))


def test_psnr_averages_the_channels() -> None:
    red = Image.new("RGB", (8, 8), (103, 100, 100))
    assert psnr(grey(100, (8, 8)), red) == pytest.approx(10 * math.log10(255**2 / 3))


def test_ssim_of_flat_pictures_is_its_luminance_term() -> None:
    a, b, c1 = 100 / 255, 120 / 255, 0.01**2
    assert ssim(grey(100), grey(120)) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), rel=1e-4)


def test_ms_ssim_has_a_smallest_size() -> None:
    size = (176, 176)
    assert ms_ssim(grey(50, size), grey(50, size)) == pytest.approx(1)


def test_gradient_energy_counts_fine_detail(picture: Image.Image) -> None:
    blurred = picture.filter(ImageFilter.GaussianBlur(2))
    blurrier = picture.filter(ImageFilter.GaussianBlur(4))
    noise = np.random.default_rng(1).normal(0, 20, (picture.height, picture.width, 3))
    noisy = Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    assert gradient_energy(picture, picture) == 1
    assert 0 < gradient_energy(picture, blurrier) < gradient_energy(picture, blurred) < 1
    assert gradient_energy(picture, noisy) > 1
    assert Meter(["gradient"]).against(picture)(blurred)["gradient"] == gradient_energy(picture, blurred)


def test_gradient_energy_of_a_step_and_of_flat_pictures() -> None:
    step, flat = grey(10, (8, 4)), grey(10, (8, 4))
    step.paste((30, 30, 30), (0, 0, 4, 4))
    double = step.point(lambda value: 2 * value)
    assert gradient_energy(step, double) == pytest.approx(4)
    assert gradient_energy(step.transpose(Image.Transpose.ROTATE_90), step) == pytest.approx(1)
    assert gradient_energy(step, flat) == 0
    assert gradient_energy(flat, grey(99, (8, 4))) == 1
    assert gradient_energy(flat, step) == math.inf
    assert gradient_energy(grey(5, (1, 1)), grey(9, (1, 1))) == 1
