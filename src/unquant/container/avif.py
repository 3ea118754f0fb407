"""AVIF still pictures, bytes only: what is in a file, checked before anything is decoded, and the smallest boxes around OBUs.

parse_avif: bytes ──► AvifFile (OBUs, their headers, colour description, metadata) or the reason why not
build_avif: OBUs, metadata ──► bytes (avif_writer.py)

Sources: AV1 Image File Format 1.1 (brands, av1C, alpha), MIAF (ISO/IEC 23000-22), and for `colr` H.273. Viewers differ in
what they forgive, so a file whose boxes and headers contradict each other is refused, and what is written has every
property that strict readers insist on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from unquant.container.avif_writer import (
    ALPHA_URNS,
    UUID,
    XMP_TYPE,
    Nclx,
    build_avif,
    configuration,
    described,
)
from unquant.container.isobmff import Meta, boxes, read_meta, split_full_box
from unquant.container.limits import DEFAULT_LIMITS, Limits
from unquant.container.obu import StillPicture, parse_obus
from unquant.container.varint import BytesLike, Reader, byte_view
from unquant.errors import CorruptStream, UnsupportedVersion

__all__ = ["UUID", "AvifColour", "AvifFile", "Nclx", "build_avif", "is_avif", "parse_avif", "read_colour"]

_BRANDS: Final = (b"avif", b"avis")
_TRANSFER_NAMES: Final = {16: "PQ", 18: "HLG"}
_UNDERSTOOD: Final = frozenset(
    (
        b"ispe",
        b"pixi",
        b"av1C",
        b"colr",
        b"auxC",
        b"irot",
        b"imir",
        b"clap",
        b"pasp",
        b"a1op",
        b"lsel",
        b"a1lx",
        b"clli",
        b"mdcv",
    )
)
_ALL_LAYERS: Final = 0xFFFF

# (quarter turns anticlockwise, then axis of mirroring or None) to EXIF orientation; axis 0 exchanges top and bottom
_ORIENTATIONS: Final[dict[tuple[int, int | None], int]] = {
    (0, None): 1,
    (0, 1): 2,
    (2, None): 3,
    (0, 0): 4,
    (1, 0): 5,
    (3, None): 6,
    (3, 0): 7,
    (1, None): 8,
    (1, 1): 7,
    (2, 0): 2,
    (2, 1): 4,
    (3, 1): 5,
}


@dataclass(frozen=True, slots=True)
class AvifFile:
    """A still picture that was found consistent: 8 bits, neither PQ nor HLG.

    width, height: pixels as coded, before `orientation`. obus: the picture, None for a grid, which only the image library
    puts together. picture: the headers of `obus`, of a grid's first cell. alpha, alpha_picture: the same of the alpha
    plane, None without, or where the picture is a grid. has_alpha: whether there is one. premultiplied: colours are. grid.
    coded_bytes: of the colour picture's OBUs, all cells together. nclx: of the `colr` box, which overrides the sequence
    header; `colour` is what holds. icc: the profile. exif: a TIFF structure. xmp: the packet. orientation: 1..8, from
    irot and imir. depths: bits of each channel by `pixi`. clap: part of the picture is to be cut away, which is not done
    here. uuid_payload: of the box of type `UUID`. None where there is nothing.
    """

    width: int
    height: int
    obus: bytes | None
    picture: StillPicture
    coded_bytes: int
    alpha: bytes | None = None
    alpha_picture: StillPicture | None = None
    has_alpha: bool = False
    premultiplied: bool = False
    grid: bool = False
    nclx: Nclx | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    orientation: int = 1
    depths: tuple[int, ...] | None = None
    clap: bool = False
    uuid_payload: bytes | None = None

    @property
    def colour(self) -> Nclx:
        """The colour description that holds."""
        return self.nclx or described(self.picture)


class AvifColour(NamedTuple):
    """Bits a sample, 8, 10 or 12, and the colour description that holds."""

    depth: int
    nclx: Nclx


def is_avif(data: BytesLike) -> bool:
    """Whether the file type box, all of which must be in `data`, names an AVIF brand: `avif` or `avis` (a sequence)."""
    return not set(_BRANDS).isdisjoint(_brands(byte_view(data)))


def parse_avif(data: BytesLike, limits: Limits = DEFAULT_LIMITS) -> AvifFile:
    """Takes a file apart and checks it, so that nothing is decoded whose size or kind comes as a surprise.

    The size in `ispe` must be that of the sequence header and of the frame header, av1C and pixi must agree with the
    sequence header; of a grid this holds for every cell, and alpha must have the picture's size. Raises CorruptStream
    (cut short, contradictory; both sides are named), ImageTooLarge (beyond `limits`, checked first) and
    UnsupportedVersion, which says what it is: another codec or derived image, a sequence, 10 or 12 bits, PQ or HLG, a
    layer or operating point to be chosen, an essential property that is unknown here.
    """
    limits.check_file(memoryview(data).nbytes)
    view = byte_view(data)
    brands = _brands(view)
    if set(_BRANDS).isdisjoint(brands):
        raise CorruptStream("not an AVIF file: no file type box with the brand avif")
    meta, payload, tracks = _top_level(view)
    if b"avis" in brands and tracks:
        raise UnsupportedVersion("AVIF: an image sequence; only still pictures are read")
    if meta is None or meta.primary is None:
        raise CorruptStream("AVIF: no primary item")
    return _File(view, meta, limits).read(payload)


def read_colour(data: BytesLike) -> AvifColour:
    """What a file says of its colours, of a grid its first cell, whatever `parse_avif` would say of the rest of it.

    Raises BitstreamError where the boxes so far cannot be followed, and ImageTooLarge for a profile beyond the limits.
    """
    view = byte_view(data)
    meta, _, _ = _top_level(view)
    if meta is None or meta.primary is None:
        raise CorruptStream("AVIF: no primary item")
    item = next(iter(meta.targets(b"dimg", meta.primary)), meta.primary)
    config = meta.property(item, b"av1C")
    if config is None:
        raise CorruptStream(f"AVIF: item {item} has no av1C")
    depths = Reader(config).take(3, "av1C")[2]
    depth = 8 if not depths & 0x40 else 12 if depths & 0x20 else 10
    nclx, _ = _File(view, meta, DEFAULT_LIMITS).colour(meta.primary)
    return AvifColour(depth, nclx or described(parse_obus(meta.data(item, view))))


def _brands(view: memoryview) -> tuple[bytes, ...]:
    size = int.from_bytes(view[:4], "big")
    if bytes(view[4:8]) != b"ftyp" or not 16 <= size <= len(view):
        return ()
    brands = bytes(view[8:size])
    return brands[:4], *(brands[start : start + 4] for start in range(8, len(brands) - 3, 4))


def _top_level(view: memoryview) -> tuple[Meta | None, bytes | None, bool]:
    """The meta box, unquant's own payload, and whether there are tracks."""
    meta: memoryview | None = None
    payload: bytes | None = None
    tracks = False
    for kind, body in boxes(view, "file"):
        tracks |= kind == b"moov"
        if kind == b"meta":
            if meta is not None:
                raise CorruptStream("AVIF: two meta boxes")
            meta = body
        elif kind == b"uuid" and bytes(body[:16]) == UUID:
            if payload is not None:
                raise CorruptStream("AVIF: two boxes of unquant's own")
            payload = bytes(body[16:])
    return (None if meta is None else read_meta(meta)), payload, tracks


class _File:
    """One file while it is read."""

    def __init__(self, view: memoryview, meta: Meta, limits: Limits) -> None:
        self.view = view
        self.meta = meta
        self.limits = limits

    def read(self, payload: bytes | None) -> AvifFile:
        meta = self.meta
        item = meta.primary
        assert item is not None
        width, height = self._size(item)
        grid = meta.kinds.get(item) == b"grid"
        if grid:
            obus, (picture, coded_bytes) = None, self._grid(item, width, height)
        else:
            obus, picture = self._still(item)
            coded_bytes = len(obus)
        if meta.handler != b"pict":
            raise CorruptStream("AVIF: the items are not pictures")
        nclx, icc = self.colour(item)
        colour = nclx or described(picture)
        if colour.transfer in _TRANSFER_NAMES:
            raise UnsupportedVersion(f"AVIF: {_TRANSFER_NAMES[colour.transfer]} transfer (high dynamic range)")
        alpha_item = next(filter(self._is_alpha, meta.sources(b"auxl", item)), None)
        alpha = alpha_picture = None
        if alpha_item is not None:
            if self._size(alpha_item) != (width, height):
                raise CorruptStream(f"AVIF: alpha of {_times(self._size(alpha_item))}, picture of {width}x{height}")
            if not grid:
                alpha, alpha_picture = self._still(alpha_item)
        metadata = {self._metadata_kind(source): source for source in reversed(meta.sources(b"cdsc", item))}
        return AvifFile(
            width=width,
            height=height,
            obus=obus,
            picture=picture,
            coded_bytes=coded_bytes,
            alpha=alpha,
            alpha_picture=alpha_picture,
            has_alpha=alpha_item is not None or (grid and self._cells_have_alpha(item)),
            premultiplied=alpha_item is not None and alpha_item in meta.targets(b"prem", item),
            grid=grid,
            nclx=nclx,
            icc=icc,
            exif=self._exif(metadata.get("Exif")),
            xmp=self._payload("XMP", metadata.get("XMP")),
            orientation=self._orientation(item),
            depths=self._depths(item),
            clap=bool(meta.properties(item, b"clap")),
            uuid_payload=payload,
        )

    def _size(self, item: int) -> tuple[int, int]:
        """Width and height by `ispe`, within the limits."""
        body = self.meta.property(item, b"ispe")
        if body is None:
            raise CorruptStream(f"AVIF: item {item} has no size (ispe)")
        _, _, reader = split_full_box(body, "ispe")
        width, height = reader.uint(4, "ispe"), reader.uint(4, "ispe")
        self.limits.check_size(width, height)
        if not (width and height):
            raise CorruptStream(f"AVIF: a picture of {width}x{height} pixels by ispe")
        return width, height

    def _still(self, item: int) -> tuple[bytes, StillPicture]:
        """The OBUs of an item, and their headers, which agree with its properties."""
        kind = self.meta.kinds.get(item)
        if kind != b"av01":
            name = "of no type" if kind is None else repr(kind.decode("latin-1"))
            raise UnsupportedVersion(f"AVIF: item {item} is {name}, not an AV1 picture")
        self._check_essential(item)
        obus = self.meta.data(item, self.view)
        picture = parse_obus(obus)
        size = self._size(item)
        for where, found in (
            ("the sequence header", (picture.max_width, picture.max_height)),
            ("the frame header", (picture.width, picture.height)),
        ):
            if found != size:
                raise CorruptStream(f"AVIF: {_times(size)} pixels by ispe, {_times(found)} by {where}")
        config = self.meta.property(item, b"av1C")
        if config is None:
            raise CorruptStream(f"AVIF: item {item} has no av1C")
        # profile; depth, monochrome, subsampling. Level, tier and the position of chroma samples change no pixel
        stated, expected = Reader(config).take(4, "av1C"), configuration(picture)
        if stated[1] & 0xE0 != expected[1] & 0xE0 or stated[2] & 0x7C != expected[2] & 0x7C:
            raise CorruptStream(
                f"AVIF: profile and format by av1C are {stated[1:3].hex()}, by the sequence header {expected[1:3].hex()}"
            )
        depths = self._depths(item)
        if depths is not None and set(depths) != {picture.bit_depth}:
            raise CorruptStream(f"AVIF: depths of {depths} by pixi, {picture.bit_depth} by the sequence header")
        if picture.bit_depth != 8:
            raise UnsupportedVersion(f"AVIF: {picture.bit_depth} bits a sample; pictures of 8 bits are read")
        return obus, picture

    def _check_essential(self, item: int) -> None:
        for kind, body, essential in self.meta.associated.get(item, []):
            if essential and kind not in _UNDERSTOOD:
                raise UnsupportedVersion(
                    f"AVIF: essential property {kind.decode('latin-1')!r} is unknown to this program"
                )
            if kind == b"a1op" and any(body):
                raise UnsupportedVersion("AVIF: an operating point is to be chosen (a1op)")
            if kind == b"lsel" and Reader(body).uint(2, "lsel") != _ALL_LAYERS:
                raise UnsupportedVersion("AVIF: one of several layers is to be chosen (lsel)")

    def _grid(self, item: int, width: int, height: int) -> tuple[StillPicture, int]:
        """The headers of the first cell, and the bytes of all of them."""
        self._check_essential(item)
        reader = Reader(self.meta.data(item, self.view))
        if reader.byte("grid"):
            raise UnsupportedVersion("AVIF: a grid of a version unknown to this program")
        field = 4 if reader.byte("grid") & 1 else 2
        rows, columns = reader.byte("grid") + 1, reader.byte("grid") + 1
        output = reader.uint(field, "grid"), reader.uint(field, "grid")
        if output != (width, height):
            raise CorruptStream(f"AVIF: {width}x{height} pixels by ispe, {_times(output)} by the grid")
        cells = self.meta.targets(b"dimg", item)
        if len(cells) != rows * columns:
            raise CorruptStream(f"AVIF: {len(cells)} cells in a grid of {columns}x{rows}")
        first: StillPicture | None = None
        total = 0
        for cell in cells:
            obus, picture = self._still(cell)
            total += len(obus)
            if total > len(self.view):
                raise CorruptStream("AVIF: the cells of a grid share their bytes")
            first = first or picture
            if (picture.width, picture.height, picture.chroma) != (first.width, first.height, first.chroma):
                raise CorruptStream("AVIF: the cells of a grid differ in size or chroma format")
        assert first is not None
        if columns * first.width < width or rows * first.height < height:
            raise CorruptStream(f"AVIF: {columns}x{rows} cells of {first.width}x{first.height} for {width}x{height}")
        return first, total

    def colour(self, item: int) -> tuple[Nclx | None, bytes | None]:
        """The boxes `colr` of an item: code points, and a profile."""
        nclx, icc = None, None
        for body in self.meta.properties(item, b"colr"):
            reader = Reader(body)
            kind = reader.take(4, "colr")
            if kind == b"nclx":
                if nclx is not None:
                    raise CorruptStream("AVIF: two colour descriptions (colr nclx)")
                values = reader.uint(2, "colr"), reader.uint(2, "colr"), reader.uint(2, "colr")
                nclx = Nclx(*values, full_range=bool(reader.byte("colr") >> 7))
            elif kind in (b"prof", b"rICC"):
                if icc is not None:
                    raise CorruptStream("AVIF: two colour profiles (colr)")
                self.limits.check_section("ICC profile", reader.remaining)
                icc = reader.take(reader.remaining, "colr")
        return nclx, icc

    def _is_alpha(self, item: int) -> bool:
        body = self.meta.property(item, b"auxC")
        return body is not None and bytes(body[4:]).partition(b"\0")[0] in ALPHA_URNS

    def _cells_have_alpha(self, item: int) -> bool:
        cells = set(self.meta.targets(b"dimg", item))
        return any(
            kind == b"auxl" and not cells.isdisjoint(targets) and self._is_alpha(source)
            for kind, source, targets in self.meta.references
        )

    def _metadata_kind(self, item: int) -> str:
        kind = self.meta.kinds.get(item)
        if kind == b"mime":
            return "XMP" if self.meta.content_types[item] == XMP_TYPE else ""
        return "Exif" if kind == b"Exif" else ""

    def _payload(self, name: str, item: int | None) -> bytes | None:
        if item is None:
            return None
        payload = self.meta.data(item, self.view)
        self.limits.check_section(name, len(payload))
        return payload

    def _exif(self, item: int | None) -> bytes | None:
        payload = self._payload("Exif", item)
        if payload is None:
            return None
        reader = Reader(payload)
        offset = reader.uint(4, "Exif")
        rest = reader.take(reader.remaining, "Exif")
        return rest[offset:] if offset < len(rest) else rest

    def _orientation(self, item: int) -> int:
        turn, mirror = self.meta.property(item, b"irot"), self.meta.property(item, b"imir")
        angle = 0 if turn is None else Reader(turn).byte("irot") & 3
        axis = None if mirror is None else Reader(mirror).byte("imir") & 1
        return _ORIENTATIONS[angle, axis]

    def _depths(self, item: int) -> tuple[int, ...] | None:
        body = self.meta.property(item, b"pixi")
        if body is None:
            return None
        _, _, reader = split_full_box(body, "pixi")
        return tuple(reader.take(reader.byte("pixi"), "pixi"))


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
