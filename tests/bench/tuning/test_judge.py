"""Figures of decodes, the pictures that they are of, and their table."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tuned_model import BUSY, INDEX

from unquant.bench.metrics import networks
from unquant.bench.metrics.base import to_tensor
from unquant.bench.tuning.decoding import decode, log2_q_at
from unquant.bench.tuning.judge import Figures, Judge, Table, load_pictures, markdown
from unquant.bench.tuning.setting import Setting
from unquant.errors import ModelMissing, OptionError
from unquant.networks.ratevar import Ratevar


def missing(*_: Any) -> Any:
    raise ModelMissing("metric weights are needed and not installed")


def test_without_realism_the_network_does_not_count(
    model: Ratevar, pictures: list[Image.Image], distances: Any
) -> None:
    log2_q = log2_q_at(INDEX)
    _, side = model.encode(to_tensor(pictures[0]), log2_q)
    plain = model.g_s(side.y_file, log2_q, log2_q, torch.zeros(1, 1, 1, 1))
    for setting in (Setting(0.0, BUSY), Setting(0.0, None)):
        assert torch.equal(decode(model, side, setting).picture, plain)
    assert not torch.equal(decode(model, side, Setting(1.0, BUSY)).picture, plain)
    judge = Judge(model, pictures)
    figures = judge.figures(INDEX, Setting(0.0, BUSY))
    assert (figures.explained, figures.variance) == (0, 0)
    assert judge.figures(INDEX, Setting(0.0, None)) == figures
    assert list(judge.table) == [(INDEX, Setting(0.0, None))]


def test_figures_are_means_of_what_they_say(model: Ratevar, pictures: list[Image.Image], distances: Any) -> None:
    setting = Setting(1.0, BUSY)
    figures = Judge(model, pictures).figures(INDEX, setting)
    expected: list[list[float]] = []
    for x in map(to_tensor, pictures):
        y, side = model.encode(x, log2_q_at(INDEX))
        end, picture = decode(model, side, setting)
        out = (picture.clamp(0, 1) * 255).round() / 255
        grey, grey_out = (np.array([0.299, 0.587, 0.114]) @ t[0].flatten(1).numpy() for t in (x, out))
        energies = [
            sum(float(np.square(np.diff(g.reshape(x.shape[-2:]), axis=a)).sum()) for a in (0, 1))
            for g in (grey, grey_out)
        ]
        lost = float((y - side.y_file).square().sum())
        expected.append(
            [
                -10 * np.log10(float((x - out).square().mean())),
                float((x - out).abs().mean()),
                float((F.avg_pool2d(x, 2) - F.avg_pool2d(out, 2)).abs().mean()),
                energies[1] / energies[0],
                1 - float((y - end).square().sum()) / lost,
                float((end - side.y_file).square().sum()) / lost,
            ]
        )
    assert list(figures) == pytest.approx(np.mean(expected, axis=0), rel=1e-4)
    assert figures.variance > 0.05


@pytest.mark.parametrize(("clean", "share"), [(True, 1.0), (False, 0.0)])
def test_explained_and_variance_of_perfect_and_idle_paths(
    model: Ratevar,
    pictures: list[Image.Image],
    distances: Any,
    monkeypatch: pytest.MonkeyPatch,
    clean: bool,
    share: float,
) -> None:
    y = model.g_a(to_tensor(pictures[0]))

    def reverse(side: Any, noise: Any, **_: Any) -> tuple[Tensor, Tensor]:
        return (y if clean else side.y_file), side.log2_q_file

    monkeypatch.setattr(model, "reverse", reverse)
    figures = Judge(model, pictures[:1]).figures(INDEX, Setting(1.0, BUSY))
    assert figures.explained == pytest.approx(share, abs=1e-5)
    assert figures.variance == pytest.approx(share, abs=1e-5)


def test_the_original_has_its_own_gradient_and_no_distance(
    model: Ratevar,
    pictures: list[Image.Image],
    distances: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = pictures[0]
    x = to_tensor(picture)
    monkeypatch.setattr(model.g_s, "forward", lambda *_: x.clone())
    figures = Judge(model, [picture]).figures(INDEX, Setting(1.0, None))
    assert figures.gradient == pytest.approx(1, abs=1e-6)
    assert figures.psnr == math.inf
    assert (figures.lpips, figures.dists) == pytest.approx((0, 0), abs=1e-6)
    monkeypatch.setattr(model.g_s, "forward", lambda *_: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    assert Judge(model, [picture]).figures(INDEX, Setting(1.0, None)).gradient < 0.8


def test_the_score_is_dists_or_else_lpips(
    model: Ratevar,
    pictures: list[Image.Image],
    distances: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting, indices = Setting(1.0, BUSY), [120, 240]
    judge = Judge(model, pictures)
    assert judge.notes == []
    score = judge.score(indices, setting)
    figures = [judge.figures(i, setting) for i in indices]
    assert score == pytest.approx(np.mean([f.dists for f in figures]))
    monkeypatch.setattr(networks, "dists", missing)
    judge = Judge(model, pictures)
    assert len(judge.notes) == 1
    assert judge.score(indices, setting) == pytest.approx(np.mean([f.lpips for f in figures]))
    assert judge.figures(indices[0], setting) == figures[0]._replace(dists=None)
    monkeypatch.setattr(networks, "lpips_alex", missing)
    with pytest.raises(ModelMissing, match="metric weights"):
        Judge(model, pictures)


def test_the_table_as_markdown() -> None:
    figures = Figures(25.678, 0.25, None, 0.5, 0.125, 1.0625)
    moving = Setting(0.75, replace(BUSY, steps=4, schedule_power=0.5))
    table: Table = {
        (300, moving.essence()): figures,
        (200, moving.essence()): figures._replace(dists=0.12345),
        (200, Setting(0.0, None)): figures,
        (200, Setting(1.0, replace(BUSY, steps=1)).essence()): figures,
        (200, Setting(1.0, replace(BUSY, sampler="deterministic", project=True)).essence()): figures,
    }
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown(table).splitlines()]
    assert {len(line) for line in lines} == {14}
    assert lines[0][:8] == ["q index", "ρ", "steps", "power", "sampler", "α", "τ", "projected"]
    assert lines[0][8:] == ["PSNR", "LPIPS", "DISTS", "gradient", "explained", "variance"]
    assert {cell.strip("-") for cell in lines[1]} == {"", ":"}
    setting = ["0.75", "4", "0.5", "bridge", "0.5..0.25", "constant", "no"]
    assert lines[2] == ["200", *setting, "25.68", "0.2500", "0.1235", "0.500", "0.125", "1.062"]
    assert lines[3][:8] == ["200", "0", *6 * ["–"]]
    assert lines[4][:8] == ["200", "1", "1", "–", "bridge", "0.5", "constant", "no"]
    assert lines[5][:8] == ["200", "1", "2", "1", "deterministic", "–", "–", "yes"]
    assert lines[6] == ["300", *setting, "25.68", "0.2500", "–", "0.500", "0.125", "1.062"]


def test_pictures_are_middles_in_multiples_of_the_latent_step(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "b.PNG")
    Image.fromarray(pixels[:, :40]).save(tmp_path / "a.png")
    Image.fromarray(pixels[:31]).save(tmp_path / "0 too small.png")
    (tmp_path / "notes.txt").write_text("no picture")
    small, large = load_pictures(tmp_path)
    assert small.size == (32, 64)
    assert np.array_equal(np.asarray(large), pixels[5:69, 2:98])
    cut = load_pictures(tmp_path, crop=47)
    assert [p.size for p in cut] == [(32, 32), (32, 32)]
    assert np.array_equal(np.asarray(cut[1]), pixels[21:53, 34:66])
    assert len(load_pictures(tmp_path, count=1)) == 1
    assert load_pictures(tmp_path, count=1)[0] == small


@pytest.mark.parametrize(("crop", "count", "named"), [(31, None, "crop"), (None, 0, "count"), (None, -1, "count")])
def test_crops_and_counts_that_leave_nothing(folder: Path, crop: int | None, count: int | None, named: str) -> None:
    with pytest.raises(OptionError, match=named):
        load_pictures(folder, crop, count)
