"""The DDIM sampler of a variance-preserving process: its probability-flow equation, in as many steps as one likes."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from unquant.diffusion.parameterisation import Signal
from unquant.diffusion.samplers.common import Callback, Denoise, estimate
from unquant.errors import OptionError

__all__ = ["sample_ddim"]


def _checked_levels(alphas: Tensor, x: Tensor) -> list[Tensor]:
    """The noise levels on x's device, in float64. Raises OptionError for a schedule that no sampler can run."""
    if alphas.ndim != 1 or len(alphas) < 2:
        raise OptionError(f"a schedule needs two noise levels or more in one row, not shape {tuple(alphas.shape)}")
    # a compiled graph would break here, and a GPU be waited for
    if not torch.compiler.is_compiling() and not bool(
        (alphas >= 0).all() and (alphas[:-1] < 1).all() and alphas[-1] <= 1 and (alphas[1:] >= alphas[:-1]).all()
    ):
        raise OptionError("noise levels must be in [0, 1), the last in [0, 1], and never decrease")
    return list(alphas.to(x.device, torch.float64).unbind())


def sample_ddim(
    denoise: Denoise,
    x: Signal,
    alphas: Float[Tensor, " n"],
    *,
    clamp: bool = True,
    callback: Callback | None = None,
) -> Signal:
    """Runs x' = sqrt(ᾱ')·f + sqrt(1 − ᾱ')·(x − sqrt(ᾱ)·f)/sqrt(1 − ᾱ), f = denoise(x, ᾱ); returns x at alphas[-1].

    Where alphas[-1] = 1, as `subsequence` has it, that is the last f, exactly. Computed as (sqrt(ᾱ') − k·sqrt(ᾱ))·f + k·x
    with k = sqrt((1 − ᾱ')/(1 − ᾱ)) ≤ 1: nothing is divided by a small number, and all stays finite at ᾱ = 0. With f the
    mean of the clean image given x the start's distribution is carried to the clean images', at order 1 in steps.

    denoise(x, ᾱ): the estimate of the clean image; ᾱ is of shape (), float64. x: (b, c, h, w) at alphas[0]; γ·noise
    with γ < 1 at ᾱ ≈ 0, or zero, gives a result nearer to the mean (Yang & Mandt). alphas: (steps + 1,), steps ≥ 1, in
    [0, 1) and never decreasing; the last may be 1. clamp: hold f to [−1, 1], in the noise that x is taken to contain too;
    gradients end where it acts. callback(step, x, f): x before the step, f as it is used. Computes in x's dtype. Raises
    OptionError. Gradients pass. Song et al. 2021, arXiv 2010.02502, eq. 12 with σ = 0.
    """
    held: Denoise = (lambda x, alpha: denoise(x, alpha).clamp(-1, 1)) if clamp else denoise
    for step, (alpha, after) in enumerate(pairwise(_checked_levels(alphas, x))):
        f = estimate(held, x, alpha, step, callback)
        kept = ((1 - after) / (1 - alpha)).sqrt()
        x = (after.sqrt() - kept * alpha.sqrt()).to(x) * f + kept.to(x) * x
    return x
