"""What a run leaves in its folder: the checkpoint, everything needed to go on, and the export of its averaged weights."""

from __future__ import annotations

import pickle  # noqa: TID251  # for the name of an error
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unquant.errors import TrainingError
from unquant.files import remove_leftovers, whole_file
from unquant.networks.common import Model
from unquant.train.ema import Ema
from unquant.train.optimisers import Optimisers
from unquant.train.schedule import Position
from unquant.weights_file import write_shards

__all__ = ["Stored", "Trained", "read_checkpoint", "write_checkpoint", "write_export"]

_UNREADABLE = (OSError, EOFError, RuntimeError, LookupError, TypeError, ValueError, pickle.UnpicklingError)
_PARTS = ("model", "ema", "optimizer", "muon", "companion")
_OPTIONAL = ("muon", "companion")
"""Parts that a checkpoint may lack."""


@dataclass(frozen=True)
class Trained:
    """Everything that is trained. companion: a network beside the model, see `Objective`."""

    model: Model[Any]
    ema: Ema
    optimisers: Optimisers
    companion: nn.Module | None

    def state_dict(self) -> dict[str, Any]:
        """The state as the modules hold it: a later step changes it."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            **self.optimisers.state_dict(),
            "companion": self.companion.state_dict() if self.companion is not None else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse. The optimisers may go on with the tensors that they are given.

        Raises RuntimeError or ValueError for the state of another model.
        """
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimisers.load_state_dict(state)
        if self.companion is not None:
            self.companion.load_state_dict(state["companion"])


class Stored(NamedTuple):
    """A checkpoint: the state of `Trained`, where the run stood, and the state of its guard, {} where there was none."""

    state: dict[str, Any]
    position: Position
    guard: dict[str, Any]


def write_checkpoint(path: Path, stage: int, stored: Stored) -> None:
    """Write a checkpoint, complete or not at all. Raises InputError."""
    seconds, steps, crops = stored.position
    content = {"stage": stage, **stored.state, **stored.guard, "position": seconds, "steps": steps, "crops": crops}
    remove_leftovers(path.parent)
    with whole_file(path, force=True) as temporary, temporary.open("wb") as f:
        torch.save(content, f)


def read_checkpoint(path: Path, stage: int, device: torch.device) -> Stored:
    """Read a checkpoint onto a device. Raises TrainingError for one that is damaged or of another stage."""
    try:
        with path.open("rb") as f:
            # the restricted reader: tensors, numbers, texts and their collections, no other classes
            content = torch.load(f, map_location=device, weights_only=True)  # noqa: TID251
        state = {name: content.get(name, {}) if name in _OPTIONAL else content[name] for name in _PARTS}
        found = int(content.get("stage", stage))
        position = Position(float(content["position"]), int(content["steps"]), int(content["crops"]))
    except _UNREADABLE as e:
        reason = str(e).partition("\n")[0] or type(e).__name__
        raise TrainingError(
            f"{path}: damaged checkpoint ({reason}); without it, --resume goes on from the export"
        ) from e
    if found != stage:
        raise TrainingError(f"{path}: a checkpoint of stage {found}: every stage needs a folder of its own")
    return Stored(state, position, {name: content[name] for name in ("memory", "good") if name in content})


def write_export(
    folder: Path, family: str, config: dict[str, Any], state: dict[str, Tensor], training: dict[str, Any]
) -> None:
    """Write weights in shards, fp16, in place of those in the folder, all of them or none. Raises WeightsError, OSError."""
    partial, old = folder.with_name("export.part"), folder.with_name("export.old")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    write_shards(partial, family, config, state, training)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
