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

from unquant.codecs.parts import Damage, fill_with_means
from unquant.codecs.progress import counted
from unquant.codecs.windows import Window
from unquant.container import Container, Header, Tile, latent_size, symbols_crc
from unquant.entropy.exact import ExactCoder
from unquant.entropy.rdoq import Rdoq
from unquant.errors import CorruptStream
from unquant.networks.common import SideInfo, log2_q_of

__all__ = ["decode_tiles", "encode_tiles", "log2_q_in", "q_indices", "read_tiles", "tile_windows"]


def tile_windows(h16: int, w16: int, side: int) -> Iterator[Window]:
    """The tiles of a latent of size (h16, w16), at most `side` each way, in the order of the file."""
    for top in range(0, h16, side):
        for left in range(0, w16, side):
            yield Window(top, min(top + side, h16), left, min(left + side, w16))


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
    places = list(tile_windows(h16, w16, side))
    for number, place in counted(enumerate(places), "tiles", len(places)):
        step = place.cut(log2_q)
        v = place.cut(y).double() * torch.exp2(-step)
        coded = exact.encode(v, hyper_analysis(v.float(), step.float()), step, rdoq)
        tiles.append(Tile(coded.stream, symbols_crc(header.to_bytes(), number, coded.symbols)))
    return tuple(tiles)


def decode_tiles(
    exact: ExactCoder,
    container: Container,
    channels: int,
    side: int,
    *,
    path: bool = True,
    window: Window | None = None,
    damage: Damage | None = None,
) -> SideInfo:
    """ŷ and what it was decoded with, float32, on the coder's device. Raises CorruptStream unless every checksum holds.

    path: False where no reverse path follows: μ and the scales, which nothing else reads, are then single zeros. window: the
    part of the latent that is wanted, None for all of it; no tiles but those that it touches are decoded. log2 q of a map is
    that of the whole picture. damage: see `read_tiles`; a damaged tile then has the means of the tiles around it.
    """
    header, device = container.header, exact.device
    window = window or Window.whole(latent_size(header.width, header.height))
    planes: list[Tensor] = []
    for place, tile in read_tiles(exact, container, side, window, damage):
        if not planes:  # nothing of the size that the header claims before a tile has proved it
            planes = [torch.empty(1, channels, *window.size, device=device) for _ in range(3 if path else 1)]
        shared = place.within(window)
        for out, found in zip(planes, (tile.y_file, tile.mu, tile.t), strict=False):
            shared.seen_from(window).cut(out).copy_(shared.seen_from(place).cut(found))
    if damage is not None:
        holes = [place.within(window).seen_from(window) for _, place in damage.tiles]
        for out in planes:
            fill_with_means(out, holes, side, 0.0)
    zero = torch.zeros(1, 1, 1, 1, device=device)
    y_hat, mu, t = planes if path else (planes[0], zero, zero)
    return SideInfo(y_hat, log2_q_in(header, device).float(), mu, t)


def read_tiles(
    exact: ExactCoder, container: Container, side: int, window: Window, damage: Damage | None = None
) -> Iterator[tuple[Window, SideInfo]]:
    """The tiles that a part of the latent touches, each with its place and what is in it, float32.

    damage: takes those that are not whole, which then are left out; CorruptStream where none is whole. Without it the first
    whose checksum does not hold raises that.
    """
    header = container.header
    log2_q = log2_q_in(header, exact.device)
    places = list(tile_windows(*latent_size(header.width, header.height), side))
    if len(places) != len(container.tiles):
        raise CorruptStream(f"{len(container.tiles)} tiles where {len(places)} are needed")
    numbers = [number for number, place in enumerate(places) if min(place.within(window).size) > 0]
    for number in counted(numbers, "tiles", len(numbers)):
        place, tile = places[number], container.tiles[number]
        step = place.cut(log2_q)
        try:
            if damage is not None and number in damage.lost:
                raise CorruptStream(f"tile {number}: not there")
            decoded = exact.decode(tile.stream, place.size, step)
            if symbols_crc(header.to_bytes(), number, decoded.symbols) != tile.crc:
                raise CorruptStream(f"tile {number}: the checksum of the symbols does not match")
        except CorruptStream:
            if damage is None:
                raise
            damage.tiles.append((number, place))
            if len(damage.tiles) == len(numbers):
                raise CorruptStream("not one tile that is needed is whole, or the header is damaged") from None
            continue
        y_file = (decoded.v_hat * torch.exp2(step)).float()
        yield place, SideInfo(y_file, step.float(), decoded.mu.float(), decoded.t.float())
