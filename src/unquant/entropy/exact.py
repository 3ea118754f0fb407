"""The one path from the entropy networks to the coder, run alike by encoder and decoder (docs/design.md).

    log2 q ──►┤prior├──► snap ──► code ẑ ──►┤h_s├──►┤group 1├──► snap ──► code ──►┤context, group 2├──► snap ──► code …

Networks run in float64 on one tile at a time; their outputs are snapped to grids (μ to 1/64 of a step, the scale to a
table index), and only the snapped integers reach the coder and the next group. float64 results differ between machines by
about 1e-13 relative, so a snap could differ only within about 1e-9 of a rounding boundary. The encoder does not trust
values within GUARD of one: it writes (position, side) into the tile before each group, and the decoder takes the side from
there. Nothing here knows q itself, only k + μ and log2 q = index/64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from unquant.coding import SymbolDecoder, SymbolEncoder, Tables
from unquant.entropy.base import EntropyModel, Group, Params, hyper_size
from unquant.entropy.rdoq import Rdoq
from unquant.errors import CorruptStream
from unquant.shapes import Latent, QMap

__all__ = ["GUARD", "MU_GRID", "CodedTile", "DecodedTile", "ExactCoder", "snap", "unsafe"]

MU_GRID = 64
"""Means are multiples of 1/64 of a step."""
GUARD = 1e-7
"""Half-width of the band around a rounding boundary in which the encoder states the side, in grid units."""


class CodedTile(NamedTuple):
    """A tile's stream, its symbols as int32 little-endian in coding order, and ŷ/q."""

    stream: bytes
    symbols: bytes
    v_hat: Latent


class DecodedTile(NamedTuple):
    """A tile's symbols as int32 little-endian in coding order, ŷ/q, and the μ, σ-coordinates they were decoded with.

    v_hat, mu, t: (1, c, h16, w16) float64, in steps; t is the integer table index, −1 where nothing was coded.
    """

    symbols: bytes
    v_hat: Latent
    mu: Latent
    t: Latent


Overrides = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]


def unsafe(grid: Float[Tensor, " n"]) -> Overrides:
    """Positions of values within GUARD of a rounding boundary n + ½, and whether each lies at or above it."""
    distance = grid - grid.floor() - 0.5
    where = (distance.abs() < GUARD).nonzero().squeeze(1)
    return where.cpu().numpy(), (distance[where] >= 0).cpu().numpy()


def snap(grid: Float[Tensor, " n"], overrides: Overrides) -> Float[Tensor, " n"]:
    """Round half up to integers (still float64), the sides of `overrides` taken from there."""
    snapped = (grid + 0.5).floor()
    positions, sides = overrides
    if positions.size:
        where = torch.from_numpy(positions).to(grid.device)
        snapped[where] = grid[where].floor() + torch.from_numpy(sides).to(grid)
    return snapped


class _Place(NamedTuple):
    """A group of y, and its positions in the tile: at least one."""

    group: Group
    positions: Tensor

    def of(self, plane: Float[Tensor, "1 c hw"]) -> Float[Tensor, "1 g n 1"]:
        """What a plane holds there."""
        return plane[:, self.group.channels, self.positions, None]

    def put(self, plane: Float[Tensor, "1 c hw"], values: Float[Tensor, "1 g n 1"]) -> None:
        plane[:, self.group.channels, self.positions] = values[..., 0]


class _Snapped(NamedTuple):
    mu: Tensor
    table: npt.NDArray[np.int64]


_Stage = Callable[[Params, _Place | None], Tensor]


class ExactCoder:
    """Codes the quantised latent of one tile with an entropy model and its integer tables.

    entropy: copied to float64, on `device`. tables: those stored with the weights.
    """

    def __init__(self, entropy: EntropyModel, tables: Tables, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        # h_a stays behind: it decides symbols but is not part of what must be exact
        slim = copy.copy(entropy)
        slim._modules = {k: m for k, m in entropy._modules.items() if k != "analysis"}  # pyright: ignore[reportPrivateUsage]
        self.networks = copy.deepcopy(slim).to(self.device, torch.float64).eval().requires_grad_(False)
        self.tables = tables

    @property
    def first_channels(self) -> int:
        """How many channels are coded before any other."""
        return self.networks.groups[0].channels.stop

    def _walk(self, size: tuple[int, int], log2_q: QMap, stage: _Stage, channels: int | None = None) -> Latent:
        """z, without a place, then the groups in order. stage(params, place) codes or decodes symbols and returns k + μ.
        channels: the groups of those below it alone; None for all."""
        net = self.networks
        h16, w16 = size
        log2_q = log2_q.to(self.device, torch.float64)
        cond = net.condition_of(log2_q)
        z_size = hyper_size(h16, w16)
        prior = net.hyper_prior(cond, z_size)
        shape = (1, net.hyper, *z_size)
        z_hat = stage(Params(prior.mu.expand(shape), prior.t.expand(shape)), None)
        features = net.hyper_synthesis(z_hat, cond, size)
        v_hat = torch.zeros(1, net.latent, h16 * w16, device=self.device, dtype=torch.float64)
        for number, group in enumerate(net.groups):
            place = _Place(group, group.positions(size, self.device))
            if len(place.positions) and (channels is None or group.channels.stop <= channels):
                known = v_hat.unflatten(2, size)
                place.put(v_hat, stage(net.group_params(number, features, known, cond, log2_q, place.positions), place))
        return v_hat.unflatten(2, size)

    def _snap(self, params: Params, overrides: Callable[[Tensor], Overrides]) -> _Snapped:
        grid = torch.cat([params.mu.flatten() * MU_GRID, params.t.flatten()])
        snapped = snap(grid, overrides(grid))
        n = params.mu.numel()
        index = snapped[n:].clamp(-1, len(self.tables) - 1).to(torch.int64).cpu().numpy()
        return _Snapped((snapped[:n] / MU_GRID).view(params.mu.shape), index)

    @torch.no_grad()
    def encode(self, v: Latent, z: Tensor, log2_q: QMap, rdoq: Rdoq | None = None) -> CodedTile:
        """Code one tile. v = y/q: (1, c, h16, w16). z = h_a(v): (1, m, ⌈h16/4⌉, ⌈w16/4⌉). log2_q: index/64, or a map.

        rdoq: chooses the symbols of v, each group sees what was chosen before. Without it they are rounded, as z always is.
        """
        encoder = SymbolEncoder(self.tables)
        symbols: list[npt.NDArray[np.int32]] = []
        size = (v.shape[-2], v.shape[-1])
        flat = v.to(self.device, torch.float64).flatten(2)
        z = z.to(self.device, torch.float64)

        def stage(params: Params, place: _Place | None) -> Tensor:
            def overrides(grid: Tensor) -> Overrides:
                found = unsafe(grid)
                encoder.encode_overrides(*found, grid.numel())
                return found

            mu, index = self._snap(params, overrides)
            value = z if place is None else place.of(flat)
            k = (value - mu).round().clamp(-(2.0**30), 2.0**30)
            table = torch.from_numpy(index).to(k.device).view(k.shape)
            k = torch.where(table >= 0, k, torch.zeros_like(k))
            if rdoq is not None and place is not None:
                k = rdoq(value - mu, k, table)
            coded = k.flatten().cpu().numpy().astype(np.int32)
            encoder.encode(coded, index)
            symbols.append(coded)
            return k + mu

        v_hat = self._walk(size, log2_q, stage)
        return CodedTile(encoder.to_bytes(), _little_endian(symbols), v_hat)

    def decode(self, stream: bytes, size: tuple[int, int], log2_q: QMap) -> DecodedTile:
        """Decode one tile of latent size (h16, w16). Raises CorruptStream; the caller compares the symbols' checksum."""
        return self._decode(stream, size, log2_q)

    def glance(self, stream: bytes, size: tuple[int, int], log2_q: QMap) -> Latent:
        """ŷ/q of the first channels of a tile, (1, first_channels, h16, w16): no more is decoded, so that no checksum tells
        whether it is right. Raises CorruptStream as `decode`."""
        return self._decode(stream, size, log2_q, self.first_channels).v_hat[:, : self.first_channels]

    @torch.no_grad()
    def _decode(self, stream: bytes, size: tuple[int, int], log2_q: QMap, channels: int | None = None) -> DecodedTile:
        decoder = SymbolDecoder(self.tables, stream)
        symbols: list[npt.NDArray[np.int32]] = []
        shape = (1, self.networks.latent, size[0] * size[1])
        mu_y, t_y = (torch.zeros(shape, device=self.device, dtype=torch.float64) for _ in range(2))

        def stage(params: Params, place: _Place | None) -> Tensor:
            mu, index = self._snap(params, lambda grid: decoder.decode_overrides(grid.numel()))
            coded = decoder.decode(index)
            symbols.append(coded)
            if np.abs(coded.astype(np.int64)).max(initial=0) > 2**30:
                raise CorruptStream("a symbol beyond 2^30")
            if place is not None:
                place.put(mu_y, mu)
                place.put(t_y, torch.from_numpy(index).to(mu).view(mu.shape))
            return torch.from_numpy(coded).to(mu).view(mu.shape) + mu

        v_hat = self._walk(size, log2_q, stage, channels)
        return DecodedTile(_little_endian(symbols), v_hat, mu_y.unflatten(2, size), t_y.unflatten(2, size))


def _little_endian(symbols: list[npt.NDArray[np.int32]]) -> bytes:
    return np.concatenate(symbols).astype("<i4").tobytes()
