"""What the convolutional entropy models share: the hyperprior, and the network that gives a pass its parameters.

    y/q ──►┤h_a├──► z ──► ẑ ──►┤h_s├──► features

Everything is in units of q and sees log2 q (Film). Ballé et al. 2018, arXiv 1802.01436. All of it but h_a runs in float64 on
the exact path (`unquant.entropy.exact`), so every operation is continuous and the layers are 1×1 or small dense convolutions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unquant.entropy.base import HYPER_STRIDE, EntropyModel
from unquant.entropy.gaussian import ScaleGrid
from unquant.nn.blocks import Condition, Film, ResBlock, resize_map, zero_init
from unquant.shapes import Hyper, Latent, QMap

__all__ = ["INPUT_SCALE", "HyperpriorEntropy", "ParamNet"]

INPUT_SCALE = 0.25
"""Of y in steps, where a layer reads it."""
_HYPER_GAIN = 32.0
"""z in steps per unit of h_a's output: without it z starts below half a step, rounds to 0 and never comes to life."""


class ParamNet(nn.Module):
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


class HyperpriorEntropy(EntropyModel):
    """Hyperprior over `latent` channels; a subclass adds the contexts and the passes, and `log2_std` last.

    hyper: channels of z. width: channels of the hyper-synthesis features. cond: of the conditioning on q.
    """

    def __init__(self, latent: int, hyper: int, width: int, cond: int, grid: ScaleGrid | None = None) -> None:
        super().__init__()
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
        h = self.block(self.stem(v * INPUT_SCALE), cond)
        if h16 % HYPER_STRIDE or w16 % HYPER_STRIDE:
            h = F.pad(h, (0, -w16 % HYPER_STRIDE, 0, -h16 % HYPER_STRIDE), mode="replicate")
        h = self.down32(F.pixel_unshuffle(h, 2))
        h = F.leaky_relu(self.film32(h, resize_map(cond, *h.shape[-2:], 2)), 0.1)
        h = F.leaky_relu(self.down64(F.pixel_unshuffle(h, 2)), 0.1)
        return _HYPER_GAIN * self.head(h).float()
