"""The rate-variable codec: compression is the forward diffusion, one weight set for every rate (docs/design.md).

    x ──►┤g_a├──► y ──►┤round(y/q − μ)├──► ŷ = q·(k + μ) ──►┤g_s(·; q, q_T, ρ)├──► x̂
                              ▲ μ, σ
                        ┤entropy model(log2 q)├

Han et al. 2025, arXiv 2505.20984.
"""

from __future__ import annotations

from dataclasses import asdict, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unquant.networks.common import SideInfo, log2_q_of
from unquant.networks.config import EntropyConfig, entropy_model, read_config
from unquant.networks.latent import LatentModel, check_latent
from unquant.networks.reverse import Network, NoiseSource, Reverse, ReverseConfig, reverse_path
from unquant.nn.redraw import RedrawSizes
from unquant.nn.transforms import Analysis, Synthesis
from unquant.settings import Depth, QIndex, Share, TileSide, Width, settings
from unquant.shapes import Image, Latent, QMap

__all__ = [
    "EntropyConfig",
    "Ratevar",
    "RatevarConfig",
    "RatevarOutput",
    "ReverseConfig",
]


@settings
class RatevarConfig:
    """Everything that fixes the networks' shapes and the meaning of a latent.

    q indices run from q_index_min (finest, most bits) to q_index_max. Widths and depths (in residual blocks) are given for
    1/8 and 1/16 of the image. default_realism: ρ of a decode that asks for none. redraw: of the network in pixel space that
    ends g_s, None without one. reverse: None without a reverse network.
    Raises OptionError for a default_realism outside [0, 1], and for fewer channels than the slices need.
    """

    latent: Width = 320
    q_index_min: QIndex = 16
    q_index_max: QIndex = 344
    analysis_width8: Width = 160
    analysis_depth8: Depth = 3
    analysis_width16: Width = 256
    analysis_depth16: Depth = 1
    synthesis_width16: Width = 256
    synthesis_depth16: Depth = 1
    synthesis_width8: Width = 192
    synthesis_depth8: Depth = 10
    cond: Width = 48
    tile: TileSide = 64
    default_realism: Share = 1.0
    entropy: EntropyConfig = field(default_factory=EntropyConfig)
    redraw: RedrawSizes | None = None
    reverse: ReverseConfig | None = None

    def __post_init__(self) -> None:
        check_latent(self)

    @property
    def joint(self) -> bool:
        """Whether the reverse network stands in front of g_s in every decode."""
        return self.reverse is not None and self.reverse.joint

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RatevarConfig:
        """The inverse of `to_dict`; a missing key takes its default.

        Raises WeightsError for an unknown key, and for a value of another type than the default's or out of range.
        """
        return read_config(cls, values, "ratevar")


class RatevarOutput(NamedTuple):
    """One training pass: image, latent, its dequantised version (latent units), and bits per latent and hyper-latent.

    side, restored: what a joint f has been given, and what it has made of it; None without one.
    """

    x_hat: Image
    y: Latent
    y_hat: Latent
    bits_y: Float[Tensor, "b c h16 w16"]
    bits_z: Float[Tensor, "b m h64 w64"]
    side: SideInfo | None = None
    restored: Latent | None = None


class Ratevar(LatentModel[RatevarConfig, Analysis, Synthesis]):
    """g_a, g_s, the entropy model and, where the configuration has one, the reverse network f, as one module."""

    def __init__(self, config: RatevarConfig) -> None:
        super().__init__(config)
        c = config
        self.g_a = Analysis(c.latent, c.analysis_width8, c.analysis_depth8, c.analysis_width16, c.analysis_depth16)
        self.g_s = Synthesis(
            c.latent, c.synthesis_width16, c.synthesis_depth16, c.synthesis_width8, c.synthesis_depth8, c.cond, c.redraw
        )
        self.entropy = entropy_model(c.latent, c.entropy)
        self.f = Reverse(c.latent, c.reverse, self.entropy.grid) if c.reverse is not None else None

    @torch.no_grad()
    def encode(self, x: Image, log2_q: QMap) -> tuple[Latent, SideInfo]:
        """y = g_a(x), and what a decoder would know of it at the step q: real rounding, no gradient."""
        y = self.g_a(x)
        coded = self.quantise(y, log2_q, noise=False)
        return y, SideInfo(coded.v_hat * torch.exp2(log2_q), log2_q, coded.mu, coded.t)

    def forward(
        self, x: Image, log2_q: QMap, realism: Float[Tensor, "b 1 _ _"], pull: Float[Tensor, "b 1 1 1"] | float = 1.0
    ) -> RatevarOutput:
        """One training pass: image → latent → symbols (straight-through) → image, with noise-surrogate bits.

        x: (b, 3, h, w) in [0, 1], h, w multiples of 16. log2_q: (b, 1, 1, 1) or (b, 1, h/16, w/16). realism: 0 or 1.
        pull: the share of the image's gradient that goes on from g_s into the latent.
        """
        y = self.g_a(x)
        coded = self.quantise(y, log2_q, noise=True)
        y_hat = coded.v_hat * torch.exp2(log2_q)
        seen = y_hat.detach() + pull * (y_hat - y_hat.detach())
        side = restored = None
        if self.config.joint:
            side = SideInfo(seen, log2_q, coded.mu, coded.t)
            seen = restored = self.restored(side, realism)
        x_hat = self.g_s(seen, log2_q, log2_q, realism)
        return RatevarOutput(x_hat, y, y_hat, coded.bits_y, coded.bits_z, side, restored)

    def restored(self, side: SideInfo, realism: Float[Tensor, "b 1 _ _"]) -> Latent:
        """What g_s draws from, told q_T, in every decode: ŷ_T, or what a joint f makes of it. realism: ρ, 0 or 1."""
        return self.reverse(side, _no_noise, realism=realism)[0] if self.config.joint else side.y_file

    def reverse(
        self,
        side: SideInfo,
        noise: NoiseSource,
        *,
        config: ReverseConfig | None = None,
        steps: int | None = None,
        network: Network | None = None,
        realism: Float[Tensor, "b 1 _ _"] | None = None,
    ) -> tuple[Latent, QMap]:
        """The latent that g_s decodes at realism 1, and log2 of the step left in it, as g_s is told: the model's finest.

        With a joint f at any realism, and g_s is told q_T: how much f knows is for g_s to learn. Arguments as in
        `reverse_path`; the model must have a reverse network.
        """
        assert self.f is not None
        log2_q_end = side.log2_q_file.clamp(max=log2_q_of(self.config.q_index_min))
        y = reverse_path(self.f, side, log2_q_end, noise, config=config, steps=steps, network=network, realism=realism)
        return y, self.log2_q_left(side.log2_q_file)

    def log2_q_left(self, log2_q_file: QMap) -> QMap:
        """What g_s is told to be left of the file's step behind the reverse path, as log2."""
        return log2_q_file if self.config.joint else log2_q_file.clamp(max=log2_q_of(self.config.q_index_min))


def _no_noise(stream: int, step: int, channels: int) -> Tensor:
    raise AssertionError("a joint reverse network draws nothing")
