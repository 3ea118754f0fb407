"""A run that may go wrong, watched: validation judges every state, and what is worse than before is undone."""

from __future__ import annotations

import copy
from typing import Any

from unquant.errors import TrainingError
from unquant.train.checkpoint import Trained
from unquant.train.data import Photos
from unquant.train.objective import Objective

__all__ = ["Guard"]


class Guard:
    """The last state that the objective found no worse than those before it.

    Raises TrainingError for several devices, of which the first alone validates, and without a held-out image to judge by.
    """

    def __init__(self, objective: Objective[Any], photos: Photos, crop: int, devices: int) -> None:
        if devices > 1:
            raise TrainingError("an adversary that is watched is trained on one device: only the first one validates")
        if not photos.count(crop, held_out=True):
            raise TrainingError(
                f"{photos.folder}: the adversary is watched by validation, and no held-out image is as large as the crop,"
                f" {crop}×{crop} pixels"
            )
        self.objective = objective
        self.good: dict[str, Any] = {}

    def judge(self, row: dict[str, float], trained: Trained) -> str | None:
        """Keep the present state if a row of validation is no worse than those before it; else go back to the one kept last,
        and say why. Raises TrainingError where there is none yet.
        """
        reason = self.objective.worsened(row)
        if reason is None:
            self.good = copy.deepcopy(trained.state_dict())
            return None
        if not self.good:
            raise TrainingError(f"validation of the weights that the run starts from is of no use: {reason}")
        trained.load_state_dict(copy.deepcopy(self.good))
        return reason

    def state_dict(self) -> dict[str, Any]:
        """What it goes by, for a checkpoint."""
        return {"memory": self.objective.memory(), "good": self.good}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse."""
        self.objective.remember(state.get("memory", {}))
        self.good = state.get("good", {})
