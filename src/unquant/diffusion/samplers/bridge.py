"""The bridge sampler: the stochastic differential equation pinned at both ends, y and the dequantised latent."""

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

__all__ = ["sample_bridge"]


def sample_bridge(
    denoise: Denoise,
    y: Latent,
    qs: Float[Tensor, " n *q"],
    alphas: Float[Tensor, " m"],
    noise: Noise,
    *,
    tau: float | Float[Tensor, "*t"] = UNIFORM_STD,
    callback: Callback | None = None,
) -> Latent:
    """Runs y' = r·y + (1 − r)·f + α·q'·τ·sqrt(1 − r)·n with r = (q'/q)², f = denoise(y, q); returns y at qs[-1].

    The step of a Brownian bridge from the latent at qs[0] to the clean one, in the time q². With α = 1 and
    f = E[clean | y, y at qs[0]] the result is distributed as the clean latent given y at qs[0] as steps grow, whatever
    the shape of the error there and for every τ > 0: real rounding included. With α = 1 it is the ancestral step with
    the same τ; with α < 1 it differs from that, as it keeps r, not more, of y − f, and the noise level falls below τq.

    y: (b, c, h, w), latent units, at qs[0]. qs: (steps + 1, …), steps ≥ 1, positive (the last may be 0: the result is
    then f), never increasing; each row broadcasts to y. alphas: (steps,) in [0, 1]; noise(step) is asked for only
    where α > 0. tau: the bridge's standard deviation in units of q, a number or a tensor that broadcasts to y: that of
    each coefficient's rounding error, for one. Raises OptionError. Gradients pass.
    Han et al. 2025, arXiv 2505.20984, for the diffusion that is pinned; docs/design.md section 2.
    """
    tau = tau.to(y) if isinstance(tau, Tensor) else tau
    rows = checked_steps(qs, y)
    randomness = checked_alphas(alphas, len(rows) - 1)
    for step, ((q, q_next), alpha) in enumerate(zip(pairwise(rows), randomness, strict=True)):
        f = estimate(denoise, y, q, step, callback)
        r = (q_next / q) ** 2
        y_next = f + r * (y - f)
        if alpha > 0:
            y_next = y_next + alpha * q_next * (1 - r).sqrt() * (tau * draw(noise, step, y))
        y = y_next
    return y
