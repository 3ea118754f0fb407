"""Stage 2: the states that f is trained on, and runs that train nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from runs import parameters, rows
from torch import Tensor

from unquant.codecs.ratevar import RatevarCodec
from unquant.errors import ModelMissing, TrainingError
from unquant.networks.common import SideInfo, log2_q_of
from unquant.networks.ratevar import Ratevar
from unquant.networks.reverse import TRAININGS
from unquant.train.journal import Journal
from unquant.train.loop import train
from unquant.train.ratevar.stage2 import Draw, Stage2, Stage2Config, noisy_state
from unquant.train.recipe import Recipe, Run
from unquant.train.trainer import Trainer
from unquant.weights_file import join_shards, read_shards, read_weights

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[2] / "golden"
TRAINING = pytest.mark.parametrize("training", [training for training in TRAININGS if training != "joint"])


# ---- states ----------------------------------------------------------------------------------------------------------


def states(log2_q_file: Tensor, size: int = 200) -> tuple[Tensor, SideInfo, Tensor]:
    """A latent of two channels, constant so that moments over positions are those of the noise; ŷ_T; a τ for each channel."""
    y = torch.tensor([3.0, -20.0]).view(1, 2, 1, 1).expand(1, 2, size, size).contiguous()
    y_file = y + torch.tensor([0.7, -1.5]).view(1, 2, 1, 1)
    side = SideInfo(y_file, log2_q_file, torch.zeros_like(y), torch.zeros_like(y))
    return y, side, torch.tensor([0.25, 0.1]).view(1, 2, 1, 1)


@TRAINING
def test_the_path_starts_at_the_file_s_own_latent(training: str) -> None:
    """At q = q_T the state is ŷ_T to the last bit, in a map where q = q_T and nowhere else."""
    y, side, tau = states(torch.full((1, 1, 1, 1), 2.3), 8)
    assert torch.equal(noisy_state(y, side, side.log2_q_file, training, tau), side.y_file)
    log2_q = torch.full((1, 1, 8, 8), 1.0)
    log2_q[..., :3, :] = 2.3
    state = noisy_state(y, side, log2_q, training, tau)
    assert torch.equal(state[..., :3, :], side.y_file[..., :3, :])
    assert not torch.isclose(state[..., 3:, :], side.y_file[..., 3:, :], atol=1e-5).any()


@pytest.mark.parametrize("training", ["bridge", "energy"])
@pytest.mark.parametrize("octaves", [0.25, 1.0, 3.0])
def test_moments_of_the_bridge(training: str, octaves: float) -> None:
    """Mean y + w·(ŷ_T − y) and standard deviation q·τ·sqrt(1 − w), with w = (q/q_T)²."""
    torch.manual_seed(0)
    y, side, tau = states(torch.full((1, 1, 1, 1), 2.0))
    q, w = 2.0 ** (2.0 - octaves), 4.0**-octaves
    state = noisy_state(y, side, torch.full((1, 1, 1, 1), 2.0 - octaves), training, tau)
    mean = (y + w * (side.y_file - y)).mean((2, 3))
    spread = q * tau.flatten() * (1 - w) ** 0.5
    assert ((state.mean((2, 3)) - mean).abs() < 0.02 * spread).all()
    assert state.std((2, 3)).flatten().tolist() == pytest.approx(spread.tolist(), rel=0.02)


def test_noise_of_mse_is_uniform_and_new() -> None:
    torch.manual_seed(0)
    y, side, tau = states(torch.full((1, 1, 1, 1), 3.0))
    u = (noisy_state(y, side, torch.ones(1, 1, 1, 1), "mse", tau) - y) / 2
    assert float(u.abs().max()) <= 0.5 + 1e-5
    for channel in u[0].flatten(1):
        quantiles = (torch.arange(len(channel)) + 0.5) / len(channel) - 0.5
        assert float((channel.sort().values - quantiles).abs().max()) < 0.01


def objective(tiny_weights: Path, recipe: Recipe, config: Stage2Config) -> Stage2:
    model = Ratevar(replace(model_config(tiny_weights), reverse=recipe.model.reverse))
    return Stage2(model, config)


def model_config(path: Path) -> Any:
    from unquant.networks.ratevar import RatevarConfig

    return RatevarConfig.from_dict(read_weights(path).config)


def test_draws(tiny_weights: Path, reverse_recipe: Callable[[str], Recipe]) -> None:
    """Half of the states at q_T exactly, the others at a finer step, from the finest one up; maps as often as asked."""
    stage = objective(tiny_weights, reverse_recipe("mse"), Stage2Config(at_file=0.5, q_map=0.25))
    generator, maps, shares = torch.Generator().manual_seed(0), 0, list[Tensor]()
    for _ in range(200):
        draw: Draw = stage.draw(8, 4, generator, CPU)
        maps += draw.log2_q_file.shape[-1] == 4
        assert draw.log2_q.shape == draw.log2_q_file.shape
        at_file = (draw.log2_q == draw.log2_q_file).flatten(1)
        assert torch.equal(at_file.any(1), at_file.all(1))
        assert int(at_file.all(1).sum()) == 4
        assert (draw.log2_q <= draw.log2_q_file).all()
        assert float(draw.log2_q.min()) >= log2_q_of(16)
        if draw.log2_q.shape[-1] == 1:
            below = ~at_file.all(1)
            shares.append(((draw.log2_q - 0.25) / (draw.log2_q_file - 0.25)).flatten()[below])
    assert 30 < maps < 70
    assert float(torch.cat(shares).mean()) == pytest.approx(0.5, abs=0.05)


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@TRAINING
def test_held_out_loss_falls(training: str, stage2_run: Callable[..., Any]) -> None:
    run = stage2_run(training)
    assert run.after["loss"] < run.before["loss"] * (0.85 if training == "energy" else 0.995)


@pytest.mark.slow
@pytest.mark.parametrize("training", ["mse", "bridge"])
def test_posterior_means_explain_part_of_the_error(training: str, stage2_run: Callable[..., Any]) -> None:
    """The finest step of the three has next to nothing to explain."""
    run = stage2_run(training)
    assert (run.before["explained_180"], run.before["explained_289"]) == pytest.approx((0, 0), abs=1e-5)
    assert run.after["explained_180"] > 0.004
    assert run.after["explained_289"] > 0.01


@pytest.mark.slow
def test_samples_have_more_of_the_variance_than_means(stage2_run: Callable[..., Any]) -> None:
    mean, sample = stage2_run("mse").after, stage2_run("energy").after
    for q_index in (71, 180, 289):
        key = f"variance_{q_index}"
        assert abs(1 - sample[key]) < 0.6 < 0.8 < abs(1 - mean[key])


def joined(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "joined.safetensors"
    join_shards(folder / "export", path)
    return path


@pytest.mark.slow
@TRAINING
def test_everything_but_f_stays(
    training: str, stage2_run: Callable[..., Any], tiny_weights: Path, tiny: RatevarCodec, tmp_path: Path
) -> None:
    path = joined(stage2_run(training).out, tmp_path)
    scales = read_shards(stage2_run(training).out / "export").tensors["tables.scales"]
    assert torch.equal(scales, read_weights(tiny_weights).tensors["tables.scales"])
    before, after = read_weights(tiny_weights), read_weights(path)
    assert set(after.hashes) - set(before.hashes) == {"reverse"}
    assert {group: after.hashes[group] for group in before.hashes} == before.hashes
    assert (after.training["stage"], after.training["training"]) == (2, training)
    # so that files decode as before at ρ = 0, and by way of f at ρ = 1
    codec, data = RatevarCodec.from_file(path), (GOLDEN / "tiny-coarse.unq").read_bytes()
    plain = tiny.decode(data, realism=0.0).tobytes()
    assert codec.decode(data, realism=0.0).tobytes() == plain
    assert codec.decode(data, realism=1.0).tobytes() != tiny.decode(data, realism=1.0).tobytes()


@pytest.mark.slow
def test_pictures_show_what_f_does(stage2_run: Callable[..., Any], tmp_path: Path) -> None:
    from unquant.train.ratevar.validation import save_samples

    trainer = stage2_run("energy").trainer
    pixels: list[bytes] = []
    for name, reverse in (("a", True), ("b", True), ("plain", False)):
        path = tmp_path / f"{name}.png"
        save_samples(trainer.ema.module, trainer.photos, 64, path, reverse=reverse)
        with Image.open(path) as picture:
            assert picture.size == (4 * 64, 7 * 64)
            pixels.append(picture.tobytes())
    assert pixels[0] == pixels[1] != pixels[2]


@pytest.mark.slow
def test_validation_has_noise_of_its_own(stage2_run: Callable[..., Any]) -> None:
    trainer = stage2_run("energy").trainer
    arguments = trainer.ema.module, trainer.photos, 64, trainer.recipe.loop.validation_crops
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)
    rows, drawn = list[dict[str, float]](), list[float]()
    for _ in range(3):
        drawn.append(float(torch.rand(())))
        rows.append(trainer.objective.validate(*arguments))
    assert drawn == expected
    assert rows[0] == rows[1] == rows[2]


# ---- going on --------------------------------------------------------------------------------------------------------


@pytest.fixture
def start(pieces: Path) -> Callable[..., Any]:
    """A trainer of stage 2, at its first step."""

    def make(recipe: Recipe, out: Path, **options: Any) -> Any:
        run = Run(**{"data": pieces, "out": out, "time_budget": 10.0, "device": "cpu", "stage": 2, **options})
        return Trainer(recipe, run)

    return make


@pytest.mark.slow
@TRAINING
def test_resume(
    training: str,
    stage2_run: Callable[..., Any],
    start: Callable[..., Any],
    reverse_recipe: Callable[[str], Recipe],
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    run, recipe = stage2_run(training), reverse_recipe(training)
    out = Path(shutil.copytree(run.out, tmp_path / "run"))
    again = start(recipe, out, resume=True, init=str(tmp_path / "nowhere"))
    assert not any("export" in note for note in again.notes)
    assert again.describe()["init"] == "resume"
    assert (again.schedule.steps, again.schedule.crops, again.schedule.seconds) == (80, 640, 8.0)
    assert torch.equal(parameters(again.model), parameters(run.trainer.model))
    assert torch.equal(parameters(again.ema), parameters(run.trainer.ema))
    assert len(again.optimisers.adam.state_dict()["state"]) == len(list(again.model.f.parameters()))
    # the checkpoint holds all weights: without an export, only the model's shape is taken from the initial ones
    shutil.rmtree(out / "export")
    again = start(recipe, out, resume=True, init=str(tiny_weights))
    assert (again.schedule.steps, again.schedule.seconds) == (80, 8.0)
    assert torch.equal(parameters(again.model), parameters(run.trainer.model))
    with pytest.raises(ModelMissing, match="nowhere"):
        start(recipe, out, resume=True, init=str(tmp_path / "nowhere"))


@pytest.mark.slow
def test_resume_from_an_export_alone(
    stage2_run: Callable[..., Any],
    start: Callable[..., Any],
    reverse_recipe: Callable[[str], Recipe],
    tmp_path: Path,
) -> None:
    run = stage2_run("energy")
    out = Path(shutil.copytree(run.out, tmp_path / "run"))
    (out / "checkpoint.ckpt").unlink()
    again = start(reverse_recipe("energy"), out, resume=True, init=str(tmp_path / "nowhere"))
    assert any(f"no checkpoint.ckpt in {out}: going on from its export" in note for note in again.notes)
    assert (again.schedule.steps, again.schedule.seconds) == (80, 8.0)
    assert torch.allclose(parameters(again.model.f), parameters(run.trainer.ema.module.f), atol=1e-3)
    # another folder goes on from it as well
    new = start(reverse_recipe("energy"), tmp_path / "new", init=str(out / "export"))
    assert (new.schedule.steps, new.schedule.seconds) == (80, 8.0)
    assert torch.equal(parameters(new.model), parameters(again.model))


@pytest.mark.slow
def test_another_network_starts_afresh(
    stage2_run: Callable[..., Any],
    start: Callable[..., Any],
    reverse_recipe: Callable[[str], Recipe],
    tmp_path: Path,
) -> None:
    """One of another shape or training; how it is sampled does not matter."""
    run, recipe = stage2_run("mse"), reverse_recipe("mse")
    export = str(run.out / "export")
    reverse = recipe.model.reverse
    assert reverse is not None

    def started(**changes: Any) -> Any:
        other = replace(recipe, model=replace(recipe.model, reverse=replace(reverse, **changes)))
        return start(other, tmp_path / "new", init=export)

    for changes in (
        {"width": 48},
        {"training": "bridge"},
        {"training": "energy", "noise_channels": 2},
        {"side": False},
    ):
        new = started(**changes)
        assert (new.schedule.steps, new.schedule.seconds) == (0, 0.0)
        assert not new.model.f.net.head.weight.any()
        assert torch.equal(parameters(new.model.g_s), parameters(run.trainer.model.g_s))
    same = started(steps=3, sampler="deterministic")
    assert same.schedule.steps == 80
    assert same.model.f.net.head.weight.any()
    assert same.model.config.reverse.steps == 3
    # without [model.reverse] the weights' own network is trained on
    given = start(replace(recipe, model=replace(recipe.model, reverse=None)), tmp_path / "new", init=export)
    assert given.schedule.steps == 80


@pytest.mark.slow
def test_a_checkpoint_of_another_model_or_stage(
    stage2_run: Callable[..., Any],
    start: Callable[..., Any],
    reverse_recipe: Callable[[str], Recipe],
    smoke_recipe: Recipe,
    tmp_path: Path,
) -> None:
    recipe, out = reverse_recipe("mse"), stage2_run("mse").out
    assert recipe.model.reverse is not None
    other = replace(recipe, model=replace(recipe.model, reverse=replace(recipe.model.reverse, width=48)))
    with pytest.raises(TrainingError, match=rf"{out}/checkpoint\.ckpt: does not fit"):
        start(other, out, resume=True)
    with pytest.raises(TrainingError, match=r"checkpoint\.ckpt: a checkpoint of stage 2"):
        start(smoke_recipe, out, resume=True, stage=1)


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("init", ["klt", "random"])
def test_later_stages_need_weights(
    stage: int,
    init: str,
    start: Callable[..., Any],
    reverse_recipe: Callable[[str], Recipe],
    tmp_path: Path,
    feature_weights: Path,
) -> None:
    with pytest.raises(TrainingError, match=f"stage {stage} goes on from weights: .* not '{init}'"):
        start(reverse_recipe("energy"), tmp_path, init=init, stage=stage, metrics=feature_weights)


def test_a_recipe_without_a_reverse_network(
    start: Callable[..., Any], smoke_recipe: Recipe, tiny_weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"needs a table \[model\.reverse\]"):
        start(smoke_recipe, tmp_path, init=str(tiny_weights))


# ---- the loop --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_obeys_and_goes_on(
    pieces: Path, reverse_recipe: Callable[[str], Recipe], tiny_weights: Path, tmp_path: Path
) -> None:
    """An order ends the first run, its budget the second one, and that one goes on where the first stopped."""
    recipe = reverse_recipe("bridge")

    def order(line: str) -> None:
        if line.startswith("kind=train"):
            (tmp_path / "orders.json").write_text('{"stop": true}')

    run = Run(pieces, tmp_path, 500.0, init=str(tiny_weights), device="cpu", stage=2)
    assert train(recipe, run, order) == tmp_path / "export"
    first = rows(tmp_path)
    assert not (tmp_path / "orders.json").exists()
    assert (first[0]["kind"], first[0]["stage"]) == ("start", 2)
    assert 0 < first[0]["trained"] < first[0]["parameters"]
    assert {"explained_180", "variance_180", "loss"} <= first[1].keys()
    assert {"loss", "error", "grad", "lr"} <= next(row for row in first if row["kind"] == "train").keys()
    assert first[-1]["kind"] == "validation"
    assert first[-1]["seconds"] < 500
    assert read_shards(tmp_path / "export").training["stage"] == 2
    train(recipe, replace(run, time_budget=0.5, resume=True), lambda line: None)
    second = rows(tmp_path)[len(first) :]
    assert (second[0]["init"], second[0]["step"]) == ("resume", first[-1]["step"])
    assert [row["kind"] for row in second if row["kind"] == "note"] == []
    assert second[-1]["step"] > first[-1]["step"]


@pytest.mark.slow
def test_validation_rows_of_a_run(stage2_run: Callable[..., Any], tmp_path: Path) -> None:
    trainer = stage2_run("energy").trainer
    with Journal(tmp_path / "metrics.jsonl", lambda line: None) as journal:
        trainer.validate(journal)
    (row,) = rows(tmp_path)
    assert (row["kind"], row["step"], row["loss"]) == ("validation", 80, stage2_run("energy").after["loss"])
    assert list((stage2_run("energy").out / "samples").glob("*.png"))
