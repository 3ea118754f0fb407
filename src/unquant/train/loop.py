"""The training loop of every stage: by Lightning Fabric, bounded by wall clock or steps, resumable, detachable.

A run's folder holds `metrics.jsonl` (one JSON object a line), `export/` (fp16 EMA weights in shards, see
`unquant.weights`), `samples/` (pictures), `checkpoint.ckpt` (everything needed to go on) and, put there by the user,
`orders.json`: `{"stop": true}` ends the run after an export. New *.tar shards in the data folder are picked up as it runs.

With several devices each one draws its own crops, and the first one alone validates, writes and decides when to stop. The
others wait for it in the gradient exchange of their next step: saving and validation contain no exchange of their own.
"""

from __future__ import annotations

import copy
import math
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unquant.errors import ModelMissing, OptionError, TrainingError
from unquant.families import family_of
from unquant.files import remove_leftovers, whole_file
from unquant.models.av1 import Av1, Av1Config
from unquant.models.cdc import Cdc
from unquant.models.common import Config, Model
from unquant.models.ratevar import Ratevar, RatevarConfig
from unquant.models.reverse import ReverseConfig
from unquant.nn.transforms import LATENT_STRIDE, klt_basis
from unquant.perceptual import DISTS, LPIPS, load_dists, load_lpips
from unquant.train.av1.stage1 import RedrawStage
from unquant.train.av1.stage3 import Realism
from unquant.train.cdc.stage1 import Diffusion
from unquant.train.data import Photos
from unquant.train.devices import open_devices
from unquant.train.ema import Ema
from unquant.train.growth import grow
from unquant.train.journal import Journal, StopSwitch, Window
from unquant.train.muon import KernelMuon, is_kernel
from unquant.train.objective import Objective
from unquant.train.ratevar.stage1 import Stage1
from unquant.train.ratevar.stage2 import Stage2
from unquant.train.ratevar.stage3 import Stage3
from unquant.train.recipe import LoopConfig, Recipe, Run, load_recipe
from unquant.weights import Weights, read_shards, read_weights, write_shards

__all__ = ["LoopConfig", "Recipe", "Run", "learning_rate", "load_recipe", "train"]

_UNREADABLE = (OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, pickle.UnpicklingError)
_KLT_BATCHES, _KLT_CROPS, _KLT_SIZE = 12, 64, 128
_STAGES = {"ratevar": (1, 2, 3), "cdc": (1,), "av1": (1, 3)}
_AGREE_EVERY = 10
"""With several devices: steps between two questions whether to stop, each of which waits for all of them."""


def train(recipe: Recipe, run: Run, echo: Callable[[str], Any] = print) -> Path:
    """Run `run.stage` for its budget of seconds or steps, or until ordered to stop. Returns the export folder.

    echo: called with one line of text per row of metrics. Raises TrainingError, OptionError, ModelMissing, InputError or
    WeightsError.
    """
    begin = time.monotonic()
    run.out.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(recipe, run)
    metrics = run.out / "metrics.jsonl" if trainer.first else None
    with Journal(metrics, echo) as journal, StopSwitch(run.out) as stop:
        try:
            _drive(trainer, journal, stop, begin)
        finally:
            torch.compiler.set_stance("default")
            trainer.objective.close()
    trainer.fabric.barrier()
    return run.out / "export"


def learning_rate(
    loop: LoopConfig, position: float, planned: float, steps: int, cooldown_from: float | None = None
) -> float:
    """The rate at a position, in seconds or steps; with a short warm-up in the steps after every start.

    "cosine": from lr to lr_end at `planned`. "constant": lr. From `cooldown_from` on, where there is such a place, of either
    schedule 1 − √progress, which Hägele et al. 2024 (arXiv 2405.18392) found a little better than a line.
    """
    if cooldown_from is not None:
        share = 1 - math.sqrt(min(1.0, (position - cooldown_from) / (planned - cooldown_from)))
    elif loop.schedule == "constant":
        share = 1.0
    else:
        share = 0.5 * (1 + math.cos(math.pi * min(1.0, position / planned)))
    rate = loop.lr_end + (loop.lr - loop.lr_end) * share
    return rate * min(1.0, (steps + 1) / loop.warmup_steps)


def _same_network(stored: ReverseConfig | None, wanted: ReverseConfig | None) -> bool:
    """Whether two configurations are of the same reverse network, however it is sampled."""
    names = ("training", "width", "depth", "noise_channels", "side")
    return all(getattr(stored, name, None) == getattr(wanted, name, None) for name in names)


def _drive(trainer: _Trainer, journal: Journal, stop: StopSwitch, begin: float) -> None:
    """Steps, rows, saves and validations until the budget (counted from `begin`) is spent or a stop is ordered."""
    loop, run = trainer.recipe.loop, trainer.run
    journal.write("start", {**trainer.at(), **trainer.describe()})
    for text in trainer.notes:
        journal.write("note", {**trainer.at(), "text": text})
    if loop.compile:
        trainer.compile_ahead(journal)
    validation = trainer.validate(journal) if trainer.steps == 0 or trainer.unjudged() else 0.0
    saving, wanted = 0.0, False
    budget = math.inf if run.time_budget is None else run.time_budget
    window = Window()
    saved = validated = time.monotonic()
    while True:
        window.add(trainer.step())
        now = time.monotonic()
        trainer.position = trainer.start_position + now - begin
        # the last save and the last validation belong into the budget
        wanted = wanted or stop.signalled or now - begin + saving + validation >= budget
        look = now - window.begin >= loop.log_every
        wanted = wanted or (look and stop.ordered())
        done = trainer.agree(wanted) or trainer.steps == trainer.last_step
        if look or done:
            trainer.report(journal, window, now)
        if done or now - saved >= loop.export_every:
            saving = trainer.save()
            window.pause(saving)
            saved = time.monotonic()
        if done or now - validated >= loop.validate_every:
            validation = trainer.validate(journal)
            window.pause(validation)
            validated = time.monotonic()
        if done:
            if trainer.first:
                stop.obeyed()
            return


class _Trainer:
    """The state of a run: networks, average, optimiser, data, and where on the schedule it stands."""

    def __init__(self, recipe: Recipe, run: Run) -> None:
        self.recipe, self.run = recipe, run
        if run.stage not in (stages := _STAGES[recipe.family]):
            known = " and ".join(f"`unquant train stage{number}`" for number in stages)
            raise TrainingError(f"{recipe.family} has no stage {run.stage}: it is trained by {known}")
        if recipe.loop.schedule == "constant" and run.planned_total is not None:
            raise OptionError('a planned total goes with schedule = "cosine"; the recipe\'s is "constant"')
        self.fabric, self.precision, note = open_devices(run.device, run.devices, recipe.loop.precision)
        self.notes = [note] if note else []
        self.device, self.first = self.fabric.device, self.fabric.is_global_zero
        self.checkpoint = run.out / "checkpoint.ckpt"
        self.going_on = run.resume and self.checkpoint.is_file()
        self.source = run.init
        if run.resume and (run.out / "export" / "ema.json").is_file():
            self.source = str(run.out / "export")
            if not self.going_on:
                self.notes.append(f"no {self.checkpoint.name} in {run.out}: going on from its export")
        # what can be missing comes before what takes long
        lpips, dists = self._lpips(), self._dists()
        initial = self._initial()
        self.photos = Photos(run.data, self.device)
        self.position, self.steps, self.crops_seen = 0.0, 0, 0
        self.generator = torch.Generator()
        self._seed(rank=0)  # the same weights on every device
        model: Model[Any] = family_of(recipe.family).load("model")(self._model_config(initial))
        self.plain: Model[Any] = self._start(model, initial)
        self.plain = self.plain.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.objective = self._objective(lpips, dists).to(self.device)
        # the last state that validation found no worse than those before it, where the objective is guarded
        self.good: dict[str, Any] = {}
        self._check_guard()
        self.ema = Ema(self.plain, recipe.loop.ema)
        self._make_optimizers()
        # static shapes: one graph for a step per image, one for a q map
        compiled: Any = torch.compile(self.objective, dynamic=False) if recipe.loop.compile else self.objective
        self.model, self.optimizer = self.fabric.setup(compiled, self.adam)
        if self.going_on:
            self._load_checkpoint()
        self.start_position, self.restart = self.position, self.steps
        self.last_step = None if run.steps is None else self.steps + run.steps
        # where the learning rate stands, in seconds or steps: the first device's clock, for another rate on each would part
        # their weights
        self.scheduled = self.position if self.last_step is None else float(self.steps)
        self.planned = float(self.last_step or run.planned_total or self.start_position + (run.time_budget or 0.0))
        self.cooldown_from = self.scheduled if run.cooldown else None
        if run.cooldown:
            self.ema.restart()
        if self.scheduled >= self.planned:
            self.notes.append("the planned total is used up: the learning rate stays at its end")
        self._seed(rank=self.fabric.global_rank)

    # ---- start -------------------------------------------------------------------------------------------------------

    def _lpips(self) -> dict[str, LPIPS]:
        """The feature networks that the stage needs, by name."""
        recipe, stage = self.recipe, self.run.stage
        names: set[str] = set()
        table, loss = {"cdc": ("diffusion", recipe.diffusion), "av1": ("redraw", recipe.redraw)}.get(
            recipe.family, ("stage1", recipe.stage1)
        )
        if stage == 1 and loss.lpips_weight:
            names = {loss.lpips_net}
        elif stage == 3:
            names = set((recipe.realism if recipe.family == "av1" else recipe.stage3).networks)
        try:
            loaded = {name: load_lpips("vgg" if name == "vgg" else "alex", self.run.metrics) for name in sorted(names)}
        except ModelMissing as e:
            hint = f"; or set lpips_weight = 0 in [{table}] to train without LPIPS" if stage == 1 else ""
            raise ModelMissing(f"{e}{hint}") from None
        return {
            name: network.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            for name, network in loaded.items()
        }

    def _dists(self) -> DISTS | None:
        recipe, stage = self.recipe, self.run.stage
        if recipe.family == "av1":
            wanted = bool(
                recipe.redraw.dists_weight
                if stage == 1
                else recipe.realism.dists_weight or recipe.realism.adversarial_weight
            )
        else:
            wanted = stage == 3 and bool(recipe.stage3.dists_weight)
        if not wanted:
            return None
        return load_dists(self.run.metrics).to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def _initial(self) -> Weights | None:
        """The weights to start from; None for a new model, and where recipe and checkpoint hold everything."""
        stage = self.run.stage
        if stage == 1 and (self.going_on or self.source in ("klt", "random")):
            return None
        if self.source in ("klt", "random"):
            raise TrainingError(
                f"stage {stage} goes on from weights: give an export or a weights file as init, not {self.source!r}"
            )
        path = Path(self.source)
        return read_shards(path) if path.is_dir() else read_weights(path)

    def _model_config(self, initial: Weights | None) -> Config:
        """The recipe's model in stage 1, later that of the initial weights with the recipe's reverse network, if any."""
        if self.run.stage == 1:
            return self.recipe.model
        assert initial is not None
        if self.recipe.family == "av1":
            return Av1Config.from_dict(initial.config)
        assert isinstance(self.recipe.model, RatevarConfig)
        wanted = self.recipe.model.reverse
        found = RatevarConfig.from_dict(initial.config)
        if self.run.stage == 3 and found.reverse is None and wanted is None:
            raise TrainingError(
                f"{self.source}: these weights have no reverse network, and the recipe has no table [model.reverse]"
            )
        if self.run.stage == 3 and None not in (wanted, found.reverse) and not _same_network(found.reverse, wanted):
            raise TrainingError(f"{self.source}: another reverse network than that of the recipe's [model.reverse]")
        return replace(found, reverse=wanted or found.reverse)

    def _objective(self, lpips: dict[str, LPIPS], dists: DISTS | None) -> Objective[Any]:
        recipe, model = self.recipe, cast(Any, self.plain)
        one = next(iter(lpips.values()), None)
        if isinstance(model, Av1):
            if self.run.stage == 3:
                return Realism(model, recipe.realism, recipe.pairs, lpips, dists)
            return RedrawStage(model, recipe.redraw, recipe.pairs, one, dists)
        if isinstance(model, Cdc):
            return Diffusion(model, recipe.diffusion, one)
        if self.run.stage == 2:
            return Stage2(model, recipe.stage2)
        if self.run.stage == 3:
            return Stage3(model, recipe.stage3, lpips, dists)
        return Stage1(model, recipe.stage1, one)

    def _start(self, model: Model[Any], initial: Weights | None) -> Model[Any]:
        """Fill a new model with the starting weights, and take over where on the stage's schedule they stand."""
        if self.going_on:
            return model  # the checkpoint follows
        if initial is None:
            if self.run.init == "klt" and isinstance(model, Ratevar | Cdc):  # of av1 f begins as the identity
                assert not isinstance(self.recipe.model, Av1Config)
                size = min(_KLT_SIZE, self.recipe.loop.crop)
                crops = [self.photos.crops(_KLT_CROPS, size, self.generator) for _ in range(_KLT_BATCHES)]
                patches = [F.pixel_unshuffle(c, LATENT_STRIDE).permute(0, 2, 3, 1).flatten(0, 2).cpu() for c in crops]
                model.start_from(*klt_basis(torch.cat(patches), model.config.latent))
            return model
        if initial.family != self.recipe.family:
            raise TrainingError(f"{self.source}: weights of {initial.family}, the recipe is of {self.recipe.family}")
        state = {k: v.float() for k, v in initial.tensors.items() if not k.startswith("tables.")}
        fresh = isinstance(model, Ratevar) and self._new_reverse(model, initial, state)
        try:
            larger = isinstance(model, Ratevar) and self.run.stage == 1
            grown = grow(model, state, ("g_a.", "g_s.") if larger else ())
        except TrainingError as e:
            raise TrainingError(f"{self.source}: these weights do not fit the recipe's model: {e}") from None
        if grown:
            self.notes.append(f"{grown} tensors are larger than in {self.source} or new; they begin without effect")
        stage = int(initial.training.get("stage", 1))
        if isinstance(model, Ratevar) and self.run.stage == 3 and stage < 3:
            model.g_s.forget_step()
        if not fresh and stage == self.run.stage:
            self.position = float(initial.training.get("schedule_seconds", 0.0))
            self.steps, self.crops_seen = (int(initial.training.get(k, 0)) for k in ("steps", "crops"))
        return model

    def _new_reverse(self, model: Ratevar, initial: Weights, state: dict[str, Tensor]) -> bool:
        """Whether the reverse network of the weights makes way for a new one, which returns its input; changes `state`."""
        # that is so for another shape or training, but never in stage 1
        found = RatevarConfig.from_dict(initial.config).reverse
        fresh = self.run.stage > 1 and not _same_network(found, model.config.reverse)
        if fresh or model.f is None:  # stage 1 leaves the reverse network to the later ones, which need a new one then
            for name in [name for name in state if name.startswith("f.")]:
                del state[name]
        if fresh:
            state |= {k: v for k, v in model.state_dict().items() if k.startswith("f.")}
        return fresh

    def _load_checkpoint(self) -> None:
        try:
            with self.checkpoint.open("rb") as f:
                state = torch.load(f, map_location=self.device, weights_only=True)
            parts = {name: state[name] for name in ("model", "ema", "optimizer")}
            parts |= {name: state.get(name, {}) for name in ("muon", "companion")}
            stage = int(state.get("stage", self.run.stage))
            self.position = float(state["position"])
            self.steps, self.crops_seen = int(state["steps"]), int(state["crops"])
        except _UNREADABLE as e:
            reason = str(e).partition("\n")[0] or type(e).__name__
            raise TrainingError(
                f"{self.checkpoint}: damaged checkpoint ({reason}); without it, --resume goes on from the export"
            ) from e
        if stage != self.run.stage:
            raise TrainingError(
                f"{self.checkpoint}: a checkpoint of stage {stage}: every stage needs a folder of its own"
            )
        try:
            self._restore(parts)
        except (RuntimeError, ValueError) as e:
            raise TrainingError(f"{self.checkpoint}: does not fit the recipe's model: {e}") from None
        for group in self.adam.param_groups:  # the recipe holds, not what the checkpoint was trained with
            group["weight_decay"] = self.recipe.loop.weight_decay
        if self.objective.guarded:
            self.objective.remember(state.get("memory", {}))
            self.good = state.get("good", {})

    def _check_guard(self) -> None:
        if not self.objective.guarded:
            return
        if self.fabric.world_size > 1:
            raise TrainingError("an adversary that is watched is trained on one device: only the first one validates")
        crop = self.recipe.loop.crop
        if not self.photos.count(crop, held_out=True):
            raise TrainingError(
                f"{self.run.data}: the adversary is watched by validation, and no held-out image is as large as the crop,"
                f" {crop}×{crop} pixels"
            )

    def _state(self) -> dict[str, Any]:
        """Everything that is trained, as the modules hold it."""
        companion = self.objective.companion
        return {
            "model": self.plain.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.adam.state_dict(),
            "muon": self.muon.state_dict() if self.muon is not None else {},
            "companion": companion.state_dict() if companion is not None else {},
        }

    def _restore(self, state: dict[str, Any]) -> None:
        """The inverse. The optimisers may go on with the tensors that they are given."""
        self.plain.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.adam.load_state_dict(state["optimizer"])
        if self.muon is not None:
            self.muon.load_state_dict(state["muon"])
        if self.objective.companion is not None:
            self.objective.companion.load_state_dict(state["companion"])

    def _seed(self, rank: int) -> None:
        """Seed the crops and the device's noise, differently for every device and every start."""
        sequence = np.random.SeedSequence([self.recipe.loop.seed, rank, self.steps])
        crops, noise = sequence.generate_state(2)
        self.generator.manual_seed(int(crops))
        torch.manual_seed(int(noise))

    def _make_optimizers(self) -> None:
        """AdamW over what the stage trains; with "muon" in the recipe over all but the kernels of its networks."""
        loop = self.recipe.loop
        groups: list[dict[str, Any]] = self.objective.parameter_groups()
        self.trained: list[Tensor] = [p for group in groups for p in group["params"]]
        self.muon: KernelMuon | None = None
        if loop.optimizer == "muon":
            # f has a rate of its own, and so has what is trained beside the model: those stay with AdamW
            plain = {p for group in groups if group["lr_scale"] == 1.0 for p in group["params"]}
            modules = self.plain.named_modules()
            kernels = [m.weight for n, m in modules if is_kernel(m, n)]
            kernels = [kernel for kernel in kernels if kernel in plain]
            chosen = set(kernels)
            for group in groups:
                group["params"] = [p for p in group["params"] if p not in chosen]
            self.muon = KernelMuon(kernels, loop.weight_decay)
        self.adam = torch.optim.AdamW(groups, loop.lr, (0.9, 0.98), weight_decay=loop.weight_decay, fused=True)
        self.lr_scales = [float(group["lr_scale"]) for group in groups]

    # ---- the run -----------------------------------------------------------------------------------------------------

    def compile_ahead(self, journal: Journal) -> None:
        """Compile the training pass for one step per image and for a q map; where that fails, go on without."""
        begin, text = time.monotonic(), "compiled"
        try:
            for share in (0.0, 1.0):
                self._backward(share)
        except Exception as e:  # whatever a compiler may raise
            torch.compiler.set_stance("force_eager")
            cause = " ".join(str(e).splitlines()[:2])
            text = f"torch.compile failed, going on without ({type(e).__name__}: {cause})"
        self.objective.zero_grad()
        journal.write("note", {**self.at(), "text": f"{text} after {time.monotonic() - begin:.0f} s"})

    def _backward(self, q_map: float | None = None) -> dict[str, Tensor]:
        """Gradients of the loss of a fresh batch, and its terms."""
        loop = self.recipe.loop
        self.objective.progress = min(1.0, self.scheduled / self.planned)
        x, draw = self.objective.batch(self.photos, loop.batch, loop.crop, self.generator, self.device, q_map)
        with self.fabric.autocast():
            terms: dict[str, Tensor] = self.model(x, draw)
        self.fabric.backward(terms["loss"])
        return terms

    def step(self) -> dict[str, Tensor]:
        """One optimisation step; returns detached loss terms. With AdamW it waits for nothing on the device."""
        loop = self.recipe.loop
        terms = self._backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, loop.clip)
        rate = learning_rate(loop, self.scheduled, self.planned, self.steps - self.restart, self.cooldown_from)
        for group, scale in zip(self.adam.param_groups, self.lr_scales, strict=True):
            group["lr"] = rate * scale
        # the fused step leaves weights and moments alone where this is 1, on the device; the norm is that of all devices
        self.adam.found_inf = (~torch.isfinite(norm)).float()  # pyright: ignore[reportAttributeAccessIssue]
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.muon is not None:
            if torch.isfinite(norm):
                self.muon.step(rate)
            self.muon.zero_grad()
        self.ema.update(self.plain)
        self.steps += 1
        self.crops_seen += loop.batch * self.fabric.world_size
        return {k: v.detach() for k, v in {**terms, "grad": norm}.items()}

    def agree(self, wanted: bool) -> bool:
        """Whether to stop now, and where the schedule stands: on every device what the first one says, every few steps."""
        stop, position = wanted, self.position
        if self.fabric.world_size > 1:
            if self.steps % _AGREE_EVERY == 0:
                stop, position = self.fabric.broadcast((wanted, position))
            else:
                stop, position = False, self.scheduled
        self.scheduled = position if self.last_step is None else float(self.steps)
        return stop

    def report(self, journal: Journal, window: Window, now: float) -> None:
        """A row of training losses; looks for new shards. Raises TrainingError when no step had a finite gradient."""
        steps = len(window)
        means, skipped, steps_s = window.close(now)
        crops = steps_s * self.recipe.loop.batch * self.fabric.world_size
        rate = self.adam.param_groups[0]["lr"]
        row = {**self.at(), **means, "lr": rate, "crops_s": crops}
        journal.write("train", {**row, "skipped": skipped} if skipped else row)
        if skipped == steps >= 5:
            raise TrainingError(f"the gradients of the last {steps} steps are not finite; the last checkpoint is sound")
        fresh, problems = self.photos.refresh()
        if fresh:
            journal.write("data", {**self.at(), "new_shards": fresh, **self._images()})
        for text in problems:
            journal.write("note", {**self.at(), "text": text})

    def validate(self, journal: Journal) -> float:
        """On the first device: held-out and training crops through the EMA weights, a row and a picture. Returns seconds."""
        begin = time.monotonic()
        loop, model = self.recipe.loop, self.ema.module
        if not self.first:
            return 0.0
        if self.photos.count(loop.crop, held_out=True):
            row = self.objective.validate(model, self.photos, loop.crop, loop.validation_crops)
            journal.write("validation", {**self.at(), **row})
            if self.objective.guarded:
                self._judge(row, journal)
            picture = self.run.out / "samples" / f"{self.steps:07d}.png"
            self.objective.save_samples(model, self.photos, loop.crop, picture)
        else:
            text = f"no held-out image of at least {loop.crop}×{loop.crop} pixels: validation skipped"
            journal.write("note", {**self.at(), "text": text})
        return time.monotonic() - begin

    def unjudged(self) -> bool:
        """Whether a guarded run has no state yet that it could go back to."""
        return self.objective.guarded and not self.good

    def _judge(self, row: dict[str, float], journal: Journal) -> None:
        """Keep the present state if the row is no worse than those before it; else go back to the one kept last, and save."""
        reason = self.objective.worsened(row)
        if reason is None:
            self.good = copy.deepcopy(self._state())
            return
        if not self.good:
            raise TrainingError(f"validation of the weights that the run starts from is of no use: {reason}")
        self._restore(copy.deepcopy(self.good))
        journal.write("note", {**self.at(), "text": f"back to the last good weights: {reason}"})
        self.save()

    def save(self) -> float:
        """On the first device: the fp16 EMA export, then the checkpoint, each complete or not at all. Returns seconds."""
        begin = time.monotonic()
        if self.first:
            self._export()
            state = {"stage": self.run.stage, **self._state()}
            if self.objective.guarded:
                state |= {"memory": self.objective.memory(), "good": self.good}
            state |= {"position": self.position, "steps": self.steps, "crops": self.crops_seen}
            remove_leftovers(self.run.out)
            with whole_file(self.checkpoint, force=True) as temporary, temporary.open("wb") as f:
                torch.save(state, f)
        return time.monotonic() - begin

    def _export(self) -> None:
        folder = self.run.out / "export"
        training = {
            "stage": self.run.stage,
            "steps": self.steps,
            "crops": self.crops_seen,
            "crop": self.recipe.loop.crop,
            "schedule_seconds": self.position,
            **self._schedule(),
            **self.objective.notes(),
        }
        partial, old = folder.with_name("export.part"), folder.with_name("export.old")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        write_shards(partial, self.recipe.family, self.plain.config.to_dict(), self.ema.module.state_dict(), training)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)

    # ---- what the rows say -------------------------------------------------------------------------------------------

    def at(self) -> dict[str, Any]:
        """Where the run stands: steps, seconds on the schedule, crops seen."""
        return {"step": self.steps, "seconds": round(self.position, 1), "crops": self.crops_seen}

    def _schedule(self) -> dict[str, Any]:
        """The schedule and, where it has one, its end in seconds or steps."""
        name = self.recipe.loop.schedule if self.cooldown_from is None else "cooldown"
        end = "planned_seconds" if self.last_step is None else "planned_steps"
        return {"schedule": name} if name == "constant" else {"schedule": name, end: self.planned}

    def _images(self) -> dict[str, int]:
        crop = self.recipe.loop.crop
        return {"images": self.photos.count(crop, held_out=False), "held_out": self.photos.count(crop, held_out=True)}

    def describe(self) -> dict[str, Any]:
        """What defines the run, for its log: device, precision, model size, images large enough, schedule, recipe."""
        cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "devices": self.fabric.world_size,
            "precision": self.precision,
            "torch": torch.__version__,
            "stage": self.run.stage,
            "parameters": sum(p.numel() for p in self.plain.parameters()),
            "trained": sum(p.numel() for p in self.plain.parameters() if p.requires_grad),
            **self._images(),
            **self._schedule(),
            "init": "resume" if self.going_on else self.run.init,
            "recipe": asdict(self.recipe),
        }
