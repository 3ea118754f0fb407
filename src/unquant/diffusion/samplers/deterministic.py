"""The deterministic sampler: the ordinary differential equation of the reverse path, by Euler's rule in q."""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from unquant.diffusion.samplers.common import Callback, Denoise, checked_steps, estimate
from unquant.shapes import Latent

__all__ = ["sample_deterministic"]


def sample_deterministic(
    denoise: Denoise, y: Latent, qs: Float[Tensor, " n *q"], *, callback: Callback | None = None
) -> Latent:
    """Runs y' = f + (q'/q)(y − f), f = denoise(y, q), down a schedule; returns the latent at qs[-1].

    Where y = y_0 + q·u and f is the posterior mean of y_0, dy/dq = (y − f)/q = E[u | y] carries the distribution of y
    at each q to that at the next, whatever the shape of u. Euler's rule is of order 1: the error falls as 1/steps.
    From a rounded latent, which takes a few values only, the result takes no more values than that.

    y: (b, c, h, w), latent units, at qs[0]. qs: (steps + 1, …), steps ≥ 1, positive (the last may be 0: the result is
    then f), never increasing; each row broadcasts to y. Raises OptionError. Gradients pass.
    Han et al. 2025, arXiv 2505.20984; docs/design.md section 2.
    """
    for step, (q, q_next) in enumerate(pairwise(checked_steps(qs, y))):
        f = estimate(denoise, y, q, step, callback)
        y = f + q_next / q * (y - f)
    return y
