"""Stage 1: g_a, g_s, the entropy model and a joint f, all rates and all realism values in one run (docs/design.md)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from unquant.networks.common import SideInfo, log2_q_of
from unquant.networks.ratevar import Ratevar, RatevarConfig, RatevarOutput
from unquant.perceptual import LPIPS, Network
from unquant.settings import Share, settings
from unquant.shapes import Image, QMap
from unquant.train.data import Photos
from unquant.train.objective import Objective, draw_log2_q, draw_shift, shifted
from unquant.train.ratevar.stage2 import noisy_state
from unquant.train.ratevar.validation import reconstruct, save_samples
from unquant.train.validation import validate

__all__ = ["Draw", "Stage1", "Stage1Config", "Stage1Terms", "draw_conditions", "stage1_loss"]


@settings
class Stage1Config:
    """Weights and sampling of the stage-1 loss.

    lambda0: λ = lambda0/q². lpips_weight: w of ρ·w·LPIPS (network lpips_net), next to 255²·MSE; 0 turns LPIPS off.
    tint_weight: of 255²·MSE of the means over 16×16 pixels, for the tints and shades of smooth areas that MSE gives up.
    realism_zero: fraction of a batch with ρ = 0, the rest has ρ = 1 (between the two decodes are blended). mean_weight: how
    much more 255²·MSE of the images with ρ = 0 weighs in what g_s learns; y and its bits keep the balance that λ sets.
    q_map: fraction of batches whose step differs across the image. latent_weight: of what keeps the output of a joint f an
    estimate of y, see `Stage1.held`; without effect where there is none.
    """

    lambda0: PositiveFloat = 0.12
    lpips_weight: NonNegativeFloat = 300.0
    lpips_net: Network = "alex"
    tint_weight: NonNegativeFloat = 0.0
    realism_zero: Share = 0.5
    mean_weight: PositiveFloat = 1.0
    q_map: Share = 0.125
    latent_weight: NonNegativeFloat = 6.0


class Draw(NamedTuple):
    """Conditions of one batch: log2 q (b, 1, 1, 1) or (b, 1, h16, w16), and ρ (b, 1, 1, 1), the ρ = 0 images first.

    shift: of LPIPS's grid, as `shifted` takes it.
    """

    log2_q: QMap
    realism: Float[Tensor, "b 1 1 1"]
    zeros: int
    shift: Int[Tensor, " 2"]

    def weight(self, config: Stage1Config) -> Float[Tensor, "b 1 1 1"]:
        """What the squared error of each image weighs."""
        return torch.where(self.realism == 0, config.mean_weight, 1.0)


class Stage1Terms(NamedTuple):
    """Loss and its parts, means over the batch: bits per pixel, 255²·MSE, LPIPS over the images with ρ = 1."""

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
    log2_q = draw_log2_q(batch, latent_size, model, config.q_map, generator)
    zeros = round(batch * config.realism_zero) if config.lpips_weight else batch
    realism = (torch.arange(batch) >= zeros).float()
    shift = draw_shift(latent_size, generator)
    return Draw(log2_q.to(device), realism.view(batch, 1, 1, 1).to(device), zeros, shift.to(device))


def stage1_loss(x: Image, out: RatevarOutput, draw: Draw, config: Stage1Config, lpips: LPIPS | None) -> Stage1Terms:
    """mean[(R + λ·d)/sqrt(λ)], λ = λ0/q², d = 255²·(MSE + tint_weight·MSE of means over 16×16) + ρ·w·LPIPS, the first two
    per latent position where q is a map; times `mean_weight` where ρ = 0.
    """
    root_lambda = math.sqrt(config.lambda0) * torch.exp2(-draw.log2_q)
    pixels = x.shape[-2] * x.shape[-1]
    bits_y = out.bits_y.sum(1, keepdim=True)
    rate = bits_y * (bits_y.shape[-2] * bits_y.shape[-1] / pixels)
    rate_z = out.bits_z.sum((1, 2, 3)).view(-1, 1, 1, 1) / pixels
    squared = (out.x_hat - x).square().mean(1, keepdim=True) * 255.0**2
    distortion = torch.nn.functional.avg_pool2d(squared, x.shape[-1] // bits_y.shape[-1])
    penalty = distortion
    if config.tint_weight:
        means = torch.nn.functional.avg_pool2d(out.x_hat - x, x.shape[-1] // bits_y.shape[-1])
        penalty = distortion + config.tint_weight * means.square().mean(1, keepdim=True) * 255.0**2
    loss = ((rate + rate_z) / root_lambda + root_lambda * draw.weight(config) * penalty).mean()
    perceptual = torch.zeros((), device=x.device)
    if lpips is not None and draw.zeros < x.shape[0]:
        distance = lpips(shifted(out.x_hat[draw.zeros :], draw.shift), shifted(x[draw.zeros :], draw.shift))
        perceptual = distance.mean()
        weight = root_lambda.expand(x.shape[0], 1, -1, -1)[draw.zeros :].mean((1, 2, 3))
        loss = loss + config.lpips_weight * (weight * distance).sum() / x.shape[0]
    return Stage1Terms(loss, (rate + rate_z).mean(), distortion.mean(), perceptual)


_FURTHER_EVERY, _CLEAN_EVERY = 4, 8
"""One image of so many also gives a state further down the path, and one its clean latent."""


class Stage1(Objective[Ratevar]):
    """All of the codec but an f that is not joint, with every rate and realism in one run."""

    def __init__(self, model: Ratevar, config: Stage1Config, lpips: LPIPS | None) -> None:
        super().__init__(model)
        self.config, self.lpips, self.q_map = config, lpips, config.q_map
        if model.f is not None:
            model.f.requires_grad_(model.config.joint)

    def draw(
        self, batch: int, latent_size: int, generator: torch.Generator, device: torch.device, q_map: float | None = None
    ) -> Draw:
        config = self.config if q_map is None else replace(self.config, q_map=q_map)
        return draw_conditions(batch, latent_size, self.model.config, config, generator, device)

    def forward(self, x: Image, draw: Draw) -> dict[str, Tensor]:
        """`loss` and its parts: `bpp`, `distortion`, `lpips` where it is trained for, `latent` and `clean` with a joint f."""
        out = self.model(x, draw.log2_q, draw.realism, 1 / draw.weight(self.config))
        terms = stage1_loss(x, out, draw, self.config, self.lpips)._asdict()
        if self.model.config.joint:
            latent, clean = self.held(x, out, draw)
            terms |= {"loss": terms["loss"] + latent + clean, "latent": latent, "clean": clean}
        return {k: v for k, v in terms.items() if k != "lpips" or self.lpips is not None}

    def held(self, x: Image, out: RatevarOutput, draw: Draw) -> tuple[Tensor, Tensor]:
        """What keeps the latent between a joint f and g_s an estimate of y, so that any number of steps means something.

        latent: latent_weight·‖f − sg(y)‖²/q a coefficient, on ŷ_T and, for a quarter of the images, on a state of the
        `bridge` further down the path; it reaches g_a only by what f reads. clean: √λ·255²·MSE of g_s on sg(y), told the
        finest step and ρ = 0, for an eighth. Both are means over the batch and weigh as the squared error of an image does.
        """
        f, side, c = self.model.f, out.side, self.config
        assert f is not None
        assert side is not None
        assert out.restored is not None
        y, weight, count = out.y.detach(), draw.weight(c), x.shape[0]
        low = log2_q_of(self.model.config.q_index_min)

        def error(estimate: Tensor, every: int, log2_q: Tensor) -> Tensor:
            squares = (estimate - y[::every]).square() * torch.exp2(-log2_q) * weight[::every]
            return c.latent_weight * squares.mean() * estimate.shape[0] / count

        further = SideInfo(*(part[::_FURTHER_EVERY] for part in side))
        with torch.no_grad():
            share = torch.rand(further.y_file.shape[0], 1, 1, 1, device=x.device)
            log2_q = low + share * (further.log2_q_file - low)
            state = noisy_state(y[::_FURTHER_EVERY], further, log2_q, "bridge", f.tau(further))
        estimate = f(state, log2_q, further, None, draw.realism[::_FURTHER_EVERY])
        # without the state that f adds to: y is not to move after its own rounding
        restored = out.restored - side.y_file + side.y_file.detach()
        latent = error(restored, 1, draw.log2_q) + error(estimate, _FURTHER_EVERY, log2_q)
        some = x[::_CLEAN_EVERY]
        finest = torch.full((some.shape[0], 1, 1, 1), low, device=x.device)
        picture = self.model.g_s(y[::_CLEAN_EVERY], finest, finest, torch.zeros_like(finest))
        root_lambda = math.sqrt(c.lambda0) * 2**-low
        squared = (picture - some).square().mean() * 255.0**2
        return latent, root_lambda * c.mean_weight * squared * some.shape[0] / count

    def validate(self, model: Ratevar, photos: Photos, size: int, count: int) -> dict[str, float]:
        return validate(model, photos, size, count, self.config.lambda0, self.lpips, reconstruct)

    def save_samples(self, model: Ratevar, photos: Photos, size: int, path: Path) -> None:
        save_samples(model, photos, size, path)

    def notes(self) -> dict[str, Any]:
        c = self.config
        lpips = f"{c.lpips_net} {c.lpips_weight:g}" if c.lpips_weight else None
        return {"lambda0": c.lambda0, "lpips": lpips}
