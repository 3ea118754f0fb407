"""Regular textures have a score that their spectrum says, and nothing else has one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unquant.bench import __main__ as command
from unquant.bench.analysis.texture import Texture, regular_texture, table, texture_of


def noise(size: tuple[int, int] = (256, 256), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (*size, 3))


def sky(size: tuple[int, int] = (256, 256)) -> np.ndarray:
    """A smooth surface: every window of it counts."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([80 + x / 8, 120 + y / 8, 200 - x / 16], -1)


def dots(period: int, size: tuple[int, int] = (256, 256)) -> np.ndarray:
    """One dot a period in both directions, two pixels wide, without a mean."""
    y, x = np.mgrid[: size[0], : size[1]]
    pattern = ((y % period < 2) & (x % period < 2)).astype(float)[..., None]
    return (pattern - pattern.mean()) * np.ones(3)


def test_white_noise_has_none() -> None:
    for seed in range(3):
        windows, eighth, quarter = regular_texture(sky(), sky() + 3 * noise(seed=seed))
        assert windows == 49
        assert eighth == pytest.approx(1, abs=0.15)
        assert quarter == pytest.approx(1, abs=0.25)


def test_smoothed_noise_has_none() -> None:
    """A spectrum that falls steeply is no texture."""
    rough = noise((260, 260), 1)
    smooth = sum(rough[i : i + 256, j : j + 256] for i in range(4) for j in range(4)) / 4
    _, eighth, quarter = regular_texture(sky(), sky() + smooth)
    assert eighth is not None
    assert quarter is not None
    assert max(eighth, quarter) < 1.4


@pytest.mark.parametrize("shift", [0, 3])
def test_dots_score_at_their_own_period(shift: int) -> None:
    """Of one tenth of the noise's power, wherever they lie."""

    def found(period: int) -> Texture:
        pattern = np.roll(dots(period), (shift, 2 * shift), (0, 1))
        pattern /= np.sqrt(10) * pattern.std()
        return regular_texture(sky(), sky() + 3 * (noise() + pattern))

    eight, four = found(8), found(4)
    assert eight.eighth is not None and eight.eighth > 3  # noqa: PT018
    assert eight.quarter is not None and eight.quarter > 3  # noqa: PT018
    assert four.quarter is not None and four.quarter > 10  # noqa: PT018
    assert four.eighth == pytest.approx(1, abs=0.15)
    # a period that is no part of a grid
    five = found(5)
    assert five.eighth == pytest.approx(1, abs=0.3)


def test_height_grows_as_power() -> None:
    """A wave of period 8 adds, to a score of 1, its power over that of noise in one bin, by its share of the 40 bins."""
    x = np.arange(256)
    error = noise(seed=2)
    wave = np.cos(2 * np.pi * x / 8)[None, :, None] * np.ones((256, 1, 3))

    def score(amplitude: float) -> float:
        found = regular_texture(sky(), sky() + 10 * (error + amplitude * wave)).eighth
        assert found is not None
        return found - 1

    # a wave of amplitude a has a²/4 · (Σw)² in each of its two bins, white noise of unit variance Σw²; two of 40 bins
    expected = 2 * (0.5**2 / 4) * 32.0**4 / 24.0**2 / 40
    assert score(0.5) == pytest.approx(expected, rel=0.2)
    assert score(1.0) == pytest.approx(4 * expected, rel=0.1)


def test_traces_of_a_colour_filter_do_not_count() -> None:
    """A chequerboard is in the original, and the error of a codec that takes it away."""
    y, x = np.mgrid[:256, :256]
    board = np.where((x + y) % 2, 1.0, -1.0)[..., None] * np.ones(3)
    _, eighth, quarter = regular_texture(sky() + board, sky() + noise())
    assert eighth == pytest.approx(1, abs=0.15)
    assert quarter == pytest.approx(1, abs=0.3)


def test_only_smooth_windows_count() -> None:
    rough = sky() + 20 * noise(seed=3)
    assert regular_texture(rough, rough + 5 * dots(8)) == (0, None, None)
    half = sky((256, 320))
    half[:, 128:] += 20 * noise((256, 192), 3)
    windows, eighth, _ = regular_texture(half, half + 5 * dots(8, (256, 320)))
    assert windows == 7 * 3
    assert eighth is not None
    assert eighth > 20


def test_a_picture_without_error_has_none() -> None:
    assert regular_texture(sky(), sky()) == (49, pytest.approx(1), pytest.approx(1))
    assert regular_texture(sky((48, 300)), sky((48, 300))) == (0, None, None)


def test_rows_and_table(stand_in) -> None:
    image = Image.fromarray(np.round(sky((128, 160))).astype(np.uint8))
    row = texture_of(stand_in, "sky.png", image, 1.0)
    assert row.bpp <= 1.0
    assert row.drawn.windows == row.plain.windows == 3 * 4
    assert row.base is None
    rough = texture_of(stand_in, "rough.png", Image.fromarray((127 + 20 * noise()).clip(0, 255).astype(np.uint8)), 8.0)
    lines = table([row, rough]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["sky.png", "rough.png", "mean"]
    assert "– / –" in lines[3]
    assert lines[2].split("|")[4] == lines[4].split("|")[4]


def test_command(stand_in, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "load", lambda name: stand_in)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.round(sky((96, 96))).astype(np.uint8)).save(tmp_path / name)
    command.app(["texture", str(tmp_path), "-m", "any", "--at-bpp", "1.5"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "| a.png" in printed
    assert "| mean" in printed
