"""The denoising U-Net of `cdc`, conditioned on the context maps of the latent, on time, realism and rate.

    x_t, base ──►┤unshuffle├──►(cat map 0)──►┤blocks├─┬──────────────►(cat)──►┤3×3├──►┤shuffle├──►
                                      ┌──────────────┘                 ▲
                                      └►┤down├─►(cat map 1)─►┤blocks├─┬─►(cat)─►┤blocks├─►┤up├┘
                                               ┌─────────────────────┘    ▲
                                               └►┤down├─► … ┤blocks, attention, blocks├ … ┤up├┘

Yang & Mandt, arXiv 2209.06950, and the authors' code. The network knows nothing of what its output means (x, ε, …); time
and what else it is told of an image reach every block. `DenoiserConfig.paper()` has the published size. The default runs on
an image unshuffled by 4, and without attention. Attention over the whole image would forbid windows; within blocks of 16
positions in the middle it costs hardly any time, but takes the halo from 15 positions to 32: windows of 96 then compute 1.6
times as much.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from unquant.errors import OptionError
from unquant.nn.attention import AttentionResidual, ChannelNorm
from unquant.nn.blocks import Down, zero_init
from unquant.nn.compressor import CompressorConfig, Context, Stage
from unquant.nn.transforms import LATENT_STRIDE
from unquant.settings import Depths, Kernel, Width, Widths, settings

__all__ = ["Denoiser", "DenoiserConfig"]


@settings
class DenoiserConfig:
    """Sizes of the U-Net. Lists run from the finest level to the coarsest; its strides start at the compressor's unshuffle.

    widths, depths: channels and residual blocks of each level on the way down; the middle has two blocks more of the
    coarsest. up_widths, up_depths: the same on the way up, the finest level left out, which has a single convolution there.
    cond: channels of the embedding of time and scalars. octaves: of sine and cosine features of the time, beside the time
    itself. scalars: how many numbers it is told of an image beside the time: realism, and the rate where it varies.
    attention: "global", after every level and in the middle; "blocks", in the middle only and within fixed blocks of
    block×block positions; or "none". skip: whether the finest level's features reach the last layer. kernel: of the first
    and the last convolution. residual: whether `Cdc` adds the output to what the linear decode alone would make of x_t, as a
    Gaussian's mean of standard deviation residual_std (the image in [−1, 1]; 0: to the linear decode itself where the output
    means the image). Raises OptionError naming the field out of range.
    """

    widths: Widths = (64, 192, 192)
    depths: Depths = (1, 2, 1)
    up_widths: Widths = (160, 192)
    up_depths: Depths = (2, 1)
    cond: Width = 128
    octaves: Annotated[int, Field(ge=0, le=32)] = 4
    scalars: Annotated[int, Field(ge=0, le=2)] = 2
    attention: Literal["none", "blocks", "global"] = "none"
    block: Annotated[int, Field(ge=1, le=128)] = 16
    skip: bool = True
    kernel: Kernel = 3
    residual: bool = True
    residual_std: Annotated[float, Field(ge=0, le=1000)] = 0.0

    def __post_init__(self) -> None:
        if len(self.widths) < 2:
            raise OptionError(f"widths: of two levels or more, not {self.widths}")
        for name, count in (("depths", 0), ("up_widths", 1), ("up_depths", 1)):
            if len(getattr(self, name)) != len(self.widths) - count:
                raise OptionError(f"{name}: {len(self.widths) - count} numbers, not {getattr(self, name)}")

    @classmethod
    def paper(cls) -> DenoiserConfig:
        """The published size: 40.1 M parameters, 387 G multiply-accumulates a step at 768×512."""
        widths = (64, 128, 192, 256, 320, 384)
        return cls(widths, (2,) * 6, widths[:-1], (2,) * 5, 64, 0, 1, "global", 16, False, 7, False)


class Embedding(nn.Module):
    """Time and scalars to the condition of the blocks.

    The paper's code embeds t/N itself through a two-layer network; here the scalars stand beside it, and with octaves > 0
    also sin(2^i·π·t/N) and the cosine, as such a network is slow to learn what changes fast near the ends.
    """

    def __init__(self, width: int, octaves: int, scalars: int) -> None:
        super().__init__()
        self.octaves = octaves
        self.first = nn.Linear(1 + scalars + 2 * octaves, 4 * width)
        self.second = nn.Linear(4 * width, width)

    def forward(self, time: Float[Tensor, " b"], told: Float[Tensor, "b k"]) -> Float[Tensor, "b e"]:
        features = [time, *told.unbind(1)]
        for i in range(self.octaves):
            angle = math.pi * 2**i * time
            features += [angle.sin(), angle.cos()]
        return self.second(F.gelu(self.first(torch.stack(features, dim=1))))


class Denoiser(nn.Module):
    """The U-Net; its last layer is zero at the start. compressor: of the decoder whose `Context` it is given.

    halo: receptive field beyond a position at 1/16, and align: the multiple of such positions that windows must start on
    (halo is one); both None where attention is global. Raises OptionError where the two configurations do not fit.
    """

    def __init__(self, config: DenoiserConfig, compressor: CompressorConfig) -> None:
        super().__init__()
        c, maps = config, compressor.maps
        if len(c.widths) < len(maps):
            raise OptionError(f"widths: a level for each of the {len(maps)} context maps, not {c.widths}")
        if c.residual and not compressor.linear:
            raise OptionError("residual: without the compressor's linear path there is no linear decode to add to")
        self.config = c
        self.stride = compressor.unshuffle
        block = c.block if c.attention == "blocks" else None

        def attention(width: int, *, middle: bool = False) -> nn.Module:
            here = c.attention == "global" or (middle and c.attention == "blocks")
            return AttentionResidual(width, block) if here else nn.Identity()

        image = 3 * self.stride**2
        self.embedding = Embedding(c.cond, c.octaves, c.scalars)
        inputs = [image * (2 if compressor.linear else 1), *c.widths[:-1]]
        for i, channels in enumerate(maps):
            inputs[i] += channels
        self.downs = nn.ModuleList(
            Stage(a, b, depth, c.cond, 3 if i else c.kernel)
            for i, (a, b, depth) in enumerate(zip(inputs, c.widths, c.depths, strict=True))
        )
        self.down_attention = nn.ModuleList(attention(width) for width in c.widths)
        self.down_steps = nn.ModuleList(Down(width) for width in c.widths[:-1])
        mid = c.widths[-1]
        self.before = Stage(mid, mid, 1, c.cond)
        self.mid_attention = attention(mid, middle=True)
        self.after = Stage(mid, mid, 1, c.cond)
        # a level takes what comes from below, at its own width, and what it had on the way down
        self.ups = nn.ModuleList(
            Stage(2 * a, b, depth, c.cond) for a, b, depth in zip(c.widths[1:], c.up_widths, c.up_depths, strict=True)
        )
        self.up_attention = nn.ModuleList(attention(width) for width in c.up_widths)
        self.up_steps = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in zip(c.up_widths, c.widths[:-1], strict=True)
        )
        last = c.widths[0] * (2 if c.skip else 1)
        self.norm = ChannelNorm(last)
        self.head = nn.Conv2d(last, image, c.kernel, padding=c.kernel // 2)
        zero_init(self.head)
        self.halo, self.align = (None, None) if c.attention == "global" else self._halo(block)

    def _halo(self, block: int | None) -> tuple[int, int]:
        """The receptive field, followed from the output back to the input, and the grid of windows, in positions at 1/16."""
        c = self.config
        reach = c.kernel // 2
        for depth in c.up_depths:
            reach = reach // 2 + 1 + 2 * depth
        reach += 2
        if block is not None:
            reach = -(-reach // block) * block
        reach += 2
        for i, depth in reversed([*enumerate(c.depths)]):
            reach += 2 * depth + (0 if i else c.kernel // 2 - 1)
            if i:
                reach = 2 * reach + 1
        coarsest = self.stride << (len(c.widths) - 1)
        align = max(1, coarsest * (block or 1) // LATENT_STRIDE)
        return -(-reach * self.stride // (LATENT_STRIDE * align)) * align, align

    def forward(
        self,
        x_t: Float[Tensor, "b 3 h w"],
        time: Float[Tensor, " b"],
        context: Context,
        told: Float[Tensor, "b k"],
    ) -> Float[Tensor, "b 3 h w"]:
        """Returns (b, 3, h, w), float32, 0 at the start of training.

        x_t: a noisy image, the image in [-1, 1], h and w multiples of 16. time: t/N_train in [0, 1], 0 for a clean image.
        context: of the same image (or window). told: the `scalars` of each image, roughly in [−1, 1].
        """
        base = None if context.base is None else 2 * context.base - 1
        h = x_t if base is None else torch.cat([x_t, base.to(x_t.dtype)], dim=1)
        h = F.pixel_unshuffle(h, self.stride)
        cond = self.embedding(time, told)
        skips: list[Tensor] = []
        for i, (stage, attention) in enumerate(zip(self.downs, self.down_attention, strict=True)):
            if i:
                h = self.down_steps[i - 1](h)
            if i < len(context.maps):
                h = torch.cat([h, context.maps[i].to(h.dtype)], dim=1)
            h = attention(stage(h, cond))
            skips.append(h)
        h = self.after(self.mid_attention(self.before(h, cond)), cond)
        for i in reversed(range(len(self.ups))):
            h = self.up_attention[i](self.ups[i](torch.cat([h, skips[i + 1]], dim=1), cond))
            rows, columns = skips[i].shape[-2:]
            # a level of odd size was rounded up on the way down
            h = self.up_steps[i](h)[..., :rows, :columns]
        if self.config.skip:
            h = torch.cat([h, skips[0]], dim=1)
        return F.pixel_shuffle(self.head(self.norm(h)), self.stride).float()
