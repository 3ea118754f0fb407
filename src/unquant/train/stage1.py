"""Stage 1: g_a, g_s and the entropy model, all rates and all realism values in one run (docs/design.md)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unquant.errors import OptionError
from unquant.models.ratevar import Q_INDEX_OCTAVE, RatevarConfig, RatevarOutput
from unquant.perceptual import LPIPS
from unquant.shapes import Image, QMap

__all__ = ["Draw", "Stage1Config", "Stage1Terms", "draw_conditions", "stage1_loss", "train_step"]


@dataclass(frozen=True, slots=True)
class Stage1Config:
    """Weights and sampling of the stage-1 loss.

    lambda0: λ = lambda0/q². lpips_weight: w of ρ·w·LPIPS (network lpips_net), next to 255²·MSE; 0 turns LPIPS off.
    realism_zero, realism_one: fractions of a batch with ρ = 0 and ρ = 1, the rest is uniform. q_map: fraction of batches
    whose step differs across the image.
    """

    lambda0: float = 0.12
    lpips_weight: float = 300.0
    lpips_net: str = "alex"
    realism_zero: float = 0.5
    realism_one: float = 0.2
    q_map: float = 0.125

    def __post_init__(self) -> None:
        if not self.lambda0 > 0:
            raise OptionError(f"lambda0: above 0, not {self.lambda0}")
        if not self.lpips_weight >= 0:
            raise OptionError(f"lpips_weight: 0 or more, not {self.lpips_weight}")
        if self.lpips_net not in ("alex", "vgg"):
            raise OptionError(f"lpips_net: alex or vgg, not {self.lpips_net!r}")
        for name in ("realism_zero", "realism_one", "q_map"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name}: in 0..1, not {getattr(self, name)}")
        if self.realism_zero + self.realism_one > 1:
            raise OptionError(f"realism_one: at most 1 - realism_zero, not {self.realism_one}")


class Draw(NamedTuple):
    """Conditions of one batch: log2 q (b, 1, 1, 1) or (b, 1, h16, w16), and ρ (b, 1, 1, 1), the ρ = 0 images first."""

    log2_q: QMap
    realism: Float[Tensor, "b 1 1 1"]
    zeros: int


class Stage1Terms(NamedTuple):
    """Loss and its parts, means over the batch: bits per pixel, 255²·MSE, LPIPS over the images with ρ > 0."""

    loss: Tensor
    bpp: Tensor
    distortion: Tensor
    lpips: Tensor


def draw_conditions(
    batch: int,
    latent_size: int,
    model: RatevarConfig,
    config: Stage1Config,
    generator: torch.Generator,
    device: torch.device,
) -> Draw:
    """Draw q (log-uniform over the model's range, stratified over the batch; at times a two-valued map) and ρ."""
    low, high = model.q_index_min / Q_INDEX_OCTAVE, model.q_index_max / Q_INDEX_OCTAVE
    strata = (torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)) / batch
    log2_q = (low + (high - low) * strata).view(batch, 1, 1, 1)
    if torch.rand((), generator=generator) < config.q_map:
        other = low + (high - low) * torch.rand(batch, 1, 1, 1, generator=generator)
        edge = torch.randint(1, latent_size, (2,), generator=generator)
        inside = torch.zeros(1, 1, latent_size, latent_size, dtype=torch.bool)
        inside[..., : int(edge[0]), : int(edge[1])] = True
        log2_q = torch.where(inside, other, log2_q)
    zeros = round(batch * config.realism_zero) if config.lpips_weight else batch
    ones = min(round(batch * config.realism_one), batch - zeros)
    realism = torch.cat([torch.zeros(zeros), torch.rand(batch - zeros - ones, generator=generator), torch.ones(ones)])
    return Draw(log2_q.to(device), realism.view(batch, 1, 1, 1).to(device), zeros)


def stage1_loss(x: Image, out: RatevarOutput, draw: Draw, config: Stage1Config, lpips: LPIPS | None) -> Stage1Terms:
    """mean[(R + λ·d)/sqrt(λ)] with λ = λ0/q² and d = 255²·MSE + ρ·w·LPIPS, per latent position where q is a map."""
    root_lambda = math.sqrt(config.lambda0) * torch.exp2(-draw.log2_q)
    pixels = x.shape[-2] * x.shape[-1]
    bits_y = out.bits_y.sum(1, keepdim=True)
    rate = bits_y * (bits_y.shape[-2] * bits_y.shape[-1] / pixels)
    rate_z = out.bits_z.sum((1, 2, 3)).view(-1, 1, 1, 1) / pixels
    squared = (out.x_hat - x).square().mean(1, keepdim=True) * 255.0**2
    distortion = torch.nn.functional.avg_pool2d(squared, x.shape[-1] // bits_y.shape[-1])
    loss = ((rate + rate_z) / root_lambda + root_lambda * distortion).mean()
    perceptual = torch.zeros((), device=x.device)
    if lpips is not None and draw.zeros < x.shape[0]:
        distance = lpips(out.x_hat[draw.zeros :], x[draw.zeros :])
        perceptual = distance.mean()
        weight = draw.realism[draw.zeros :].flatten() * root_lambda.expand(x.shape[0], 1, -1, -1)[draw.zeros :].mean(
            (1, 2, 3)
        )
        loss = loss + config.lpips_weight * (weight * distance).sum() / x.shape[0]
    return Stage1Terms(loss, (rate + rate_z).mean(), distortion.mean(), perceptual)


def train_step(
    model: Callable[..., RatevarOutput], x: Image, draw: Draw, config: Stage1Config, lpips: LPIPS | None
) -> Stage1Terms:
    """Forward pass and loss of one batch (call backward on `.loss`). model: a Ratevar, compiled or wrapped as it may be."""
    return stage1_loss(x, model(x, draw.log2_q, draw.realism), draw, config, lpips)
