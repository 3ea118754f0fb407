"""A run's parts put together: networks, average, optimisers, data and schedule, and what is done with them.

With several devices, on one machine or several, each one draws its own crops, and the first one alone validates, writes
and decides when to stop. The others wait for it in the gradient exchange of their next step: saving and validation contain
no exchange of their own.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unquant.errors import TrainingError, UnquantWarning
from unquant.networks.common import Model
from unquant.train.checkpoint import Stored, Trained, read_checkpoint, write_checkpoint, write_export
from unquant.train.data import Photos
from unquant.train.devices import open_devices
from unquant.train.ema import Ema
from unquant.train.guard import Guard
from unquant.train.journal import Journal, Window
from unquant.train.judges import load_judges
from unquant.train.objective import Objective
from unquant.train.optimisers import Optimisers
from unquant.train.recipe import Recipe, Run
from unquant.train.schedule import Schedule
from unquant.train.stages import stage_of
from unquant.train.start import Start
from unquant.train.stream import Part, Stream

__all__ = ["Trainer"]

_AGREE_EVERY = 10
"""With several devices: steps between two questions whether to stop, each of which waits for all of them."""


class Trainer:
    """The state of a run, ready for its first step.

    Raises TrainingError, OptionError, ModelMissing, InputError or WeightsError. What can be missing is found before what
    takes long.
    """

    def __init__(self, recipe: Recipe, run: Run) -> None:
        self.recipe, self.run = recipe, run
        stage = stage_of(recipe.family, run.stage)
        self.schedule = Schedule(recipe.loop, run)
        self.fabric, self.precision, note = open_devices(run.device, run.devices, run.num_nodes, recipe.loop.precision)
        self.device, self.first = self.fabric.device, self.fabric.is_global_zero
        self.notes = [note] if note else []
        self.checkpoint = run.out / "checkpoint.ckpt"
        self.going_on = run.resume and self.checkpoint.is_file()
        source = self._source()
        self._check_shared(source)
        judges = load_judges(stage.wanted(recipe), run.metrics, self.device)
        start = Start(recipe, run.stage, source, going_on=self.going_on)
        stored = read_checkpoint(self.checkpoint, run.stage, self.device) if self.going_on else None
        self.photos = self._open_data(start, stored)
        self.generator = torch.Generator()
        self.seed(rank=0)  # the same weights on every device
        model: Model[Any] = start.new_model()
        self.schedule.begin(start.fill(model, self.photos, self.generator))
        self.notes += start.notes
        self.tables = start.tables
        model = model.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.objective: Objective[Any] = stage.objective(model, recipe, judges).to(self.device)
        self.guard: Guard | None = None
        if self.objective.guarded:
            self.guard = Guard(self.objective, self.photos, recipe.loop.crop, self.fabric.world_size)
        self.model, self.ema = model, Ema(model, recipe.loop.ema)
        self.optimisers = Optimisers(model, self.objective.parameter_groups(), recipe.loop)
        self.trained = Trained(self.model, self.ema, self.optimisers, self.objective.companion)
        # static shapes: one graph for a step per image, one for a q map
        compiled: Any = torch.compile(self.objective, dynamic=False) if recipe.loop.compile else self.objective
        self.wrapped = self.optimisers.set_up(self.fabric, compiled)
        if stored is not None:
            self._go_on(stored)
        if run.cooldown:
            self.ema.restart()
        if self.schedule.used_up:
            self.notes.append("the planned total is used up: the learning rate stays at its end")
        self.seed(rank=self.fabric.global_rank)

    def _source(self) -> str:
        """What to start from; to resume, an export in the run's folder goes first."""
        if not (self.run.resume and (self.run.out / "export" / "ema.json").is_file()):
            return self.run.init
        if not self.going_on:
            self.notes.append(f"no {self.checkpoint.name} in {self.run.out}: going on from its export")
        return str(self.run.out / "export")

    def _check_shared(self, source: str) -> None:
        """Every process must start from the same files. Raises TrainingError."""
        first = self.fabric.broadcast((self.going_on, source))
        if first != (self.going_on, source):
            raise TrainingError(
                f"{self.run.out}: not what the first process has there: all machines must share this folder"
            )

    def _open_data(self, start: Start, stored: Stored | None) -> Photos:
        """The photographs: all of them, or a stream in an order of its own for every start."""
        run, fabric = self.run, self.fabric
        if run.stream is None:
            return Photos(Path(run.data), self.device)
        steps = 0 if start.weights is None else int(start.weights.training.get("steps", 0))
        steps = steps if stored is None else stored.position.steps
        part = Part(fabric.global_rank, fabric.world_size)
        seed = self.recipe.loop.seed, steps
        return Stream(str(run.data), self.device, run.stream, self.recipe.loop.crop, seed, part)

    def _go_on(self, stored: Stored) -> None:
        """Take everything from the checkpoint. Raises TrainingError."""
        try:
            self.trained.load_state_dict(stored.state)
        except (RuntimeError, ValueError) as e:
            raise TrainingError(f"{self.checkpoint}: does not fit the recipe's model: {e}") from None
        self.schedule.begin(stored.position)
        if self.guard is not None:
            self.guard.load_state_dict(stored.guard)

    def seed(self, rank: int) -> None:
        """Seed the crops and the device's noise, differently for every device and every start."""
        sequence = np.random.SeedSequence([self.recipe.loop.seed, rank, self.schedule.steps])
        crops, noise = sequence.generate_state(2)
        self.generator.manual_seed(int(crops))
        torch.manual_seed(int(noise))

    # ---- steps -------------------------------------------------------------------------------------------------------

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
        self.note(journal, f"{text} after {time.monotonic() - begin:.0f} s")

    def _backward(self, q_map: float | None = None) -> dict[str, Tensor]:
        """Gradients of the loss of a fresh batch, and its terms."""
        loop = self.recipe.loop
        self.objective.progress = self.schedule.progress
        x, draw = self.objective.batch(self.photos, loop.batch, loop.crop, self.generator, self.device, q_map)
        with self.fabric.autocast():
            terms: dict[str, Tensor] = self.wrapped(x, draw)
        self.fabric.backward(terms["loss"])
        return terms

    def step(self) -> dict[str, Tensor]:
        """One optimisation step; returns detached loss terms. With AdamW it waits for nothing on the device."""
        terms = self._backward()
        norm = self.optimisers.step(self.schedule.rate())
        self.ema.update(self.model)
        self.photos.advance(self.recipe.loop.batch)
        self.schedule.steps += 1
        self.schedule.crops += self.recipe.loop.batch * self.fabric.world_size
        return {k: v.detach() for k, v in {**terms, "grad": norm}.items()}

    def agree(self, wanted: bool) -> bool:
        """Whether to stop now, and where the schedule stands: on every device what the first one says, every few steps."""
        stop, seconds = wanted, self.schedule.seconds
        if self.fabric.world_size > 1:
            if self.schedule.steps % _AGREE_EVERY == 0:
                stop, seconds = self.fabric.broadcast((wanted, seconds))
            else:
                stop, seconds = False, self.schedule.now
        self.schedule.advance(seconds)
        return stop

    # ---- rows, validation, files -------------------------------------------------------------------------------------

    def report(self, journal: Journal, window: Window, now: float) -> None:
        """A row of training losses; looks for new shards. Raises TrainingError when no step had a finite gradient."""
        steps = len(window)
        means, skipped, steps_s = window.close(now)
        crops = steps_s * self.recipe.loop.batch * self.fabric.world_size
        rate = self.optimisers.adam.param_groups[0]["lr"]
        row = {**self.schedule.at(), **means, "lr": rate, "crops_s": crops}
        journal.write("train", {**row, "skipped": skipped} if skipped else row)
        if skipped == steps >= 5:
            raise TrainingError(f"the gradients of the last {steps} steps are not finite; the last checkpoint is sound")
        fresh, problems = self.photos.refresh()
        if fresh:
            journal.write("data", {**self.schedule.at(), "new_shards": fresh, **self._images()})
        for text in problems:
            self.note(journal, text)
            if not self.first:  # whose journal writes nothing
                warnings.warn(text, UnquantWarning, stacklevel=2)

    def note(self, journal: Journal, text: str) -> None:
        """A row with a line for whoever reads the log."""
        journal.write("note", {**self.schedule.at(), "text": text})

    def validate(self, journal: Journal) -> float:
        """On the first device: held-out and training crops through the EMA weights, a row and a picture. Returns seconds."""
        begin = time.monotonic()
        loop, model = self.recipe.loop, self.ema.module
        if not self.first:
            return 0.0
        if self.photos.count(loop.crop, held_out=True):
            row = self.objective.validate(model, self.photos, loop.crop, loop.validation_crops)
            journal.write("validation", {**self.schedule.at(), **row})
            if self.guard is not None and (reason := self.guard.judge(row, self.trained)) is not None:
                self.note(journal, f"back to the last good weights: {reason}")
                self.save()
            picture = self.run.out / "samples" / f"{self.schedule.steps:07d}.png"
            self.objective.save_samples(model, self.photos, loop.crop, picture)
        else:
            self.note(journal, f"no held-out image of at least {loop.crop}×{loop.crop} pixels: validation skipped")
        return time.monotonic() - begin

    def unjudged(self) -> bool:
        """Whether a guarded run has no state yet that it could go back to."""
        return self.guard is not None and not self.guard.good

    def save(self) -> float:
        """On the first device: the fp16 EMA export, then the checkpoint, each complete or not at all. Returns seconds."""
        begin = time.monotonic()
        if self.first:
            training = {
                "stage": self.run.stage,
                "steps": self.schedule.steps,
                "crops": self.schedule.crops,
                "crop": self.recipe.loop.crop,
                "schedule_seconds": self.schedule.seconds,
                **self.schedule.describe(),
                **self.objective.notes(),
            }
            config, state = self.model.config.to_dict(), self.ema.module.state_dict() | self.tables
            write_export(self.run.out / "export", self.recipe.family, config, state, training)
            guard = self.guard.state_dict() if self.guard is not None else {}
            stored = Stored(self.trained.state_dict(), self.schedule.position, guard)
            write_checkpoint(self.checkpoint, self.run.stage, stored)
        return time.monotonic() - begin

    def _images(self) -> dict[str, int]:
        crop = self.recipe.loop.crop
        return {"images": self.photos.count(crop, held_out=False), "held_out": self.photos.count(crop, held_out=True)}

    def describe(self) -> dict[str, Any]:
        """What defines the run, for its log: device, precision, model size, images large enough, schedule, recipe."""
        cuda, model = self.device.type == "cuda", self.model
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "devices": self.fabric.world_size,
            "precision": self.precision,
            "torch": torch.__version__,
            "stage": self.run.stage,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            **self._images(),
            **self.schedule.describe(),
            "init": "resume" if self.going_on else self.run.init,
            "recipe": self.recipe.to_dict(),
        }
