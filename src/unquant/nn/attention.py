"""Linear attention, over a whole plane or within fixed blocks of it, and the channel norm that goes before it.

    x ──►┤1×1├──► q, k, v        k ──►┤softmax over positions├──►┤k·vᵀ, d×d├──►┤qᵀ·, per position├──►┤1×1├──►

Shen et al. 2021, arXiv 1812.01243, in the form of Yang & Mandt (arXiv 2209.06950): the cost grows with the number of
positions, not with its square.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["AttentionResidual", "ChannelNorm", "LinearAttention"]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each position: no spatial statistics. x: (b, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias).permute(0, 3, 1, 2)


class LinearAttention(nn.Module):
    """Every position reads one d×d summary of the keys and values, d = channels; a single head.

    block: None for one summary of the whole plane, which then cannot be split into windows; or the side, in positions, of
    the blocks that are summed up on their own, counted from the plane's top left corner. Windows that start on the blocks'
    grid see the blocks of the whole plane; at its far borders blocks are cut short.
    """

    def __init__(self, channels: int, block: int | None = None) -> None:
        super().__init__()
        self.block = block
        self.scale = channels**-0.5
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        q, k, v = self.qkv(x).chunk(3, dim=1)
        if self.block is None:
            mixed = self._mix(q.flatten(2), k.flatten(2), v.flatten(2)).unflatten(2, x.shape[-2:])
        else:
            # a key of −∞ has no weight: what fills up the blocks at the borders is not seen
            parts = (self._split(plane, fill) for plane, fill in ((q, 0.0), (k, -torch.inf), (v, 0.0)))
            mixed = self._join(self._mix(*parts), x)
        return self.out(mixed)

    def _mix(
        self, q: Float[Tensor, "n c p"], k: Float[Tensor, "n c p"], v: Float[Tensor, "n c p"]
    ) -> Float[Tensor, "n c p"]:
        summary = v @ k.softmax(dim=-1).to(v.dtype).mT
        return summary @ (q * self.scale)

    def _split(self, plane: Float[Tensor, "b c h w"], fill: float) -> Float[Tensor, "n c p"]:
        """(b·rows·columns of blocks, c, block²), short blocks filled up."""
        side = self.block or 0
        h, w = plane.shape[-2:]
        plane = F.pad(plane, (0, -w % side, 0, -h % side), value=fill)
        cells = plane.unflatten(3, (-1, side)).unflatten(2, (-1, side))
        return cells.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).flatten(2)

    def _join(self, parts: Float[Tensor, "n c p"], like: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        side = self.block or 0
        h, w = like.shape[-2:]
        cells = parts.unflatten(2, (side, side)).unflatten(0, (len(like), -(-h // side), -(-w // side)))
        return cells.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)[..., :h, :w]


class AttentionResidual(nn.Module):
    """x + attention(norm(x))."""

    def __init__(self, channels: int, block: int | None = None) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.attention = LinearAttention(channels, block)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.attention(self.norm(x))
