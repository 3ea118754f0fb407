"""What every entropy model is: groups of symbols, parameters of Gaussian symbols, and the parts that all share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from unquant.entropy.gaussian import ScaleGrid
from unquant.errors import OptionError
from unquant.nn.blocks import Condition, resize_map
from unquant.shapes import Hyper, Latent, QMap

__all__ = ["HYPER_STRIDE", "T_MIN", "T_SOFT", "EntropyModel", "Group", "Params", "hyper_size", "positions_of"]

HYPER_STRIDE: Final = 4
"""Latent positions per hyper-latent position, in each direction."""
T_MIN: Final = -6.0
"""The lowest t that a head can give: a soft floor."""
T_SOFT: Final = 4.0
"""How far above the lowest the floor is felt, in t."""


def hyper_size(h16: int, w16: int) -> tuple[int, int]:
    """Size of z for a latent of size (h16, w16)."""
    return -(-h16 // HYPER_STRIDE), -(-w16 // HYPER_STRIDE)


class Params(NamedTuple):
    """Parameters of Gaussian symbols: mean `mu` in steps, scale as grid coordinate `t` (see `ScaleGrid`)."""

    mu: Tensor
    t: Tensor


def positions_of(parity: int, height: int, width: int, device: torch.device | None = None) -> Int[Tensor, " n"]:
    """Flat row-major positions of half a checkerboard, ascending: with parity 0 those with odd i + j, with 1 the others.

    Of a tile of one position parity 0 has none.
    """
    # in closed form: picking them from a mask would make a GPU wait and break a compiled graph
    if width % 2:
        return torch.arange(1 - parity, height * width, 2, device=device)
    i = torch.arange(height, device=device)[:, None]
    j = torch.arange(0, width, 2, device=device)[None, :]
    return (i * width + j + (i + 1 + parity) % 2).flatten()


class Group(NamedTuple):
    """Coefficients of a latent that are coded together: some channels at half the positions.

    parity: which half, as `positions_of` takes it. channels: a slice with whole numbers as its ends.
    """

    parity: int
    channels: slice

    def positions(self, size: tuple[int, int], device: torch.device | None = None) -> Int[Tensor, " n"]:
        """Flat row-major positions in a latent of size (h16, w16), ascending; there may be none."""
        return positions_of(self.parity, *size, device)


class EntropyModel(nn.Module, ABC):
    """What the models and the exact path ask of the entropy networks, and the parts that all of them share.

    latent, hyper: channels of y and of z, z of size `hyper_size`. Symbols are coded z first, then the `groups` of y. A
    subclass makes the attributes below; what only the encoder needs lies in `analysis`.
    """

    latent: int
    hyper: int
    grid: ScaleGrid
    condition: Condition
    prior: nn.Sequential
    log2_std: nn.Parameter
    """log2 of each channel's standard deviation in latent units: the scale before any network speaks."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of y in coding order, every coefficient in one of them: by default two, of all channels."""
        return tuple(Group(parity, slice(0, self.latent)) for parity in (0, 1))

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
    def group_params(
        self,
        number: int,
        features: Float[Tensor, "b f h16 w16"],
        v: Latent,
        cond: Float[Tensor, "b e hq wq"],
        log2_q: QMap,
        positions: Int[Tensor, " n"],
    ) -> Params:
        """Means and scales of one group, of its channels at its `positions` (flat, row-major): (b, g, n, 1) each.

        number: in `groups`. features: h_s(ẑ). v: k + μ of all groups before and 0 elsewhere.
        """

    def masked_params(
        self,
        features: Float[Tensor, "b f h16 w16"],
        v: Latent,
        cond: Float[Tensor, "b e hq wq"],
        log2_q: QMap,
        hidden: Int[Tensor, " n"],
    ) -> Params:
        """Means and scales (b, c, n, 1) of hidden positions (flat, row-major), given all others: for pretraining.

        v: k + μ, or its surrogate, at the others; what stands at the hidden ones does not matter. hidden: the same for all
        images of a batch. Raises OptionError: a model that can do it overrides this.
        """
        raise OptionError(f"{type(self).__name__} has a context of the checkerboard alone, none of random masks")

    def _soft_floor(self, t: Tensor) -> Tensor:
        return T_MIN + T_SOFT * F.softplus((t - T_MIN) / T_SOFT)

    @staticmethod
    def _at(
        positions: Int[Tensor, " n"], cond: Float[Tensor, "b e hq wq"], log2_q: QMap
    ) -> tuple[Float[Tensor, "b e _ 1"], Float[Tensor, "b 1 _ 1"]]:
        """Condition and log2 q at positions, (b, e, n, 1) and (b, 1, n, 1); one for the image stays (b, e, 1, 1)."""
        if cond.shape[-2:] == (1, 1):
            return cond, log2_q
        return cond.flatten(2)[:, :, positions, None], log2_q.flatten(2)[:, :, positions, None]

    def _scaled(
        self, out: Float[Tensor, "b g2 n 1"], log2_q: Float[Tensor, "b 1 _ _"], channels: slice = slice(None)
    ) -> Params:
        """A head's output (b, 2g, n, 1) as parameters; at 0 the scale is that of `log2_std` in steps of q.

        log2_q: (b, 1, 1, 1) or, gathered at the positions, (b, 1, n, 1). channels: whose output it is.
        """
        mu, t = out.chunk(2, dim=1)
        octaves = self.log2_std[channels, None, None].to(out.dtype) - log2_q.to(out.dtype)
        return Params(mu, self._soft_floor(20.0 + octaves * (0.6931471805599453 / self.grid.log_ratio) + 10.0 * t))
