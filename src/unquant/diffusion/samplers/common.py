"""What all samplers share: the types of their arguments, the checks on them, and the call of the denoiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unquant.errors import OptionError
from unquant.shapes import Latent

__all__ = ["UNIFORM_STD", "Callback", "Denoise", "Noise", "checked_alphas", "checked_steps", "draw", "estimate"]

Denoise: TypeAlias = Callable[[Latent, Tensor], Latent]
"""denoise(y, q) → the estimate of the clean latent; q is one row of the schedule, in y's dtype, and broadcasts to y."""
Noise: TypeAlias = Callable[[int], Latent]
"""noise(step) → standard normal noise of y's shape."""
Callback: TypeAlias = Callable[[int, Latent, Latent], object]
"""callback(step, y, denoised): y as it is at qs[step], before the step is taken."""

UNIFORM_STD = 1 / math.sqrt(12)
"""Standard deviation of U(−½, ½): that of the rounding error, in units of q, where the step is fine."""


def checked_steps(qs: Float[Tensor, " n *q"], y: Latent) -> list[Tensor]:
    """The rows of a schedule in y's dtype, on y's device. Raises OptionError for a schedule that no sampler can run."""
    if len(qs) < 2:
        raise OptionError(f"a schedule needs two quantisation steps or more, not {len(qs)}")
    try:
        fits = torch.broadcast_shapes(qs.shape[1:], y.shape) == y.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise OptionError(f"quantisation steps of shape {tuple(qs.shape[1:])} for a latent of {tuple(y.shape)}")
    # a compiled graph would break here, and a GPU be waited for
    if not torch.compiler.is_compiling() and not bool(
        (qs[:-1] > 0).all() and (qs[-1] >= 0).all() and (qs[1:] <= qs[:-1]).all() and qs.isfinite().all()
    ):
        raise OptionError("quantisation steps must be positive and finite (the last may be 0) and never increase")
    return list(qs.to(y).unbind())


def checked_alphas(alphas: Float[Tensor, " m"], steps: int) -> list[float]:
    """The randomness of each reverse step. Raises OptionError unless there are `steps` values in [0, 1]."""
    values: list[float] = alphas.tolist()
    if len(values) != steps:
        raise OptionError(f"{len(values)} values of randomness for {steps} steps")
    if not all(0 <= value <= 1 for value in values):
        raise OptionError(f"randomness must be in [0, 1], not {values}")
    return values


def estimate(denoise: Denoise, y: Latent, q: Tensor, step: int, callback: Callback | None) -> Latent:
    """The denoiser's estimate in y's dtype; the callback is told."""
    denoised = denoise(y, q).to(y)
    if callback is not None:
        callback(step, y, denoised)
    return denoised


def draw(noise: Noise, step: int, y: Latent) -> Latent:
    """The noise of one step in y's dtype, on y's device. Raises OptionError unless it has y's shape."""
    drawn = noise(step)
    if drawn.shape != y.shape:
        raise OptionError(f"noise of shape {tuple(drawn.shape)} for a latent of {tuple(y.shape)}")
    return drawn.to(y)
