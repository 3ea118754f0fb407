"""A patch discriminator for stage 3: does this look like a photograph that has this file?"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from unquant.nn.transforms import LATENT_GAIN, LATENT_STRIDE
from unquant.shapes import Image, Latent

__all__ = ["Discriminator", "adversarial_losses"]

_LEAK = 0.2
_CONDITION = 12
"""Channels that the discriminator sees of a latent."""


class Discriminator(nn.Module):
    """Scores of overlapping patches, above 0 for real ones, given ŷ_T; spectral norm in every layer.

    As in HiFiC (Mentzer et al. 2020, arXiv 2006.09965, appendix A.1): a latent upsampled beside the image, 4×4 convolutions.
    width: channels of the first layer, the others have 2, 4 and 8 times as many.
    """

    def __init__(self, latent: int, width: int) -> None:
        super().__init__()
        self.condition = spectral_norm(nn.Conv2d(latent, _CONDITION, 3, padding=1))
        widths = [3 + _CONDITION, width, 2 * width, 4 * width]
        self.blocks = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in pairwise(widths))
        self.last = spectral_norm(nn.Conv2d(4 * width, 8 * width, 4, 1, 1))
        self.head = spectral_norm(nn.Conv2d(8 * width, 1, 1))

    def forward(self, x: Image, y_file: Latent) -> Float[Tensor, "b 1 _ _"]:
        """x: in [0, 1]. y_file: ŷ_T in latent units. Returns scores at 1/8 of the image, less a row and a column."""
        condition = F.leaky_relu(self.condition(y_file / LATENT_GAIN), _LEAK)
        h = torch.cat([2 * x - 1, F.interpolate(condition, scale_factor=LATENT_STRIDE)], dim=1)
        for block in self.blocks:
            h = F.leaky_relu(block(h), _LEAK)
        return self.head(F.leaky_relu(self.last(h), _LEAK))


def adversarial_losses(
    discriminator: Discriminator, real: Image, drawn: Float[Tensor, "n 3 h w"], y_file: Latent
) -> tuple[Float[Tensor, " n"], Tensor]:
    """The generator's loss of each drawn image, −D(x̂), and the discriminator's hinge loss, a mean.

    The gradient of the first reaches the drawn images alone, that of the second the discriminator alone, so both can be
    summed and go back in one pass. Hinge loss: Lim and Ye 2017, arXiv 1705.02894.
    real: (b, 3, h, w). drawn: one or more drawings of each, one after the other as whole batches, n = b, 2b …
    """
    times = len(drawn) // len(real)
    y_file, files = y_file.detach(), y_file.detach().repeat(times, 1, 1, 1)
    scores = discriminator(torch.cat([real, drawn.detach()]), torch.cat([y_file, files]))
    real_scores, drawn_scores = scores[: len(real)], scores[len(real) :]
    hinge = F.relu(1 - real_scores).mean() + F.relu(1 + drawn_scores).mean()
    frozen = {name: p.detach() for name, p in discriminator.named_parameters()}
    return -functional_call(discriminator, frozen, (drawn, files)).mean((1, 2, 3)), hinge
