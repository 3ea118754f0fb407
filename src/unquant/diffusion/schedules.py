"""Schedules as plain tensors: quantisation steps q and the randomness of each reverse step; noise levels ᾱ.

geometric, randomness          of the reverse path in latent space
cosine_alphas, linear_alphas   ᾱ_1 > … > ᾱ_T, those that a network is trained at: x_t = sqrt(ᾱ_t)·x_0 + sqrt(1 − ᾱ_t)·n
subsequence, time_of           those that a sampler visits; where a level lies among those of training
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unquant.errors import OptionError

__all__ = ["cosine_alphas", "geometric", "linear_alphas", "randomness", "subsequence", "time_of"]


def geometric(
    start: Float[Tensor, "*#s"], end: Float[Tensor, "*#s"], steps: int, power: float = 1.0
) -> Float[Tensor, " n *s"]:
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


def cosine_alphas(steps: int) -> Float[Tensor, " n"]:
    """ᾱ_t = f(t)/f(0), f(t) = cos²((t/steps + 0.008)/1.008·π/2), for t = 1 … steps: (steps,), float64, decreasing.

    As β_t = 1 − ᾱ_t/ᾱ_(t−1) is held to 0.999, the last is 0.001·ᾱ_(steps−1), not 0. steps ≥ 1; 8193 in Yang & Mandt's
    public code. Raises OptionError. Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17.
    """
    if steps < 1:
        raise OptionError(f"steps must be at least 1, not {steps}")
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = ((t + 0.008) / 1.008 * (math.pi / 2)).cos().square()
    alphas = f / f[0]
    alphas[-1] = 0.001 * alphas[-2]  # the only one that the bound on β reaches
    return alphas[1:]


def linear_alphas(steps: int) -> Float[Tensor, " n"]:
    """ᾱ_t = Π(1 − β_s), β linear from 0.1/steps to 20/steps, for t = 1 … steps: (steps,), float64, decreasing.

    The βs of Ho et al. 2020, arXiv 2006.11239, 10^−4 to 0.02 for 1000 steps, scaled by 1000/steps so that the last ᾱ is
    about 4·10^−5 for every number of steps. steps ≥ 21, or β would reach 1; 20 000 in Yang & Mandt's public code. Raises
    OptionError.
    """
    if steps <= 20:
        raise OptionError(f"steps of a linear schedule must be at least 21, not {steps}")
    return (1 - torch.linspace(0.1, 20, steps, dtype=torch.float64) / steps).cumprod(0)


def subsequence(alphas: Float[Tensor, " t"], steps: int) -> Float[Tensor, " n"]:
    """The levels that a sampler of `steps` steps visits, from the noisiest of `alphas` to the clean image.

    alphas: (T,), decreasing, as the network was trained. 1 ≤ steps ≤ T. Returns (steps + 1,): `steps` levels evenly
    spaced in t, rounded down to a trained one, the noisiest and the cleanest among them (with one step the noisiest
    alone), then 1 exactly. Raises OptionError. Yang & Mandt's public code.
    """
    last = len(alphas) - 1
    if not 1 <= steps <= len(alphas):
        raise OptionError(f"steps must be 1 to {len(alphas)}, the levels of the schedule, not {steps}")
    visited = [i * last // (steps - 1) for i in reversed(range(steps))] if steps > 1 else [last]
    return torch.cat([alphas[visited], alphas.new_ones(1)])


def time_of(alpha: Float[Tensor, "*a"], alphas: Float[Tensor, " t"]) -> Float[Tensor, "*a"]:
    """The time t/T in [0, 1] at which a schedule has the level `alpha`: what a network is told, at any sampler's levels.

    alpha: in [0, 1], any shape. alphas: (T,), decreasing, from below 1, as the network was trained. The t-th of them, counted
    from 1, gives t/T; ᾱ = 1 gives 0; between two the time is linear in ᾱ; below the last it is 1. In alphas' dtype and on
    its device.
    """
    count = len(alphas)
    rising = torch.cat([alphas.flip(0), alphas.new_ones(1)])
    alpha = alpha.to(alphas)
    above = torch.searchsorted(rising, alpha).clamp(1, count)
    low, high = rising[above - 1], rising[above]
    return (count - above + 1 - ((alpha - low) / (high - low)).clamp(0, 1)) / count
