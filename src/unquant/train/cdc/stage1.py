"""The training of `cdc`: compressor, entropy model and U-Net in one run, at every rate, noise level and realism.

    L = mean[ a·R/√λ + √λ·((1 − ρ)·255²·E + ρ·w·LPIPS(x̂_0)) ],    λ = λ0/q²

Yang & Mandt, arXiv 2209.06950, section 3, with β·bpp as ρ-independent rate at the step q. ρ is 0 or the one trained value.
E is the parameterisation's loss. A share of the images stands at the noisiest level, where x_t says nothing: there E is the
squared error of what the latent alone gives, which calibrates rate against distortion and makes one-step decodes. a rises
from nearly 0 to 1 at the start of the schedule: at the full price of bits a fresh U-Net takes the latent for useless. An
Entroformer is pretrained on random masks there (Qian et al., arXiv 2202.05492, section 3).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from unquant.diffusion.parameterisation import MAX_SNR, Parameterisation
from unquant.entropy.entroformer import Entroformer, hidden_positions
from unquant.networks.cdc import Cdc, CdcConfig, CdcOutput
from unquant.networks.common import log2_q_of
from unquant.perceptual import LPIPS, Network
from unquant.settings import Share, settings
from unquant.shapes import Image, QMap
from unquant.train.data import Photos
from unquant.train.objective import Objective, draw_log2_q, draw_shift, shifted
from unquant.train.validation import fixed_crops, fixed_noise, save_rows, validate, validation_indices

__all__ = [
    "Diffusion",
    "DiffusionConfig",
    "DiffusionDraw",
    "DiffusionTerms",
    "LevelDraw",
    "diffusion_loss",
    "draw_levels",
    "rate_share",
]

_VALIDATION_STEPS = 4
"""Of DDIM, at realism 1; more would take longer than they tell."""


@settings
class DiffusionConfig:
    """Weights and sampling of the loss of `cdc`.

    lambda0: λ = lambda0/q². realism: the loss's ρ of a decode at realism 1. lpips_weight: w, network lpips_net; 0 trains
    realism 0 alone. error_weight: of E for "epsilon", whose error is of another kind. realism_zero: fraction of a batch with
    realism 0. at_start: fraction at the noisiest level ("x" only). q_map: fraction of batches whose step differs across the
    image. rate_warmup: share of the schedule in which a rises to 1. mask_pretraining: share of it in which half of the
    positions, drawn at random, take the place of the Entroformer's second pass. Raises OptionError naming the key that is out
    of range.
    """

    lambda0: PositiveFloat = 0.12
    realism: Share = 0.9
    lpips_weight: NonNegativeFloat = 1000.0
    lpips_net: Network = "alex"
    error_weight: PositiveFloat = 1.0
    realism_zero: Share = 0.5
    at_start: Share = 0.5
    q_map: Share = 0.0625
    rate_warmup: Share = 0.05
    mask_pretraining: Share = 0.1


class LevelDraw(NamedTuple):
    """Conditions of one batch: log2 q, realism 0 or 1 (the zeros first), and the noise level's index, the noisiest last.

    shift: of LPIPS's grid, as `shifted` takes it.
    """

    log2_q: QMap
    realism: Float[Tensor, "b 1 1 1"]
    zeros: int
    level: Int[Tensor, " b"]
    shift: Int[Tensor, " 2"]


class DiffusionDraw(NamedTuple):
    """All conditions of one training batch. share: a, (), a tensor so that a compiled pass is one for every value of it.

    hidden: positions (flat) of the Entroformer's second pass while it is pretrained, else None.
    """

    levels: LevelDraw
    share: Float[Tensor, ""]
    hidden: Int[Tensor, " n"] | None


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
    rho = realism.view(batch, 1, 1, 1).to(device)
    return LevelDraw(log2_q.to(device), rho, zeros, level.to(device), draw_shift(latent_size, generator).to(device))


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
        distance = lpips(shifted(out.denoised[draw.zeros :], draw.shift), shifted(x[draw.zeros :], draw.shift))
        perceptual = distance.mean()
        scaled = weight[draw.zeros :] * rho[draw.zeros :] * distance
        loss = loss + config.lpips_weight * scaled.sum() / x.shape[0]
    bpp = (out.bits_y.sum() + out.bits_z.sum()) / (pixels * x.shape[0])
    return DiffusionTerms(loss, bpp, error.mean(), squared.mean() * 255.0**2, perceptual)


class Diffusion(Objective[Cdc]):
    """The one stage of `cdc`: everything together, at every rate, noise level and realism."""

    def __init__(self, model: Cdc, config: DiffusionConfig, lpips: LPIPS | None) -> None:
        super().__init__(model)
        self.config, self.lpips, self.q_map = config, lpips, config.q_map

    def draw(
        self, batch: int, latent_size: int, generator: torch.Generator, device: torch.device, q_map: float | None = None
    ) -> DiffusionDraw:
        config = self.config if q_map is None else replace(self.config, q_map=q_map)
        levels = draw_levels(batch, latent_size, self.model.config, config, generator, device)
        hidden = None
        if isinstance(self.model.entropy, Entroformer) and self.progress < config.mask_pretraining:
            hidden = hidden_positions(latent_size, latent_size, generator).to(device)
        return DiffusionDraw(levels, torch.tensor(rate_share(self.progress, config), device=device), hidden)

    def forward(self, x: Image, draw: DiffusionDraw) -> dict[str, Tensor]:
        """`loss` and its parts: `bpp`, `error`, `distortion`, and `lpips` where it is trained for."""
        levels = draw.levels
        out = self.model(x, levels.log2_q, levels.realism, levels.level, torch.randn_like(x), draw.hidden)
        config = self.model.config
        terms = diffusion_loss(x, out, levels, config, self.config, self.lpips, draw.share)._asdict()
        return {k: v for k, v in terms.items() if k != "lpips" or self.lpips is not None}

    def validate(self, model: Cdc, photos: Photos, size: int, count: int) -> dict[str, float]:
        """At three steps N: `bpp_N`; `psnr_N` of the one-step decode at realism 0; `lpips_N` of four steps at realism 1.

        `loss` and `gap` as in stage 1 of `ratevar`.
        """

        def decode(model: Cdc, x: Image, q_index: int, realism: float) -> tuple[Image, Tensor]:
            return _decoded(model, x, q_index, realism, _VALIDATION_STEPS if realism else 1)

        return validate(model, photos, size, count, self.config.lambda0, self.lpips, decode)

    def save_samples(self, model: Cdc, photos: Photos, size: int, path: Path) -> None:
        """Four held-out crops a row; rows are the originals, then realism 0 and 1 at three steps, finest first."""
        x = fixed_crops(photos, 4, size, held_out=True)
        rows = [x]
        for q_index in validation_indices(model):
            rows += [_decoded(model, x, q_index, realism, model.config.steps)[0] for realism in (0.0, 1.0)]
        save_rows(rows, path)

    def notes(self) -> dict[str, Any]:
        c = self.config
        lpips = f"{c.lpips_net} {c.lpips_weight:g}" if c.lpips_weight else None
        return {"lambda0": c.lambda0, "lpips": lpips, "parameterisation": self.model.config.parameterisation}


@torch.no_grad()
def _decoded(model: Cdc, x: Image, q_index: int, realism: float, steps: int) -> tuple[Image, Float[Tensor, " b"]]:
    """A decode with real rounding, clamped to [0, 1], always with the same noise; and bits per pixel of each image."""
    log2_q = torch.full((len(x), 1, 1, 1), log2_q_of(q_index), device=x.device)
    coded = model.quantise(model.g_a(x), log2_q, noise=False)
    context = model.g_s(coded.v_hat * torch.exp2(log2_q))
    with fixed_noise(x.device):
        start = torch.randn_like(x) if realism else None
    drawn = model.sample(context, log2_q, realism, start, steps=min(steps, model.config.train_steps))
    bits = coded.bits_y.sum((1, 2, 3)) + coded.bits_z.sum((1, 2, 3))
    return drawn.clamp(0, 1), bits / (x.shape[-2] * x.shape[-1])
