"""From a decoded picture to what it was coded from, a residual network in pixel space: f of `av1`, end of `ratevar`'s g_s.

    x_q ──►┤unshuffle 8├──►┤blocks at 1/8├──┬──►┤unshuffle 2├──►┤blocks at 1/16├──►┤shuffle 2├──►(+)──►┤blocks at 1/8├──┐
     │                                      └────────────────────────────────────────────────────►┘                       │
     ├──►┤unshuffle 2├──►┤3×3├──►(+)◄──┤shuffle 4├◄───────────────────────────────────────────────────────────────────────┘
     └──►(+)◄── residual ◄──┤3×3 at 1├◄──┤shuffle 2├◄──┤3×3 at 1/2├

The trunk works at 1/8 and 1/16; the last layers at 1/2 and at full size with kernels that overlap, and noise enters at 1/8
and at 1/2: a residual shuffled up by 8 at once draws textures of period 8, and a network without noise can draw no others.
Without the norms, each over one position's channels, the ends of realism part until one is dead (docs/training-log.md).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unquant.nn.blocks import (
    WHOLE,
    Condition,
    Margins,
    PositionNorm,
    ResBlock,
    resize_map,
    run_blocks,
    trim,
    zero_init,
)
from unquant.settings import Blocks, Width, settings
from unquant.shapes import Image

__all__ = ["COARSE_NOISE", "FINE_NOISE", "REDRAW_STRIDE", "Redraw", "RedrawNoise", "RedrawSizes", "fresh_noise"]

REDRAW_STRIDE = 16
"""Pixels per position of the coarsest level; the sides of an input are multiples of it."""
COARSE_NOISE, FINE_NOISE = 4, 1
"""Channels of the noise at 1/8 and at 1/2."""


class RedrawNoise(NamedTuple):
    """Standard normal noise at 1/8 and at 1/2 of the picture."""

    coarse: Float[Tensor, "b 4 h8 w8"]
    fine: Float[Tensor, "b 1 h2 w2"]


def fresh_noise(count: int, height: int, width: int, device: torch.device) -> RedrawNoise:
    """Noise of torch's default generator for `count` pictures; height, width: in positions of `REDRAW_STRIDE` pixels."""
    coarse = torch.randn(count, COARSE_NOISE, 2 * height, 2 * width, device=device)
    return RedrawNoise(coarse, torch.randn(count, FINE_NOISE, 8 * height, 8 * width, device=device))


@settings
class RedrawSizes:
    """Sizes of a `Redraw`.

    width8, depth8, width16, depth16: channels and residual blocks at 1/8 (as many before the coarse level as after it) and at
    1/16. width2: channels at 1/2. cond: of the condition.
    """

    width8: Width = 160
    depth8: Blocks = 3
    width16: Width = 192
    depth16: Blocks = 2
    width2: Width = 16
    cond: Width = 64


class Redraw(nn.Module):
    """Residual U-Net of two levels, zero at the start. No layer looks at spatial statistics: it runs in windows.

    scalars: how many numbers describe the coding of a picture. The other numbers: as in `RedrawSizes`.
    """

    def __init__(
        self, scalars: int, width8: int, depth8: int, width16: int, depth16: int, width2: int, cond: int
    ) -> None:
        super().__init__()
        self.condition = Condition(scalars, cond)
        self.stem = nn.Conv2d(192 + COARSE_NOISE, width8, 1)
        self.before = nn.ModuleList(ResBlock(width8, cond, norm=True) for _ in range(depth8))
        self.down = nn.Conv2d(4 * width8, width16, 1)
        self.coarse = nn.ModuleList(ResBlock(width16, cond, norm=True) for _ in range(depth16))
        self.up = nn.Conv2d(width16, 4 * width8, 1)
        self.after = nn.ModuleList(ResBlock(width8, cond, norm=True) for _ in range(depth8))
        self.norm = PositionNorm(width8)
        self.fine = nn.Conv2d(width8, 16 * width2, 1)
        self.inject = nn.Conv2d(12 + FINE_NOISE, width2, 3, padding=1)
        self.smooth = ResBlock(width2, cond)
        self.full = nn.Conv2d(width2, 2 * width2, 3, padding=1)
        # one readout for the mean, one for a sample: what the one wants away is the other's point
        self.head = nn.Conv2d(width2 // 2, 6, 3, padding=1)
        zero_init(self.head)
        with torch.no_grad():
            # as strong as the picture the noise would first have to be unlearnt
            self.stem.weight[:, 192:] = 0
            self.inject.weight[:, 12:] = 0
        # how far the layers behind look: at 1/8 behind the sum, at 1/16 behind the coarse level, at 1/8 behind the first;
        # convolutions of 3×3 are one position each, and four at 1/2 and one at full size one position at 1/8
        self._after = 1 + 2 * depth8
        self._coarse = -(-self._after // 2)
        self._before = 2 * (self._coarse + 2 * depth16)
        self.halo = self._before // 2 + depth8
        """Receptive field beyond a position of the coarsest level, in such positions."""

    @classmethod
    def of(cls, scalars: int, sizes: RedrawSizes) -> Redraw:
        """One of a configuration's sizes."""
        s = sizes
        return cls(scalars, s.width8, s.depth8, s.width16, s.depth16, s.width2, s.cond)

    def forward(
        self,
        x_q: Image,
        scalars: Float[Tensor, "b k _ _"],
        strength: Float[Tensor, "b 1 _ _"],
        realism: Float[Tensor, "b 1 _ _"],
        coarse_noise: Float[Tensor, "b 4 h8 w8"],
        fine_noise: Float[Tensor, "b 1 h2 w2"],
        margins: Margins = WHOLE,
    ) -> Float[Tensor, "b 3 _ _"]:
        """x_q + strength · residual, float32, not clamped.

        x_q: (b, 3, h, w) in about [0, 1], sides multiples of 16. scalars: roughly in [-1, 1]; strength: what a unit of the
        last layer's output is worth; realism: 0 or 1; each for the picture, or at 1/16 of it. coarse_noise, fine_noise:
        standard normal at 1/8 and 1/2 of the picture; counts at realism 1 alone. margins: of all of these, at 1/16; the
        picture is returned without them.
        """
        h16, w16 = x_q.shape[-2] // REDRAW_STRIDE, x_q.shape[-1] // REDRAW_STRIDE
        centred = x_q - 0.5
        cond = self.condition(scalars)
        cond8 = resize_map(cond, 2 * h16, 2 * w16)
        coarse_noise = resize_map(realism, 2 * h16, 2 * w16) * coarse_noise
        fine_noise = resize_map(realism, 8 * h16, 8 * w16) * fine_noise
        at8, at2 = margins.times(2), margins.times(8)
        h = self.stem(torch.cat([F.pixel_unshuffle(centred, 8), coarse_noise], 1))
        h = run_blocks(self.before, h, cond8, at8, self._before)
        c = self.down(F.pixel_unshuffle(h, 2))
        near = margins.within(self._before // 2)
        c = run_blocks(self.coarse, c, trim(cond, margins, self._before // 2), near, self._coarse)
        h = trim(h, at8.within(self._before), self._after)
        h = h + trim(F.pixel_shuffle(self.up(c), 2), at8.within(2 * self._coarse), self._after)
        h = run_blocks(self.after, h, trim(cond8, at8, self._after), at8.within(self._after), 1)
        h = F.pixel_shuffle(self.fine(F.silu(self.norm(h))), 4)
        # from here on the margins of that, 4 positions of 1/2, are left as they are: they are all that is needed, and little
        seen = torch.cat([F.pixel_unshuffle(trim(centred, margins.times(16), 16), 2), trim(fine_noise, at2, 8)], 1)
        h = F.silu(h + trim(self.inject(seen), at2.within(8), 4))
        cond2 = trim(resize_map(cond, 8 * h16, 8 * w16), at2, 4)
        h = F.pixel_shuffle(self.full(F.silu(self.smooth(h, cond2))), 2)
        mean, sample = trim(self.head(F.silu(h)), margins.times(16).within(8), 0).float().chunk(2, dim=1)
        x_q = trim(x_q, margins.times(16), 0)
        strength, realism = (resize_map(trim(m, margins, 0), *x_q.shape[-2:]) for m in (strength, realism))
        return x_q + strength * torch.lerp(mean, sample, realism.to(mean))
