"""The training of `cdc`: compressor, entropy model and U-Net in one run, at every rate, noise level and realism.

    L = mean[ a·R/√λ + √λ·((1 − ρ)·255²·E + ρ·w·LPIPS(x̂_0)) ],    λ = λ0/q²

Yang & Mandt, arXiv 2209.06950, section 3, with β·bpp as ρ-independent rate at the step q. ρ is 0 or the one trained value.
E is the parameterisation's loss. A share of the images stands at the noisiest level, where x_t says nothing: there E is the
squared error of what the latent alone gives, which calibrates rate against distortion and makes one-step decodes. a rises
from nearly 0 to 1 at the start of the schedule: at the full price of bits a fresh U-Net takes the latent for useless.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unquant.diffusion.parameterisation import MAX_SNR, Parameterisation
from unquant.errors import OptionError
from unquant.models.cdc import CdcConfig, CdcOutput
from unquant.perceptual import LPIPS
from unquant.shapes import Image, QMap
from unquant.train.objective import draw_log2_q

__all__ = ["DiffusionConfig", "DiffusionTerms", "LevelDraw", "diffusion_loss", "draw_levels", "rate_share"]


@dataclass(frozen=True, slots=True)
class DiffusionConfig:
    """Weights and sampling of the loss of `cdc`.

    lambda0: λ = lambda0/q². realism: the loss's ρ of a decode at realism 1. lpips_weight: w, network lpips_net; 0 trains
    realism 0 alone. error_weight: of E for "epsilon", whose error is of another kind. realism_zero: fraction of a batch with
    realism 0. at_start: fraction at the noisiest level ("x" only). q_map: fraction of batches whose step differs across the
    image. rate_warmup: share of the schedule in which a rises to 1. Raises OptionError naming the key out of range.
    """

    lambda0: float = 0.12
    realism: float = 0.9
    lpips_weight: float = 1000.0
    lpips_net: str = "alex"
    error_weight: float = 1.0
    realism_zero: float = 0.5
    at_start: float = 0.5
    q_map: float = 0.0625
    rate_warmup: float = 0.05

    def __post_init__(self) -> None:
        for name in ("lambda0", "error_weight"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name}: above 0, not {getattr(self, name)}")
        if not self.lpips_weight >= 0:
            raise OptionError(f"lpips_weight: 0 or more, not {self.lpips_weight}")
        if self.lpips_net not in ("alex", "vgg"):
            raise OptionError(f"lpips_net: alex or vgg, not {self.lpips_net!r}")
        for name in ("realism", "realism_zero", "at_start", "q_map", "rate_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name}: in 0..1, not {getattr(self, name)}")


class LevelDraw(NamedTuple):
    """Conditions of one batch: log2 q, realism 0 or 1 (the zeros first), and the noise level's index, the noisiest last."""

    log2_q: QMap
    realism: Float[Tensor, "b 1 1 1"]
    zeros: int
    level: Int[Tensor, " b"]


class DiffusionTerms(NamedTuple):
    """Loss and its parts, means over the batch: bits per pixel, E, 255²·MSE of the estimate, LPIPS at realism 1."""

    loss: Tensor
    bpp: Tensor
    error: Tensor
    distortion: Tensor
    lpips: Tensor


def draw_levels(
    batch: int,
    latent_size: int,
    model: CdcConfig,
    config: DiffusionConfig,
    generator: torch.Generator,
    device: torch.device,
) -> LevelDraw:
    """Draw q as in stage 1, realism, and levels: uniform, but for the fraction `at_start` of each realism."""
    log2_q = draw_log2_q(batch, latent_size, model, config.q_map, generator)
    zeros = round(batch * config.realism_zero) if config.lpips_weight else batch
    realism = (torch.arange(batch) >= zeros).float()
    level = torch.randint(model.train_steps, (batch,), generator=generator)
    if model.parameterisation == Parameterisation.X.value:
        level[torch.rand(batch, generator=generator) < config.at_start] = model.train_steps - 1
    return LevelDraw(log2_q.to(device), realism.view(batch, 1, 1, 1).to(device), zeros, level.to(device))


def rate_share(progress: float, config: DiffusionConfig) -> float:
    """a at a position of the schedule in [0, 1]: 10⁻³ at its start, geometric up to 1 at `rate_warmup`."""
    if progress >= config.rate_warmup:
        return 1.0
    return 10 ** (-3 * (1 - progress / config.rate_warmup))


def diffusion_loss(
    x: Image,
    out: CdcOutput,
    draw: LevelDraw,
    model: CdcConfig,
    config: DiffusionConfig,
    lpips: LPIPS | None,
    share: float | Tensor = 1.0,
) -> DiffusionTerms:
    """The loss of a batch, see above; share: a. With a q map the rate is weighed per position, the rest by its mean."""
    root_lambda = math.sqrt(config.lambda0) * torch.exp2(-draw.log2_q)
    weight = root_lambda.mean((1, 2, 3))
    pixels = x.shape[-2] * x.shape[-1]
    bits_y = out.bits_y.sum(1, keepdim=True)
    rate = (bits_y / root_lambda).sum((1, 2, 3)) + out.bits_z.sum((1, 2, 3)) / weight
    squared = (out.denoised - x).square().mean((1, 2, 3))
    if model.parameterisation == Parameterisation.X.value:
        # out.error is of [-1, 1] and weighed by min(SNR, 5); 1 at most here
        noisiest = draw.level == model.train_steps - 1
        error = torch.where(noisiest, squared, out.error / (4 * MAX_SNR))
    else:
        error = config.error_weight * out.error
    rho = config.realism * draw.realism[:, 0, 0, 0]
    loss = (share * rate / pixels + weight * (1 - rho) * error * 255.0**2).mean()
    perceptual = torch.zeros((), device=x.device)
    if lpips is not None and draw.zeros < x.shape[0]:
        distance = lpips(out.denoised[draw.zeros :], x[draw.zeros :])
        perceptual = distance.mean()
        scaled = weight[draw.zeros :] * rho[draw.zeros :] * distance
        loss = loss + config.lpips_weight * scaled.sum() / x.shape[0]
    bpp = (out.bits_y.sum() + out.bits_z.sum()) / (pixels * x.shape[0])
    return DiffusionTerms(loss, bpp, error.mean(), squared.mean() * 255.0**2, perceptual)
