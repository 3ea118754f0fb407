"""What tests of networks share: weights drawn at random, and what a network costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

N = TypeVar("N", bound=nn.Module)


def shaken(network: N, seed: int = 0) -> N:
    """The network in float64, every weight drawn at random: as networks start, some layers are 0 and nothing passes them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network.double()


def kilo_macs(run: Callable[[], Any], pixels: int) -> tuple[Any, float]:
    """What `run` returns, and its multiply-accumulates in convolutions and products per pixel, in thousands."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        result = run()
    return result, counter.get_total_flops() / 2 / pixels / 1000


def parameter_count(*networks: nn.Module) -> int:
    """Parameters of all the networks together."""
    return sum(p.numel() for network in networks for p in network.parameters())


def normal(*shape: int, seed: int = 1) -> Tensor:
    """Standard normal, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
