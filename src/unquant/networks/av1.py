"""The family `av1`: AV1's quantiser is the forward diffusion, f its reverse (docs/design.md, "Family av1").

    x ──►┤AV1 at base_q_idx├──► x_q ──►┤f(·; q, ρ, ξ)├──► x̂ = x_q + residual

Han et al. 2025, arXiv 2505.20984, with a standard codec for the forward path. ac_q(base_q_idx), the step of AC coefficients,
is the time, and nominal: matrices, chroma offsets and steps that differ by superblock bend it, so f is told which of them are
used, and how many bits a pixel took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unquant.container.obu import ac_q
from unquant.networks.coding import HALF_STRENGTH, SCALARS, Coding
from unquant.networks.common import Model
from unquant.networks.config import read_config
from unquant.nn.blocks import WHOLE, Margins
from unquant.nn.redraw import Redraw, RedrawSizes
from unquant.settings import Share, settings
from unquant.shapes import Image

__all__ = ["SCALARS", "Av1", "Av1Config", "Coding", "told"]


@settings
class Av1Config(RedrawSizes):
    """Sizes of f, and default_realism: ρ of a decode that asks for none. Raises OptionError outside [0, 1]."""

    default_realism: Share = 1.0

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Av1Config:
        """The inverse of `to_dict`; a missing key takes its default. Raises WeightsError for a key or value that is none."""
        return read_config(cls, values, "av1")


def told(codings: Sequence[Coding]) -> Float[Tensor, "b k"]:
    """What f is told of pictures: `Coding.numbers` of each."""
    return torch.tensor([c.numbers for c in codings], dtype=torch.float32)


class Av1(Model[Av1Config]):
    """f and its configuration; what AV1 itself does is not a network."""

    def __init__(self, config: Av1Config) -> None:
        super().__init__(config)
        self.f = Redraw.of(SCALARS, config)

    def forward(
        self,
        x_q: Image,
        coding: Float[Tensor, "b k"],
        realism: Float[Tensor, "b 1 1 1"],
        coarse_noise: Float[Tensor, "b 4 h8 w8"],
        fine_noise: Float[Tensor, "b 1 h2 w2"],
        margins: Margins = WHOLE,
    ) -> Float[Tensor, "b 3 _ _"]:
        """The picture at realism 0 (the mean) or 1 (a sample), float32, not clamped; between the two they are blended.

        x_q: (b, 3, h, w) in [0, 1], sides multiples of 16. coding: `told` of the pictures. realism: 0 or 1 each. The noise,
        standard normal, counts at realism 1 alone. margins: of x_q, in positions of 16 pixels; returned without them.
        """
        known, step = coding[:, :-1, None, None], coding[:, -1:, None, None]
        # a/(1 + a) with a ~ ac_q: f tends to the identity as the step falls, and is it where AV1 is lossless
        strength = torch.where(step > ac_q(0), step / (step + HALF_STRENGTH), torch.zeros_like(step))
        scalars = torch.cat([known, 2 * realism - 1], dim=1)
        return self.f(x_q, scalars, strength, realism, coarse_noise, fine_noise, margins)
