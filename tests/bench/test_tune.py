"""Tuning of the reverse path: the figures, the search over settings, and the weights file that it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import unquant.bench.tune as module
from unquant.bench.tune import (
    Figures,
    Judge,
    Setting,
    Table,
    decode,
    load_pictures,
    markdown,
    rate_indices,
    run_tuning,
    tune,
    write_tuned,
)
from unquant.codecs.ratevar import RatevarCodec
from unquant.container import parse
from unquant.entropy.exact import ExactCoder
from unquant.errors import InputError, ModelMissing, OptionError, UnquantError, WeightsError
from unquant.models.ratevar import Ratevar, RatevarConfig, ReverseConfig
from unquant.nn.transforms import Analysis
from unquant.perceptual import DISTS, LPIPS
from unquant.weights import Weights, read_weights, write_weights

START = ReverseConfig(training="energy", width=16, noise_channels=2)
INDEX = 200


class _Distance(nn.Module):
    """Stands for a distance: the mean absolute difference of pictures averaged down; counts what it extracts."""

    def __init__(self, scale: int) -> None:
        nn.Module.__init__(self)
        self.scale, self.extracted = scale, 0

    def extract(self, x: Tensor) -> list[Tensor]:
        self.extracted += 1
        return [F.avg_pool2d(x, self.scale)]

    def compare(self, x_features: list[Tensor], y_features: list[Tensor]) -> Tensor:
        return (x_features[0] - y_features[0]).abs().mean((1, 2, 3))


class FakeLPIPS(_Distance, LPIPS):
    pass


class FakeDISTS(_Distance, DISTS):
    pass


@pytest.fixture(scope="module")
def weights_file(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a reverse network that is small and random, but not 0."""
    weights = read_weights(tiny_weights)
    config = {**weights.config, "reverse": asdict(START)}
    torch.manual_seed(3)
    model = Ratevar(RatevarConfig.from_dict(config))
    assert model.f is not None
    network = {f"f.{n}": (t + 0.1 * torch.randn_like(t)).half() for n, t in model.f.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "tiny-reverse.safetensors"
    write_weights(path, "ratevar", config, {**weights.tensors, **network}, weights.training)
    return path


@pytest.fixture
def model(weights_file: Path) -> Ratevar:
    """A fresh one for each test: tests patch it."""
    return RatevarCodec.from_file(weights_file).model


@pytest.fixture(scope="module")
def crops(photo: Image.Image) -> list[Image.Image]:
    return [photo.crop((x, y, x + 64, y + 48)) for x, y in ((200, 120), (60, 300))]


@pytest.fixture(scope="module")
def folder(crops: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for i, crop in enumerate(crops):
        crop.save(path / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def pictures(folder: Path) -> list[Tensor]:
    return load_pictures(folder)


@pytest.fixture
def distances(monkeypatch: pytest.MonkeyPatch) -> tuple[_Distance, _Distance]:
    """What `Judge` finds as LPIPS and DISTS."""
    lpips, dists = FakeLPIPS(1), FakeDISTS(2)
    monkeypatch.setattr(module, "load_lpips", lambda net, directory: lpips)
    monkeypatch.setattr(module, "load_dists", lambda directory: dists)
    return lpips, dists


def missing(*_: Any) -> Any:
    raise ModelMissing("metric weights are needed and not installed")


def quiet(_: str) -> None:
    pass


# --- settings ---------------------------------------------------------------------------------------------------------

BUSY = replace(START, steps=2, alpha_first=0.5, alpha_last=0.25, tau="constant", project=False)
"""No option without an effect."""
STILL = {"alpha_first": 0.0, "alpha_last": 0.0}

ALIKE = [
    ({"steps": 1}, {"steps": 1, "schedule_power": 2.0}),
    ({"steps": 1}, {"steps": 1, "alpha_last": 0.75}),
    (STILL, {**STILL, "tau": "coefficient"}),
    ({"steps": 1, "alpha_first": 0.0}, {"steps": 1, **STILL, "tau": "coefficient", "schedule_power": 0.5}),
    ({"sampler": "deterministic"}, {"sampler": "deterministic", "tau": "coefficient", "alpha_first": 1.0}),
    ({"sampler": "deterministic"}, {"sampler": "ancestral", **STILL}),
]
DIFFERENT = [
    {"steps": 3},
    {"schedule_power": 2.0},
    {"alpha_first": 1.0},
    {"alpha_last": 0.0},
    {"tau": "coefficient"},
    {"project": True},
    {"sampler": "ancestral"},
    {"sampler": "deterministic"},
    STILL,
]


@pytest.mark.parametrize(("first", "second"), ALIKE)
def test_settings_of_one_essence_decode_alike(
    model: Ratevar, pictures: list[Tensor], first: dict[str, Any], second: dict[str, Any]
) -> None:
    settings = [Setting(1.0, replace(BUSY, **options)) for options in (first, second)]
    assert settings[0] != settings[1]
    essences = {s.essence() for s in settings}
    assert len(essences) == 1
    assert settings[0].columns() == settings[1].columns()
    _, side = model.encode(pictures[0], module._log2_q(INDEX))
    a, b, c = (decode(model, side, s) for s in (*settings, *essences))
    assert torch.equal(a.picture, b.picture)
    assert torch.equal(a.picture, c.picture)
    assert torch.equal(a.y, b.y)


@pytest.mark.parametrize("options", DIFFERENT)
def test_settings_of_different_essences_decode_differently(
    model: Ratevar, pictures: list[Tensor], options: dict[str, Any]
) -> None:
    settings = [Setting(1.0, BUSY), Setting(1.0, replace(BUSY, **options))]
    assert settings[0].essence() != settings[1].essence()
    assert settings[0].columns() != settings[1].columns()
    _, side = model.encode(pictures[0], module._log2_q(INDEX))
    a, b = (decode(model, side, s) for s in settings)
    assert float((a.y - b.y).abs().max()) > 0.01


# --- figures ----------------------------------------------------------------------------------------------------------


def test_without_realism_the_network_does_not_count(
    model: Ratevar, pictures: list[Tensor], distances: tuple[_Distance, _Distance]
) -> None:
    log2_q = module._log2_q(INDEX)
    _, side = model.encode(pictures[0], log2_q)
    plain = model.g_s(side.y_file, log2_q, log2_q, torch.zeros(1, 1, 1, 1))
    for setting in (Setting(0.0, BUSY), Setting(0.0, None)):
        assert torch.equal(decode(model, side, setting).picture, plain)
    assert not torch.equal(decode(model, side, Setting(1.0, BUSY)).picture, plain)
    judge = Judge(model, pictures)
    figures = judge.figures(INDEX, Setting(0.0, BUSY))
    assert (figures.explained, figures.variance) == (0, 0)
    assert judge.figures(INDEX, Setting(0.0, None)) == figures
    assert list(judge.table) == [(INDEX, Setting(0.0, None))]


def test_figures_are_means_of_what_they_say(
    model: Ratevar, pictures: list[Tensor], distances: tuple[_Distance, _Distance]
) -> None:
    setting = Setting(1.0, BUSY)
    figures = Judge(model, pictures).figures(INDEX, setting)
    expected: list[list[float]] = []
    for x in pictures:
        y, side = model.encode(x, module._log2_q(INDEX))
        end, picture = decode(model, side, setting)
        out = (picture.clamp(0, 1) * 255).round() / 255
        grey, grey_out = (np.array([0.299, 0.587, 0.114]) @ t[0].flatten(1).numpy() for t in (x, out))
        energies = [
            sum(float(np.square(np.diff(g.reshape(x.shape[-2:]), axis=a)).mean()) for a in (0, 1))
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
    pictures: list[Tensor],
    distances: tuple[_Distance, _Distance],
    monkeypatch: pytest.MonkeyPatch,
    clean: bool,
    share: float,
) -> None:
    y = model.g_a(pictures[0])

    def reverse(side: Any, noise: Any, **_: Any) -> tuple[Tensor, Tensor]:
        return (y if clean else side.y_file), side.log2_q_file

    monkeypatch.setattr(model, "reverse", reverse)
    figures = Judge(model, pictures[:1]).figures(INDEX, Setting(1.0, BUSY))
    assert figures.explained == pytest.approx(share, abs=1e-5)
    assert figures.variance == pytest.approx(share, abs=1e-5)


def test_the_original_has_its_own_gradient_and_no_distance(
    model: Ratevar,
    pictures: list[Tensor],
    distances: tuple[_Distance, _Distance],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = pictures[0]
    monkeypatch.setattr(model.g_s, "forward", lambda *_: x.clone())
    figures = Judge(model, [x]).figures(INDEX, Setting(1.0, None))
    assert figures.gradient == pytest.approx(1, abs=1e-6)
    assert figures.psnr == pytest.approx(80)
    assert (figures.lpips, figures.dists) == pytest.approx((0, 0), abs=1e-6)
    monkeypatch.setattr(model.g_s, "forward", lambda *_: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    assert Judge(model, [x]).figures(INDEX, Setting(1.0, None)).gradient < 0.8


def test_the_score_is_dists_or_else_lpips(
    model: Ratevar,
    pictures: list[Tensor],
    distances: tuple[_Distance, _Distance],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting, indices = Setting(1.0, BUSY), [120, 240]
    judge = Judge(model, pictures)
    assert judge.notes == []
    score = judge.score(indices, setting)
    figures = [judge.figures(i, setting) for i in indices]
    assert score == pytest.approx(np.mean([f.dists for f in figures]))
    monkeypatch.setattr(module, "load_dists", missing)
    judge = Judge(model, pictures)
    assert len(judge.notes) == 1
    assert judge.score(indices, setting) == pytest.approx(np.mean([f.lpips for f in figures]))
    assert judge.figures(indices[0], setting) == figures[0]._replace(dists=None)
    monkeypatch.setattr(module, "load_lpips", missing)
    with pytest.raises(ModelMissing, match="metric weights"):
        Judge(model, pictures)


def test_with_the_networks_themselves(model: Ratevar, pictures: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    lpips = LPIPS("alex")
    monkeypatch.setattr(module, "load_lpips", lambda net, directory: lpips)
    monkeypatch.setattr(module, "load_dists", missing)
    figures = Judge(model, pictures[:1]).figures(INDEX, Setting(0.0, None))
    _, side = model.encode(pictures[0], module._log2_q(INDEX))
    out = (decode(model, side, Setting(0.0, None)).picture.clamp(0, 1) * 255).round() / 255
    assert figures.lpips == pytest.approx(float(lpips(pictures[0], out)), rel=1e-5)


# --- rates ------------------------------------------------------------------------------------------------------------


def test_rate_indices_are_the_finest_within_the_rates(model: Ratevar, pictures: list[Tensor]) -> None:
    low, high = model.config.q_index_min, model.config.q_index_max
    pixels = sum(x.shape[-2] * x.shape[-1] for x in pictures)

    def bpp(index: int) -> float:
        bits = 0.0
        for x in pictures:
            coded = model.quantise(model.g_a(x), module._log2_q(index), noise=False)
            bits += float(coded.bits_y.sum() + coded.bits_z.sum())
        return bits / pixels

    highest, lowest = bpp(low), bpp(high)
    targets = [1.1 * highest, 0.5 * (highest + lowest), 1.2 * lowest, lowest]
    found = rate_indices(model, pictures, targets)
    assert found[0] == low < found[1] < found[2] < found[3]
    for index, target in list(zip(found, targets, strict=True))[1:]:
        assert bpp(index) <= target < bpp(index - 1)
    with pytest.raises(OptionError, match="out of reach"):
        rate_indices(model, pictures, [targets[1], 0.9 * lowest])


def test_rate_indices_agree_with_a_scan_where_the_rate_is_monotone(
    model: Ratevar, pictures: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def quantise(y: Tensor, log2_q: Tensor, *, noise: bool) -> Any:
        index = round(float(log2_q) * 64)
        asked.append(index)
        return type("Coded", (), {"bits_y": torch.tensor(64 * 48 * 100.0 / index), "bits_z": torch.tensor(0.0)})()

    monkeypatch.setattr(model, "quantise", quantise)
    low, high = model.config.q_index_min, model.config.q_index_max
    targets = [100 / low, 100 / high + 1e-6, *np.linspace(0.3, 6, 40).tolist()]
    scan = [next(i for i in range(low, high + 1) if 100 / i <= target + 1e-9) for target in targets]
    assert rate_indices(model, pictures[:1], targets) == scan
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("bpps", [[], [0.0], [0.2, -1.0], [float("nan")], [float("inf")]])
def test_rates_that_are_none(model: Ratevar, pictures: list[Tensor], bpps: list[float]) -> None:
    with pytest.raises(OptionError, match="bpp"):
        rate_indices(model, pictures, bpps)


# --- the search -------------------------------------------------------------------------------------------------------


def planted(monkeypatch: pytest.MonkeyPatch, score: Callable[[Setting], float]) -> list[Setting]:
    """Every decode scores as given; the settings that were asked for."""
    asked: list[Setting] = []

    def scored(_: Judge, q_indices: Any, setting: Setting) -> float:
        asked.append(setting)
        return score(setting)

    monkeypatch.setattr(Judge, "score", scored)
    monkeypatch.setattr(module, "rate_indices", lambda *_: [INDEX])
    return asked


OPTIMA = [
    Setting(0.75, replace(START, steps=2, schedule_power=0.5, alpha_last=0.0, tau="constant", project=False)),
    Setting(0.5, replace(START, steps=4, schedule_power=2.0, alpha_first=0.5, alpha_last=0.5)),
    Setting(1.0, replace(START, steps=2, alpha_first=0.0, alpha_last=0.0, tau="constant")),
    Setting(0.75, replace(START, steps=1, alpha_first=0.5, alpha_last=0.5, tau="constant", project=False)),
    Setting(1.0, START),
]


@pytest.mark.parametrize("start", [START, replace(START, steps=4, schedule_power=2.0, tau="constant", project=False)])
@pytest.mark.parametrize("optimum", OPTIMA)
def test_the_search_finds_a_planted_optimum(
    model: Ratevar,
    pictures: list[Tensor],
    distances: tuple[_Distance, _Distance],
    monkeypatch: pytest.MonkeyPatch,
    start: ReverseConfig,
    optimum: Setting,
) -> None:
    best = optimum.essence()

    def score(setting: Setting) -> float:
        a, b = setting.essence().reverse, best.reverse
        if a is None or b is None:
            return 0.5  # better than any, and no candidate
        fields = [n for n in ("schedule_power", "alpha_first", "alpha_last") if getattr(a, n) != getattr(b, n)]
        chosen = sum((a.tau != b.tau, a.project != b.project))
        return 1 + abs(a.steps - b.steps) + 0.1 * len(fields) + 0.1 * chosen + abs(setting.realism - best.realism)

    asked = planted(monkeypatch, score)
    model.config = replace(model.config, reverse=start)
    setting = tune(model, pictures, [0.2], echo=quiet).setting
    assert setting.essence() == best
    assert len({s.essence() for s in asked}) == len(asked)


def test_ties_go_to_fewer_steps_and_leave_the_rest(
    model: Ratevar,
    pictures: list[Tensor],
    distances: tuple[_Distance, _Distance],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted(monkeypatch, lambda _: 0.2)
    start = replace(BUSY, steps=4, schedule_power=2.0)
    model.config = replace(model.config, reverse=start)
    assert tune(model, pictures, [0.2], echo=quiet).setting == Setting(1.0, replace(start, steps=1))


@pytest.mark.parametrize(
    ("scores", "steps"),
    [
        ({1: 0.2, 2: 0.1991, 4: 0.1992}, 1),
        ({1: 0.2, 2: 0.1989, 4: 0.1980}, 2),
        ({1: 0.2, 2: 0.1989, 4: 0.1978}, 4),
        ({1: 0.2, 2: 0.1991, 4: 0.1989}, 4),
    ],
)
def test_more_steps_must_pay(
    model: Ratevar,
    pictures: list[Tensor],
    distances: tuple[_Distance, _Distance],
    monkeypatch: pytest.MonkeyPatch,
    scores: dict[int, float],
    steps: int,
) -> None:
    planted(monkeypatch, lambda setting: scores[setting.reverse.steps] if setting.reverse is not None else 0.1)
    found = tune(model, pictures, [0.2], echo=quiet).setting
    assert found.reverse is not None
    assert found.reverse.steps == steps


@pytest.mark.slow
@pytest.mark.parametrize("room", [None, 0])
def test_nothing_is_computed_twice(
    model: Ratevar,
    pictures: list[Tensor],
    distances: tuple[_Distance, _Distance],
    monkeypatch: pytest.MonkeyPatch,
    room: int | None,
) -> None:
    if room is not None:
        monkeypatch.setattr(module, "_FEATURE_BYTES", room)
    calls = dict.fromkeys(("g_a", "f", "g_s"), 0)

    def counted(name: str) -> None:
        network = getattr(model, name)

        def hook(*_: Any) -> None:
            calls[name] += 1

        network.register_forward_hook(hook)

    for name in calls:
        counted(name)
    coarse, fine = 0.2, 0.6
    lines: list[str] = []
    tuned = tune(model, pictures, [coarse, fine, fine], echo=lines.append)
    table, count = tuned.table, len(pictures)
    indices = {i for i, _ in table}
    assert len(indices) == 2
    assert len(table) == 2 * len({s for _, s in table})
    # once to find the rates, once an index
    assert calls["g_a"] == count * (1 + len(indices))
    # between its ends the knob blends two decodes
    assert calls["g_s"] == count * sum(1 + (0 < s.realism < 1) for _, s in table)
    assert calls["f"] == count * sum(s.reverse.steps for _, s in table if s.reverse is not None)
    originals = count if room is None else count * len(table)
    assert [d.extracted for d in distances] == 2 * [originals + count * len(table)]
    # a line for the rates, then one for each setting
    assert len(lines) == 1 + len(table) / len(indices)
    winner = fmean(table[i, tuned.setting.essence()].dists or 0 for i in indices)
    assert any(line.startswith(f"{winner:.4f}  ρ ") for line in lines)
    assert {Setting(0.0, None), Setting(1.0, None)} < {s for _, s in table}


def test_a_model_without_reverse_network_cannot_be_tuned(tiny: RatevarCodec, pictures: list[Tensor]) -> None:
    with pytest.raises(OptionError, match="no reverse network"):
        tune(tiny.model, pictures, [0.2])


# --- tables -----------------------------------------------------------------------------------------------------------


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
    assert set(lines[1]) == {"--:"}
    setting = ["0.75", "4", "0.5", "bridge", "0.5..0.25", "constant", "no"]
    assert lines[2] == ["200", *setting, "25.68", "0.2500", "0.1235", "0.500", "0.125", "1.062"]
    assert lines[3][:8] == ["200", "0", *6 * ["–"]]
    assert lines[4][:8] == ["200", "1", "1", "–", "bridge", "0.5", "constant", "no"]
    assert lines[5][:8] == ["200", "1", "2", "1", "deterministic", "–", "–", "yes"]
    assert lines[6] == ["300", *setting, "25.68", "0.2500", "–", "0.500", "0.125", "1.062"]


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_are_middles_in_multiples_of_the_latent_step(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "b.PNG")
    Image.fromarray(pixels[:, :40]).save(tmp_path / "a.png")
    Image.fromarray(pixels[:31]).save(tmp_path / "0 too small.png")
    (tmp_path / "notes.txt").write_text("no picture")
    small, large = load_pictures(tmp_path)
    assert small.shape == (1, 3, 64, 32)
    assert np.array_equal((large[0].permute(1, 2, 0) * 255).round().numpy(), pixels[5:69, 2:98])
    cut = load_pictures(tmp_path, crop=47)
    assert [tuple(p.shape[-2:]) for p in cut] == [(32, 32), (32, 32)]
    assert np.array_equal((cut[1][0].permute(1, 2, 0) * 255).round().numpy(), pixels[21:53, 34:66])
    assert len(load_pictures(tmp_path, count=1)) == 1
    assert torch.equal(load_pictures(tmp_path, count=1)[0], small)


@pytest.mark.parametrize(("crop", "count", "named"), [(31, None, "crop"), (None, 0, "count"), (None, -1, "count")])
def test_crops_and_counts_that_leave_nothing(folder: Path, crop: int | None, count: int | None, named: str) -> None:
    with pytest.raises(OptionError, match=named):
        load_pictures(folder, crop, count)


# --- weights files ----------------------------------------------------------------------------------------------------


def same_but_for_the_configuration(a: Weights, b: Weights) -> bool:
    return (
        a.hashes == b.hashes
        and a.stream_id == b.stream_id
        and a.training == b.training
        and a.tensors.keys() == b.tensors.keys()
        and all(torch.equal(t, b.tensors[n]) and t.dtype == b.tensors[n].dtype for n, t in a.tensors.items())
    )


def test_a_tuned_file_decodes_with_its_new_defaults(
    weights_file: Path, crops: list[Image.Image], tmp_path: Path
) -> None:
    setting = Setting(0.75, replace(START, steps=3, schedule_power=2.0, alpha_last=0.5, tau="constant", project=False))
    written = write_tuned(weights_file, tmp_path / "tuned.safetensors", setting)
    before, after = read_weights(weights_file), read_weights(tmp_path / "tuned.safetensors")
    assert same_but_for_the_configuration(before, after)
    assert same_but_for_the_configuration(after, written)
    assert after.config == written.config
    config = RatevarConfig.from_dict(after.config)
    assert config == replace(RatevarConfig.from_dict(before.config), default_realism=0.75, reverse=setting.reverse)
    changed = {n for n, v in after.config.items() if v != before.config[n]}
    assert changed == {"default_realism", "reverse"}

    old, new = RatevarCodec(before), RatevarCodec(after)
    for codec in (old, new):
        codec.precision = torch.float32
    data = old.encode(crops[0], q_index=INDEX)
    pixels = np.asarray(new.decode(data))
    assert np.array_equal(pixels, new.decode(data, realism=0.75, steps=3))
    assert not np.array_equal(pixels, old.decode(data))
    assert not np.array_equal(pixels, new.decode(data, steps=2))
    assert new.encode(crops[0], q_index=INDEX) == data


def test_decodes_are_those_of_the_codec(weights_file: Path, crops: list[Image.Image]) -> None:
    codec = RatevarCodec.from_file(weights_file)
    codec.precision = torch.float32
    data = codec.encode(crops[0], q_index=INDEX)
    picture = decode(codec.model, codec.dequantise(parse(data)), Setting(0.75, START)).picture
    ours = (picture.clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
    theirs, other = (np.asarray(codec.decode(data, realism=0.75, seed=seed)) for seed in (None, 1))
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - other).max() > 2


def test_only_what_needs_no_training_is_written(weights_file: Path, tmp_path: Path) -> None:
    other = ReverseConfig(training="mse", width=99, depth=3, noise_channels=0, side=False, steps=2)
    write_tuned(weights_file, tmp_path / "tuned.safetensors", Setting(1.0, other))
    config = RatevarCodec.from_file(tmp_path / "tuned.safetensors").config
    assert config.reverse == replace(START, steps=2)


def test_keys_that_a_file_leaves_to_their_defaults_stay_out(tiny_weights: Path, tmp_path: Path) -> None:
    weights = read_weights(tiny_weights)
    config = {n: v for n, v in weights.config.items() if n not in ("default_realism", "reverse", "cond")}
    config["entropy"] = {n: v for n, v in config["entropy"].items() if n != "scale_low"}
    source, target = tmp_path / "source.safetensors", tmp_path / "target.safetensors"
    write_weights(source, "ratevar", config, weights.tensors, {})
    written = write_tuned(source, target, Setting(0.5, None))
    assert written.config == {**config, "default_realism": 0.5}
    assert written.stream_id == read_weights(source).stream_id


def test_no_network_to_drive(tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"tiny\.safetensors: .*no reverse network"):
        write_tuned(tiny_weights, tmp_path / "tuned.safetensors", Setting(1.0, START))
    assert not list(tmp_path.iterdir())


def test_a_run_from_weights_and_images_to_weights(
    weights_file: Path, folder: Path, tmp_path: Path, distances: tuple[_Distance, _Distance]
) -> None:
    out = tmp_path / "new" / "tuned.safetensors"
    lines: list[str] = []
    tuned = run_tuning(weights_file, folder, out, [0.3], crop=32, count=1, echo=lines.append)
    assert same_but_for_the_configuration(read_weights(weights_file), read_weights(out))
    config = RatevarCodec.from_file(out).config
    assert Setting(config.default_realism, config.reverse) == tuned.setting
    assert tuned.setting.essence() in {s for _, s in tuned.table}
    best = min(tuned.table.values(), key=lambda f: f.dists or 0)
    assert best.dists is not None
    assert any(line.startswith(f"{best.dists:.4f}  ρ ") for line in lines)
    told = json.loads(json.dumps(tuned.to_dict()))
    assert told["setting"] == {"realism": config.default_realism, "reverse": asdict(tuned.setting.reverse)}
    assert len(told["table"]) == len(tuned.table) == len(markdown(tuned.table).splitlines()) - 2
    (index, setting), figures = next(iter(tuned.table.items()))
    assert told["table"][0] == {"q_index": index, "setting": asdict(setting), **figures._asdict()}


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a network runs."""

    def run(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed before all was checked")

    for kind, method in ((Analysis, "forward"), (Ratevar, "quantise"), (ExactCoder, "encode")):
        monkeypatch.setattr(kind, method, run)


def _existing(paths: dict[str, Path]) -> dict[str, Any]:
    paths["out"].write_bytes(b"mine")
    return {}


def _inside_a_file(paths: dict[str, Path]) -> dict[str, Any]:
    return {"out": paths["weights"] / "out.safetensors"}


def _empty(paths: dict[str, Path]) -> dict[str, Any]:
    for path in paths["images"].iterdir():
        path.unlink()
    return {}


def _small(paths: dict[str, Path]) -> dict[str, Any]:
    for path in paths["images"].iterdir():
        Image.new("RGB", (31, 64)).save(path)
    return {}


def _broken(paths: dict[str, Path]) -> dict[str, Any]:
    path = paths["images"] / "1.png"
    path.write_bytes(path.read_bytes()[:600])
    return {}


def _no_network(paths: dict[str, Path]) -> dict[str, Any]:
    return {"weights": paths["tiny"]}


def _damaged(paths: dict[str, Path]) -> dict[str, Any]:
    data = bytearray(paths["weights"].read_bytes())
    data[-1] ^= 1
    (paths["out"].parent / "damaged.safetensors").write_bytes(data)
    return {"weights": paths["out"].parent / "damaged.safetensors"}


ERRORS: list[tuple[Callable[[dict[str, Path]], dict[str, Any]], type[UnquantError], str]] = [
    (_existing, InputError, r"out\.safetensors: exists"),
    (_inside_a_file, InputError, "cannot be written: .*not a folder"),
    (_empty, InputError, "images: no images"),
    (_small, InputError, "images: no images of at least 32×32"),
    (lambda paths: {"images": paths["images"] / "none"}, InputError, "none: no images"),
    (_broken, InputError, r"1\.png: "),
    (_no_network, OptionError, r"tiny\.safetensors: .*no reverse network"),
    (_damaged, WeightsError, r"damaged\.safetensors"),
    (lambda paths: {"weights": paths["images"] / "none"}, ModelMissing, "none: no such weights"),
    (lambda paths: {"metrics": paths["images"]}, ModelMissing, r"images/.*\.safetensors is needed"),
    (lambda paths: {"bpps": [0.1, 0.0]}, OptionError, "bpp"),
    (lambda paths: {"crop": 16}, OptionError, "crop"),
    (lambda paths: {"count": 0}, OptionError, "count"),
]


@pytest.mark.parametrize(("spoil", "error", "message"), ERRORS)
def test_what_can_fail_fails_before_anything_is_computed(
    weights_file: Path,
    tiny_weights: Path,
    crops: list[Image.Image],
    tmp_path: Path,
    idle: None,
    request: pytest.FixtureRequest,
    spoil: Callable[[dict[str, Path]], dict[str, Any]],
    error: type[UnquantError],
    message: str,
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for i, crop in enumerate(crops):
        crop.save(images / f"{i}.png")
    paths = {"weights": weights_file, "images": images, "out": tmp_path / "out.safetensors", "tiny": tiny_weights}
    options: dict[str, Any] = {n: paths[n] for n in ("weights", "images", "out")}
    options |= {"bpps": [0.2], "echo": quiet} | spoil(paths)
    if "metrics" not in options:
        request.getfixturevalue("distances")
    kept = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(error, match=message):
        run_tuning(**options)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == kept


def test_a_folder_that_cannot_be_written_to(weights_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be written"):
        write_tuned(weights_file, tmp_path / "file" / "tuned.safetensors", Setting(1.0, START))
