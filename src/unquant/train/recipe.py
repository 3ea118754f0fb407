"""Recipes: everything that defines a training run but its data and its place. No code lives in a recipe, only numbers."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from unquant.errors import OptionError, WeightsError
from unquant.families import family_of
from unquant.models.common import Config
from unquant.models.config import filled
from unquant.nn.transforms import LATENT_STRIDE

__all__ = ["LoopConfig", "Recipe", "Run", "load_recipe"]

T = TypeVar("T")

_FAMILY = "ratevar"
"""Of a recipe that names none."""
_PRECISIONS = ("32-true", "bf16-mixed")
_OPTIMIZERS = ("adamw", "muon")
_SCHEDULES = ("cosine", "constant")


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """How a run is driven: crop size and batch (per device), optimizer and its schedule, EMA, intervals in seconds.

    schedule: "cosine", from lr to lr_end over a planned total, or "constant", which has no end: lr_end is for a cooldown.
    optimizer: "adamw", or "muon" for the kernels of convolutions with AdamW for the rest. precision: "bf16-mixed" or
    "32-true". compile: torch.compile for the training passes. validation_crops: of the held-out slice, at every validation.
    Raises OptionError naming the key that is out of range.
    """

    crop: int = 256
    batch: int = 64
    optimizer: str = "adamw"
    schedule: str = "cosine"
    lr: float = 5e-4
    lr_end: float = 1e-5
    warmup_steps: int = 200
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    precision: str = "bf16-mixed"
    compile: bool = False
    seed: int = 1
    log_every: float = 15.0
    validate_every: float = 300.0
    export_every: float = 180.0
    validation_crops: int = 32

    def __post_init__(self) -> None:
        if self.crop < 2 * LATENT_STRIDE or self.crop % LATENT_STRIDE:
            raise OptionError(f"crop: a multiple of {LATENT_STRIDE} from {2 * LATENT_STRIDE} up, not {self.crop}")
        for name in ("batch", "warmup_steps", "validation_crops"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name}: at least 1, not {getattr(self, name)}")
        for name in ("lr", "clip", "log_every", "validate_every", "export_every"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name}: above 0, not {getattr(self, name)}")
        if not 0 <= self.lr_end <= self.lr:
            raise OptionError(f"lr_end: in 0..lr, not {self.lr_end}")
        if not 0 <= self.ema < 1:
            raise OptionError(f"ema: in [0, 1), not {self.ema}")
        if self.optimizer not in _OPTIMIZERS:
            raise OptionError(f"optimizer: one of {', '.join(_OPTIMIZERS)}, not {self.optimizer!r}")
        if self.schedule not in _SCHEDULES:
            raise OptionError(f"schedule: one of {', '.join(_SCHEDULES)}, not {self.schedule!r}")
        if self.precision not in _PRECISIONS:
            raise OptionError(f"precision: one of {', '.join(_PRECISIONS)}, not {self.precision!r}")


@dataclass(frozen=True)
class Recipe:
    """A training recipe: the model, the loop, and the tables of the family's stages. Read from a TOML file by `load_recipe`.

    Stages that go on from weights take the model of those. tables: by name, one of each of the family's classes; those that
    are missing have their defaults.
    """

    family: str = _FAMILY
    model: Config = field(default_factory=lambda: family_of(_FAMILY).load("config")())
    loop: LoopConfig = field(default_factory=LoopConfig)
    tables: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        kinds: Mapping[str, type[Any]] = family_of(self.family).load("training").tables
        tables = {name: self.tables.get(name) or kind() for name, kind in kinds.items()}
        object.__setattr__(self, "tables", tables)

    def table(self, kind: type[T]) -> T:
        """The table of a class, which must be one of the family's."""
        return next(table for table in self.tables.values() if type(table) is kind)

    def to_dict(self) -> dict[str, Any]:
        """Everything as in the file, JSON-ready."""
        tables = {"model": self.model.to_dict(), "loop": asdict(self.loop)}
        return {"family": self.family, **tables, **{name: asdict(table) for name, table in self.tables.items()}}


@dataclass(frozen=True)
class Run:
    """Which stage, where and how long: folders, a budget, what to start from.

    The budget is time_budget, in seconds of wall clock, or steps of the optimizer: one of the two, and the schedule runs over
    the same. init: "klt", "random" (stage 1 only) or the path of an export folder or weights file. planned_total: with a
    time_budget, the seconds of the learning-rate cosine over several runs; None: the position at the start plus this run's
    budget. cooldown: the learning rate falls from lr to lr_end over the budget, whatever the recipe's schedule, and the
    average of the weights starts afresh. metrics: folder of the LPIPS weights, None for the one that UNQUANT_METRICS names.
    device: "auto", "cpu" or "cuda"; devices: how many.
    """

    data: Path
    out: Path
    time_budget: float | None = None
    planned_total: float | None = None
    init: str = "klt"
    resume: bool = False
    metrics: Path | None = None
    device: str = "auto"
    devices: int = 1
    stage: int = 1
    steps: int | None = None
    cooldown: bool = False

    def __post_init__(self) -> None:
        if (self.time_budget is None) == (self.steps is None):
            raise OptionError("a run needs a time budget or a number of steps, one of the two")
        if self.time_budget is not None and not self.time_budget > 0:
            raise OptionError(f"the time budget must be positive, got {self.time_budget} s")
        if self.steps is not None and self.steps < 1:
            raise OptionError(f"the number of steps must be positive, got {self.steps}")
        if self.planned_total is not None and self.steps is not None:
            raise OptionError("a planned total goes with a time budget, not with a number of steps")
        if self.planned_total is not None and self.cooldown:
            raise OptionError("a cooldown takes its own budget, no planned total")
        if self.planned_total is not None and not self.planned_total > 0:
            raise OptionError(f"the planned total must be positive, got {self.planned_total} s")
        if self.stage not in (1, 2, 3):
            raise OptionError(f"the stage must be 1, 2 or 3, got {self.stage}")
        if self.devices < 1:
            raise OptionError(f"the number of devices must be positive, got {self.devices}")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe: `family`, tables [model] (with its own tables), [loop], and those of the family's stages.

    A missing key takes its default. Raises OptionError naming file and key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise OptionError(f"{path}: not a readable recipe: {e}") from e
    name = values.pop("family", _FAMILY)
    if not isinstance(name, str):
        raise OptionError(f"{path}: family: must be a name, not {name!r}")
    try:
        family = family_of(name)
    except WeightsError as e:
        raise OptionError(f"{path}: family: {e}") from None
    kinds: dict[str, type[Any]] = {"model": family.load("config"), "loop": LoopConfig, **family.load("training").tables}
    if unknown := sorted(set(values) - set(kinds)):
        raise OptionError(f"{path}: unknown table or key: {', '.join(unknown)}")
    tables = {key: filled(kind, values.get(key, {}), f"{path}: {key}") for key, kind in kinds.items()}
    return Recipe(name, tables.pop("model"), tables.pop("loop"), tables)
