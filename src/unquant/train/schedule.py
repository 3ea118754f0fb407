"""Where a run stands, in seconds and steps, and what learning rate that means."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from unquant.errors import OptionError
from unquant.train.recipe import LoopConfig, Run

__all__ = ["Position", "Schedule", "learning_rate"]


class Position(NamedTuple):
    """How far a stage has come over all its runs: seconds of wall clock, steps of the optimiser, crops on all devices."""

    seconds: float = 0.0
    steps: int = 0
    crops: int = 0


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


class Schedule:
    """The schedule of one run, which starts where `begin` says, at first at nothing.

    seconds, steps, crops: where the run stands. now: where its learning rate stands, in seconds or, for a run of so many
    steps, in steps: with several devices the clock of the first one, for another rate on each would part their weights.
    planned: the end of that. last_step: None for a run of so much time. Raises OptionError for a planned total of a schedule
    that has no end.
    """

    def __init__(self, loop: LoopConfig, run: Run) -> None:
        if loop.schedule == "constant" and run.planned_total is not None:
            raise OptionError('a planned total goes with schedule = "cosine"; the recipe\'s is "constant"')
        self.loop, self.run = loop, run
        self.begin(Position())

    def begin(self, start: Position) -> None:
        """The run starts here, where those before it have come."""
        run, self.start = self.run, start
        self.seconds, self.steps, self.crops = start
        self.last_step = None if run.steps is None else start.steps + run.steps
        self.now = start.seconds if self.last_step is None else float(start.steps)
        self.planned = float(self.last_step or run.planned_total or start.seconds + (run.time_budget or 0.0))
        self.cooldown_from = self.now if run.cooldown else None

    @property
    def position(self) -> Position:
        """Where the run stands."""
        return Position(self.seconds, self.steps, self.crops)

    @property
    def progress(self) -> float:
        """Where the learning rate stands, in [0, 1]."""
        return min(1.0, self.now / self.planned)

    @property
    def used_up(self) -> bool:
        """Whether the learning rate has been at its end already when the run started."""
        return (self.start.seconds if self.last_step is None else self.start.steps) >= self.planned

    def advance(self, seconds: float) -> None:
        """Take over where the learning rate stands: `seconds`, or the steps of a run of so many."""
        self.now = seconds if self.last_step is None else float(self.steps)

    def rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self.loop, self.now, self.planned, self.steps - self.start.steps, self.cooldown_from)

    def at(self) -> dict[str, Any]:
        """Where the run stands, for a row of its journal."""
        return {"step": self.steps, "seconds": round(self.seconds, 1), "crops": self.crops}

    def describe(self) -> dict[str, Any]:
        """The schedule and, where it has one, its end in seconds or steps."""
        name = self.loop.schedule if self.cooldown_from is None else "cooldown"
        end = "planned_seconds" if self.last_step is None else "planned_steps"
        return {"schedule": name} if name == "constant" else {"schedule": name, end: self.planned}
