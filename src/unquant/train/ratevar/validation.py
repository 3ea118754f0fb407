"""What validation of `ratevar` looks at: decodes with real rounding, and pictures of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from unquant.networks.common import SideInfo, log2_q_of
from unquant.networks.ratevar import Ratevar
from unquant.shapes import Image
from unquant.train.data import Photos
from unquant.train.validation import fixed_crops, fixed_noise, save_rows, validation_indices

__all__ = ["reconstruct", "save_samples"]


@torch.no_grad()
def reconstruct(model: Ratevar, x: Image, q_index: int, realism: float) -> tuple[Image, Tensor]:
    """Forward pass with real rounding, without another reverse network than a joint one: image clamped to [0, 1], and bits
    per pixel of each image (b,).
    """
    b = x.shape[0]
    log2_q = torch.full((b, 1, 1, 1), log2_q_of(q_index), device=x.device)
    coded = model.quantise(model.g_a(x), log2_q, noise=False)
    side, rho = SideInfo(coded.v_hat * torch.exp2(log2_q), log2_q, coded.mu, coded.t), torch.full_like(log2_q, realism)
    out = model.g_s(model.restored(side, rho), log2_q, log2_q, rho)
    bits = coded.bits_y.sum((1, 2, 3)) + coded.bits_z.sum((1, 2, 3))
    return out.clamp(0, 1), bits / (x.shape[-2] * x.shape[-1])


@torch.no_grad()
def save_samples(model: Ratevar, photos: Photos, size: int, path: Path, *, reverse: bool = False) -> None:
    """A picture: four held-out crops a row; rows are the originals, then ρ = 0 and ρ = 1 at three steps, finest first.

    reverse: ρ = 1 by way of the reverse network, always with the same noise. A joint one is run in any case.
    """
    x = fixed_crops(photos, 4, size, held_out=True)
    rows, drawn = [x], reverse and not model.config.joint
    with fixed_noise(x.device):
        for q_index in validation_indices(model):
            rows.append(reconstruct(model, x, q_index, 0.0)[0])
            rows.append(_reversed(model, x, q_index) if drawn else reconstruct(model, x, q_index, 1.0)[0])
    save_rows(rows, path)


def _reversed(model: Ratevar, x: Image, q_index: int) -> Image:
    """What a decode at ρ = 1 gives, clamped to [0, 1]: the whole reverse path, then g_s."""
    log2_q = torch.full((x.shape[0], 1, 1, 1), log2_q_of(q_index), device=x.device)
    y, side = model.encode(x, log2_q)
    b, _, h, w = y.shape
    one = torch.ones_like(log2_q)
    y, log2_q_end = model.reverse(side, lambda stream, step, n: torch.randn(b, n, h, w, device=x.device))
    return model.g_s(y, log2_q_end, log2_q, one).clamp(0, 1)
