"""A latent coded tile by tile, each on its own, by the exact path: quantised, coded, and bound to its place by a checksum.

y ──►┤tiles├──►┤/q├──► v ──►┤h_a├──► z,   v, z ──►┤exact coder├──► stream, checksum of the symbols
ŷ, μ, σ ◄──┤tiles├◄──┤·q├◄──┤exact coder├◄── stream
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.parts import Damage
from unquant.codecs.progress import counted
from unquant.codecs.windows import Window
from unquant.container import Container, Header, Tile, latent_size, symbols_crc
from unquant.entropy.exact import DecodedTile, ExactCoder
from unquant.entropy.rdoq import Rdoq
from unquant.errors import CorruptStream
from unquant.networks.common import SideInfo, log2_q_of
from unquant.shapes import Latent

__all__ = ["Latents", "TileReader", "encode_tiles", "log2_q_in", "q_indices", "read_tiles", "tile_windows"]


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
    parts: Iterable[tuple[Window, Tensor]],
    side: int,
    rdoq: Rdoq | None = None,
) -> tuple[Tile, ...]:
    """The tiles of a latent, in the header's steps.

    hyper_analysis: h_a of the entropy model, in float32: it decides symbols, but need not be exact. parts: y by parts of
    whole tiles, in any order, each with its place: (1, c, h, w) float32. rdoq: see `ExactCoder.encode`.
    """
    log2_q = log2_q_in(header, exact.device)
    places = list(enumerate(tile_windows(*latent_size(header.width, header.height), side)))
    tiles: dict[int, Tile] = {}
    for part, y in parts:
        inside = [(number, place) for number, place in places if place.within(part) == place]
        for number, place in counted(inside, "tiles", len(inside)):
            step = place.cut(log2_q)
            v = place.seen_from(part).cut(y).double() * torch.exp2(-step)
            coded = exact.encode(v, hyper_analysis(v.float(), step.float()), step, rdoq)
            tiles[number] = Tile(coded.stream, symbols_crc(header.to_bytes(), number, coded.symbols))
    return tuple(tiles[number] for number, _ in places)


class TileReader:
    """The tiles of a file, one by one. Raises CorruptStream where they are not as many as the picture's size needs."""

    def __init__(self, exact: ExactCoder, container: Container, side: int) -> None:
        self.header, self.tiles, self.exact = container.header, container.tiles, exact
        self.log2_q = log2_q_in(self.header, exact.device)
        h16, w16 = latent_size(self.header.width, self.header.height)
        self.places = list(tile_windows(h16, w16, side))
        self._side, self._columns = side, -(-w16 // side)
        if len(self.places) != len(self.tiles):
            raise CorruptStream(f"{len(self.tiles)} tiles where {len(self.places)} are needed")

    def touched(self, window: Window) -> list[int]:
        """Numbers of the tiles that a part of the latent touches, in file order."""
        top, bottom, left, right = window.covering(self._side)
        return [row * self._columns + column for row in range(top, bottom) for column in range(left, right)]

    def decode(self, number: int) -> DecodedTile:
        """A tile by the exact path. Raises CorruptStream unless its checksum holds."""
        tile, place = self.tiles[number], self.places[number]
        decoded = self.exact.decode(tile.stream, place.size, place.cut(self.log2_q))
        if symbols_crc(self.header.to_bytes(), number, decoded.symbols) != tile.crc:
            raise CorruptStream(f"tile {number}: the checksum of the symbols does not match")
        return decoded

    def read(self, number: int) -> SideInfo:
        """What is in a tile, float32. Raises CorruptStream unless its checksum holds."""
        decoded, step = self.decode(number), self.places[number].cut(self.log2_q)
        y_file = (decoded.v_hat * torch.exp2(step)).float()
        return SideInfo(y_file, step.float(), decoded.mu.float(), decoded.t.float())

    def glance(self, number: int) -> Latent:
        """ŷ of the first channels of a tile, float32, which no checksum guards; see `ExactCoder.glance`."""
        tile, step = self.tiles[number], self.places[number].cut(self.log2_q)
        return (self.exact.glance(tile.stream, self.places[number].size, step) * torch.exp2(step)).float()

    def read_or_note(self, number: int, damage: Damage | None) -> SideInfo | None:
        """As `read`; with `damage`, which takes a tile that is not whole, None of such a one."""
        if damage is None:
            return self.read(number)
        try:
            if number in damage.lost:
                raise CorruptStream(f"tile {number}: not there")
            return self.read(number)
        except CorruptStream:
            damage.tiles.append((number, self.places[number]))
            return None


class Latents:
    """ŷ and what it was decoded with, part by part: a tile is decoded where a part first needs it, and kept while another one
    will.

    parts: of the latent, as `cut` will be asked for them, once each. path: False where no reverse path follows: μ and the
    scales, which nothing else reads, are then single zeros. damage: takes tiles that are not whole, which then have the means
    of those around them. Raises CorruptStream, here and later, unless all that is needed is there and its checksums hold.
    """

    def __init__(
        self,
        exact: ExactCoder,
        container: Container,
        channels: int,
        side: int,
        parts: Sequence[Window],
        *,
        path: bool = True,
        damage: Damage | None = None,
    ) -> None:
        self._reader, self._channels, self._damage = TileReader(exact, container, side), channels, damage
        self._planes = 3 if path else 1
        self._uses = Counter(number for part in parts for number in self._reader.touched(part))
        self._held: dict[int, list[Tensor]] = {}
        self._holes: set[int] = set()

    def prove(self) -> None:
        """Decodes the first of the tiles that are needed; with damage the first that is whole. Before that nothing should be
        done that takes what the header claims. Raises CorruptStream."""
        if not any(self._tile(number) for number in sorted(self._uses)):
            raise CorruptStream("not one tile that is needed is whole, or the header is damaged")

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the tiles that are kept."""
        return tuple(self._held)

    @property
    def log2_q(self) -> Tensor:
        """log2 q of the whole picture, float32: (1, 1, 1, 1), or (1, 1, h16, w16) of a map."""
        return self._reader.log2_q.float()

    def cut(self, window: Window) -> SideInfo:
        """A part, float32, on the coder's device; log2 q of a map is that of the whole picture."""
        planes: list[Tensor] = []
        numbers = self._reader.touched(window)
        device = self._reader.exact.device
        for number in counted(numbers, "tiles", len(numbers)):
            place = self._reader.places[number]
            tile = self._tile(number) or self._filled(number)
            if not planes:  # nothing of the size that the header claims before a tile has proved it
                planes = [torch.empty(1, self._channels, *window.size, device=device) for _ in range(self._planes)]
            shared = place.within(window)
            for out, found in zip(planes, tile, strict=True):
                shared.seen_from(window).cut(out).copy_(shared.seen_from(place).cut(found))
            self._uses[number] -= 1
            if self._uses[number] <= 0:
                self._held.pop(number, None)
        zero = torch.zeros(1, 1, 1, 1, device=device)
        y_hat, mu, t = planes if self._planes == 3 else (planes[0], zero, zero)
        return SideInfo(y_hat, self.log2_q, mu, t)

    def _tile(self, number: int) -> list[Tensor]:
        """The planes of a tile; none where it is not whole."""
        if number in self._holes:
            return self._held.get(number, [])
        if number not in self._held:
            found = self._reader.read_or_note(number, self._damage)
            if found is None:
                self._holes.add(number)
                return []
            self._held[number] = [found.y_file, found.mu, found.t][: self._planes]
        return self._held[number]

    def _filled(self, number: int) -> list[Tensor]:
        """For a tile that is not whole the mean of those around it that are, by channels; 0 where none is."""
        place = self._reader.places[number]
        bounds = Window.whole((self._reader.places[-1].bottom, self._reader.places[-1].right))
        around = self._reader.touched(place.grown(1).within(bounds))
        found = [tile for n in around if n in self._uses and n not in self._holes and (tile := self._tile(n))]
        planes = (torch.cat([plane.flatten(2) for plane in part], 2) for part in zip(*found, strict=True))
        means = [plane.mean(2)[..., None, None] for plane in planes] or [
            torch.zeros(1, self._channels, 1, 1, device=self._reader.exact.device)
        ] * self._planes
        for n in around:  # those that were decoded for this alone, or once more
            if self._uses[n] <= 0:
                self._held.pop(n, None)
        self._held[number] = [mean.expand(-1, -1, *place.size) for mean in means]
        return self._held[number]


def read_tiles(
    exact: ExactCoder, container: Container, side: int, window: Window, damage: Damage | None = None
) -> Iterator[tuple[Window, SideInfo]]:
    """The tiles that a part of the latent touches, each with its place and what is in it, float32.

    damage: takes those that are not whole, which then are left out; CorruptStream where none is whole. Without it the first
    whose checksum does not hold raises that.
    """
    reader = TileReader(exact, container, side)
    numbers = reader.touched(window)
    for number in counted(numbers, "tiles", len(numbers)):
        found = reader.read_or_note(number, damage)
        if found is not None:
            yield reader.places[number], found
        elif damage is not None and len(damage.tiles) == len(numbers):
            raise CorruptStream("not one tile that is needed is whole, or the header is damaged")
