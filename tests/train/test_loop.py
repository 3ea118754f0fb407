"""The loop: its clock, its learning rate, and what a trainer does when things go wrong."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import parameters
from safetensors.torch import save_file

from unquant.errors import InputError, ModelMissing, OptionError, TrainingError, WeightsError
from unquant.perceptual import LPIPS, LPIPS_FILES
from unquant.train import checkpoint as checkpoint_module
from unquant.train import devices, loop
from unquant.train.journal import Journal, StopSwitch, Window
from unquant.train.recipe import LoopConfig, Recipe, Run
from unquant.train.schedule import Position, Schedule, learning_rate
from unquant.train.trainer import Trainer
from unquant.weights_file import read_shards

LOOP = LoopConfig(lr=1e-3, lr_end=1e-5, warmup_steps=100)


# ---- the learning rate -----------------------------------------------------------------------------------------------


def test_learning_rate_is_a_cosine_over_the_planned_seconds() -> None:
    at = [learning_rate(LOOP, position, 100.0, 1000) for position in (0.0, 50.0, 100.0, 150.0)]
    assert at == pytest.approx([1e-3, (1e-3 + 1e-5) / 2, 1e-5, 1e-5])


def test_learning_rate_warms_up_after_every_start() -> None:
    assert learning_rate(LOOP, 0.0, 100.0, 0) == pytest.approx(1e-5)
    assert learning_rate(LOOP, 0.0, 100.0, 49) == pytest.approx(5e-4)
    assert learning_rate(LOOP, 50.0, 100.0, 49) == pytest.approx((1e-3 + 1e-5) / 4)


def test_a_constant_learning_rate_warms_up_and_stays() -> None:
    constant = replace(LOOP, schedule="constant")
    assert [learning_rate(constant, position, 10.0, 1000) for position in (0.0, 9.0, 1e9)] == [1e-3] * 3
    assert learning_rate(constant, 5.0, 10.0, 49) == pytest.approx(5e-4)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_cooldown_falls_by_the_root_from_lr_to_lr_end(schedule: str) -> None:
    cooled = replace(LOOP, schedule=schedule)
    at = [learning_rate(cooled, position, 180.0, 1000, 80.0) for position in (80.0, 105.0, 180.0, 200.0)]
    assert at == pytest.approx([1e-3, (1e-3 + 1e-5) / 2, 1e-5, 1e-5])


# ---- the driver, with a clock and a trainer of our own ---------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> float:
        self.now += seconds
        return seconds


class FakeTrainer(Trainer):
    """Steps take 1 s, saving 2 s, validating 3 s."""

    def __init__(self, clock: Clock, budget: float | None, last_step: int | None = None, **intervals: float) -> None:
        self.clock, self.first, self.notes = clock, True, ["a note"]
        config = LoopConfig(**{"log_every": 5.0, "export_every": 1e9, "validate_every": 1e9, **intervals})  # pyright: ignore[reportArgumentType]
        self.recipe = Recipe(loop=config)
        self.run = Run(Path("data"), Path("out"), budget, steps=last_step)
        self.schedule = Schedule(config, self.run)
        self.schedule.begin(Position(seconds=500.0))
        self.calls: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"device": "fake"}

    def step(self) -> dict[str, torch.Tensor]:
        self.clock.spend(1.0)
        self.schedule.steps += 1
        self.calls.append("step")
        return {"loss": torch.tensor(1.0), "grad": torch.tensor(1.0)}

    def unjudged(self) -> bool:
        return False

    def agree(self, wanted: bool) -> bool:
        return wanted

    def report(self, journal: Journal, window: Window, now: float) -> None:
        self.calls.append(f"report {len(window)}")
        window.close(now)

    def save(self) -> float:
        self.calls.append("save")
        return self.clock.spend(2.0)

    def validate(self, journal: Journal) -> float:
        self.calls.append("validate")
        return self.clock.spend(3.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("unquant.train.loop.time.monotonic", clock)
    return clock


def drive(trainer: FakeTrainer, folder: Path) -> float:
    """Run the driver; returns the seconds that it took."""
    begin = trainer.clock.now
    with Journal(folder / "metrics.jsonl", lambda line: None) as journal, StopSwitch(folder) as stop:
        loop.drive(trainer, journal, stop, begin)
    return trainer.clock.now - begin


def test_the_budget_holds_the_last_save_and_validation(clock: Clock, tmp_path: Path) -> None:
    trainer = FakeTrainer(clock, 60.0, export_every=10.0)
    assert 59 <= drive(trainer, tmp_path) <= 60
    assert trainer.calls[0] == "validate"
    assert trainer.calls[-3:] == ["report 4", "save", "validate"] or trainer.calls[-2:] == ["save", "validate"]
    assert trainer.schedule.seconds == pytest.approx(500 + 55, abs=1)


def test_a_budget_too_small_still_makes_a_step_and_saves(clock: Clock, tmp_path: Path) -> None:
    trainer = FakeTrainer(clock, 0.5)
    drive(trainer, tmp_path)
    assert trainer.calls == ["validate", "step", "report 1", "save", "validate"]


def test_a_number_of_steps_is_made_exactly(clock: Clock, tmp_path: Path) -> None:
    trainer = FakeTrainer(clock, None, 7, export_every=4.0)
    drive(trainer, tmp_path)
    assert trainer.calls.count("step") == trainer.schedule.steps == 7
    assert trainer.calls[-2:] == ["save", "validate"]
    assert trainer.calls.count("save") >= 2


def test_a_run_of_steps_can_be_ordered_to_stop(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "orders.json").write_text('{"stop": true}')
    trainer = FakeTrainer(clock, None, 1000)
    drive(trainer, tmp_path)
    assert trainer.schedule.steps == 5  # at its first row


def test_a_resumed_run_does_not_validate_first(clock: Clock, tmp_path: Path) -> None:
    trainer = FakeTrainer(clock, 3.0)
    trainer.schedule.steps = 100
    drive(trainer, tmp_path)
    assert trainer.calls[:1] == ["step"]


def test_intervals(clock: Clock, tmp_path: Path) -> None:
    trainer = FakeTrainer(clock, 100.0, export_every=20.0, validate_every=30.0)
    drive(trainer, tmp_path)
    assert trainer.calls.count("save") in (4, 5)
    assert trainer.calls.count("validate") in (4, 5)


def test_orders_are_obeyed_at_the_next_row_and_removed(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "orders.json").write_text('{"stop": true}')
    trainer = FakeTrainer(clock, 1e6)
    drive(trainer, tmp_path)
    assert trainer.calls == ["validate", *["step"] * 5, "report 5", "save", "validate"]
    assert not (tmp_path / "orders.json").exists()


def test_the_start_is_described(clock: Clock, tmp_path: Path) -> None:
    drive(FakeTrainer(clock, 2.0), tmp_path)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert '"kind": "start", "step": 0, "seconds": 500.0, "crops": 0, "device": "fake"' in text
    assert '"text": "a note"' in text


# ---- the trainer -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(
    tmp_path_factory: pytest.TempPathFactory,
    shard: Callable[..., Path],
    photographs: Callable[..., dict[str, bytes]],
) -> Path:
    folder = tmp_path_factory.mktemp("data")
    shard(folder / "a.tar", photographs("a", 64, 1))
    return folder


@pytest.fixture
def trainer(data: Path, tmp_path: Path, smoke_recipe: Recipe) -> Any:
    return make(smoke_recipe, data, tmp_path)


def make(recipe: Recipe, data: Path, out: Path, **options: Any) -> Any:
    """A trainer with random weights and two crops a step."""
    recipe = replace(recipe, loop=replace(recipe.loop, batch=2))
    run = Run(**{"data": data, "out": out, "time_budget": 10.0, "init": "random", "device": "cpu", **options})
    return Trainer(recipe, run)


def test_with_steps_the_schedule_counts_steps(data: Path, tmp_path: Path, smoke_recipe: Recipe) -> None:
    """The cosine spans the steps, whatever time they take; a run that goes on adds its own to those made."""
    options: dict[str, Any] = {"time_budget": None, "steps": 4}
    first = make(smoke_recipe, data, tmp_path, **options)
    assert first.describe()["planned_steps"] == 4
    rates: list[float] = []
    for _ in range(4):
        first.step()
        rates.append(first.optimisers.adam.param_groups[0]["lr"])
        first.schedule.seconds += 1000.0
        first.agree(False)
    assert rates == pytest.approx([learning_rate(smoke_recipe.loop, i, 4, i) for i in range(4)])
    first.save()
    second = make(smoke_recipe, data, tmp_path, **options, resume=True)
    assert second.schedule.position == first.schedule.position
    assert (second.schedule.now, second.schedule.planned, second.schedule.last_step) == (4.0, 8.0, 8)


def rates_of(trainer: Any, steps: int) -> list[float]:
    """The learning rates of some steps, as the driver makes them."""
    rates: list[float] = []
    for _ in range(steps):
        trainer.step()
        rates.append(trainer.optimisers.adam.param_groups[0]["lr"])
        trainer.agree(False)
    return rates


@pytest.mark.slow
def test_a_constant_schedule_goes_on_over_runs_and_ends_in_a_cooldown(
    data: Path, tmp_path: Path, smoke_recipe: Recipe
) -> None:
    """Checkpoint or export, each start warms up again; only the cooldown, in a folder of its own, has an end."""
    recipe = replace(smoke_recipe, loop=replace(smoke_recipe.loop, schedule="constant", warmup_steps=2, ema=0.5))
    lr, lr_end = recipe.loop.lr, recipe.loop.lr_end
    options: dict[str, Any] = {"time_budget": None, "steps": 4}
    out, cooled = tmp_path / "run", tmp_path / "cooled"
    first = make(recipe, data, out, **options)
    assert rates_of(first, 4) == pytest.approx([lr / 2, lr, lr, lr])
    first.save()
    note = read_shards(out / "export").training
    assert (note["schedule"], note["steps"]) == ("constant", 4)
    assert "planned_steps" not in note.keys() | first.describe().keys()

    second = make(recipe, data, out, **options, resume=True)
    assert rates_of(second, 3) == pytest.approx([lr / 2, lr, lr])
    second.save()
    (out / "checkpoint.ckpt").unlink()
    third = make(recipe, data, out, **options, resume=True)
    assert (third.schedule.steps, third.schedule.crops) == (7, 14)
    assert rates_of(third, 2) == pytest.approx([lr / 2, lr])
    third.save()

    down = make(recipe, data, cooled, **options, cooldown=True, init=str(out / "export"))
    expected = [(lr_end + (lr - lr_end) * (1 - math.sqrt(i / 4))) * min(1.0, (i + 1) / 2) for i in range(4)]
    assert down.describe()["planned_steps"] == 13
    assert rates_of(down, 4) == pytest.approx(expected)
    down.save()
    note = read_shards(cooled / "export").training
    assert (note["schedule"], note["steps"], note["planned_steps"]) == ("cooldown", 13, 13)
    # from the checkpoint as well, with an average of its own
    again = make(recipe, data, out, **options, cooldown=True, resume=True)
    assert int(again.ema.n_averaged) == 0
    again.step()
    assert torch.equal(parameters(again.ema.module), parameters(again.model))


def test_a_planned_total_is_refused_where_there_is_none(data: Path, tmp_path: Path, smoke_recipe: Recipe) -> None:
    recipe = replace(smoke_recipe, loop=replace(smoke_recipe.loop, schedule="constant"))
    with pytest.raises(OptionError, match=r'planned total goes with schedule = "cosine"'):
        make(recipe, data, tmp_path, planned_total=20.0)


def test_a_step_that_is_not_finite_changes_nothing(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer.step()
    weights, moments = parameters(trainer.model), trainer.optimisers.adam.state_dict()["state"][0]
    moments = {k: v.clone() for k, v in moments.items()}
    real = trainer.objective.forward

    def broken(*args: Any) -> Any:
        terms = real(*args)
        return {**terms, "loss": terms["loss"] * math.nan}

    monkeypatch.setattr(trainer.objective, "forward", broken)
    assert math.isnan(trainer.step()["grad"])
    assert torch.equal(parameters(trainer.model), weights)
    for name, value in trainer.optimisers.adam.state_dict()["state"][0].items():
        assert torch.equal(value, moments[name])
    monkeypatch.setattr(trainer.objective, "forward", real)
    trainer.step()
    assert not torch.equal(parameters(trainer.model), weights)
    assert torch.isfinite(parameters(trainer.model)).all()


def test_a_run_whose_steps_all_fail_ends(trainer: Any, tmp_path: Path) -> None:
    window = Window()
    for _ in range(5):
        window.add({"loss": torch.tensor(1.0), "grad": torch.tensor(math.nan)})
    with (
        Journal(tmp_path / "metrics.jsonl", print) as journal,
        pytest.raises(TrainingError, match="last 5 steps are not finite"),
    ):
        trainer.report(journal, window, window.begin + 1)
    assert '"skipped": 5' in (tmp_path / "metrics.jsonl").read_text()


def test_every_start_draws_other_crops_and_every_device_its_own(trainer: Any) -> None:
    draws: list[float] = []
    for steps, rank in ((0, 0), (0, 1), (100, 0), (1, 0), (0, 0)):
        trainer.schedule.steps = steps
        trainer.seed(rank)
        draws.append(float(torch.rand((), generator=trainer.generator)))
    assert draws[0] == draws[-1]
    assert len(set(draws)) == 4


def test_no_prefix_of_a_compiled_model_reaches_files(
    data: Path, tmp_path: Path, smoke_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightning.fabric  # noqa: F401  # it wraps torch.compile when it is imported

    compile_fn = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: compile_fn(model, disable=True, **options))
    recipe = replace(smoke_recipe, loop=replace(smoke_recipe.loop, compile=True))
    trainer = make(recipe, data, tmp_path)
    before = parameters(trainer.ema.module)
    trainer.step()
    assert not torch.equal(parameters(trainer.ema.module), before)
    trainer.save()
    names = set(trainer.model.state_dict())
    assert set(read_shards(tmp_path / "export").tensors) == names
    state = torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)
    assert set(state["model"]) == names
    assert set(state["ema"]) == {f"module.{n}" for n in names} | {"n_averaged"}
    make(smoke_recipe, data, tmp_path, resume=True)


@pytest.mark.slow
def test_a_compiler_that_fails_does_not_end_the_run(
    data: Path, tmp_path: Path, smoke_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightning.fabric  # noqa: F401

    compile_fn = torch.compile

    def backend(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", lambda model, **options: compile_fn(model, **{**options, "backend": backend}))
    recipe = replace(smoke_recipe, loop=replace(smoke_recipe.loop, compile=True, batch=2))
    loop.train(recipe, Run(data, tmp_path, 0.1, init="random", device="cpu"), lambda line: None)
    notes = [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if '"note"' in line]
    assert sum("torch.compile failed, going on without" in note for note in notes) == 1
    assert read_shards(tmp_path / "export").training["steps"] >= 1
    assert compile_fn(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2


def test_a_crash_while_saving_leaves_the_last_save_whole(
    trainer: Any, data: Path, tmp_path: Path, smoke_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.step()
    trainer.save()
    checkpoint = (tmp_path / "checkpoint.ckpt").read_bytes()
    trainer.step()

    def crash(state: Any, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", crash)
        with pytest.raises(InputError, match=r"checkpoint\.ckpt: cannot be written: no space"):
            trainer.save()
    assert (tmp_path / "checkpoint.ckpt").read_bytes() == checkpoint

    def crash_early(*args: Any) -> None:
        (args[0]).mkdir()
        raise OSError("no space left on device")

    steps = read_shards(tmp_path / "export").training["steps"]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "write_shards", crash_early)
        with pytest.raises(OSError, match="no space"):
            trainer.save()
    assert read_shards(tmp_path / "export").training["steps"] == steps
    again = make(smoke_recipe, data, tmp_path, resume=True)
    assert again.schedule.steps == 1
    again.save()
    assert not [path for pattern in ("*.part", "*.old", ".unquant-*") for path in tmp_path.rglob(pattern)]


def test_weights_beyond_fp16_are_not_exported(trainer: Any, tmp_path: Path) -> None:
    trainer.save()
    with torch.no_grad():
        next(iter(trainer.ema.module.parameters())).fill_(1e6)
    with pytest.raises(WeightsError, match="not finite in fp16"):
        trainer.save()
    assert read_shards(tmp_path / "export").training["steps"] == 0


class Intruder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_checkpoint_runs_no_code(data: Path, tmp_path: Path, smoke_recipe: Recipe) -> None:
    torch.save({"model": Intruder(tmp_path / "intruded")}, tmp_path / "checkpoint.ckpt")
    with pytest.raises(TrainingError, match=r"checkpoint\.ckpt: damaged checkpoint"):
        make(smoke_recipe, data, tmp_path, resume=True)
    assert not (tmp_path / "intruded").exists()
    torch.load(tmp_path / "checkpoint.ckpt", weights_only=False)
    assert (tmp_path / "intruded").exists()


@pytest.mark.parametrize("content", [b"", b"garbage" * 40, pickle.dumps({"model": {}}, 2), b"PK\x03\x04" + bytes(99)])
def test_damaged_checkpoints_are_named(data: Path, tmp_path: Path, smoke_recipe: Recipe, content: bytes) -> None:
    (tmp_path / "checkpoint.ckpt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"checkpoint\.ckpt: damaged checkpoint .*the export"):
        make(smoke_recipe, data, tmp_path, resume=True)


def test_weights_of_another_model_are_refused(trainer: Any, data: Path, tmp_path: Path, smoke_recipe: Recipe) -> None:
    trainer.save()
    other = replace(smoke_recipe, model=replace(smoke_recipe.model, analysis_width8=24))
    with pytest.raises(TrainingError, match=r"checkpoint\.ckpt: does not fit"):
        make(other, data, tmp_path, resume=True)
    with pytest.raises(TrainingError, match="do not fit the recipe's model"):
        make(other, data, tmp_path / "other", init=str(tmp_path / "export"))
    with pytest.raises(ModelMissing, match="nowhere"):
        make(smoke_recipe, data, tmp_path / "other", init=str(tmp_path / "nowhere"))


def test_an_export_carries_its_place_on_the_schedule(
    trainer: Any, data: Path, tmp_path: Path, smoke_recipe: Recipe
) -> None:
    trainer.schedule.steps, trainer.schedule.crops, trainer.schedule.seconds = 40, 80, 30.0
    trainer.save()
    export = str(tmp_path / "export")
    new = make(smoke_recipe, data, tmp_path / "new", init=export, planned_total=120.0)
    assert (new.schedule.steps, new.schedule.crops, new.schedule.seconds, new.schedule.planned) == (40, 80, 30.0, 120.0)
    assert torch.allclose(parameters(new.model), parameters(trainer.ema.module), atol=1e-2)
    assert make(smoke_recipe, data, tmp_path / "new", init=export).schedule.planned == 40.0
    used_up = make(smoke_recipe, data, tmp_path / "new", init=export, planned_total=20.0)
    assert "learning rate stays at its end" in used_up.notes[-1]
    # a run that lost its checkpoint goes on from its export
    (tmp_path / "checkpoint.ckpt").unlink()
    resumed = make(smoke_recipe, data, tmp_path, resume=True)
    assert (resumed.schedule.steps, resumed.schedule.seconds) == (40, 30.0)
    assert "going on from its export" in resumed.notes[-1]


@pytest.mark.slow
def test_resuming_an_empty_folder_starts(data: Path, tmp_path: Path, smoke_recipe: Recipe) -> None:
    trainer = make(smoke_recipe, data, tmp_path, resume=True, init="klt")
    assert (trainer.schedule.steps, trainer.schedule.seconds) == (0, 0.0)
    assert not torch.equal(trainer.model.g_a.linear, make(smoke_recipe, data, tmp_path).model.g_a.linear)


def test_without_held_out_images_validation_is_skipped(
    tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes], smoke_recipe: Recipe
) -> None:
    shard(tmp_path / "data" / "a.tar", {"image0.png": flat(80, 80)})
    trainer = make(smoke_recipe, tmp_path / "data", tmp_path)
    with Journal(tmp_path / "metrics.jsonl", print) as journal:
        trainer.validate(journal)
    assert "no held-out image of at least 64×64 pixels" in (tmp_path / "metrics.jsonl").read_text()
    assert not (tmp_path / "samples").exists()


def test_fewer_held_out_images_than_crops_are_enough(trainer: Any, tmp_path: Path) -> None:
    assert 0 < trainer.photos.count(64, held_out=True) < trainer.recipe.loop.validation_crops
    with Journal(tmp_path / "metrics.jsonl", print) as journal:
        trainer.validate(journal)
    assert '"kind": "validation"' in (tmp_path / "metrics.jsonl").read_text()
    assert not trainer.ema.module.training
    assert trainer.model.training


# ---- what can be missing ---------------------------------------------------------------------------------------------


def test_lpips_without_its_weights(
    data: Path, tmp_path: Path, smoke_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNQUANT_METRICS", raising=False)
    recipe = replace(smoke_recipe, tables={})
    for folder in (None, tmp_path):
        with pytest.raises(ModelMissing) as error:
            make(recipe, data, tmp_path, metrics=folder)
        for part in ("alexnet_lpips.safetensors", "UNQUANT_METRICS", "lpips_weight = 0"):
            assert part in str(error.value)


def test_lpips_with_its_weights(data: Path, tmp_path: Path, smoke_recipe: Recipe) -> None:
    torch.manual_seed(0)
    state = {
        f"lpips.lin{k.removeprefix('heads.')}.weight" if k.startswith("heads.") else k: v
        for k, v in LPIPS("alex").state_dict().items()
    }
    save_file(state, tmp_path / LPIPS_FILES["alex"])
    trainer = make(replace(smoke_recipe, tables={}), data, tmp_path, metrics=tmp_path)
    terms = trainer.step()
    assert float(terms["lpips"]) > 0
    trainer.save()
    assert read_shards(tmp_path / "export").training["lpips"] == "alex 300"


def test_bfloat16_falls_back_where_it_is_emulated(
    data: Path, tmp_path: Path, smoke_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "computes_in_bf16", lambda device: False)
    trainer = make(smoke_recipe, data, tmp_path)
    assert trainer.precision == "32-true"
    assert "training in float32" in trainer.notes[0]
    assert trainer.describe()["precision"] == "32-true"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_devices_that_are_not_here(data: Path, tmp_path: Path, smoke_recipe: Recipe) -> None:
    with pytest.raises(TrainingError, match="1 CUDA devices are asked for, 0 are here"):
        make(smoke_recipe, data, tmp_path, device="cuda")
