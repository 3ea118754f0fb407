"""The U-Net of the reverse path: two resolutions, dense 3×3 convolutions, no attention and no spatial statistics.

inputs ──►┤1×1├──►┤blocks at 1/16├──┬──────────────────────────────►(cat)──►┤blocks at 1/16├──►┤1×1├──►
                                    └─►┤fold 2├──►┤blocks at 1/32├──►┤unfold 2├─┘
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unquant.nn.blocks import ResBlock, resize_map, zero_init

__all__ = ["UNet"]


class UNet(nn.Module):
    """A two-level U-Net with Film conditioning in every block; its last layer is zero at the start.

    inputs, outputs: channels. width: channels inside. depth: residual blocks before, inside and after the fold. cond:
    channels of the condition.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, cond: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(inputs, width, 1)
        self.before = nn.ModuleList(ResBlock(width, cond) for _ in range(depth))
        self.down = nn.Conv2d(4 * width, width, 1)
        self.inside = nn.ModuleList(ResBlock(width, cond) for _ in range(depth))
        self.up = nn.Conv2d(width, 4 * width, 1)
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.after = nn.ModuleList(ResBlock(width, cond) for _ in range(depth))
        self.head = nn.Conv2d(width, outputs, 1)
        zero_init(self.head)
        reach = 2 * depth + 2 * (2 * depth) + 2 * depth + 1
        self.halo, self.align = reach + reach % 2, 2
        """Receptive field beyond a position, and the multiple that windows must start on: the grid of the fold."""

    def forward(self, x: Float[Tensor, "b c h w"], cond: Float[Tensor, "b e _ _"]) -> Float[Tensor, "b d h w"]:
        """x: (b, inputs, h, w); cond: (b, cond, 1, 1) or (b, cond, h, w). Returns (b, outputs, h, w)."""
        height, width = x.shape[-2:]
        h = self.stem(x)
        for block in self.before:
            h = block(h, cond)
        coarse = h
        if height % 2 or width % 2:
            coarse = F.pad(coarse, (0, width % 2, 0, height % 2), mode="replicate")
        coarse = self.down(F.pixel_unshuffle(coarse, 2))
        cond32 = resize_map(cond, coarse.shape[-2], coarse.shape[-1], 2)
        for block in self.inside:
            coarse = block(coarse, cond32)
        coarse = F.pixel_shuffle(self.up(coarse), 2)[..., :height, :width]
        h = self.merge(torch.cat([h, coarse], dim=1))
        for block in self.after:
            h = block(h, cond)
        return self.head(F.silu(h))
