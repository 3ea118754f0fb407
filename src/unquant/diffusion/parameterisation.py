"""What a diffusion network's raw output means, the clean image or the noise, and all that follows from that.

    x0, epsilon, ᾱ ──►┤diffuse├──► x_t = sqrt(ᾱ)·x0 + sqrt(1 − ᾱ)·epsilon
    network(x_t, …), x_t, ᾱ ──►┤Parameterisation├──► x0;  target, weight, loss in training

The noise level is ᾱ in [0, 1], a schedule's value in float64 (in float32, 1 − ᾱ keeps few digits near ᾱ = 1): of shape ()
for all images, or (b, 1, 1, 1) for one each. Images are (b, c, h, w) with values in [−1, 1].
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from unquant.errors import OptionError

__all__ = ["MAX_SNR", "Level", "Parameterisation", "Signal", "diffuse"]

Signal: TypeAlias = Float[Tensor, "b c h w"]
"""An image in [−1, 1], noise, or a mixture of both."""
Level: TypeAlias = Float[Tensor, ""] | Float[Tensor, "b 1 1 1"]
"""ᾱ in [0, 1]: the share of the image in the variance of x_t. 0 is pure noise, 1 the clean image."""

MAX_SNR = 5.0
"""γ of Hang et al. 2023, arXiv 2303.09556: the weight of an example does not grow beyond this signal-to-noise ratio."""

_FLOOR = 1e-8
"""What is divided by instead of a smaller amplitude; in float64, sqrt(1 − ᾱ) is smaller at ᾱ = 1 only."""


def _checked(alpha: Tensor) -> Tensor:
    if alpha.ndim not in (0, 4):  # (b,) would broadcast to the width
        raise OptionError(f"a noise level has shape () or (b, 1, 1, 1), not {tuple(alpha.shape)}")
    return alpha


def _amplitudes(alpha: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(ᾱ) and sqrt(1 − ᾱ), computed in ᾱ's dtype, returned in that of `like` and on its device."""
    alpha = _checked(alpha)
    return alpha.sqrt().to(like), (1 - alpha).sqrt().to(like)


def diffuse(x0: Signal, epsilon: Signal, alpha: Level) -> Signal:
    """The forward process, x_t = sqrt(ᾱ)·x0 + sqrt(1 − ᾱ)·epsilon, in x0's dtype (Ho et al. 2020, arXiv 2006.11239, eq. 4).

    x0, epsilon: (b, c, h, w), the image in [−1, 1] and standard normal noise. alpha: () or (b, 1, 1, 1), in [0, 1]. Raises
    OptionError for an alpha of another shape.
    """
    signal, noise = _amplitudes(alpha, x0)
    return signal * x0 + noise * epsilon


class Parameterisation(Enum):
    """The network outputs the clean image ("x") or the noise ("epsilon"): Yang & Mandt, arXiv 2209.06950, section 3.

    `Parameterisation("x")` makes one from its name and raises OptionError for an unknown name. Of x0, epsilon and x_t each
    follows from the two others where 0 < ᾱ < 1; towards ᾱ = 0 an error in epsilon grows by 1/sqrt(ᾱ) in x0 (2·10^5 at the
    start of the cosine schedule).
    """

    X = "x"
    EPSILON = "epsilon"

    @classmethod
    def _missing_(cls, value: object) -> Parameterisation:
        raise OptionError(f"parameterisation must be one of {', '.join(p.value for p in cls)}, not {value!r}")

    @property
    def clamps(self) -> bool:
        """Whether the sampler holds the estimate of x0 to [−1, 1] by default: for "x", as the public code of the paper."""
        return self is Parameterisation.X

    def to_x(self, output: Signal, x_t: Signal, alpha: Level) -> Signal:
        """The estimate of x0, not clamped: the output, or (x_t − sqrt(1 − ᾱ)·epsilon)/sqrt(ᾱ) (Ho et al. 2020, eq. 15).

        output: the network's for x_t, (b, c, h, w) each. alpha: () or (b, 1, 1, 1). In x_t's dtype (float32 or wider, or
        bfloat16), with gradients; finite at ᾱ = 0 too, where x_t says nothing of x0. Raises OptionError for an alpha of
        another shape.
        """
        signal, noise = _amplitudes(alpha, x_t)
        output = output.to(x_t)
        return output if self is Parameterisation.X else (x_t - noise * output) / signal.clamp(min=_FLOOR)

    def of_gaussian(self, mean: Signal, std: float, x_t: Signal, alpha: Level) -> Signal:
        """The raw output that is right for x0 ~ N(mean, std²): the posterior mean of x0 or of epsilon given x_t.

        mean, x_t: (b, c, h, w); std: 0 or more, of the same unit. With std = 0 "x" gives `mean` itself. It is what a network
        adds to when it knows a first estimate of the image: with "epsilon" an estimate without a spread would be wrong by
        (x0 − mean)/sqrt(1 − ᾱ), without a bound towards ᾱ = 1. Raises OptionError for an alpha of another shape.
        """
        alpha = _checked(alpha)
        total = (1 - alpha + alpha * std**2).clamp(min=_FLOOR**2)
        away = x_t - alpha.sqrt().to(x_t) * mean.to(x_t)
        if self is Parameterisation.EPSILON:
            return ((1 - alpha).sqrt() / total).to(x_t) * away
        return mean.to(x_t) + (alpha.sqrt() * std**2 / total).to(x_t) * away

    def target(self, x0: Signal, epsilon: Signal) -> Signal:
        """What the raw output is trained to be; x0, epsilon: those that `diffuse` was given."""
        return x0 if self is Parameterisation.X else epsilon

    def weight(self, alpha: Level) -> Level:
        """The weight of an example in the loss, of alpha's shape: min(SNR, 5) with SNR = ᾱ/(1 − ᾱ) for "x", 1 for "epsilon".

        At ᾱ = 1 it is 5; towards ᾱ = 0 it falls to 0: the first steps of a sampler are hardly trained with "x".
        Hang et al. 2023, arXiv 2303.09556, section 3.4. Raises OptionError for an alpha of another shape.
        """
        alpha = _checked(alpha)
        return (alpha / (1 - alpha)).clamp(max=MAX_SNR) if self is Parameterisation.X else alpha.new_ones(alpha.shape)

    def loss(self, output: Signal, x0: Signal, epsilon: Signal, alpha: Level) -> Float[Tensor, " b"]:
        """Loss per image, (b,), in x0's dtype: weighted mean squared error of x0, or mean absolute error of epsilon.

        output: the network's, for diffuse(x0, epsilon, alpha); all (b, c, h, w). alpha: () or (b, 1, 1, 1). The mean is over
        channels and positions. Yang & Mandt's public code. Raises OptionError for an alpha of another shape.
        """
        error = output.to(x0) - self.target(x0, epsilon)
        error = error.square() if self is Parameterisation.X else error.abs()
        return (self.weight(alpha).to(x0) * error).mean(dim=(1, 2, 3))
