"""Building blocks: conditioning on maps, residual blocks, reference kernels for counting.

No layer here looks at spatial statistics, so every network can run in windows with a halo of its receptive field.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = [
    "WHOLE",
    "Condition",
    "Down",
    "Film",
    "Margins",
    "PositionNorm",
    "ResBlock",
    "resize_map",
    "run_blocks",
    "trim",
    "zero_init",
]


def zero_init(layer: nn.Conv2d | nn.Linear) -> None:
    """Set a layer's weight and bias to 0, in place."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]  # None with bias=False
        nn.init.zeros_(layer.bias)


class Down(nn.Conv2d):
    """A 3×3 convolution to half the resolution, of as many channels. input: (b, c, h, w) to (b, c, ⌈h/2⌉, ⌈w/2⌉).

    On CPUs with matrix units torch's bfloat16 kernel (2.13) reads memory that nobody wrote where an output is one column
    wide and five rows or more high. Such an input is computed with a column of zeros more, which changes nothing in it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2, padding=1)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        width = input.shape[-1]
        if width > 2:
            return super().forward(input)
        return super().forward(F.pad(input, (0, 3 - width)))[..., :1]


def resize_map(m: Float[Tensor, "b k hq wq"], height: int, width: int, shrink: int = 1) -> Float[Tensor, "b k ho wo"]:
    """A conditioning map at another resolution: the mean of shrink×shrink cells, or with shrink = 1 the nearest cell.

    A 1×1 map stays 1×1 (it broadcasts). Position i of a grown map is that of i // f; position i of a shrunk one covers
    those from shrink·i on, the last row and column repeated where they run out.
    """
    h, w = m.shape[-2:]
    if (h, w) == (1, 1):
        return m
    if shrink > 1:
        if (h, w) != (height * shrink, width * shrink):
            m = F.pad(m, (0, width * shrink - w, 0, height * shrink - h), mode="replicate")
        return F.avg_pool2d(m, shrink)
    if (h, w) == (height, width):
        return m
    factor = max(-(-height // h), -(-width // w))
    return m.repeat_interleave(factor, -2).repeat_interleave(factor, -1)[..., :height, :width]


class Condition(nn.Module):
    """A small MLP from conditioning scalars, per position, to the features that `Film` layers read.

    scalars: (b, k, hq, wq), roughly in [-1, 1]. Returns (b, width, hq, wq); hq = wq = 1 for one value per image.
    """

    def __init__(self, scalars: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(scalars, width, 1)
        self.second = nn.Conv2d(width, width, 1)

    def forward(self, scalars: Float[Tensor, "b k hq wq"]) -> Float[Tensor, "b e hq wq"]:
        return F.silu(self.second(F.silu(self.first(scalars))))


class Film(nn.Module):
    """Feature-wise scale and shift, x·(1 + s) + t, with s and t linear in the condition, both 0 at the start.

    Perez et al. 2018, arXiv 1709.07871, here per position. x: (b, c, h, w); cond: (b, e, 1, 1) or (b, e, h, w).
    """

    def __init__(self, cond: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(cond, 2 * channels, 1)
        zero_init(self.proj)

    def forward(self, x: Float[Tensor, "b c h w"], cond: Float[Tensor, "b e _ _"]) -> Float[Tensor, "b c h w"]:
        scale, shift = self.proj(cond).chunk(2, dim=1)
        return torch.addcmul(shift + x, x, scale)


class PositionNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position by itself: nothing spatial. input: (b, c, h, w)."""

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """x + conv(act(film(conv(norm(x))))), two dense 3×3 convolutions; no Film when cond is None, no norm unless asked."""

    def __init__(self, channels: int, cond: int | None = None, *, norm: bool = False) -> None:
        super().__init__()
        self.norm = PositionNorm(channels) if norm else None
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = Film(cond, channels) if cond is not None else None
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "b c h w"], cond: Float[Tensor, "b e _ _"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        h = self.conv1(x if self.norm is None else self.norm(x))
        if self.film is not None:
            assert cond is not None
            h = self.film(h, cond)
        return x + self.conv2(F.silu(h))


class Margins(NamedTuple):
    """How far a window reaches beyond what is wanted of it, on each side, in positions; none where a picture ends.

    A layer needs less of that than the layers before it: a network that is told leaves off what no later one needs.
    """

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def times(self, scale: int) -> Margins:
        """The same in positions of a plane `scale` times as large."""
        return Margins(*(scale * side for side in self))

    def within(self, reach: int) -> Margins:
        """What is left where no more than `reach` is needed."""
        return Margins(*(min(side, reach) for side in self))


WHOLE = Margins()
"""Of a picture of which all is wanted."""


def trim(plane: Float[Tensor, "b c _ _"], margins: Margins, reach: int) -> Float[Tensor, "b c _ _"]:
    """A plane with these margins, cut to margins.within(reach); of a 1×1 map, which holds everywhere, that."""
    if plane.shape[-2:] == (1, 1):
        return plane
    top, bottom, left, right = (max(0, side - reach) for side in margins)
    if not (top or bottom or left or right):
        return plane
    return plane[..., top : plane.shape[-2] - bottom, left : plane.shape[-1] - right]


def run_blocks(
    blocks: nn.ModuleList,
    x: Float[Tensor, "b c h w"],
    cond: Float[Tensor, "b e _ _"],
    margins: Margins,
    reach: int,
) -> Float[Tensor, "b c _ _"]:
    """A row of `ResBlock`, each on no more than the later ones need; returns margins.within(reach).

    margins: of x and cond. reach: of the layers behind the row.
    """
    for left in range(len(blocks), 0, -1):
        needed = reach + 2 * left
        x, cond, margins = trim(x, margins, needed), trim(cond, margins, needed), margins.within(needed)
        x = blocks[len(blocks) - left](x, cond)
    return trim(x, margins, reach)
