"""The rate-variable entropy model: hyperprior, factorised hyper-latent prior, checkerboard context in two or four passes.

    y/q ──►┤h_a├──► z ──► ẑ ──►┤h_s├──► features ──►┤pass 1├──► μ, σ of positions with odd i+j ──► v = k + μ
                                     └──────────────►┤pass 2├◄──┤3×3 context├◄── v (odd positions, 0 elsewhere)
                                                        └──► μ, σ of positions with even i+j

With four passes each colour of the checkerboard goes in two: (i mod 2, j mod 2) = (0, 1), (1, 0), (1, 1), (0, 0), every pass
but the first with a context of its own over all that is known.

Everything is in units of q and sees log2 q (Film). Ballé et al. 2018 (hyperprior), He et al. 2021, arXiv 2103.15306
(checkerboard context). All of it but h_a runs in float64 on the exact path (`unquant.entropy.exact`), so every operation
is continuous and the layers are 1×1 or small dense convolutions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unquant.entropy.gaussian import ScaleGrid
from unquant.nn.blocks import Condition, Film, ResBlock, resize_map, zero_init
from unquant.shapes import Hyper, Latent, QMap

__all__ = ["HYPER_STRIDE", "EntropyModel", "Params", "TwoPassEntropy", "checkerboard", "hyper_size", "positions_of"]

HYPER_STRIDE = 4
"""Latent positions per hyper-latent position, in each direction."""
_T_MIN, _T_SOFT = -6.0, 4.0
_INPUT_SCALE = 0.25
_HYPER_GAIN = 32.0
"""z in steps per unit of h_a's output: without it z starts below half a step, rounds to 0 and never comes to life."""
_CORNERS = ((0, 1), (1, 0), (1, 1), (0, 0))
"""(i mod 2, j mod 2) of four passes: two by two the colours of two passes, so that a two-pass model can grow into four."""


def hyper_size(h16: int, w16: int) -> tuple[int, int]:
    """Size of z for a latent of size (h16, w16)."""
    return -(-h16 // HYPER_STRIDE), -(-w16 // HYPER_STRIDE)


class Params(NamedTuple):
    """Parameters of Gaussian symbols: mean `mu` in steps, scale as grid coordinate `t` (see `ScaleGrid`)."""

    mu: Tensor
    t: Tensor


def checkerboard(height: int, width: int, device: torch.device | None = None) -> Bool[Tensor, "h w"]:
    """True at the positions of the first pass, those with odd i + j."""
    i = torch.arange(height, device=device)[:, None]
    j = torch.arange(width, device=device)[None, :]
    return (i + j) % 2 == 1


def positions_of(
    pass_index: int, height: int, width: int, device: torch.device | None = None, *, passes: int = 2
) -> Int[Tensor, " n"]:
    """Flat row-major positions of one of two or four passes, ascending; of a narrow tile there may be none.

    Of two passes: odd, then even i + j. Of four: (i mod 2, j mod 2) = (0, 1), (1, 0), (1, 1), (0, 0).
    """
    # in closed form: picking them from the mask would make a GPU wait and break a compiled graph
    if passes == 4:
        top, left = _CORNERS[pass_index]
        rows = torch.arange(top, height, 2, device=device)[:, None]
        return (rows * width + torch.arange(left, width, 2, device=device)[None, :]).flatten()
    if width % 2:
        return torch.arange(1 - pass_index, height * width, 2, device=device)
    i = torch.arange(height, device=device)[:, None]
    j = torch.arange(0, width, 2, device=device)[None, :]
    return (i * width + j + (i + 1 + pass_index) % 2).flatten()


class _ParamNet(nn.Module):
    """Per-position MLP from features to (μ, t); the last layer in float32 at least, for μ reaches ±200."""

    def __init__(self, inputs: int, hidden: int, latent: int, cond: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, hidden, 1)
        self.film = Film(cond, hidden)
        self.second = nn.Conv2d(hidden, hidden, 1)
        self.head = nn.Conv2d(hidden, 2 * latent, 1)
        zero_init(self.head)

    def forward(self, x: Float[Tensor, "b c n 1"], cond: Float[Tensor, "b e _ 1"]) -> Float[Tensor, "b c2 n 1"]:
        h = F.leaky_relu(self.film(self.first(x), cond), 0.1)
        h = F.leaky_relu(self.second(h), 0.1)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(h.to(self.head.weight.dtype))


class EntropyModel(nn.Module, ABC):
    """What the models and the exact path ask of the entropy networks, and the parts that all of them share.

    latent, hyper: channels of y and of z, z of size `hyper_size`. Symbols are coded z first, then the positions of
    `positions_of` in `pass_count` passes, 2 or 4. A subclass makes the attributes below; what only the encoder needs lies in
    `analysis`.
    """

    pass_count: int = 2
    latent: int
    hyper: int
    grid: ScaleGrid
    condition: Condition
    prior: nn.Sequential
    log2_std: nn.Parameter
    """log2 of each channel's standard deviation in latent units: the scale before any network speaks."""

    def positions(
        self, pass_index: int, height: int, width: int, device: torch.device | None = None
    ) -> Int[Tensor, " n"]:
        """`positions_of` this model's passes."""
        return positions_of(pass_index, height, width, device, passes=self.pass_count)

    def start_from(self, std: Float[Tensor, " c"]) -> None:
        """Start the scales from the standard deviations of the latents (c,), latent units."""
        with torch.no_grad():
            self.log2_std.copy_(std.clamp(min=0.1).log2())

    def condition_of(self, log2_q: QMap) -> Float[Tensor, "b e hq wq"]:
        """Conditioning features of a q map (b, 1, 1, 1) or (b, 1, h16, w16); log2 q in about [0, 6]."""
        return self.condition(log2_q / 3 - 1)

    @abstractmethod
    def hyper_analysis(self, v: Latent, log2_q: QMap) -> Hyper:
        """z = h_a(y/q). v = y/q: (b, c, h16, w16). Returns (b, m, ceil(h16/4), ceil(w16/4)). Encoder only."""

    def hyper_prior(self, cond: Float[Tensor, "b e hq wq"], size: tuple[int, int]) -> Params:
        """Factorised prior of z given q: mean and scale (b, m, 1, 1), or at the size (h64, w64) of z for a q map."""
        mu, t = self.prior(resize_map(cond, *size, HYPER_STRIDE)).chunk(2, dim=1)
        return Params(mu, self._soft_floor(20.0 + 10.0 * t))

    @abstractmethod
    def hyper_synthesis(
        self, z_hat: Hyper, cond: Float[Tensor, "b e hq wq"], size: tuple[int, int]
    ) -> Float[Tensor, "b f h16 w16"]:
        """Features h_s(ẑ) at the latent size (h16, w16): (b, width, h16, w16)."""

    @abstractmethod
    def pass_params(
        self,
        pass_index: int,
        features: Float[Tensor, "b f h16 w16"],
        v: Latent | None,
        cond: Float[Tensor, "b e hq wq"],
        log2_q: QMap,
        positions: Int[Tensor, " n"],
    ) -> Params:
        """Means and scales of one pass, only at its `positions` (flat, row-major): (b, c, n, 1) each.

        features: h_s(ẑ). v: k + μ at the positions of the passes before and 0 elsewhere; None for the first pass.
        """

    def _soft_floor(self, t: Tensor) -> Tensor:
        return _T_MIN + _T_SOFT * F.softplus((t - _T_MIN) / _T_SOFT)

    def _scaled(self, out: Float[Tensor, "b c2 n 1"], log2_q: Float[Tensor, "b 1 _ _"]) -> Params:
        """A head's output (b, 2c, n, 1) as parameters; at 0 the scale is that of `log2_std` in steps of q.

        log2_q: (b, 1, 1, 1) or, gathered at the positions, (b, 1, n, 1).
        """
        mu, t = out.chunk(2, dim=1)
        octaves = self.log2_std[:, None, None].to(out.dtype) - log2_q.to(out.dtype)
        return Params(mu, self._soft_floor(20.0 + octaves * (0.6931471805599453 / self.grid.log_ratio) + 10.0 * t))


class TwoPassEntropy(EntropyModel):
    """Hyperprior with a checkerboard context in two or four passes over `latent` channels.

    hyper: channels of z. width: channels of the hyper-synthesis features. context: channels of each 3×3 context. passes:
    2 or 4.
    """

    def __init__(
        self,
        latent: int,
        hyper: int,
        width: int,
        context: int,
        hidden: int,
        cond: int,
        grid: ScaleGrid | None = None,
        *,
        passes: int = 2,
    ) -> None:
        super().__init__()
        self.pass_count = passes
        self.latent = latent
        self.hyper = hyper
        self.grid = grid or ScaleGrid()
        # h_a (encoder only) and its own condition: not part of what the decoder needs
        self.analysis = _HyperAnalysis(latent, hyper, width, cond)
        self.condition = Condition(1, cond)
        self.prior = nn.Sequential(nn.Conv2d(cond, cond, 1), nn.LeakyReLU(0.1), nn.Conv2d(cond, 2 * hyper, 1))
        self.stem = nn.Conv2d(hyper, 4 * width, 1)
        self.film32 = Film(cond, width)
        self.up = nn.Conv2d(width, 4 * width, 1)
        self.film16 = Film(cond, width)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        if passes == 2:
            self.context = nn.Conv2d(latent, context, 3, padding=1)
        else:  # each computed at the positions of its pass alone
            self.contexts = nn.ModuleList([nn.Conv2d(latent, context, 3, stride=2) for _ in range(passes - 1)])
        inputs = [width] + [width + context] * (passes - 1)
        self.passes = nn.ModuleList([_ParamNet(n, hidden, latent, cond) for n in inputs])
        self.log2_std = nn.Parameter(torch.full((latent,), 2.0))

    def hyper_analysis(self, v: Latent, log2_q: QMap) -> Hyper:
        return self.analysis(v, log2_q)

    def hyper_synthesis(
        self, z_hat: Hyper, cond: Float[Tensor, "b e hq wq"], size: tuple[int, int]
    ) -> Float[Tensor, "b f h16 w16"]:
        h16, w16 = size
        h = F.pixel_shuffle(self.stem(z_hat), 2)
        h = F.leaky_relu(self.film32(h, resize_map(cond, *h.shape[-2:], 2)), 0.1)
        h = F.pixel_shuffle(self.up(h), 2)[..., :h16, :w16]
        h = F.leaky_relu(self.film16(h, cond), 0.1)
        return h + F.leaky_relu(self.mix(h), 0.1)

    def pass_params(
        self,
        pass_index: int,
        features: Float[Tensor, "b f h16 w16"],
        v: Latent | None,
        cond: Float[Tensor, "b e hq wq"],
        log2_q: QMap,
        positions: Int[Tensor, " n"],
    ) -> Params:
        gathered = [features.flatten(2)[:, :, positions]]
        if pass_index:
            assert v is not None
            gathered.append(self._context(pass_index, v * _INPUT_SCALE, positions))
        if cond.shape[-2:] != (1, 1):
            cond = cond.flatten(2)[:, :, positions, None]
            log2_q = log2_q.flatten(2)[:, :, positions, None]
        return self._scaled(self.passes[pass_index](torch.cat(gathered, dim=1)[..., None], cond), log2_q)

    def _context(self, pass_index: int, known: Latent, positions: Int[Tensor, " n"]) -> Float[Tensor, "b k n"]:
        """The context of a pass after the first at its positions, zero-padded at the tile's borders."""
        if self.pass_count == 2:
            return self.context(known).flatten(2)[:, :, positions]
        top, left = _CORNERS[pass_index]
        return self.contexts[pass_index - 1](F.pad(known, (1, 1, 1, 1))[..., top:, left:]).flatten(2)


class _HyperAnalysis(nn.Module):
    """h_a: y/q at 1/16 to z at 1/64, two 2×2 foldings."""

    def __init__(self, latent: int, hyper: int, width: int, cond: int) -> None:
        super().__init__()
        self.condition = Condition(1, cond)
        self.stem = nn.Conv2d(latent, width, 1)
        self.block = ResBlock(width, cond)
        self.down32 = nn.Conv2d(4 * width, width, 1)
        self.film32 = Film(cond, width)
        self.down64 = nn.Conv2d(4 * width, width, 1)
        self.head = nn.Conv2d(width, hyper, 1)

    def forward(self, v: Latent, log2_q: QMap) -> Hyper:
        cond = self.condition(log2_q / 3 - 1)
        h16, w16 = v.shape[-2:]
        h = self.block(self.stem(v * _INPUT_SCALE), cond)
        if h16 % HYPER_STRIDE or w16 % HYPER_STRIDE:
            h = F.pad(h, (0, -w16 % HYPER_STRIDE, 0, -h16 % HYPER_STRIDE), mode="replicate")
        h = self.down32(F.pixel_unshuffle(h, 2))
        h = F.leaky_relu(self.film32(h, resize_map(cond, *h.shape[-2:], 2)), 0.1)
        h = F.leaky_relu(self.down64(F.pixel_unshuffle(h, 2)), 0.1)
        return _HYPER_GAIN * self.head(h).float()
