"""What a training stage is to the loop: a module that draws conditions, computes a loss, and validates."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unquant.networks.common import Model, log2_q_of
from unquant.networks.latent import LatentConfig
from unquant.nn.transforms import LATENT_STRIDE
from unquant.shapes import Image
from unquant.train.data import Photos

__all__ = ["Objective", "draw_log2_q", "draw_shift", "shifted", "shifted_side"]

M = TypeVar("M", bound=Model[Any])

_GRID, _SMALLEST = 16, 32
"""AlexNet's features stand on grids of 4, 8 and 16 pixels, and so do the decoders' strides: a decoder learns textures of such
periods that LPIPS does not see where it always looks, but at any other shift. The smallest side that networks are given."""


class Objective(nn.Module, Generic[M]):
    """One stage over one model; the loop compiles it, wraps it for several devices, and calls it.

    forward(x, draw): the loss terms of a batch, `loss` among them, means over the batch.
    """

    q_map: float
    """Fraction of batches whose step differs across the image."""

    companion: nn.Module | None
    """A network that is trained beside the model and goes into checkpoints, but not into exports."""
    progress: float
    """Where the run stands on its schedule, in [0, 1]; the loop sets it before every draw."""

    guarded: bool
    """Whether `worsened` judges every validation; the loop then goes back to the last state that passed."""

    model: M

    def __init__(self, model: M) -> None:
        super().__init__()
        self.model = model
        self.companion = None
        self.progress = 0.0
        self.guarded = False

    def draw(
        self, batch: int, latent_size: int, generator: torch.Generator, device: torch.device, q_map: float | None = None
    ) -> Any:
        """The conditions of one batch of crops of latent_size² positions; q_map: instead of the stage's own fraction."""
        raise NotImplementedError

    def batch(
        self,
        photos: Photos,
        count: int,
        size: int,
        generator: torch.Generator,
        device: torch.device,
        q_map: float | None = None,
    ) -> tuple[Image, Any]:
        """`count` training crops of size×size and their conditions, as `draw` gives them."""
        x = photos.crops(count, size, generator)
        return x, self.draw(count, size // LATENT_STRIDE, generator, device, q_map)

    def forward(self, x: Image, draw: Any) -> dict[str, Tensor]:
        raise NotImplementedError

    def validate(self, model: M, photos: Photos, size: int, count: int) -> dict[str, float]:
        """A row of figures of held-out crops, `loss` among them. model: the averaged weights, in evaluation mode."""
        raise NotImplementedError

    def save_samples(self, model: M, photos: Photos, size: int, path: Path) -> None:
        """A picture of held-out crops and what the model makes of them."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the stage trains, as AdamW takes it; `lr_scale` of each group multiplies the loop's learning rate."""
        return [{"params": [p for p in self.model.parameters() if p.requires_grad], "lr_scale": 1.0}]

    def worsened(self, row: dict[str, float]) -> str | None:
        """Why a row of validation is worse than the best so far, after the stage has eased what did it; None if it is not."""
        raise NotImplementedError

    def memory(self) -> dict[str, float]:
        """What `worsened` goes by, for a checkpoint; `remember` takes it back."""
        return {}

    def remember(self, memory: dict[str, float]) -> None:
        pass

    def notes(self) -> dict[str, Any]:
        """What the export's metadata shall say of the loss."""
        raise NotImplementedError

    def close(self) -> None:
        """The run is over: let go what works beside it."""


def draw_log2_q(
    batch: int, latent_size: int, model: LatentConfig, q_map: float, generator: torch.Generator
) -> Float[Tensor, "b 1 _ _"]:
    """log2 q, uniform over the model's range and stratified over the batch; at times (q_map) a map of two values."""
    low, high = log2_q_of(model.q_index_min), log2_q_of(model.q_index_max)
    strata = (torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)) / batch
    log2_q = (low + (high - low) * strata).view(batch, 1, 1, 1)
    if torch.rand((), generator=generator) < q_map:
        other = low + (high - low) * torch.rand(batch, 1, 1, 1, generator=generator)
        edge = torch.randint(1, latent_size, (2,), generator=generator)
        inside = torch.zeros(1, 1, latent_size, latent_size, dtype=torch.bool)
        inside[..., : int(edge[0]), : int(edge[1])] = True
        log2_q = torch.where(inside, other, log2_q)
    return log2_q


def shifted_side(length: int) -> int:
    """Rows or columns that `shifted` leaves of `length`."""
    return max(min(length, _SMALLEST), length - _GRID + 1)


def draw_shift(latent_size: int, generator: torch.Generator) -> Int[Tensor, " 2"]:
    """Rows and columns for `shifted` to cut from crops of latent_size² positions: uniform, 0 to 15."""
    length = latent_size * LATENT_STRIDE
    return torch.randint(length - shifted_side(length) + 1, (2,), generator=generator)


def shifted(x: Image, shift: Int[Tensor, " 2"]) -> Float[Tensor, "b 3 _ _"]:
    """Images for a feature network: without their first rows and columns, as many as `shift` says, 15 smaller for any shift.

    Images below 47 pixels lose less, those of 32 nothing. The shift stays a tensor: a compiled pass is one for all of them.
    """
    rows, columns = (torch.arange(shifted_side(length), device=x.device) for length in x.shape[-2:])
    return x.index_select(2, rows + shift[0]).index_select(3, columns + shift[1])
