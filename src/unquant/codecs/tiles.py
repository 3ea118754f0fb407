"""A latent coded tile by tile, each on its own, by the exact path: quantised, coded, and bound to its place by a checksum.

y ──►┤tiles├──►┤/q├──► v ──►┤h_a├──► z,   v, z ──►┤exact coder├──► stream, checksum of the symbols
ŷ, μ, σ ◄──┤tiles├◄──┤·q├◄──┤exact coder├◄── stream
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.progress import counted
from unquant.container import Container, Header, Tile, latent_size, symbols_crc
from unquant.entropy.exact import ExactCoder
from unquant.entropy.rdoq import Rdoq
from unquant.errors import CorruptStream
from unquant.networks.common import SideInfo, log2_q_of

__all__ = ["decode_tiles", "encode_tiles", "log2_q_in", "q_indices", "tile_slices"]


def tile_slices(h16: int, w16: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles of a latent of size (h16, w16), at most `side` each way, in the order of the file."""
    for top in range(0, h16, side):
        for left in range(0, w16, side):
            yield slice(top, min(top + side, h16)), slice(left, min(left + side, w16))


def q_indices(header: Header) -> npt.NDArray[np.int64]:
    """The q indices in a header: (1, 1), or (h16, w16) of a map."""
    if header.q_map is None:
        return np.full((1, 1), header.q_index, dtype=np.int64)
    return np.frombuffer(header.q_map, dtype="<u2").astype(np.int64).reshape(latent_size(header.width, header.height))


def log2_q_in(header: Header, device: torch.device) -> Tensor:
    """log2 q of a header, float64: (1, 1, 1, 1), or (1, 1, h16, w16) of a map."""
    return log2_q_of(torch.from_numpy(q_indices(header)).to(device, torch.float64)[None, None])


def encode_tiles(
    exact: ExactCoder,
    hyper_analysis: Callable[[Tensor, Tensor], Tensor],
    header: Header,
    y: Tensor,
    side: int,
    rdoq: Rdoq | None = None,
) -> tuple[Tile, ...]:
    """The tiles of a latent y, (1, c, h16, w16) float32, in the header's steps.

    hyper_analysis: h_a of the entropy model, in float32: it decides symbols, but need not be exact. rdoq: see
    `ExactCoder.encode`.
    """
    log2_q = log2_q_in(header, y.device)
    h16, w16 = y.shape[-2:]
    tiles: list[Tile] = []
    places = list(tile_slices(h16, w16, side))
    for number, place in counted(enumerate(places), "tiles", len(places)):
        step = _part(log2_q, place)
        v = _part(y, place).double() * torch.exp2(-step)
        coded = exact.encode(v, hyper_analysis(v.float(), step.float()), step, rdoq)
        tiles.append(Tile(coded.stream, symbols_crc(header.to_bytes(), number, coded.symbols)))
    return tuple(tiles)


def decode_tiles(exact: ExactCoder, container: Container, channels: int, side: int, *, path: bool = True) -> SideInfo:
    """ŷ and what it was decoded with, float32, on the coder's device. Raises CorruptStream unless every checksum holds.

    path: False where no reverse path follows: μ and the scales, which nothing else reads, are then single zeros.
    """
    header, device = container.header, exact.device
    log2_q = log2_q_in(header, device)
    h16, w16 = latent_size(header.width, header.height)
    places = list(tile_slices(h16, w16, side))
    if len(places) != len(container.tiles):
        raise CorruptStream(f"{len(container.tiles)} tiles where {len(places)} are needed")
    plane = 1, channels, h16, w16
    y_hat = torch.empty(plane, device=device)
    mu, t = (torch.zeros(plane if path else (1, 1, 1, 1), device=device) for _ in range(2))
    pairs = enumerate(zip(places, container.tiles, strict=True))
    for number, (place, tile) in counted(pairs, "tiles", len(places)):
        rows, columns = place
        step = _part(log2_q, place)
        decoded = exact.decode(tile.stream, (rows.stop - rows.start, columns.stop - columns.start), step)
        if symbols_crc(header.to_bytes(), number, decoded.symbols) != tile.crc:
            raise CorruptStream(f"tile {number}: the checksum of the symbols does not match")
        y_hat[..., rows, columns] = (decoded.v_hat * torch.exp2(step)).float()
        if path:
            mu[..., rows, columns], t[..., rows, columns] = decoded.mu.float(), decoded.t.float()
    return SideInfo(y_hat, log2_q.float(), mu, t)


def _part(plane: Tensor, place: tuple[slice, slice]) -> Tensor:
    """One tile of a plane; of a single number that holds everywhere, that number."""
    return plane if plane.shape[-2:] == (1, 1) else plane[..., place[0], place[1]]
