"""Muon for the kernels of convolutions (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982, for the step's size)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from unquant.errors import TrainingError

__all__ = ["KernelMuon", "is_kernel"]

SMALLEST = 64
"""Input and output channels from which a kernel is worth orthogonalising."""


def is_kernel(module: nn.Module, name: str) -> TypeGuard[nn.Conv2d]:
    """Whether a parameter of a module is for Muon: a convolution's weight between many channels, of no output layer."""
    if not isinstance(module, nn.Conv2d) or name.endswith(("head", "proj")):
        return False
    return module.groups == 1 and min(module.in_channels, module.out_channels) >= SMALLEST


class KernelMuon:
    """`torch.optim.Muon` over kernels (o, i, h, w), each taken as a matrix (o, i·h·w) that shares its memory.

    Its updates have the root mean square of AdamW's, so that one learning rate serves both. kernels: leaf tensors, dense in
    memory (contiguous or channels_last). Raises TrainingError where PyTorch is older than 2.9, which has no Muon.
    """

    def __init__(self, kernels: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        self.kernels = list(kernels)
        if not hasattr(torch.optim, "Muon"):
            raise TrainingError(f'optimizer = "muon" needs PyTorch 2.9 or newer, this is {torch.__version__}')
        matrices = [nn.Parameter(_matrix(kernel.detach())) for kernel in self.kernels]
        self.muon = torch.optim.Muon(matrices, lr, weight_decay, adjust_lr_fn="match_rms_adamw")

    def step(self, lr: float) -> None:
        """One update of all kernels by their gradients."""
        for group in self.muon.param_groups:
            group["lr"] = lr
            for matrix, kernel in zip(group["params"], self.kernels, strict=True):
                matrix.grad = None if kernel.grad is None else _matrix(kernel.grad)
        self.muon.step()

    def zero_grad(self) -> None:
        """Let go of the gradients' memory."""
        for tensor in (*self.kernels, *self.muon.param_groups[0]["params"]):
            tensor.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Momenta, for a checkpoint."""
        return self.muon.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.muon.load_state_dict(state)


def _matrix(kernel: Tensor) -> Tensor:
    """(o, i, h, w) as (o, i·h·w) or, of channels_last memory, (o, h·w·i): a view, where memory is dense."""
    if kernel.is_contiguous(memory_format=torch.channels_last):
        kernel = kernel.permute(0, 2, 3, 1)
    return kernel.flatten(1)
