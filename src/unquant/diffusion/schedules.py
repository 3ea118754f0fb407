"""Schedules of the reverse path, as plain tensors: quantisation steps q, and the randomness of each reverse step."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unquant.errors import OptionError

__all__ = ["geometric", "randomness"]


def geometric(
    start: Float[Tensor, "*#s"], end: Float[Tensor, "*#s"], steps: int, power: float = 1.0
) -> Float[Tensor, "n *s"]:
    """Quantisation steps from `start` down to `end`, q_i = start^(1 − t_i) · end^(t_i) with t_i = (i/steps)^power.

    start, end: in latent units, 0 < end ≤ start, of any shapes that broadcast: (), (b, 1, 1, 1), a map (b, 1, h, w).
    steps ≥ 1. power > 0: 1 gives a constant ratio, above 1 smaller reductions first, below 1 larger ones first.
    Returns (steps + 1, …), never increasing, the first and the last exactly start and end. Raises OptionError.
    """
    if steps < 1:
        raise OptionError(f"steps must be at least 1, not {steps}")
    if not (power > 0 and math.isfinite(power)):
        raise OptionError(f"power must be positive and finite, not {power}")
    start, end = torch.broadcast_tensors(start, end)
    # a compiled graph would break here, and a GPU be waited for
    if not torch.compiler.is_compiling() and not bool(((end > 0) & (end <= start) & torch.isfinite(start)).all()):
        raise OptionError("quantisation steps must be finite, 0 < end <= start")
    dtype = torch.promote_types(start.dtype, end.dtype)
    start, end = start.to(dtype), end.to(dtype)
    ratio = end / start
    between = [(start * ratio ** (i / steps) ** power).clamp(min=end) for i in range(1, steps)]
    # rounding may turn the order of values that are all but equal
    return torch.stack([start, *between, end]).cummin(0).values


def randomness(first: float, last: float, steps: int) -> Float[Tensor, " n"]:
    """Randomness α_i of each of `steps` ≥ 1 reverse steps, linear from `first` to `last`, each in [0, 1].

    0 is the deterministic step; 1 draws anew all that the SDE draws. With one step it is `first`. Returns (steps,),
    float32. Raises OptionError. Han et al. 2025, arXiv 2505.20984; docs/design.md section 2.
    """
    if steps < 1:
        raise OptionError(f"steps must be at least 1, not {steps}")
    for value in (first, last):
        if not 0 <= value <= 1:
            raise OptionError(f"randomness must be in [0, 1], not {value}")
    return torch.linspace(first, last, steps)
