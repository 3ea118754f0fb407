"""A start as a transform codec: the principal directions of photographs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from unquant.networks.latent import LatentModel
from unquant.nn.transforms import LATENT_STRIDE, klt_basis
from unquant.train.data import Photos

__all__ = ["start_from_klt"]

_BATCHES, _CROPS, _SIZE = 12, 64, 128


def start_from_klt(model: LatentModel[Any, Any, Any], photos: Photos, crop: int, generator: torch.Generator) -> None:
    """Start a model from the directions of patches of 16×16 pixels of training photographs, in crops of at most `crop`²."""
    size = min(_SIZE, crop)
    crops = [photos.crops(_CROPS, size, generator) for _ in range(_BATCHES)]
    patches = [F.pixel_unshuffle(c, LATENT_STRIDE).permute(0, 2, 3, 1).flatten(0, 2).cpu() for c in crops]
    model.start_from(*klt_basis(torch.cat(patches), model.config.latent))
