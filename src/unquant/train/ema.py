"""The moving average of the weights: what a run validates and exports."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["Ema"]


class Ema(nn.Module):
    """An exponential moving average of a model's parameters, kept in a copy of the model in evaluation mode.

    The memory is short at the start, min(decay, (1 + n) / (10 + n)) at update n, so that the average forgets the initial
    weights; the first update copies. Same state names as torch's `AveragedModel`, but no wait for the device per update.
    """

    n_averaged: Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        # on the CPU whatever the device of the model: it is read at every update
        self.register_buffer("n_averaged", torch.zeros((), dtype=torch.long, device="cpu"))

    def decay_at(self, count: int) -> float:
        """The share that the average keeps at an update, `count` updates after the start."""
        return min(self.decay, (1 + count) / (10 + count)) if count else 0.0

    def restart(self) -> None:
        """Forget how long the average has run: the next update copies, and the memory grows anew."""
        self.n_averaged.zero_()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's present parameters."""
        average = get_ema_multi_avg_fn(self.decay_at(int(self.n_averaged)))
        average(list(self.module.parameters()), list(model.parameters()), self.n_averaged)
        self.n_averaged += 1
