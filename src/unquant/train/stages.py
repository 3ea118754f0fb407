"""What a family's training is to the recipe and the loop: its tables, and its stages by number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from unquant.errors import TrainingError
from unquant.families import family_of
from unquant.networks.common import Config
from unquant.train.data import Photos
from unquant.train.growth import Filled, fill
from unquant.train.judges import Judges, Wanted
from unquant.train.objective import Objective
from unquant.train.recipe import Recipe
from unquant.weights_file import Weights

__all__ = ["Stage", "Training", "stage_of"]


def _nothing(recipe: Recipe) -> Wanted:
    return Wanted()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a family.

    objective: makes it for a model, of the family's class, from the recipe's tables and the networks that were wanted.
    wanted: those networks. config: the model's configuration for a stage that goes on from weights, from the recipe and the
    weights, may raise TrainingError; None for one that begins with the recipe's model, with or without weights. adapt:
    makes weights of another kind fit a new model, by photographs in crops of so many pixels, and says in a line what it did,
    None where nothing; may raise TrainingError. fill: loads weights into a new model, may raise TrainingError. from_klt:
    starts a new model from photographs' principal directions, with crops of so many pixels by a generator; None where it
    needs no such start.
    """

    objective: Callable[[Any, Recipe, Judges], Objective[Any]]
    wanted: Callable[[Recipe], Wanted] = _nothing
    config: Callable[[Recipe, Weights], Config] | None = None
    adapt: Callable[[Any, Weights, Photos, int], tuple[Weights, str | None]] | None = None
    fill: Callable[[Any, Weights], Filled] = fill
    from_klt: Callable[[Any, Photos, int, torch.Generator], None] | None = None


@dataclass(frozen=True)
class Training:
    """How a family is trained. tables: of a recipe, beside [model] and [loop], by name: dataclasses with defaults."""

    tables: Mapping[str, type[Any]]
    stages: Mapping[int, Stage]


def stage_of(family: str, number: int) -> Stage:
    """A stage of a family. Raises TrainingError where it has no such stage."""
    training: Training = family_of(family).load("training")
    if number not in training.stages:
        known = " and ".join(f"`unquant train stage{other}`" for other in training.stages)
        raise TrainingError(f"{family} has no stage {number}: it is trained by {known}")
    return training.stages[number]
