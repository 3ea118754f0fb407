"""The energy score of pairs of samples: of vectors, of latents, of features of pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unquant.shapes import Latent

__all__ = ["energy_score", "feature_energy_score", "latent_energy_score"]


def energy_score(
    first: Float[Tensor, "b g d *n"], second: Float[Tensor, "b g d *n"], target: Float[Tensor, "b g d *n"]
) -> Float[Tensor, " b"]:
    """The energy score E‖s − t‖ − ½E‖s − s'‖ from two samples, with norms over dimension 2, in their root mean square.

    Gneiting & Raftery 2007, section 4.2: proper, so that its mean is least for samples of the target's own
    distribution. Means over everything but the batch.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        # the small term keeps the gradient finite where two samples are equal
        return ((a - b).square().mean(2) + 1e-8).sqrt().flatten(1).mean(1)

    return 0.5 * (distance(first, target) + distance(second, target) - distance(first, second))


def latent_energy_score(first: Latent, second: Latent, target: Latent, group: int, block: int) -> Float[Tensor, " b"]:
    """The energy score per position and per block×block of positions, each over groups of neighbouring channels.

    Arguments in steps. One norm over all 320 channels sees little but the sum of their variances, so that a sample of the
    right total energy in the wrong channels would do; groups of neighbouring (KLT-ordered) channels tell bands apart.
    """
    _, c, h, w = target.shape
    groups = [t.float().unflatten(1, (max(1, c // group), -1)) for t in (first, second, target)]
    score = energy_score(*groups)
    if block > 1 and h >= block and w >= block:
        blocks = [
            F.pixel_unshuffle(t.flatten(1, 2)[..., : h - h % block, : w - w % block], block).unflatten(
                1, (t.shape[1], -1)
            )
            for t in groups
        ]
        score = score + energy_score(*blocks)
    return score


def feature_energy_score(
    first: Sequence[Tensor], second: Sequence[Tensor], target: Sequence[Tensor], group: int, pool: int
) -> Tensor:
    """The energy score between features of two samples and of the original, mean over the taps: (b,).

    Each argument: features (b, c, h, w) by tap, as `LPIPS.extract` gives them, weighed by the roots of LPIPS' heads. Taken
    per position and, added to that, over the means of pool×pool positions. group: channels per norm, 0 for all of a tap;
    a norm over many channels rewards noise in any of them, up to the right sum.
    """
    total = target[0].new_zeros(target[0].shape[0])
    for triple in zip(first, second, target, strict=True):
        channels = triple[0].shape[1]
        groups = max(1, channels // group) if group else 1
        views = [list(triple)]
        if min(triple[0].shape[-2:]) >= pool > 1:
            views.append([F.avg_pool2d(t, pool) for t in triple])
        for view in views:
            parts = [t.unflatten(1, (groups, -1)) for t in view]
            # the norms are root mean squares: back to the length of unit vectors
            total = total + math.sqrt(channels) * energy_score(*parts)
    return total / len(target)
