"""Muon for the kernels of convolutions (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982, for the step's size).

Why not `torch.optim.Muon`: it iterates in bfloat16, one matrix after another. A CPU that emulates bfloat16 spends more time
there than in the network. Here kernels of equal shape go together, in float32 where bfloat16 is emulated.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unquant.train.devices import computes_in_bf16

__all__ = ["KernelMuon", "is_kernel", "orthogonal"]

SMALLEST = 64
"""Input and output channels from which a kernel is worth orthogonalising."""
_MOMENTUM = 0.95
_COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the quintic that drives singular values towards 1 (Jordan et al. 2024), here five times."""
_STEPS = 5
_EPSILON = 1e-7


def is_kernel(module: nn.Module, name: str) -> TypeGuard[nn.Conv2d]:
    """Whether a parameter of a module is for Muon: a convolution's weight between many channels, of no output layer."""
    if not isinstance(module, nn.Conv2d) or name.endswith(("head", "proj")):
        return False
    return module.groups == 1 and min(module.in_channels, module.out_channels) >= SMALLEST


def orthogonal(matrices: Float[Tensor, "n o m"]) -> Float[Tensor, "n o m"]:
    """Matrices with their singular values brought near 1 (0.7 to 1.2) by Newton-Schulz, in the tensor's own precision.

    Equals what `torch.optim.Muon` does to each of them.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_EPSILON)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class KernelMuon:
    """Muon over kernels (o, i, h, w), each taken as a matrix (o, i·h·w) that shares its memory.

    Its updates have the root mean square of AdamW's, so that one learning rate serves both. kernels: leaf tensors, dense in
    memory (contiguous or channels_last).
    """

    def __init__(self, kernels: Iterable[Tensor], weight_decay: float) -> None:
        self.kernels = list(kernels)
        self.weight_decay = weight_decay
        self.momenta = [torch.zeros_like(_matrix(kernel.detach())) for kernel in self.kernels]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of all kernels that have a gradient."""
        alike: defaultdict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for kernel, momentum in zip(self.kernels, self.momenta, strict=True):
            if kernel.grad is not None:
                gradient = _matrix(kernel.grad)
                momentum.lerp_(gradient, 1 - _MOMENTUM)
                alike[momentum.shape].append((_matrix(kernel), gradient.lerp(momentum, _MOMENTUM)))
        for (rows, columns), pairs in alike.items():
            ahead = torch.stack([nesterov for _, nesterov in pairs])
            precision = torch.bfloat16 if computes_in_bf16(ahead.device.type) else torch.float32
            for (matrix, _), update in zip(pairs, orthogonal(ahead.to(precision)), strict=True):
                matrix.mul_(1 - lr * self.weight_decay)
                matrix.add_(update, alpha=-0.2 * lr * math.sqrt(max(rows, columns)))

    def zero_grad(self) -> None:
        """Let go of the gradients' memory."""
        for kernel in self.kernels:
            kernel.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Momenta, for a checkpoint; laid out as those of `torch.optim.Muon`, which older checkpoints hold."""
        return {"state": {i: {"momentum_buffer": momentum} for i, momentum in enumerate(self.momenta)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. Raises ValueError where the momenta are not those of these kernels."""
        stored = {int(i): entry["momentum_buffer"] for i, entry in state.get("state", {}).items()}
        if {i: m.shape for i, m in stored.items()} != {i: m.shape for i, m in enumerate(self.momenta)}:
            raise ValueError("momenta of other kernels, or of another optimizer")
        for i, momentum in enumerate(self.momenta):
            momentum.copy_(stored[i])


def _matrix(kernel: Tensor) -> Tensor:
    """(o, i, h, w) as (o, i·h·w) or, of channels_last memory, (o, h·w·i): a view, where memory is dense."""
    if kernel.is_contiguous(memory_format=torch.channels_last):
        kernel = kernel.permute(0, 2, 3, 1)
    return kernel.flatten(1)
