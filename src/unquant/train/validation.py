"""Validation during a run: fixed crops at fixed steps, held-out against seen, and pictures of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image as PILImage
from torch import Tensor

from unquant.networks.common import log2_q_of
from unquant.networks.latent import LatentModel
from unquant.perceptual import LPIPS
from unquant.shapes import Image
from unquant.train.data import Photos

__all__ = [
    "fixed_crops",
    "fixed_noise",
    "psnr_of",
    "save_rows",
    "validate",
    "validation_indices",
]

M = TypeVar("M", bound=LatentModel[Any, Any, Any])


def fixed_crops(photos: Photos, count: int, size: int, *, held_out: bool) -> Image:
    """The crops that every validation of a run looks at."""
    return photos.crops(count, size, torch.Generator().manual_seed(7), held_out=held_out, augment=False)


def validation_indices(model: LatentModel[Any, Any, Any]) -> list[int]:
    """Three steps of the model's range: at a sixth, a half and five sixths."""
    low, high = model.config.q_index_min, model.config.q_index_max
    return [round(low + (high - low) * f / 6) for f in (1, 3, 5)]


@torch.no_grad()
def validate(
    model: M,
    photos: Photos,
    size: int,
    count: int,
    lambda0: float,
    lpips: LPIPS | None,
    decode: Callable[[M, Image, int, float], tuple[Image, Tensor]],
) -> dict[str, float]:
    """bpp, PSNR at realism 0 and LPIPS at realism 1 of held-out crops at three steps, named by q index.

    `loss` is the stage-1 loss of the plain decode, (R + λ·255²·MSE)/sqrt(λ), the mean over the three steps; `gap` is the
    PSNR of held-out crops over that of training crops, in dB. model: in evaluation mode. Needs a held-out image of size×size.
    decode: takes model, crops, q index and realism, and gives images clamped to [0, 1] and bits per pixel of each, (b,).
    """
    row: dict[str, float] = {}
    losses: list[float] = []
    gaps: list[float] = []
    x, seen = (fixed_crops(photos, count, size, held_out=held) for held in (True, False))
    for q_index in validation_indices(model):
        plain, bits = decode(model, x, q_index, 0.0)
        mse, bpp = (plain - x).square().mean((1, 2, 3)), float(bits.mean())
        row |= {f"bpp_{q_index}": bpp, f"psnr_{q_index}": psnr_of(mse)}
        gaps.append(psnr_of(mse) - psnr_of((decode(model, seen, q_index, 0.0)[0] - seen).square().mean((1, 2, 3))))
        root_lambda = math.sqrt(lambda0) * 2 ** (-log2_q_of(q_index))
        losses.append(bpp / root_lambda + root_lambda * float(mse.mean()) * 255**2)
        if lpips is not None:
            row[f"lpips_{q_index}"] = float(lpips(decode(model, x, q_index, 1.0)[0], x).mean())
    return {**row, "loss": sum(losses) / len(losses), "gap": sum(gaps) / len(gaps)}


def psnr_of(mse: Tensor) -> float:
    """Mean PSNR in dB from the squared errors (b,) of images of peak 1."""
    return float((-10 * mse.clamp(min=1e-8).log10()).mean())


@contextmanager
def fixed_noise(device: torch.device) -> Generator[None]:
    """Within it the default generators give the same noise every time; after it they go on where they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(11)
        yield


def save_rows(rows: list[Image], path: Path) -> None:
    """A picture of rows of images of one size, in [0, 1]."""
    grid = torch.cat([torch.cat(list(r), dim=2) for r in rows], dim=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray((grid * 255).round().byte().permute(1, 2, 0).cpu().numpy()).save(path)
