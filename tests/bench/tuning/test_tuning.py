"""The search over settings, and the weights file that it writes."""

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
from PIL import Image
from tuned_model import BUSY, INDEX, START

from unquant.bench.tuning import judge, search
from unquant.bench.tuning.judge import Judge, markdown
from unquant.bench.tuning.search import run_tuning, tune, write_tuned
from unquant.bench.tuning.setting import Setting
from unquant.codecs.ratevar import RatevarCodec
from unquant.entropy.exact import ExactCoder
from unquant.errors import InputError, ModelMissing, OptionError, UnquantError, WeightsError
from unquant.networks.ratevar import Ratevar, RatevarConfig, ReverseConfig
from unquant.nn.transforms import Analysis
from unquant.weights_file import Weights, read_weights, write_weights


def quiet(_: str) -> None:
    pass


def planted(monkeypatch: pytest.MonkeyPatch, score: Callable[[Setting], float]) -> list[Setting]:
    """Every decode scores as given; the settings that were asked for."""
    asked: list[Setting] = []

    def scored(_: Judge, q_indices: Any, setting: Setting) -> float:
        asked.append(setting)
        return score(setting)

    monkeypatch.setattr(Judge, "score", scored)
    monkeypatch.setattr(search, "rate_indices", lambda *_: [INDEX])
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
    pictures: list[Image.Image],
    distances: Any,
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
    pictures: list[Image.Image],
    distances: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted(monkeypatch, lambda _: 0.2)
    start = replace(BUSY, steps=4, schedule_power=2.0)
    model.config = replace(model.config, reverse=start)
    assert tune(model, pictures, [0.2], echo=quiet).setting == Setting(1.0, replace(start, steps=1))


def test_a_joint_network_is_in_the_plain_decode_too(
    model: Ratevar,
    pictures: list[Image.Image],
    distances: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its sampler has nothing random to be tried."""
    asked = planted(monkeypatch, lambda _: 0.2)
    start = replace(START, training="joint", noise_channels=0, sampler="deterministic")
    model.config = replace(model.config, reverse=start)
    assert tune(model, pictures, [0.2], echo=quiet).setting == Setting(1.0, start)
    first, second, *rest = asked
    assert (first, second) == (Setting(0.0, start), Setting(1.0, None))
    assert first.essence().reverse is not None
    assert {s.reverse.steps for s in rest if s.reverse is not None} == {1, 2, 4}
    assert len({s.essence() for s in asked}) == len(asked) == 2 + 3 + 1 + 2


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
    pictures: list[Image.Image],
    distances: Any,
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
    pictures: list[Image.Image],
    distances: Any,
    monkeypatch: pytest.MonkeyPatch,
    room: int | None,
) -> None:
    if room is not None:
        monkeypatch.setattr(judge, "_KEPT_PIXELS", room)
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


def test_a_model_without_reverse_network_cannot_be_tuned(tiny: RatevarCodec, pictures: list[Image.Image]) -> None:
    with pytest.raises(OptionError, match="no reverse network"):
        tune(tiny.model, pictures, [0.2])


# --- weights files ------------------------------------------------------------------------------------------------------


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
    weights_file: Path, folder: Path, tmp_path: Path, distances: Any
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


# --- errors -------------------------------------------------------------------------------------------------------------


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
    (_empty, InputError, "images: no image files"),
    (_small, InputError, "images: no images of at least 32×32"),
    (lambda paths: {"images": paths["images"] / "none"}, InputError, "none: "),
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
