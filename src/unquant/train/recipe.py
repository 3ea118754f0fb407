"""Recipes: everything that defines a training run but its data and its place. No code lives in a recipe, only numbers."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from unquant.errors import OptionError, WeightsError
from unquant.families import family_of
from unquant.networks.common import Config
from unquant.nn.transforms import LATENT_STRIDE
from unquant.settings import read_settings, settings

__all__ = ["LoopConfig", "Recipe", "Run", "load_recipe"]

T = TypeVar("T")

_FAMILY = "ratevar"
"""Of a recipe that names none."""


@settings
class LoopConfig:
    """How a run is driven: crop size and batch (per device), optimizer and its schedule, EMA, intervals in seconds.

    schedule: "cosine", from lr to lr_end over a planned total, or "constant", which has no end: lr_end is for a cooldown.
    optimizer: "adamw", or "muon" for the kernels of convolutions with AdamW for the rest. precision: "bf16-mixed" or
    "32-true". compile: torch.compile for the training passes. validation_crops: of the held-out slice, at every validation.
    Raises OptionError naming the key that is out of range.
    """

    crop: Annotated[int, Field(ge=2 * LATENT_STRIDE, multiple_of=LATENT_STRIDE)] = 256
    batch: PositiveInt = 64
    optimizer: Literal["adamw", "muon"] = "adamw"
    schedule: Literal["cosine", "constant"] = "cosine"
    lr: PositiveFloat = 5e-4
    lr_end: NonNegativeFloat = 1e-5
    warmup_steps: PositiveInt = 200
    weight_decay: float = 0.0
    clip: PositiveFloat = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    compile: bool = False
    seed: int = 1
    log_every: PositiveFloat = 15.0
    validate_every: PositiveFloat = 300.0
    export_every: PositiveFloat = 180.0
    validation_crops: PositiveInt = 32

    def __post_init__(self) -> None:
        if self.lr_end > self.lr:
            raise OptionError(f"lr_end: at most lr ({self.lr}), not {self.lr_end}")


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


@settings
class Run:
    """Which stage, where and how long: folders, a budget, what to start from.

    The budget is time_budget, in seconds of wall clock, or steps of the optimizer: one of the two, and the schedule runs over
    the same. init: "klt", "random" (stage 1 only) or the path of an export folder or weights file. planned_total: with a
    time_budget, the seconds of the learning-rate cosine over several runs; None: the position at the start plus this run's
    budget. cooldown: the learning rate falls from lr to lr_end over the budget, whatever the recipe's schedule, and the
    average of the weights starts afresh. metrics: folder of the LPIPS weights, None for the one that UNQUANT_METRICS names.
    stream: images in memory of data that is streamed, which may lie at a URL; None reads all of it into memory.
    device: "auto", "cpu" or "cuda"; devices: how many on each of num_nodes machines.
    """

    data: Path | str
    out: Path
    time_budget: PositiveFloat | None = None
    planned_total: PositiveFloat | None = None
    init: str = "klt"
    resume: bool = False
    metrics: Path | None = None
    device: str = "auto"
    devices: PositiveInt = 1
    stage: Annotated[int, Field(ge=1, le=3)] = 1
    steps: PositiveInt | None = None
    cooldown: bool = False
    num_nodes: PositiveInt = 1
    stream: PositiveInt | None = None

    def __post_init__(self) -> None:
        if (self.time_budget is None) == (self.steps is None):
            raise OptionError("a run needs a time budget or a number of steps, one of the two")
        if self.planned_total is not None and self.steps is not None:
            raise OptionError("a planned total goes with a time budget, not with a number of steps")
        if self.planned_total is not None and self.cooldown:
            raise OptionError("a cooldown takes its own budget, no planned total")


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
    tables = {key: read_settings(kind, values.get(key, {}), f"{path}: {key}") for key, kind in kinds.items()}
    return Recipe(name, tables.pop("model"), tables.pop("loop"), tables)
