"""Validation during a run: fixed crops at fixed steps, held-out against seen, and pictures of them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image as PILImage
from torch import Tensor

from unquant.models.ratevar import Q_INDEX_OCTAVE, Ratevar
from unquant.perceptual import LPIPS
from unquant.shapes import Image
from unquant.train.data import Photos
from unquant.train.stage1 import Stage1Config

__all__ = ["reconstruct", "save_samples", "validate"]


@torch.no_grad()
def reconstruct(model: Ratevar, x: Image, q_index: int, realism: float) -> tuple[Image, Tensor]:
    """Plain forward pass with real rounding: image clamped to [0, 1], and bits per pixel of each image (b,)."""
    b = x.shape[0]
    log2_q = torch.full((b, 1, 1, 1), q_index / Q_INDEX_OCTAVE, device=x.device)
    coded = model.quantise(model.g_a(x), log2_q, noise=False)
    out = model.g_s(coded.v_hat * torch.exp2(log2_q), log2_q, log2_q, torch.full_like(log2_q, realism))
    bits = coded.bits_y.sum((1, 2, 3)) + coded.bits_z.sum((1, 2, 3))
    return out.clamp(0, 1), bits / (x.shape[-2] * x.shape[-1])


def _fixed(photos: Photos, count: int, size: int, *, held_out: bool) -> Image:
    return photos.crops(count, size, torch.Generator().manual_seed(7), held_out=held_out, augment=False)


def validation_indices(model: Ratevar) -> list[int]:
    """Three steps of the model's range: at a sixth, a half and five sixths."""
    low, high = model.config.q_index_min, model.config.q_index_max
    return [round(low + (high - low) * f / 6) for f in (1, 3, 5)]


@torch.no_grad()
def validate(
    model: Ratevar, photos: Photos, size: int, count: int, config: Stage1Config, lpips: LPIPS | None
) -> dict[str, float]:
    """bpp, PSNR at ρ = 0 and LPIPS at ρ = 1 of held-out crops at three steps, named by q index.

    `loss` is the stage-1 loss of the plain decode, (R + λ·255²·MSE)/sqrt(λ), the mean over the three steps; `gap` is the
    PSNR of held-out crops over that of training crops, in dB. model: in evaluation mode. Needs a held-out image of size×size.
    """
    row: dict[str, float] = {}
    losses: list[float] = []
    gaps: list[float] = []
    x, seen = (_fixed(photos, count, size, held_out=held) for held in (True, False))
    for q_index in validation_indices(model):
        plain, bits = reconstruct(model, x, q_index, 0.0)
        mse, bpp = (plain - x).square().mean((1, 2, 3)), float(bits.mean())
        row |= {f"bpp_{q_index}": bpp, f"psnr_{q_index}": _psnr(mse)}
        gaps.append(_psnr(mse) - _psnr((reconstruct(model, seen, q_index, 0.0)[0] - seen).square().mean((1, 2, 3))))
        root_lambda = math.sqrt(config.lambda0) * 2 ** (-q_index / Q_INDEX_OCTAVE)
        losses.append(bpp / root_lambda + root_lambda * float(mse.mean()) * 255**2)
        if lpips is not None:
            row[f"lpips_{q_index}"] = float(lpips(reconstruct(model, x, q_index, 1.0)[0], x).mean())
    return {**row, "loss": sum(losses) / len(losses), "gap": sum(gaps) / len(gaps)}


def _psnr(mse: Tensor) -> float:
    """Mean PSNR in dB from the squared errors (b,) of images of peak 1."""
    return float((-10 * mse.clamp(min=1e-8).log10()).mean())


@torch.no_grad()
def save_samples(model: Ratevar, photos: Photos, size: int, path: Path) -> None:
    """A picture: four held-out crops a row; rows are the originals, then ρ = 0 and ρ = 1 at three steps, finest first."""
    x = _fixed(photos, 4, size, held_out=True)
    rows = [x]
    for q_index in validation_indices(model):
        rows += [reconstruct(model, x, q_index, realism)[0] for realism in (0.0, 1.0)]
    grid = torch.cat([torch.cat(list(r), dim=2) for r in rows], dim=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray((grid * 255).round().byte().permute(1, 2, 0).cpu().numpy()).save(path)
