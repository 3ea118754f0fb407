"""A whole `.unq` file: header, tiles, sections (docs/format.md)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from unquant.container.header import Header, read_header
from unquant.container.limits import DEFAULT_LIMITS, Limits
from unquant.container.varint import BytesLike, Reader, checked_int, encode_varint
from unquant.errors import CorruptStream, ImageTooLarge, UnsupportedVersion

ALPHA: Final = b"Alph"
ICC: Final = b"iccp"
EXIF: Final = b"exif"
XMP: Final = b"xmp "
MAX_SECTIONS: Final = 32

_KNOWN_SECTIONS = (ALPHA, ICC, EXIF, XMP)
_NAMES: Final[dict[bytes, str]] = {ALPHA: "alpha", ICC: "icc", EXIF: "exif", XMP: "xmp"}
_METADATA = (ICC, EXIF, XMP)
_DEFLATED: Final = {kind.upper(): kind for kind in _METADATA}
"""The types of sections that hold a zlib stream, and those of what it inflates to. Critical, so that no older program takes
a file for one without metadata."""
_SECTION_BYTES: Final = 8  # type and checksum
_MIN_TILE_BYTES = 5  # a length of one byte and a checksum of four


@dataclass(frozen=True, slots=True)
class Tile:
    """One independently decodable tile.

    stream: the coder stream, or the OBUs of an av1 file; any length. crc: `symbols_crc` of the tile, `stream_crc` in an
    av1 file, 0..2^32-1 (OptionError outside): the container stores it, whoever decodes the tile compares it.
    """

    stream: bytes
    crc: int

    def __post_init__(self) -> None:
        checked_int("crc", self.crc, 0, 2**32 - 1)


@dataclass(frozen=True, slots=True)
class Container:
    """A file in parts. Raises OptionError if the number of tiles is not in 1..`header.max_tiles`.

    tiles: in file order. alpha: the coded alpha plane. icc, exif, xmp: metadata as it is, not looked into; in the file it is
    deflated where that is shorter. None means that the file has no such section.
    """

    header: Header
    tiles: tuple[Tile, ...]
    alpha: bytes | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    # Of a file that was read: another build of zlib may deflate to other bytes. Not an init field, as in Header.
    _sections: tuple[_Section, ...] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked_int("number of tiles", len(self.tiles), 1, self.header.max_tiles)

    @property
    def has_alpha(self) -> bool:
        """Whether there is an alpha plane: in a section, or as the second tile of an av1 file."""
        return self.alpha is not None or (self.header.family == "av1" and len(self.tiles) > 1)

    @property
    def section_sizes(self) -> dict[str, int]:
        """Bytes of "alpha", "icc", "exif" and "xmp", those that are there, as they lie in the file: deflated or not."""
        return {_NAMES[_DEFLATED.get(section.kind, section.kind)]: len(section.payload) for section in self._stored()}

    def to_bytes(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The file; of one that was read with known sections alone, the same. Raises ImageTooLarge if a reader with the same
        `limits` would refuse it."""
        limits.check_size(self.header.width, self.header.height)
        sections = self._stored()
        deflated = {kind for kind, _ in sections if kind in _DEFLATED}
        for kind, payload in self._contents():
            limits.check_section(f"section {_show(kind)}", len(payload))
        _check_inflated(sum(len(payload) for kind, payload in self._contents() if kind.upper() in deflated), limits)
        parts = [self.header.to_bytes(), encode_varint(2 * len(self.tiles) + bool(sections))]
        for tile in self.tiles:
            parts += (encode_varint(len(tile.stream)), int(tile.crc).to_bytes(4, "little"), tile.stream)
        if sections:
            parts.append(encode_varint(len(sections)))
        for kind, payload in sections:
            crc = zlib.crc32(payload, zlib.crc32(kind))
            parts += (kind, encode_varint(len(payload)), payload, crc.to_bytes(4, "little"))
        limits.check_file(sum(map(len, parts)))
        return b"".join(parts)

    def _contents(self) -> list[_Section]:
        payloads = zip(_KNOWN_SECTIONS, (self.alpha, self.icc, self.exif, self.xmp), strict=True)
        return [_Section(kind, payload) for kind, payload in payloads if payload is not None]

    def _stored(self) -> tuple[_Section, ...]:
        """The sections as they lie in the file."""
        if self._sections is None:
            return tuple(_deflated(s) if s.kind in _METADATA else s for s in self._contents())
        return self._sections


class _Section(NamedTuple):
    kind: bytes
    payload: bytes


def metadata_bytes(icc: bytes | None = None, exif: bytes | None = None, xmp: bytes | None = None) -> int:
    """What metadata takes in a `.unq` file, its sections' types, lengths and checksums counted."""
    given = zip(_METADATA, (icc, exif, xmp), strict=True)
    payloads = [_deflated(_Section(kind, data)).payload for kind, data in given if data is not None]
    return sum(_SECTION_BYTES + len(encode_varint(len(payload))) + len(payload) for payload in payloads)


@lru_cache(maxsize=len(_METADATA))  # a search for a rate makes many files of the same metadata
def _deflated(section: _Section) -> _Section:
    """The shorter of the two forms of a section of metadata."""
    packed = zlib.compress(section.payload, 9)
    return _Section(section.kind.upper(), packed) if len(packed) < len(section.payload) else section


def parse(data: BytesLike, limits: Limits = DEFAULT_LIMITS) -> Container:
    """A file taken apart; the coder streams and the sections are not looked into.

    Metadata comes inflated, unknown ancillary sections are skipped. Raises NotUnquant (no magic), UnsupportedVersion
    (version, family, flag or critical section unknown here), ImageTooLarge (beyond `limits`) and CorruptStream (all else).
    No memory is taken beyond copies of what is in `data`, the q map, whose size follows from the checked dimensions, and
    deflated sections, which inflate to `limits.max_section` in all.
    """
    limits.check_file(memoryview(data).nbytes)
    reader = Reader(data)
    header, _ = read_header(reader, limits)
    word = reader.varint("number of tiles")
    tiles = _read_tiles(reader, word >> 1, header.max_tiles)
    sections = _read_sections(reader, limits) if word & 1 else ()
    if reader.remaining:
        raise CorruptStream(f"{reader.remaining} bytes after the end of the file's data")
    contents = _inflated(sections, limits)
    container = Container(header, tiles, *(contents.get(kind) for kind in _KNOWN_SECTIONS))
    object.__setattr__(container, "_sections", sections)
    return container


class Salvage(NamedTuple):
    """What is left of a damaged file.

    container: of what is whole as far as the container can tell; a tile that is not there is empty. lost: the numbers of
    these. notes: what is damaged beside them.
    """

    container: Container
    lost: frozenset[int]
    notes: tuple[str, ...]


def salvage(data: BytesLike, limits: Limits = DEFAULT_LIMITS) -> Salvage:
    """A file taken apart as by `parse`, but that damage behind the number of tiles is told of, and raises nothing.

    Sections that are whole are kept, those that are not are as if they were not there, a critical one among them.
    """
    limits.check_file(memoryview(data).nbytes)
    reader = Reader(data)
    header, _ = read_header(reader, limits)
    word = reader.varint("number of tiles")
    count = _checked_count(word >> 1, header.max_tiles)
    tiles: list[Tile] = []
    notes: list[str] = []
    sections: tuple[_Section, ...] = ()
    try:
        while len(tiles) < count:
            tiles.append(_read_tile(reader, len(tiles)))
        sections = _read_sections(reader, limits, notes) if word & 1 else ()
        if reader.remaining:
            notes.append(f"{reader.remaining} bytes after the end of the file's data")
    except (CorruptStream, ImageTooLarge) as error:
        notes.append(str(error))
    lost = frozenset(range(len(tiles), count))
    tiles += [Tile(b"", 0)] * len(lost)
    try:
        contents = _inflated(sections, limits)
    except (CorruptStream, ImageTooLarge) as error:
        notes.append(str(error))
        contents = _inflated(tuple(section for section in sections if section.kind not in _DEFLATED), limits)
    container = Container(header, tuple(tiles), *(contents.get(kind) for kind in _KNOWN_SECTIONS))
    return Salvage(container, lost, tuple(notes))


def _checked_count(count: int, most: int) -> int:
    if not 1 <= count <= most:
        raise CorruptStream(f"number of tiles: {count} is outside 1..{most} for these dimensions")
    return count


def _read_tiles(reader: Reader, count: int, most: int) -> tuple[Tile, ...]:
    if _checked_count(count, most) * _MIN_TILE_BYTES > reader.remaining:
        raise CorruptStream(f"{count} tiles announced, {reader.remaining} bytes left (truncated or damaged)")
    return tuple(_read_tile(reader, index) for index in range(count))


def _read_tile(reader: Reader, index: int) -> Tile:
    size = reader.varint(f"length of tile {index}")
    crc = reader.uint32(f"checksum of tile {index}")
    return Tile(reader.take(size, f"tile {index}"), crc)


def _read_sections(reader: Reader, limits: Limits, notes: list[str] | None = None) -> tuple[_Section, ...]:
    """The known ones, as they are stored, in file order.

    notes: takes what is said of sections whose checksum does not hold, which are then left out; of anything else that is
    wrong, which ends the list. Without it both raise.
    """
    sections: list[_Section] = []
    try:
        _collect_sections(reader, limits, sections, notes)
    except (CorruptStream, ImageTooLarge) as error:
        if notes is None:
            raise
        notes.append(str(error))
    return tuple(sections)


def _collect_sections(reader: Reader, limits: Limits, sections: list[_Section], notes: list[str] | None) -> None:
    count = reader.varint("number of sections")
    if not 1 <= count <= MAX_SECTIONS:
        raise CorruptStream(f"number of sections: {count} is outside 1..{MAX_SECTIONS}")
    seen: set[bytes] = set()
    for _ in range(count):
        kind = reader.take(4, "section type")
        name = f"section {_show(kind)}"
        if not (kind[:1].isalpha() and all(0x20 <= byte <= 0x7E for byte in kind)):
            raise CorruptStream(f"{name}: not a section type")
        size = reader.varint(f"{name}, length")
        limits.check_section(name, size)
        payload = reader.take(size, name)
        if reader.uint32(f"{name}, checksum") != zlib.crc32(payload, zlib.crc32(kind)):
            if notes is None:
                raise CorruptStream(f"{name}: checksum does not match")
            notes.append(f"{name}: checksum does not match")
            continue
        held = _DEFLATED.get(kind, kind)
        if held in seen:
            raise CorruptStream(f"{name}: present more than once")
        seen.add(held)
        if held in _KNOWN_SECTIONS:
            sections.append(_Section(kind, payload))
        elif kind[:1].isupper():
            raise UnsupportedVersion(f"{name}: critical, and unknown to this program")


def _inflated(sections: tuple[_Section, ...], limits: Limits) -> dict[bytes, bytes]:
    """The contents of sections by the types of plain ones."""
    contents: dict[bytes, bytes] = {}
    total = 0
    for kind, payload in sections:
        if kind not in _DEFLATED:
            contents[kind] = payload
            continue
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(payload, limits.now.max_section - total + 1)
        except zlib.error as error:
            raise CorruptStream(f"section {_show(kind)}: {error}") from None
        total += len(data)
        _check_inflated(total, limits)
        if not inflater.eof or inflater.unused_data:
            raise CorruptStream(f"section {_show(kind)}: does not hold exactly one zlib stream")
        contents[_DEFLATED[kind]] = data
    return contents


def _check_inflated(size: int, limits: Limits) -> None:
    if size > limits.now.max_section:
        raise ImageTooLarge(
            f"deflated sections of more than {limits.now.max_section} bytes in all: no more are accepted"
        )


def _show(kind: bytes) -> str:
    return repr(kind.decode("latin-1"))
