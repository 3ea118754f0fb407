"""The conditional diffusion codec: a compressor whose decoder is a diffusion of pixels, conditioned on the latent.

    x ──►┤g_a├──► y ──►┤round(y/q − μ)├──► ŷ ──►┤g_s├──► context maps, base
                              ▲ μ, σ                           │
                        ┤entropy model(log2 q)├                ▼
    γ·ρ·noise | 0 ──► x_T ──►┤f(·, t, context; ρ, log2 q)├──► x̂_0 ──►┤DDIM├──► x_t' ──► … ──► x̂

Yang & Mandt, arXiv 2209.06950. g_a is the `CompressorEncoder`, g_s the `ContextDecoder`, f the `Denoiser`. What is ours
beside: symbols are those of y/q for any step q (one weight set for every rate), and one U-Net that hears ρ and log2 q serves
every realism, so that the file does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, field
from typing import Annotated, Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from unquant.diffusion.parameterisation import Level, Parameterisation, Signal, diffuse
from unquant.diffusion.samplers import sample_ddim
from unquant.diffusion.schedules import cosine_alphas, linear_alphas, subsequence, time_of
from unquant.entropy.entroformer import PUBLISHED, EntroformerConfig
from unquant.errors import OptionError
from unquant.networks.config import EntropyConfig, entropy_model, read_config
from unquant.networks.latent import LatentModel, check_latent
from unquant.nn.compressor import CompressorConfig, CompressorEncoder, Context, ContextDecoder
from unquant.nn.denoiser import Denoiser, DenoiserConfig
from unquant.settings import QIndex, Share, Steps, TileSide, settings
from unquant.shapes import Image, QMap

__all__ = ["SCHEDULES", "Cdc", "CdcConfig", "CdcOutput"]

SCHEDULES = {"cosine": cosine_alphas, "linear": linear_alphas}
Network = Callable[[Signal, Float[Tensor, " b"], Context, Float[Tensor, "b k"]], Signal]
"""f(x_t, t/N, context, (ρ, log2 q)), as the `Denoiser` gives it."""


@settings
class CdcConfig:
    """Everything that fixes the networks' shapes, the meaning of a latent, and what the U-Net's output means.

    q_index_min, q_index_max, tile, default_realism: as in `RatevarConfig`. parameterisation: "x" or "epsilon". schedule:
    "cosine" or "linear", over train_steps levels. steps: of DDIM by default. gamma: standard deviation of the start at
    realism 1, which is 0 at realism 0. Raises OptionError naming the field out of range.
    """

    q_index_min: QIndex = 16
    q_index_max: QIndex = 344
    tile: TileSide = 64
    default_realism: Share = 1.0
    parameterisation: Literal["x", "epsilon"] = "x"
    schedule: Literal["cosine", "linear"] = "cosine"
    train_steps: Annotated[int, Field(ge=2, le=2**17)] = 8193
    steps: Steps = 17
    gamma: Share = 0.8
    compressor: CompressorConfig = field(default_factory=CompressorConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    entropy: EntropyConfig = field(default_factory=lambda: EntropyConfig(entroformer=EntroformerConfig()))

    def __post_init__(self) -> None:
        check_latent(self)
        if self.steps > self.train_steps:
            raise OptionError(f"steps: at most train_steps ({self.train_steps}), not {self.steps}")

    @classmethod
    def paper(cls) -> CdcConfig:
        """The published size: compressor 13.8 M with the published hyperprior, U-Net 40.1 M; Entroformer as published."""
        return cls(
            compressor=CompressorConfig.paper(),
            denoiser=DenoiserConfig.paper(),
            entropy=EntropyConfig(entroformer=PUBLISHED),
        )

    @property
    def latent(self) -> int:
        """Channels of y."""
        return self.compressor.latent

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CdcConfig:
        """The inverse of `to_dict`; a missing key takes its default. Raises WeightsError for anything that does not fit."""
        return read_config(cls, values, "cdc")


class CdcOutput(NamedTuple):
    """One training pass. error: the parameterisation's loss, (b,). denoised: the estimate of the image, in [0, 1] but not
    clamped. base: the linear decode. bits_y, bits_z: per latent and hyper-latent.
    """

    error: Float[Tensor, " b"]
    denoised: Image
    base: Image | None
    bits_y: Float[Tensor, "b c h16 w16"]
    bits_z: Float[Tensor, "b m h64 w64"]


class Cdc(LatentModel[CdcConfig, CompressorEncoder, ContextDecoder]):
    """Encoder g_a, context decoder g_s, entropy model and denoising U-Net f as one module."""

    alphas: Float[Tensor, " t"]

    def __init__(self, config: CdcConfig) -> None:
        super().__init__(config)
        c = config
        self.g_a = CompressorEncoder(c.compressor)
        self.g_s = ContextDecoder(c.compressor)
        self.f = Denoiser(c.denoiser, c.compressor)
        self.entropy = entropy_model(c.latent, c.entropy)
        self.parameterisation = Parameterisation(c.parameterisation)
        with torch.device("cpu"):  # it is in no weights file, so it must exist under the meta device too
            self.register_buffer("alphas", SCHEDULES[c.schedule](c.train_steps), persistent=False)

    def scalars(self, log2_q: QMap, realism: Float[Tensor, "b 1 1 1"]) -> Float[Tensor, "b k"]:
        """What f is told of an image: ρ and log2 q, of a q map its mean, as far as its configuration has room for them."""
        told = torch.stack([realism[:, 0, 0, 0], log2_q.mean((1, 2, 3)) / 3 - 1], dim=1)
        return told[:, : self.config.denoiser.scalars]

    def forward(
        self,
        x: Image,
        log2_q: QMap,
        realism: Float[Tensor, "b 1 1 1"],
        level: Int[Tensor, " b"],
        noise: Float[Tensor, "b 3 h w"],
        hidden: Int[Tensor, " n"] | None = None,
    ) -> CdcOutput:
        """One training pass: image → latent → symbols (straight-through) → context; x_t at `level` → the estimate of x.

        x: (b, 3, h, w) in [0, 1], h, w multiples of 16. log2_q: (b, 1, 1, 1) or (b, 1, h/16, w/16). realism: ρ in [0, 1].
        level: indices into the trained levels, 0 the cleanest. noise: standard normal. hidden: as in `quantise`.
        Section 3 of the paper.
        """
        y = self.g_a(x)
        coded = self.quantise(y, log2_q, noise=True, hidden=hidden)
        context = self.g_s(coded.v_hat * torch.exp2(log2_q))
        alpha = self.alphas[level].view(-1, 1, 1, 1)
        clean = 2 * x - 1
        x_t = diffuse(clean, noise, alpha)
        out = self.f(x_t, self._time(alpha.flatten()), context, self.scalars(log2_q, realism))
        out = self._with_linear(out, x_t, context, alpha)
        kind = self.parameterisation
        denoised = kind.to_x(out, x_t, alpha)
        return CdcOutput(
            kind.loss(out, clean, noise, alpha), (denoised + 1) / 2, context.base, coded.bits_y, coded.bits_z
        )

    def sample(
        self,
        context: Context,
        log2_q: QMap,
        realism: float,
        start: Float[Tensor, "b 3 h w"] | None,
        *,
        steps: int | None = None,
        network: Network | None = None,
    ) -> Image:
        """The decode: DDIM from γ·ρ·`start` down to the image, in [0, 1] but not clamped where the sampler does not.

        start: standard normal noise; None for zero, the deterministic decode. steps: None for the configuration's. network:
        in place of f, which it has to agree with; for windows.
        """
        finest = context.maps[0]
        b, (h, w) = len(finest), finest.shape[-2:]
        shape = (b, 3, h * context.stride, w * context.stride)
        noise = torch.zeros(shape, device=finest.device) if start is None else start
        x = self.config.gamma * realism * noise
        return (self.advance(context, log2_q, realism, x, self.levels(steps), network=network) + 1) / 2

    def levels(self, steps: int | None = None) -> Float[Tensor, " n"]:
        """The noise levels of a decode of so many steps, None for the configuration's: (steps + 1,)."""
        return subsequence(self.alphas, self.config.steps if steps is None else steps)

    def advance(
        self,
        context: Context,
        log2_q: QMap,
        realism: float,
        x: Signal,
        alphas: Float[Tensor, " n"],
        *,
        network: Network | None = None,
    ) -> Signal:
        """DDIM over some of the `levels`, two for one step: x_t at the first of them to that at the last, in [−1, 1] at the
        end. Other arguments as in `sample`."""
        f = network or self.f
        kind = self.parameterisation
        b = len(x)
        told = self.scalars(log2_q, x.new_full((b, 1, 1, 1), realism, dtype=torch.float32))

        def denoise(x_t: Signal, alpha: Tensor) -> Signal:
            time = self._time(alpha).expand(b)
            out = self._with_linear(f(x_t, time, context, told), x_t, context, alpha)
            return kind.to_x(out, x_t, alpha)

        return sample_ddim(denoise, x, alphas, clamp=kind.clamps)

    def _with_linear(self, out: Signal, x_t: Signal, context: Context, alpha: Level) -> Signal:
        """The raw output: `out`, with `residual` added to what the linear decode makes of x_t."""
        c = self.config.denoiser
        if not c.residual or context.base is None:
            return out
        linear = 2 * context.base.float() - 1
        return out + self.parameterisation.of_gaussian(linear, c.residual_std, x_t, alpha)

    def _time(self, alpha: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """t/N of noise levels, as f is told it."""
        return time_of(alpha, self.alphas).float()
