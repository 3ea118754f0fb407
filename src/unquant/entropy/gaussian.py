"""Gaussian rate terms on the scale grid of the integer tables.

A scale is held as its coordinate t on the log-spaced grid of tables, σ = low·(high/low)^(t/(n−1)): the nearest integer to
t is the table's index, and below −½ the symbol is 0 by definition and not coded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

__all__ = ["ScaleGrid", "gaussian_bits", "round_ste"]


@dataclass(frozen=True, slots=True)
class ScaleGrid:
    """`count` scales from `low` to `high`, log-spaced, in units of one quantisation step."""

    low: float = 0.12
    high: float = 64.0
    count: int = 64

    @property
    def log_ratio(self) -> float:
        """Natural logarithm of the ratio of two neighbouring scales."""
        return math.log(self.high / self.low) / (self.count - 1)

    def sigma(self, t: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Scale at grid coordinate t."""
        return self.low * torch.exp(t * self.log_ratio)


def gaussian_bits(offset: Float[Tensor, "*#s"], sigma: Float[Tensor, "*#s"]) -> Float[Tensor, "*#s"]:
    """−log2 of a zero-mean Gaussian of scale σ integrated over the unit bin around `offset`, stable in both tails.

    Ballé et al. 2018, arXiv 1802.01436, equation 8 with a Gaussian. Both in units of the step, and they broadcast; σ > 0.
    """
    upper = (0.5 - offset.abs()) / sigma
    lower = (-0.5 - offset.abs()) / sigma
    log_upper = torch.special.log_ndtr(upper)
    log_lower = torch.special.log_ndtr(lower)
    log_p = log_upper + torch.log(-torch.expm1((log_lower - log_upper).clamp(max=-1e-6)))
    return -log_p / math.log(2)


def round_ste(v: Shaped[Tensor, "*s"]) -> Shaped[Tensor, "*s"]:
    """Round to the nearest integer; the gradient passes straight through."""
    return v + (v.round() - v).detach()
