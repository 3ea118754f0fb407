"""A patch discriminator for stage 3: does this look like a photograph that has this file?"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from unquant.nn.transforms import LATENT_STRIDE

__all__ = ["Discriminator", "adversarial_losses"]

_LEAK = 0.2
_CONDITION = 12
"""Channels that the discriminator sees of its condition."""


class Discriminator(nn.Module):
    """Scores of overlapping patches, above 0 for real ones, given what a decoder knows; spectral norm in every layer.

    After HiFiC (Mentzer et al. 2020, arXiv 2006.09965, appendix A.1): what is known, upsampled beside the image, 4×4
    convolutions, here fewer of them. channels, stride: of what is known, ŷ_T at 1/16 of the image or a picture of its size.
    width: channels of the first layer, the others have 2 and 4 times as many.
    """

    def __init__(self, channels: int, width: int, stride: int = LATENT_STRIDE) -> None:
        super().__init__()
        self.stride = stride
        self.condition = spectral_norm(nn.Conv2d(channels, _CONDITION, 3, padding=1))
        widths = [3 + _CONDITION, width, 2 * width, 4 * width]
        self.blocks = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairwise(widths))
        self.last = spectral_norm(nn.Conv2d(4 * width, 4 * width, 3, padding=1))
        self.head = spectral_norm(nn.Conv2d(4 * width, 1, 1))

    def forward(self, judged: Float[Tensor, "b 3 h w"], known: Float[Tensor, "b c _ _"]) -> Float[Tensor, "b 1 _ _"]:
        """judged: an image, or what it adds to one that is known; known: of that. Numbers of about 1: differences much
        smaller than that it cannot see. Returns scores at 1/8 of the image.
        """
        condition = F.leaky_relu(self.condition(known), _LEAK)
        if self.stride > 1:
            condition = F.interpolate(condition, scale_factor=self.stride)
        h = torch.cat([judged, condition], dim=1)
        for block in self.blocks:
            h = F.leaky_relu(block(h), _LEAK)
        return self.head(F.leaky_relu(self.last(h), _LEAK))


def adversarial_losses(
    discriminator: Discriminator,
    real: Float[Tensor, "b 3 h w"],
    drawn: Float[Tensor, "n 3 h w"],
    known: Float[Tensor, "b c _ _"],
) -> tuple[Float[Tensor, " n"], Tensor]:
    """The generator's loss of each drawing, −D, and the discriminator's hinge loss, a mean.

    The gradient of the first reaches the drawings alone, that of the second the discriminator alone, so both can be summed
    and go back in one pass. Hinge loss: Lim and Ye 2017, arXiv 1705.02894.
    real, drawn, known: as D takes them; of each example one or more drawings, one after the other as whole batches,
    n = b, 2b …
    """
    times = len(drawn) // len(real)
    known, again = known.detach(), known.detach().repeat(times, 1, 1, 1)
    scores = discriminator(torch.cat([real, drawn.detach()]), torch.cat([known, again]))
    real_scores, drawn_scores = scores[: len(real)], scores[len(real) :]
    hinge = F.relu(1 - real_scores).mean() + F.relu(1 + drawn_scores).mean()
    frozen = {name: p.detach() for name, p in discriminator.named_parameters()}
    return -functional_call(discriminator, frozen, (drawn, again)).mean((1, 2, 3)), hinge
