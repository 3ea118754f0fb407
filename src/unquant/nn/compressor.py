"""The compressor of `cdc`: an encoder to a latent at 1/16, and a decoder to the context maps of the denoising U-Net.

    x ──►┤unshuffle├──►┤residual, stride 2├─ … ─►┤1×1├──►(+)──► y
     └──►┤unshuffle 16├──►┤P_a├───────────────────────────┘

    ŷ ──►┤residual├─┬─►┤up 2├──►┤residual├─┬─►┤up 2├─ … ─►  maps, the finest one first
     │              └► map at 1/16         └► map at 1/8
     └──►┤P_s├──►┤shuffle 16├──►(+ ½)──► base, a linear decode

The published size (Yang & Mandt, arXiv 2209.06950, and the authors' code) runs without the unshuffling and the linear path,
on four stages of 64-128-192-256 channels. The default runs on an image unshuffled by 4, and starts as the transform codec
that `unquant.nn.transforms` starts as: the last layer of the encoder's network is zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unquant.errors import OptionError
from unquant.nn.attention import ChannelNorm
from unquant.nn.blocks import Down, zero_init
from unquant.nn.transforms import (
    LATENT_GAIN,
    LATENT_STRIDE,
    dct_directions,
    linear_decode,
)
from unquant.settings import Depths, Kernel, Width, Widths, settings
from unquant.shapes import Image, Latent

__all__ = [
    "CompressorConfig",
    "CompressorEncoder",
    "Context",
    "ContextDecoder",
    "NormBlock",
    "Stage",
]


@settings
class CompressorConfig:
    """Sizes of the compressor. Lists run from the finest stage to the coarsest.

    latent: channels of y. unshuffle: pixels a side that the first stage takes as channels, 1, 2, 4 or 8. widths, depths: the
    encoder's stages, at strides unshuffle, 2·unshuffle, …, up to 8 (the last one then steps down to 16) or to 16; depths in
    residual blocks. maps, map_depths: the context decoder's, at the same strides. kernel: of the encoder's first
    convolution. linear: with the linear path; without it y has the last stage's channels.
    Raises OptionError naming the field out of range.
    """

    latent: Width = 256
    unshuffle: int = 4
    widths: Widths = (64, 160, 192)
    depths: Depths = (1, 2, 1)
    maps: Widths = (64, 128, 192)
    map_depths: Depths = (2, 1, 1)
    kernel: Kernel = 3
    linear: bool = True

    def __post_init__(self) -> None:
        if self.unshuffle not in (1, 2, 4, 8):
            raise OptionError(f"unshuffle: 1, 2, 4 or 8, not {self.unshuffle}")
        for name in ("widths", "depths", "maps", "map_depths"):
            if self.unshuffle << len(getattr(self, name)) not in (16, 32):
                raise OptionError(f"{name}: the last stage is to be at 1/8 or 1/16, not {getattr(self, name)}")
        for name, other in (("depths", "widths"), ("map_depths", "maps")):
            if len(getattr(self, name)) != len(getattr(self, other)):
                raise OptionError(f"{name}: as many as {other}, not {getattr(self, name)}")
        if self.linear and self.latent > 3 * LATENT_STRIDE**2:
            raise OptionError(f"latent: at most {3 * LATENT_STRIDE**2} with the linear path, not {self.latent}")
        if not self.linear and self.latent != self.widths[-1]:
            raise OptionError(f"latent: the last of widths ({self.widths[-1]}) without linear, not {self.latent}")

    @classmethod
    def paper(cls) -> CompressorConfig:
        """The published size: 5.4 M parameters, of 13.8 M with the published hyperprior."""
        return cls(256, 1, (64, 128, 192, 256), (1, 1, 1, 1), (64, 64, 128, 192), (1, 1, 1, 1), 7, False)


class Context(NamedTuple):
    """What the context decoder makes of a latent.

    maps: the finest first, (b, maps[i], h / (stride·2^i), w / (stride·2^i)). base: the linear decode, about [0, 1] but not
    clamped, None without the linear path. stride: pixels per position of the first map.
    """

    maps: tuple[Float[Tensor, "b _ _ _"], ...]
    base: Image | None
    stride: int

    def window(self, top: int, bottom: int, left: int, right: int) -> Context:
        """The part from latent row `top` up to `bottom`, and likewise of the columns: views."""

        def part(plane: Tensor, stride: int) -> Tensor:
            scale = LATENT_STRIDE // stride
            return plane[..., top * scale : bottom * scale, left * scale : right * scale]

        maps = tuple(part(plane, self.stride << i) for i, plane in enumerate(self.maps))
        return Context(maps, None if self.base is None else part(self.base, 1), self.stride)


class NormBlock(nn.Module):
    """x + two of relu(norm(conv3×3(·))), the shortcut 1×1 where widths differ; the condition is added between the two.

    kernel: of the first convolution. cond: channels of the condition, None without one.
    """

    def __init__(self, inputs: int, width: int, cond: int | None = None, kernel: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, kernel, padding=kernel // 2)
        self.norm1 = ChannelNorm(width)
        self.cond = nn.Linear(cond, width) if cond is not None else None
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = ChannelNorm(width)
        self.shortcut = nn.Conv2d(inputs, width, 1) if inputs != width else None

    def forward(
        self, x: Float[Tensor, "b c h w"], cond: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b d h w"]:
        h = F.relu(self.norm1(self.conv1(x)))
        if self.cond is not None:
            assert cond is not None
            h = h + self.cond(F.leaky_relu(cond, 0.2))[:, :, None, None]
        h = F.relu(self.norm2(self.conv2(h)))
        return h + (x if self.shortcut is None else self.shortcut(x))


class Stage(nn.ModuleList):
    """`depth` blocks one after another, the first from `inputs` to `width` channels."""

    def __init__(self, inputs: int, width: int, depth: int, cond: int | None = None, kernel: int = 3) -> None:
        super().__init__(NormBlock(width if i else inputs, width, cond, 3 if i else kernel) for i in range(depth))
        self.reach = 2 * depth + kernel // 2 - 1
        """Receptive field beyond a position, in positions of this stage."""

    def forward(
        self, x: Float[Tensor, "b c h w"], cond: Float[Tensor, "b e"] | None = None
    ) -> Float[Tensor, "b d h w"]:
        for block in self:
            x = block(x, cond)
        return x


class CompressorEncoder(nn.Module):
    """Image to latent; it knows nothing of the rate."""

    def __init__(self, config: CompressorConfig) -> None:
        super().__init__()
        c = config
        self.unshuffle = c.unshuffle
        inputs = (3 * c.unshuffle**2, *c.widths[:-1])
        self.stages = nn.ModuleList(
            Stage(a, b, depth, kernel=3 if i else c.kernel)
            for i, (a, b, depth) in enumerate(zip(inputs, c.widths, c.depths, strict=True))
        )
        coarsest = c.unshuffle << (len(c.widths) - 1)
        downs = c.widths if coarsest < LATENT_STRIDE else c.widths[:-1]
        self.downs = nn.ModuleList(Down(width) for width in downs)
        self.linear = nn.Parameter(dct_directions(c.latent) * LATENT_GAIN) if c.linear else None
        self.head = nn.Conv2d(c.widths[-1], c.latent, 1) if c.linear else None
        if self.head is not None:
            zero_init(self.head)
        reach = 0
        for i, stage in reversed([*enumerate(self.stages)]):
            if i < len(self.downs):
                reach = 2 * reach + 1
            assert isinstance(stage, Stage)
            reach += stage.reach
        self.halo = -(-reach * c.unshuffle // LATENT_STRIDE)
        """Receptive field beyond a latent position, in latent positions."""

    def start_from(self, basis: Float[Tensor, "c d"]) -> None:
        """Start the linear path from orthonormal directions (c, 768)."""
        assert self.linear is not None
        with torch.no_grad():
            self.linear.copy_(basis * LATENT_GAIN)

    def forward(self, x: Image) -> Latent:
        """x: (b, 3, h, w) in [0, 1], h and w multiples of 16. Returns y (b, latent, h/16, w/16), float32, latent units.

        Without the linear path a latent unit is what training makes of it.
        """
        h = F.pixel_unshuffle(2 * x - 1, self.unshuffle)
        for i, stage in enumerate(self.stages):
            h = stage(h)
            if i < len(self.downs):
                h = self.downs[i](h)
        if self.head is None or self.linear is None:
            return h.float()
        # the linear path keeps float32: y reaches ±220 and must be right to a fraction of a step
        with torch.autocast(x.device.type, enabled=False):
            patches = F.pixel_unshuffle(x.float() - 0.5, LATENT_STRIDE)
            linear = F.conv2d(patches, self.linear.float()[:, :, None, None])
        return linear + LATENT_GAIN * self.head(h).float()


class ContextDecoder(nn.Module):
    """Dequantised latent to context maps and, with the linear path, a first image."""

    def __init__(self, config: CompressorConfig) -> None:
        super().__init__()
        c = config
        self.stride = c.unshuffle
        # built and run from the coarsest to the finest
        widths, depths = c.maps[::-1], c.map_depths[::-1]
        self.stages = nn.ModuleList(
            Stage(a, b, depth) for a, b, depth in zip((c.latent, *widths[:-1]), widths, depths, strict=True)
        )
        # where the coarsest map is at 1/16, it needs no step up
        self.lead = int(c.unshuffle << (len(widths) - 1) == LATENT_STRIDE)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1) for width in widths[self.lead :]
        )
        # held at the encoder's scale, so that one learning rate suits both
        self.linear = nn.Parameter(dct_directions(c.latent) * LATENT_GAIN) if c.linear else None
        self.gain = LATENT_GAIN if c.linear else 1.0
        reach = 0
        for i, stage in reversed([*enumerate(self.stages)]):
            if i >= self.lead:
                reach = reach // 2 + 1
            assert isinstance(stage, Stage)
            reach += stage.reach
        self.halo = reach
        """Receptive field beyond a latent position, in latent positions."""

    def start_from(self, basis: Float[Tensor, "c d"]) -> None:
        """Start the linear path from orthonormal directions (c, 768)."""
        assert self.linear is not None
        with torch.no_grad():
            self.linear.copy_(basis * LATENT_GAIN)

    def forward(self, y: Latent) -> Context:
        """y: (b, latent, h16, w16), latent units; returns the context of an image of 16·h16 × 16·w16 pixels."""
        h, maps = y / self.gain, list[Tensor]()
        for i, stage in enumerate(self.stages):
            h = stage(h)
            if i >= self.lead:
                h = self.ups[i - self.lead](h)
            maps.append(h)
        base = None
        if self.linear is not None:
            base = 0.5 + linear_decode(y, self.linear)
        return Context(tuple(maps[::-1]), base, self.stride)
