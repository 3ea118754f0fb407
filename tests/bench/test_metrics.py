from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file

from unquant.bench.metrics import Meter, gradient_energy, ms_ssim, psnr, to_tensor
from unquant.errors import OptionError
from unquant.perceptual import DISTS, LPIPS


def grey(level: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weight files of the right layout with random content."""
    folder = tmp_path_factory.mktemp("metrics")
    torch.manual_seed(0)
    for name, net in (("alexnet", LPIPS("alex")), ("vgg16", LPIPS("vgg"))):
        state = net.state_dict()
        heads = {f"lpips.lin{index}.weight": state.pop(f"heads.{index}") for index in range(5)}
        save_file(state | heads, folder / f"{name}_lpips.safetensors")
    save_file(
        {name: value for name, value in DISTS().state_dict().items() if "feat" not in name},
        folder / "dists.safetensors",
    )
    return folder


@pytest.mark.parametrize("offset", [1, 5, 100])
def test_psnr_of_a_constant_offset(offset: int) -> None:
    assert psnr(grey(20), grey(20 + offset)) == pytest.approx(20 * math.log10(255 / offset))


def test_psnr_averages_the_channels() -> None:
    red = Image.new("RGB", (8, 8), (103, 100, 100))
    assert psnr(grey(100, (8, 8)), red) == pytest.approx(10 * math.log10(255**2 / 3))


def test_equal_pictures_are_perfect(picture: Image.Image, random_weights: Path) -> None:
    scores = Meter(random_weights).against(picture)(picture)
    assert scores.psnr == math.inf
    assert scores.ms_ssim == pytest.approx(1, abs=1e-5)
    assert scores.lpips == pytest.approx(0, abs=1e-6)
    assert scores.dists == pytest.approx(0, abs=1e-5)


def test_worse_pictures_score_worse(picture: Image.Image, random_weights: Path) -> None:
    pixels = np.asarray(picture).astype(int)
    noise = np.random.default_rng(1).normal(0, 1, pixels.shape)
    near, far = (Image.fromarray(np.clip(pixels + level * noise, 0, 255).astype(np.uint8)) for level in (5, 40))
    score = Meter(random_weights).against(picture)
    better, worse = score(near), score(far)
    assert better.psnr > worse.psnr
    assert better.ms_ssim > worse.ms_ssim
    assert better.lpips < worse.lpips
    assert better.dists < worse.dists


def test_the_meter_agrees_with_the_modules(picture: Image.Image, random_weights: Path) -> None:
    from unquant.perceptual import load_dists, load_lpips

    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scores = Meter(random_weights).against(picture)(other)
    pair = to_tensor(picture), to_tensor(other)
    assert scores.lpips == pytest.approx(load_lpips("alex", random_weights)(*pair).item(), rel=1e-5)
    assert scores.dists == pytest.approx(load_dists(random_weights)(*pair).item(), rel=1e-4)
    assert scores.ms_ssim == pytest.approx(ms_ssim(picture, other))


def test_missing_weights_leave_the_rest(picture: Image.Image, no_metric_weights: None) -> None:
    meter = Meter()
    scores = meter.against(picture)(picture)
    assert (scores.lpips, scores.dists) == (None, None)
    assert scores.ms_ssim == pytest.approx(1, abs=1e-5)
    assert [note.split(":")[0] for note in meter.notes] == ["LPIPS", "DISTS"]
    assert "UNQUANT_METRICS" in meter.notes[0]


@pytest.mark.parametrize("size", [(1, 1), (20, 20), (300, 100)])
def test_small_pictures_are_scored_as_far_as_possible(size: tuple[int, int], random_weights: Path) -> None:
    meter = Meter(random_weights)
    scores = meter.against(grey(50, size))(grey(60, size))
    assert scores.psnr == pytest.approx(20 * math.log10(25.5))
    assert scores.ms_ssim is None
    assert (scores.lpips is None) == (min(size) < 31)
    assert (scores.dists is None) == (min(size) < 16)
    assert any("MS-SSIM" in note for note in meter.notes)


def test_gradient_energy_counts_fine_detail(picture: Image.Image, no_metric_weights: None) -> None:
    blurred = picture.filter(ImageFilter.GaussianBlur(2))
    blurrier = picture.filter(ImageFilter.GaussianBlur(4))
    noise = np.random.default_rng(1).normal(0, 20, (picture.height, picture.width, 3))
    noisy = Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    assert gradient_energy(picture, picture) == 1
    assert 0 < gradient_energy(picture, blurrier) < gradient_energy(picture, blurred) < 1
    assert gradient_energy(picture, noisy) > 1
    assert Meter().against(picture)(blurred).gradient == gradient_energy(picture, blurred)


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


def test_ms_ssim_has_a_smallest_size() -> None:
    size = (176, 176)
    assert ms_ssim(grey(50, size), grey(50, size)) == pytest.approx(1)


def test_other_sizes_and_modes(picture: Image.Image, no_metric_weights: None) -> None:
    score = Meter().against(picture)
    with pytest.raises(OptionError, match="one size"):
        score(picture.resize((100, 100)))
    assert score(picture.convert("RGBA")).psnr == math.inf
