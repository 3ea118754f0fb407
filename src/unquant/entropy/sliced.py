"""Slices of the channels, each in a checkerboard: a hyperprior, and contexts of the slices before and of the own one.

    slice s:  features ──┬───────────►┤pass 1├──► μ, σ of positions with odd i+j ──► v = k + μ
              v of the slices before ─┤3×3├─┤                                        │
                         └───────────►┤pass 2├◄────┤3×3 context of the slice├◄───────┘
                                         └──► μ, σ of positions with even i+j

Channel slices as in Minnen & Singh 2020 (arXiv 2007.08739), uneven ones with a checkerboard in each as in He et al. 2022
(arXiv 2203.10886), on the features of `unquant.entropy.hyperprior`. The channels with the most bits are to come first: the
transforms start so (`klt_basis`), and weights that are taken over are sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unquant.entropy.base import Group, Params
from unquant.entropy.gaussian import ScaleGrid
from unquant.entropy.hyperprior import INPUT_SCALE, HyperpriorEntropy, ParamNet
from unquant.errors import OptionError
from unquant.shapes import Latent, QMap

__all__ = ["SlicedEntropy", "slices_of"]


def slices_of(channels: int, shares: Sequence[float]) -> list[slice]:
    """Slices of so many channels by their shares, of sum 1. Raises OptionError for a slice without a channel."""
    edges = [0, *(round(channels * share) for share in accumulate(shares))]
    if any(start == stop for start, stop in pairwise(edges)):
        raise OptionError(f"slices: {channels} channels are too few for {list(shares)}")
    return [slice(*pair) for pair in pairwise(edges)]


class SlicedEntropy(HyperpriorEntropy):
    """Hyperprior with two passes of a checkerboard for each slice of the `latent` channels.

    shares: of the channels, one a slice, in coding order; their sum is 1. hyper, width, cond: as in `HyperpriorEntropy`.
    context, hidden: as in `TwoPassEntropy`, but each context has half as many channels and each MLP half the width, so that
    four slices have about its parameters. Raises OptionError for a slice without a channel.
    """

    def __init__(
        self,
        latent: int,
        shares: Sequence[float],
        hyper: int,
        width: int,
        context: int,
        hidden: int,
        cond: int,
        grid: ScaleGrid | None = None,
    ) -> None:
        super().__init__(latent, hyper, width, cond, grid)
        self.slices = slices_of(latent, shares)
        context, hidden = context // 2, hidden // 2
        self.before = nn.ModuleList([nn.Conv2d(part.start, context, 3, padding=1) for part in self.slices[1:]])
        self.own = nn.ModuleList([nn.Conv2d(part.stop - part.start, context, 3, padding=1) for part in self.slices])
        self.passes = nn.ModuleList(
            [
                ParamNet(width + contexts * context, hidden, part.stop - part.start, cond)
                for number, part in enumerate(self.slices)
                for contexts in (min(number, 1), min(number, 1) + 1)
            ]
        )
        self.log2_std = nn.Parameter(torch.full((latent,), 2.0))

    @property
    def groups(self) -> tuple[Group, ...]:
        return tuple(Group(parity, part) for part in self.slices for parity in (0, 1))

    def group_params(
        self,
        number: int,
        features: Float[Tensor, "b f h16 w16"],
        v: Latent,
        cond: Float[Tensor, "b e hq wq"],
        log2_q: QMap,
        positions: Int[Tensor, " n"],
    ) -> Params:
        index, second = divmod(number, 2)
        part = self.slices[index]
        maps = [features]
        if index:
            maps.append(self.before[index - 1](v[:, : part.start] * INPUT_SCALE))
        if second:
            maps.append(self.own[index](v[:, part] * INPUT_SCALE))
        gathered = torch.cat([plane.flatten(2)[:, :, positions] for plane in maps], dim=1)
        cond, log2_q = self._at(positions, cond, log2_q)
        return self._scaled(self.passes[number](gathered[..., None], cond), log2_q, part)
