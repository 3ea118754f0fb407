"""The ancestral sampler: part of the noise of each step is drawn anew, by a randomness schedule."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from unquant.diffusion.samplers.common import (
    UNIFORM_STD,
    Callback,
    Denoise,
    Noise,
    checked_alphas,
    checked_steps,
    draw,
    estimate,
)
from unquant.shapes import Latent

__all__ = ["sample_ancestral"]


def sample_ancestral(
    denoise: Denoise,
    y: Latent,
    qs: Float[Tensor, " n *q"],
    alphas: Float[Tensor, " m"],
    noise: Noise,
    *,
    tau: float | Float[Tensor, "*t"] = UNIFORM_STD,
    callback: Callback | None = None,
) -> Latent:
    """Runs y' = f + sqrt(σ'² − s²)/σ · (y − f) + s·n with s² = α²σ'²(σ² − σ'²)/σ² and σ = τq; returns y at qs[-1].

    Computed as s = ατq'·sqrt(1 − r) and sqrt(σ'² − s²)/σ = (q'/q)·sqrt(1 − α² + α²r) with r = (q'/q)², in which τ = 0
    is no special case. α = 0 is the deterministic sampler, to the bit; α = 1 is the bridge's step with α = 1 and the
    same τ. With f the mean of the clean latent given the state, the variance of the result approaches that of the
    clean latent as steps grow; at one or two steps it is close to that of f.

    At α = 1 the state's error is w times that at qs[0] plus Gaussian noise of variance τ²q²(1 − w), w = (q/qs[0])²: a
    denoiser made for y + q·u alone falls short of that variance, at any number of steps, where rounding is coarse.

    y: (b, c, h, w), latent units, at qs[0]. qs: (steps + 1, …), steps ≥ 1, positive (the last may be 0: the result is
    then f), never increasing; each row broadcasts to y. alphas: (steps,) in [0, 1]; noise(step) is asked for only
    where α > 0. tau: the standard deviation of the noise in y in units of q, a number or a tensor that broadcasts to y.
    Raises OptionError. Gradients pass. Han et al. 2025, arXiv 2505.20984; docs/design.md section 2.
    """
    tau = tau.to(y) if isinstance(tau, Tensor) else tau
    rows = checked_steps(qs, y)
    randomness = checked_alphas(alphas, len(rows) - 1)
    for step, ((q, q_next), alpha) in enumerate(zip(pairwise(rows), randomness, strict=True)):
        f = estimate(denoise, y, q, step, callback)
        ratio = q_next / q
        kept = ratio * (1 - alpha**2 + (alpha * ratio) ** 2).sqrt()
        y_next = f + kept * (y - f)
        if alpha > 0:
            y_next = y_next + alpha * q_next * (1 - ratio**2).sqrt() * (tau * draw(noise, step, y))
        y = y_next
    return y
