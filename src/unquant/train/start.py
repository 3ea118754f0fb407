"""The start of a run: from nothing, from principal directions, or from weights."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unquant.errors import ModelMissing, TrainingError, WeightsError
from unquant.families import family_of
from unquant.networks.common import Model
from unquant.train.data import Photos
from unquant.train.recipe import Recipe
from unquant.train.schedule import Position
from unquant.train.stages import stage_of
from unquant.weights_file import TABLES, Weights, read_shards, read_weights

__all__ = ["Start"]

_WITHOUT_WEIGHTS = ("klt", "random")


class Start:
    """What a stage starts from.

    source: "klt", "random" or the path of an export or a weights file. going_on: whether a checkpoint follows, so that the
    model is filled from that. weights: those of the source; None for a new model, and where recipe and checkpoint hold
    everything. tables: the coder's, by name, of those weights or of the run that goes on; none for a new model. notes: what
    the run's journal shall say. Raises TrainingError for a stage that the family does not have or that needs weights,
    ModelMissing, WeightsError.
    """

    def __init__(self, recipe: Recipe, number: int, source: str, *, going_on: bool) -> None:
        self.stage, self.number = stage_of(recipe.family, number), number
        self.recipe, self.source, self.going_on = recipe, source, going_on
        self.weights: Weights | None = None
        self.notes: list[str] = []
        self.tables: dict[str, Tensor] = {}
        begins = self.stage.config is None
        if begins and source in _WITHOUT_WEIGHTS:
            return
        if begins and going_on:
            with suppress(ModelMissing, WeightsError):
                self._take_tables(read_shards(Path(source)))
            return
        if source in _WITHOUT_WEIGHTS:
            raise TrainingError(
                f"stage {number} goes on from weights: give an export or a weights file as init, not {source!r}"
            )
        path = Path(source)
        self.weights = read_shards(path) if path.is_dir() else read_weights(path)
        self._take_tables(self.weights)

    def _take_tables(self, weights: Weights) -> None:
        self.tables = {name: tensor for name, tensor in weights.tensors.items() if name.startswith(TABLES)}

    def new_model(self) -> Model[Any]:
        """The stage's model with first weights, by torch's default generator. Raises TrainingError."""
        config = self.recipe.model
        if self.stage.config is not None:
            assert self.weights is not None
            try:
                config = self.stage.config(self.recipe, self.weights)
            except TrainingError as e:
                raise TrainingError(f"{self.source}: {e}") from None
        return family_of(self.recipe.family).load("model")(config)

    def fill(self, model: Model[Any], photos: Photos, generator: torch.Generator) -> Position:
        """Fill a new model; returns where on the stage's schedule the weights stand. Raises TrainingError."""
        if self.going_on:
            return Position()
        if self.weights is None:
            if self.source == "klt" and self.stage.from_klt is not None:
                self.stage.from_klt(model, photos, self.recipe.loop.crop, generator)
            return Position()
        found, family = self.weights, self.recipe.family
        if found.family != family:
            raise TrainingError(f"{self.source}: weights of {found.family}, the recipe is of {family}")
        try:
            if self.stage.adapt is not None:
                found, did = self.stage.adapt(model, found, photos, self.recipe.loop.crop)
                self.notes += [did] if did else []
            filled = self.stage.fill(model, found)
        except TrainingError as e:
            raise TrainingError(f"{self.source}: these weights do not fit the recipe's model: {e}") from None
        if filled.grown:
            self.notes.append(
                f"{filled.grown} tensors are larger than in {self.source} or new; they begin without effect"
            )
        note = found.training
        if filled.fresh or int(note.get("stage", 1)) != self.number:
            return Position()
        return Position(float(note.get("schedule_seconds", 0.0)), int(note.get("steps", 0)), int(note.get("crops", 0)))
