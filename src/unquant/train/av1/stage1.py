"""Training of f of `av1` on pairs of pictures; its stage 1: f alone, at every step of AV1's quantiser, at ρ = 0 and ρ = 1.

    L = mean[ w_0·w·255²·MSE ] at ρ = 0
    L = mean[ w·(255²·MSE + w_C·255²·MSE of Cb and Cr + w_G·G + w_L·LPIPS + w_D·DISTS) ] at ρ = 1
    w = 1/(255²·MSE(x_q) + 4)

G is the excess of local energies (`excess_grain`). w makes an image count by the share of its error that is taken away, so
that all rates are learnt alike. The noise of ρ = 1 is in from the first step on.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from unquant.networks.av1 import Av1
from unquant.perceptual import DISTS, LPIPS, Network
from unquant.settings import Share, settings
from unquant.shapes import Image
from unquant.train.av1.objective import PairsObjective, redrawn, weight_of
from unquant.train.av1.pairs import PairBatch, PairsConfig
from unquant.train.objective import draw_shift, shifted
from unquant.train.structure import excess_grain, squared, squared_of_chroma

__all__ = ["RedrawConfig", "RedrawDraw", "RedrawStage"]


@settings
class RedrawConfig:
    """Weights and sampling of the loss.

    mean_weight: w_0, without which the gradients of LPIPS drown those of ρ = 0. chroma_weight: w_C. grain_weight: w_G.
    lpips_weight: w_L, network lpips_net; 0 trains realism 0 alone. dists_weight: w_D, in dists_share of the batches on
    dists_crops squares of dists_size pixels; 0 leaves DISTS out. realism_zero: fraction of a batch with ρ = 0. Raises
    OptionError.
    """

    mean_weight: NonNegativeFloat = 60.0
    chroma_weight: NonNegativeFloat = 0.0
    grain_weight: NonNegativeFloat = 0.0
    lpips_weight: NonNegativeFloat = 1000.0
    lpips_net: Network = "alex"
    dists_weight: NonNegativeFloat = 0.0
    dists_share: Share = 0.25
    dists_crops: PositiveInt = 2
    dists_size: Annotated[int, Field(ge=32)] = 128
    realism_zero: Share = 0.4


class RedrawDraw(NamedTuple):
    """What one batch is trained at: the coded crops, what f is told of them, ρ (b, 1, 1, 1), the ρ = 0 images first.

    shift: of the feature networks' grids, as `shifted` takes it. dists: whether this batch sees DISTS.
    """

    x_q: Image
    coding: Float[Tensor, "b k"]
    realism: Float[Tensor, "b 1 1 1"]
    zeros: int
    shift: Int[Tensor, " 2"]
    dists: bool


class RedrawStage(PairsObjective):
    """Stage 1: all of f in one run."""

    def __init__(
        self, model: Av1, config: RedrawConfig, pairs: PairsConfig, lpips: LPIPS | None, dists: DISTS | None
    ) -> None:
        super().__init__(model, pairs, {"lpips": lpips} if lpips is not None else {})
        self.config, self.lpips, self.dists = config, lpips, dists

    def draw_of(self, pairs: PairBatch, generator: torch.Generator, device: torch.device) -> RedrawDraw:
        count, size = len(pairs.x), pairs.x.shape[-1]
        zeros = round(count * self.config.realism_zero) if self.lpips is not None else count
        realism = (torch.arange(count) >= zeros).float().view(-1, 1, 1, 1).to(device)
        shift = draw_shift(size // 16, generator).to(device)
        dists = self.dists is not None and float(torch.rand((), generator=generator)) < self.config.dists_share
        return RedrawDraw(pairs.x_q, pairs.coding, realism, zeros, shift, dists)

    def forward(self, x: Image, draw: RedrawDraw) -> dict[str, Tensor]:
        """`loss` and its parts: `left`, the share of AV1's squared error that is left at ρ = 0, and `lpips` at ρ = 1."""
        x_hat = redrawn(self.model, draw.x_q, draw.coding, draw.realism)
        c, zeros, count = self.config, draw.zeros, x.shape[0]
        error, base = squared(x_hat, x), squared(draw.x_q, x)
        weight = weight_of(base)
        loss = (weight * error).mean() + (c.mean_weight - 1) * (weight * error)[:zeros].sum() / count
        if c.chroma_weight:
            chroma = squared_of_chroma(x_hat[zeros:], x[zeros:])
            loss = loss + c.chroma_weight * (weight[zeros:] * chroma).sum() / count
        terms: dict[str, Tensor] = {}
        if c.grain_weight and zeros < count:
            grain = excess_grain(x_hat[zeros:], x[zeros:])
            loss = loss + c.grain_weight * (weight[zeros:] * grain).sum() / count
            terms["grain"] = grain.mean()
        if zeros:
            # AV1 may have been lossless
            terms["left"] = error[:zeros].sum() / base[:zeros].sum().clamp(min=1e-6)
        if self.lpips is not None and zeros < count:
            seen = [shifted(picture[zeros:], draw.shift) for picture in (x_hat, x)]
            distance = self.lpips(*seen)
            loss = loss + c.lpips_weight * (weight[zeros:] * distance).sum() / count
            terms["lpips"] = distance.mean()
            if draw.dists:
                assert self.dists is not None
                n, side = c.dists_crops, min(c.dists_size, seen[0].shape[-1])
                distance = self.dists(*(picture[:n, :, :side, :side] for picture in seen))
                # one batch in so many, and a few of its crops, speak for all at ρ = 1
                share = (count - zeros) / count / len(distance) / c.dists_share
                loss = loss + c.dists_weight * share * (weight[zeros : zeros + n] * distance).sum()
        return {"loss": loss, **terms}

    def notes(self) -> dict[str, Any]:
        c = self.config
        return {"lpips_net": c.lpips_net, "lpips_weight": c.lpips_weight, "dists_weight": c.dists_weight}
