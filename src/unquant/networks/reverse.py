"""The reverse path of `ratevar`: a network f that undoes the quantisation in latent space, and how its steps are driven.

    y_q, ŷ_T, (k, μ, σ), ξ ──►┤f(·; q, q_T)├──► estimate or sample of y ──►┤sampler├──► y_q', q' < q ──► …

Han et al. 2025, arXiv 2505.20984; the trainings are described in docs/reverse-path.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from unquant.diffusion.samplers import sample_ancestral, sample_bridge, sample_deterministic
from unquant.diffusion.samplers.common import UNIFORM_STD
from unquant.diffusion.schedules import geometric, randomness
from unquant.entropy.gaussian import ScaleGrid
from unquant.errors import OptionError
from unquant.networks.common import SideInfo
from unquant.nn.blocks import Condition
from unquant.nn.transforms import LATENT_GAIN
from unquant.nn.unet import UNet
from unquant.settings import Blocks, Share, Steps, Width, settings
from unquant.shapes import Latent

__all__ = [
    "SAMPLERS",
    "TRAININGS",
    "Reverse",
    "ReverseConfig",
    "project",
    "reverse_path",
    "rounding_error",
]

Training = Literal["mse", "bridge", "energy", "joint"]
TRAININGS: tuple[Training, ...] = get_args(Training)
Sampler = Literal["deterministic", "ancestral", "bridge"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
_COND = 48
_TAIL = 5.0
_ROWS = 16
"""Rows of a latent whose rounding error is computed at a time."""


@settings
class ReverseConfig:
    """The reverse network f and the way it is driven.

    training: "mse", "bridge" or "energy", of f alone; "joint", with the codec: f then stands in front of g_s in every decode,
    is told ρ, has no noise, and the path ends at its last estimate. width, depth: of the `UNet`. noise_channels: of ξ per
    latent position, "energy" only. side: whether f sees k, μ and σ. sampler, steps, schedule_power, alpha_first, alpha_last,
    tau, project: the shipped sampler, see `reverse_path`; they may change without training, but that of "joint" is
    deterministic. Raises OptionError naming the field out of range.
    """

    training: Training = "energy"
    width: Width = 224
    depth: Blocks = 1
    noise_channels: Annotated[int, Field(ge=0, le=256)] = 4
    side: bool = True
    sampler: Sampler = "bridge"
    steps: Steps = 1
    schedule_power: Annotated[float, Field(gt=0, le=100)] = 1.0
    alpha_first: Share = 1.0
    alpha_last: Share = 1.0
    tau: Literal["constant", "coefficient"] = "coefficient"
    project: bool = True

    def __post_init__(self) -> None:
        if bool(self.noise_channels) != (self.training == "energy"):
            raise OptionError(
                f"noise_channels: above 0 for the training energy, 0 for the others, not {self.noise_channels}"
            )
        if self.joint and self.sampler != "deterministic":
            raise OptionError(f"sampler: deterministic for the training joint, not {self.sampler}")

    @property
    def joint(self) -> bool:
        """Whether f belongs to every decode, and is trained with the codec."""
        return self.training == "joint"


class RoundingError(NamedTuple):
    """Mean and standard deviation of y/q − (k + μ), in steps."""

    mean: Tensor
    std: Tensor


def rounding_error(k: Float[Tensor, "*s"], sigma: Float[Tensor, "*s"]) -> RoundingError:
    """Moments of the rounding error given the symbol k, when y/q − μ is N(0, σ²): a Gaussian cut to [k − ½, k + ½], less k.

    k: whole numbers; sigma: > 0; both in steps. The mean lies in (−½, ½), the standard deviation in (0, 1/√12].
    Beyond 5σ the cell's place in the tail is taken as 5σ: so far out the Gaussian is not to be believed.
    """
    low = torch.minimum((k.abs() - 0.5) / sigma, torch.full_like(sigma, _TAIL))
    width = 1 / sigma
    # ratios of φ to the cell's mass, in terms of erfcx, which neither overflows nor cancels in the tail
    drop = torch.exp(-0.5 * width * (2 * low + width))
    root = math.sqrt(0.5)
    mass = torch.special.erfcx(low * root) - drop * torch.special.erfcx((low + width) * root)
    at_low = math.sqrt(2 / math.pi) / mass
    mean = at_low * (1 - drop)
    variance = 1 + at_low * (low - (low + width) * drop) - mean.square()
    exact = sigma * (mean - low) - 0.5, sigma * variance.clamp(min=1e-6).sqrt()
    # where the cell is narrow against σ all of that cancels: there ln φ is all but straight, its slope −2x, and the moments
    # are those of exp(−2x·e) on [−½, ½], by their series, less what the curvature takes off
    inverse = sigma.reciprocal().square()
    x = torch.minimum(k.abs(), _TAIL * sigma + 0.5) * inverse / 2
    series = -x / 6 + x**3 / 90 - x**5 / 945, (1 / 12 - x.square() / 60 + x**4 / 378 - inverse / 360).sqrt()
    wide = sigma > 3
    mean, std = (torch.where(wide, s, e) for s, e in zip(series, exact, strict=True))
    return RoundingError(torch.sign(k) * mean.clamp(-0.5, 0.5), std.clamp(max=UNIFORM_STD))


class Reverse(nn.Module):
    """f(y_q, q, ŷ_T, q_T, μ, σ[, ξ][, ρ]): the estimate of y, or with noise channels a sample of it."""

    def __init__(self, latent: int, config: ReverseConfig, grid: ScaleGrid) -> None:
        super().__init__()
        self.config = config
        self.grid = grid
        self.condition = Condition(3 if config.joint else 2, _COND)
        inputs = (5 if config.side else 2) * latent + config.noise_channels
        self.net = UNet(inputs, latent, config.width, config.depth, _COND)
        self.halo, self.align = self.net.halo, self.net.align
        """Receptive field beyond a latent position, and the multiple that windows must start on, in latent positions."""

    def tau(self, side: SideInfo, kind: str | None = None) -> Tensor:
        """τ of the bridge in steps: 1/√12, or (b, c, h16, w16) for this file's coefficients. kind: None as configured."""
        if (kind or self.config.tau) == "constant":
            return torch.full((1, 1, 1, 1), UNIFORM_STD, device=side.y_file.device)
        return self._error(side).std

    @torch.no_grad()
    def _error(self, side: SideInfo) -> RoundingError:
        """The moments for every coefficient, by groups of rows: the formula takes some twenty planes of their size."""

        def rows(top: int) -> RoundingError:
            y, log2_q, mu, t = ((p if p.shape[-2] == 1 else p[..., top : top + _ROWS, :]).float() for p in side)
            return rounding_error((y * torch.exp2(-log2_q) - mu).round(), self.grid.sigma(t))

        with torch.autocast(side.y_file.device.type, enabled=False):
            parts = [rows(top) for top in range(0, side.y_file.shape[-2], _ROWS)]
            return RoundingError(*(torch.cat(moment, dim=-2) for moment in zip(*parts, strict=True)))

    def forward(
        self,
        y: Latent,
        log2_q: Float[Tensor, "b 1 _ _"],
        side: SideInfo,
        xi: Float[Tensor, "b n h16 w16"] | None,
        realism: Float[Tensor, "b 1 _ _"] | None = None,
    ) -> Latent:
        """The denoised latent (b, c, h16, w16), float32, latent units.

        y: the state y_q, latent units. log2_q: log2 of the step left in it, ≤ log2 q_T. xi: standard normal, with
        `noise_channels` channels; None without such. realism: ρ in [0, 1], for the training "joint" alone.
        """
        q_file = torch.exp2(side.log2_q_file.float())
        maps = [(y - side.y_file) / q_file, side.y_file / LATENT_GAIN]
        if self.config.side:
            error = self._error(side)
            maps += [4 * error.mean, error.std / UNIFORM_STD - 1, side.t / 32 - 1]
            del error
        if xi is not None:
            maps.append(xi)
        kind = y.device.type
        if torch.is_autocast_enabled(kind):
            # as the first layer would; but in float32 all of them at once are the most memory that a decode takes
            maps = [plane.to(torch.get_autocast_dtype(kind)) for plane in maps]
        told = [log2_q / 3 - 1, side.log2_q_file / 3 - 1]
        if realism is not None:
            told.append(2 * realism - 1)
        scalars = torch.broadcast_tensors(*told)
        residual = self.net(torch.cat(maps, dim=1), self.condition(torch.cat(scalars, dim=1)))
        return y.float() + torch.exp2(log2_q.float()) * residual.float()


def project(denoised: Latent, side: SideInfo) -> Latent:
    """The nearest latent that the file does not contradict: |y − ŷ_T| ≤ q_T/2 where a symbol was coded, any elsewhere.

    The gradient passes straight through, so that an estimate outside the cell can still learn.
    """
    half = torch.exp2(side.log2_q_file.float()) / 2
    inside = torch.maximum(torch.minimum(denoised, side.y_file + half), side.y_file - half)
    nearest = torch.where(side.t >= -0.5, inside, denoised)
    if not torch.is_grad_enabled():
        return nearest
    # the value is exactly that of the first term
    return nearest.detach() + (denoised - denoised.detach())


Network = Callable[[Latent, Tensor, SideInfo, Tensor | None], Latent]
NoiseSource = Callable[[int, int, int], Tensor]
"""noise(stream, step, channels): standard normal (b, channels, h16, w16)."""
STATE_NOISE, NETWORK_NOISE = 0, 1
"""Streams of a `NoiseSource`: what the sampler adds to the state, and ξ."""


def reverse_path(
    f: Reverse,
    side: SideInfo,
    log2_q_end: Float[Tensor, "b 1 _ _"],
    noise: NoiseSource,
    *,
    config: ReverseConfig | None = None,
    steps: int | None = None,
    network: Network | None = None,
    realism: Float[Tensor, "b 1 _ _"] | None = None,
) -> Latent:
    """From ŷ_T down to the step q_end by the configuration's sampler and schedule; returns y at q_end, latent units.

    log2_q_end: ≤ log2 q_T; where it equals that, the result is exactly ŷ_T. Of the training "joint" the last step goes on to
    q = 0 instead, wherever: the result is f's last estimate. config: another way to sample than f's own configuration; its
    network must be the same. steps: ≥ 1, None for the configuration's. network: evaluates f (in windows, say), with ρ where
    it is told that; None for f itself, with `realism`.
    """
    c = config or f.config
    count = c.steps if steps is None else steps
    q_file = torch.exp2(side.log2_q_file.float())
    # equal logarithms in tensors of different shapes may differ in the last bit of their powers
    q_end = torch.minimum(torch.exp2(log2_q_end.float()), q_file)
    qs = geometric(q_file, q_end, count, c.schedule_power)
    if c.joint:
        qs = torch.cat([qs[:-1], torch.zeros_like(qs[-1:])])
    channels = side.y_file.shape[1]
    draws = iter(range(count))

    def denoise(y: Latent, q: Tensor) -> Latent:
        xi = noise(NETWORK_NOISE, next(draws), c.noise_channels) if c.noise_channels else None
        given = y, torch.log2(q), side, xi
        denoised = network(*given) if network is not None else f(*given, realism)
        return project(denoised, side) if c.project else denoised

    start = side.y_file.float()
    if c.sampler == "deterministic":
        y = sample_deterministic(denoise, start, qs)
    else:
        sample = sample_ancestral if c.sampler == "ancestral" else sample_bridge
        alphas = randomness(c.alpha_first, c.alpha_last, count)
        # without noise τ has no effect, and it takes a while
        tau = f.tau(side, c.tau) if max(c.alpha_first, c.alpha_last) > 0 else UNIFORM_STD
        y = sample(denoise, start, qs, alphas, lambda step: noise(STATE_NOISE, step, channels), tau=tau)
    return y if c.joint else torch.where(log2_q_end < side.log2_q_file, y, start)
