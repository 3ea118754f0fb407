"""The training loop of every stage: by Lightning Fabric, bounded by wall clock or steps, resumable, detachable.

A run's folder holds `metrics.jsonl` (one JSON object a line), `export/` (fp16 EMA weights in shards, see
`unquant.weights_file`), `samples/` (pictures), `checkpoint.ckpt` (everything needed to go on) and, put there by the user,
`orders.json`: `{"stop": true}` ends the run after an export. New *.tar shards in the data folder are picked up as it runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unquant.train.devices import exchanging
from unquant.train.journal import Journal, StopSwitch, Window
from unquant.train.recipe import Recipe, Run
from unquant.train.trainer import Trainer

__all__ = ["drive", "train"]


def train(recipe: Recipe, run: Run, echo: Callable[[str], Any] = print) -> Path:
    """Run `run.stage` for its budget of seconds or steps, or until ordered to stop. Returns the export folder.

    echo: called with one line of text per row of metrics. Raises TrainingError, OptionError, ModelMissing, InputError or
    WeightsError.
    """
    begin = time.monotonic()
    run.out.mkdir(parents=True, exist_ok=True)
    with exchanging():
        trainer = Trainer(recipe, run)
        metrics = run.out / "metrics.jsonl" if trainer.first else None
        with Journal(metrics, echo) as journal, StopSwitch(run.out) as stop:
            try:
                drive(trainer, journal, stop, begin)
            finally:
                torch.compiler.set_stance("default")
                trainer.objective.close()
                trainer.photos.close()
        trainer.fabric.barrier()
    return run.out / "export"


def drive(trainer: Trainer, journal: Journal, stop: StopSwitch, begin: float) -> None:
    """Steps, rows, saves and validations until the budget (counted from `begin`) is spent or a stop is ordered."""
    loop, run, schedule = trainer.recipe.loop, trainer.run, trainer.schedule
    journal.write("start", {**schedule.at(), **trainer.describe()})
    for text in trainer.notes:
        trainer.note(journal, text)
    if loop.compile:
        trainer.compile_ahead(journal)
    validation = trainer.validate(journal) if schedule.steps == 0 or trainer.unjudged() else 0.0
    saving, wanted = 0.0, False
    budget = math.inf if run.time_budget is None else run.time_budget
    window = Window()
    saved = validated = time.monotonic()
    while True:
        window.add(trainer.step())
        now = time.monotonic()
        schedule.seconds = schedule.start.seconds + now - begin
        # the last save and the last validation belong into the budget
        wanted = wanted or stop.signalled or now - begin + saving + validation >= budget
        look = now - window.begin >= loop.log_every
        wanted = wanted or (look and stop.ordered())
        done = trainer.agree(wanted) or schedule.steps == schedule.last_step
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
