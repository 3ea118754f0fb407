"""The Entroformer: a transformer hyperprior and a two-pass transformer context, in place of the convolutions.

    y/q ──►┤h_a: blocks at 1/16, 1/32, 1/64├──► z ──► ẑ ──►┤h_s: blocks at 1/64, 1/32, 1/16├──► features
    features ───────────────────────────────────────────────────────►┤param net├──► μ, σ of positions with odd i+j
        └──(+)──►┤context blocks, keys at odd i+j├───────────────────►┤param net├──► μ, σ of positions with even i+j
            └── v = k + μ (odd positions, 0 elsewhere)

Qian et al. 2022, arXiv 2202.05492, with top-k attention made continuous and run in windows (`unquant.entropy.attention`).
What is ours beside: everything is in units of q and sees log2 q (Film), the tokens of the context carry the features, and a
first-pass position, that has no context, has a learned vector in place of it. Random masks serve pretraining alone.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from unquant.entropy.attention import Sight, Stage
from unquant.entropy.base import HYPER_STRIDE, EntropyModel, Params
from unquant.entropy.gaussian import ScaleGrid
from unquant.errors import OptionError
from unquant.nn.blocks import Condition, Film, resize_map, zero_init
from unquant.settings import Blocks, Width, settings
from unquant.shapes import Hyper, Latent, QMap

__all__ = ["PUBLISHED", "Entroformer", "EntroformerConfig", "hidden_positions"]

_LEVELS = 3
"""Resolutions of the hyperprior, each half of the one before: 1/16, 1/32 and 1/64 of the image."""
_INPUT_SCALE = 0.25
_HYPER_GAIN = 2.0
"""z in steps per unit of h_a's last layer, whose input is normalised: z starts with about the prior's first scale."""


@settings
class EntroformerConfig:
    """Sizes of an `Entroformer`; the defaults fit 256 latent channels into 4 M parameters.

    hyper: channels of z. width: of all tokens, a multiple of heads. depth: context blocks. hyper_depth: blocks at each of the
    three resolutions of h_a and h_s. mlp: width of the blocks' MLPs in units of `width`. hidden: width of the param net.
    top: keys that a query attends to at 1/16 (halved at each coarser resolution, as in the public code). window: side of
    the attention windows in positions; up to twice its square no window is cut. cond: width of the conditioning on q.
    Raises OptionError naming the field out of range.
    """

    hyper: Width = 96
    width: Width = 128
    heads: Width = 4
    depth: Blocks = 4
    hyper_depth: Blocks = 1
    mlp: Blocks = 4
    hidden: Width = 384
    top: Width = 32
    window: Annotated[int, Field(ge=1, le=128)] = 32
    cond: Width = 32

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise OptionError(f"width: a multiple of heads ({self.heads}), not {self.width}")

    def stage(self, depth: int, level: int = 0) -> Stage:
        """`depth` blocks at 1/16, or at a resolution halved `level` times."""
        top = max(self.top >> level, 2)
        return Stage(depth, self.width, self.heads, self.mlp, top, self.window, self.cond)


PUBLISHED = EntroformerConfig(hyper=192, width=384, heads=6, depth=6, hidden=1536, cond=16)
"""The sizes of the paper and its public code: 37.4 M parameters with 384 latent channels."""


def hidden_positions(height: int, width: int, generator: torch.Generator, ratio: float = 0.5) -> Int[Tensor, " n"]:
    """Random positions to hide, flat, ascending (random-mask pretraining; section 3 of the paper).

    ratio: of the positions, in (0, 1]; at least one is hidden. Raises OptionError for another ratio.
    """
    if not 0 < ratio <= 1:
        raise OptionError(f"ratio: above 0 and up to 1, not {ratio}")
    order = torch.randperm(height * width, generator=generator, device=generator.device)
    return order[: max(1, round(ratio * height * width))].sort().values


class Entroformer(EntropyModel):
    """Transformer hyperprior and context over `latent` channels."""

    def __init__(self, latent: int, config: EntroformerConfig | None = None, grid: ScaleGrid | None = None) -> None:
        super().__init__()
        config = config or EntroformerConfig()
        self.config = config
        self.latent = latent
        self.hyper = config.hyper
        self.grid = grid or ScaleGrid()
        cond = config.cond
        # h_a (encoder only) and its own condition: not part of what the decoder needs
        self.analysis = _HyperAnalysis(latent, config)
        self.condition = Condition(1, cond)
        self.prior = nn.Sequential(nn.Conv2d(cond, cond, 1), nn.LeakyReLU(0.1), nn.Conv2d(cond, 2 * config.hyper, 1))
        self.synthesis = _HyperSynthesis(config)
        self.embed = nn.Conv2d(latent, config.width, 1)
        self.context = config.stage(config.depth)
        self.params = _ParamNet(config.width, config.hidden, latent, cond)
        self.log2_std = nn.Parameter(torch.full((latent,), 2.0))

    def hyper_analysis(self, v: Latent, log2_q: QMap) -> Hyper:
        return self.analysis(v, log2_q)

    def hyper_synthesis(
        self, z_hat: Hyper, cond: Float[Tensor, "b e hq wq"], size: tuple[int, int]
    ) -> Float[Tensor, "b f h16 w16"]:
        return self.synthesis(z_hat, cond, size)

    def group_params(
        self,
        number: int,
        features: Float[Tensor, "b f h16 w16"],
        v: Latent,
        cond: Float[Tensor, "b e hq wq"],
        log2_q: QMap,
        positions: Int[Tensor, " n"],
    ) -> Params:
        context = None
        if number:
            context = self._context(v, features, cond, Sight(odd=True)).flatten(2)[:, :, positions, None]
        return self._params_at(positions, features, context, cond, log2_q)

    def masked_params(
        self,
        features: Float[Tensor, "b f h16 w16"],
        v: Latent,
        cond: Float[Tensor, "b e hq wq"],
        log2_q: QMap,
        hidden: Int[Tensor, " n"],
    ) -> Params:
        h16, w16 = v.shape[-2:]
        visible = torch.ones(h16 * w16, dtype=torch.bool, device=v.device).index_fill(0, hidden, False).view(h16, w16)
        context = self._context(v * visible, features, cond, Sight(visible=visible)).flatten(2)[:, :, hidden, None]
        return self._params_at(hidden, features, context, cond, log2_q)

    def _context(
        self, v: Latent, features: Float[Tensor, "b f h16 w16"], cond: Float[Tensor, "b e hq wq"], sight: Sight
    ) -> Float[Tensor, "b f h16 w16"]:
        return self.context(self.embed(v * _INPUT_SCALE) + features, cond, sight)

    def _params_at(
        self,
        positions: Int[Tensor, " n"],
        features: Float[Tensor, "b f h16 w16"],
        context: Float[Tensor, "b f n 1"] | None,
        cond: Float[Tensor, "b e hq wq"],
        log2_q: QMap,
    ) -> Params:
        """Parameters (b, c, n, 1). context: of those positions, None where they have none."""
        cond, log2_q = self._at(positions, cond, log2_q)
        return self._scaled(self.params(features.flatten(2)[:, :, positions, None], context, cond), log2_q)


class _ParamNet(nn.Module):
    """Per-position MLP from features and context to (μ, t); the last layer in float32 at least, for μ reaches ±200."""

    def __init__(self, width: int, hidden: int, latent: int, cond: int) -> None:
        super().__init__()
        self.from_features = nn.Conv2d(width, hidden, 1)
        self.from_context = nn.Conv2d(width, hidden, 1, bias=False)
        self.absent = nn.Parameter(torch.zeros(hidden, 1, 1))
        """Stands for `from_context` where there is no context."""
        self.film = Film(cond, hidden)
        self.head = nn.Conv2d(hidden, 2 * latent, 1)
        zero_init(self.head)

    def forward(
        self,
        features: Float[Tensor, "b f n 1"],
        context: Float[Tensor, "b f n 1"] | None,
        cond: Float[Tensor, "b e _ 1"],
    ) -> Float[Tensor, "b c2 n 1"]:
        told = self.absent if context is None else self.from_context(context)
        h = F.leaky_relu(self.film(self.from_features(features) + told, cond), 0.2)
        with torch.autocast(h.device.type, enabled=False):
            return self.head(h.to(self.head.weight.dtype))


class _HyperAnalysis(nn.Module):
    """h_a: y/q at 1/16 to z at 1/64."""

    def __init__(self, latent: int, config: EntroformerConfig) -> None:
        super().__init__()
        width = config.width
        self.condition = Condition(1, config.cond)
        self.stem = nn.Conv2d(latent, width, 1)
        self.stages = nn.ModuleList([config.stage(config.hyper_depth, level) for level in range(_LEVELS)])
        self.down = nn.ModuleList([nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(_LEVELS - 1)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Conv2d(width, config.hyper, 1)

    def forward(self, v: Latent, log2_q: QMap) -> Hyper:
        cond = self.condition(log2_q / 3 - 1)
        h16, w16 = v.shape[-2:]
        h = self.stages[0](self.stem(v * _INPUT_SCALE), cond)
        if h16 % HYPER_STRIDE or w16 % HYPER_STRIDE:
            h = F.pad(h, (0, -w16 % HYPER_STRIDE, 0, -h16 % HYPER_STRIDE), mode="replicate")
        for level, down in enumerate(self.down, 1):
            h = down(h)
            h = self.stages[level](h, resize_map(cond, *h.shape[-2:], 1 << level))
        return _HYPER_GAIN * self.head(self.norm(h.movedim(1, -1)).movedim(-1, 1)).float()


class _HyperSynthesis(nn.Module):
    """h_s: ẑ at 1/64 to features at 1/16."""

    def __init__(self, config: EntroformerConfig) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Conv2d(config.hyper, width, 1)
        self.stages = nn.ModuleList([config.stage(config.hyper_depth, level) for level in range(_LEVELS)])
        self.up = nn.ModuleList([nn.Conv2d(width, 4 * width, 3, padding=1) for _ in range(_LEVELS - 1)])

    def forward(
        self, z_hat: Hyper, cond: Float[Tensor, "b e hq wq"], size: tuple[int, int]
    ) -> Float[Tensor, "b f h16 w16"]:
        h16, w16 = size
        h = self.stem(z_hat)
        for level in range(_LEVELS - 1, 0, -1):
            h = self.stages[level](h, resize_map(cond, *h.shape[-2:], 1 << level))
            h = F.pixel_shuffle(self.up[level - 1](h), 2)
        return self.stages[0](h[..., :h16, :w16], cond)
