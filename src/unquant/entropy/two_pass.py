"""The checkerboard: a hyperprior and a context of 3×3 positions, in two passes.

    features ─┬─►┤pass 1├──► μ, σ of positions with odd i+j ──► v = k + μ
              └─►┤pass 2├◄──┤3×3 context├◄── v (odd positions, 0 elsewhere)
                    └──► μ, σ of positions with even i+j

He et al. 2021, arXiv 2103.15306, on the features of `unquant.entropy.hyperprior`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unquant.entropy.base import Params
from unquant.entropy.gaussian import ScaleGrid
from unquant.entropy.hyperprior import INPUT_SCALE, HyperpriorEntropy, ParamNet
from unquant.shapes import Latent, QMap

__all__ = ["TwoPassEntropy"]


class TwoPassEntropy(HyperpriorEntropy):
    """Hyperprior with a checkerboard context in two passes over `latent` channels.

    hyper, width, cond: as in `HyperpriorEntropy`. context: channels of the 3×3 context. hidden: width of each pass's MLP.
    """

    def __init__(
        self,
        latent: int,
        hyper: int,
        width: int,
        context: int,
        hidden: int,
        cond: int,
        grid: ScaleGrid | None = None,
    ) -> None:
        super().__init__(latent, hyper, width, cond, grid)
        self.context = nn.Conv2d(latent, context, 3, padding=1)
        self.passes = nn.ModuleList([ParamNet(n, hidden, latent, cond) for n in (width, width + context)])
        self.log2_std = nn.Parameter(torch.full((latent,), 2.0))

    def group_params(
        self,
        number: int,
        features: Float[Tensor, "b f h16 w16"],
        v: Latent,
        cond: Float[Tensor, "b e hq wq"],
        log2_q: QMap,
        positions: Int[Tensor, " n"],
    ) -> Params:
        gathered = [features.flatten(2)[:, :, positions]]
        if number:
            gathered.append(self.context(v * INPUT_SCALE).flatten(2)[:, :, positions])
        cond, log2_q = self._at(positions, cond, log2_q)
        return self._scaled(self.passes[number](torch.cat(gathered, dim=1)[..., None], cond), log2_q)
