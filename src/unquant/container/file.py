"""A whole `.unq` file: header, tiles, sections (docs/format.md)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from unquant.container.header import Header, read_header
from unquant.container.limits import DEFAULT_LIMITS, Limits
from unquant.container.varint import BytesLike, Reader, checked_int, encode_varint
from unquant.errors import CorruptStream, UnsupportedVersion

ALPHA: Final = b"Alph"
ICC: Final = b"iccp"
EXIF: Final = b"exif"
XMP: Final = b"xmp "
MAX_SECTIONS: Final = 32

_KNOWN_SECTIONS = (ALPHA, ICC, EXIF, XMP)
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

    tiles: in file order. alpha: the coded alpha plane. icc, exif, xmp: metadata as it is, not looked into.
    None means that the file has no such section.
    """

    header: Header
    tiles: tuple[Tile, ...]
    alpha: bytes | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def __post_init__(self) -> None:
        checked_int("number of tiles", len(self.tiles), 1, self.header.max_tiles)

    @property
    def has_alpha(self) -> bool:
        """Whether there is an alpha plane: in a section, or as the second tile of an av1 file."""
        return self.alpha is not None or (self.header.family == "av1" and len(self.tiles) > 1)

    def to_bytes(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The file. Raises ImageTooLarge if a reader with the same `limits` would refuse it."""
        limits.check_size(self.header.width, self.header.height)
        payloads = zip(_KNOWN_SECTIONS, (self.alpha, self.icc, self.exif, self.xmp), strict=True)
        sections = [(kind, payload) for kind, payload in payloads if payload is not None]
        parts = [self.header.to_bytes(), encode_varint(2 * len(self.tiles) + bool(sections))]
        for tile in self.tiles:
            parts += (encode_varint(len(tile.stream)), int(tile.crc).to_bytes(4, "little"), tile.stream)
        if sections:
            parts.append(encode_varint(len(sections)))
        for kind, payload in sections:
            limits.check_section(f"section {_show(kind)}", len(payload))
            crc = zlib.crc32(payload, zlib.crc32(kind))
            parts += (kind, encode_varint(len(payload)), payload, crc.to_bytes(4, "little"))
        limits.check_file(sum(map(len, parts)))
        return b"".join(parts)


def parse(data: BytesLike, limits: Limits = DEFAULT_LIMITS) -> Container:
    """A file taken apart; the coder streams and the sections are not looked into.

    Unknown ancillary sections are skipped. Raises NotUnquant (no magic), UnsupportedVersion (version, family, flag or
    critical section unknown here), ImageTooLarge (beyond `limits`) and CorruptStream (everything else). No memory is
    taken beyond copies of what is in `data` and the q map, whose size follows from the checked dimensions.
    """
    limits.check_file(memoryview(data).nbytes)
    reader = Reader(data)
    header, _ = read_header(reader, limits)
    word = reader.varint("number of tiles")
    tiles = _read_tiles(reader, word >> 1, header.max_tiles)
    sections = _read_sections(reader, limits) if word & 1 else {}
    if reader.remaining:
        raise CorruptStream(f"{reader.remaining} bytes after the end of the file's data")
    return Container(header, tiles, *(sections.get(kind) for kind in _KNOWN_SECTIONS))


def _read_tiles(reader: Reader, count: int, most: int) -> tuple[Tile, ...]:
    if not 1 <= count <= most:
        raise CorruptStream(f"number of tiles: {count} is outside 1..{most} for these dimensions")
    if count * _MIN_TILE_BYTES > reader.remaining:
        raise CorruptStream(f"{count} tiles announced, {reader.remaining} bytes left (truncated or damaged)")
    tiles: list[Tile] = []
    for index in range(count):
        size = reader.varint(f"length of tile {index}")
        crc = reader.uint32(f"checksum of tile {index}")
        tiles.append(Tile(reader.take(size, f"tile {index}"), crc))
    return tuple(tiles)


def _read_sections(reader: Reader, limits: Limits) -> dict[bytes, bytes]:
    count = reader.varint("number of sections")
    if not 1 <= count <= MAX_SECTIONS:
        raise CorruptStream(f"number of sections: {count} is outside 1..{MAX_SECTIONS}")
    sections: dict[bytes, bytes] = {}
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
            raise CorruptStream(f"{name}: checksum does not match")
        if kind in seen:
            raise CorruptStream(f"{name}: present more than once")
        seen.add(kind)
        if kind in _KNOWN_SECTIONS:
            sections[kind] = payload
        elif kind[:1].isupper():
            raise UnsupportedVersion(f"{name}: critical, and unknown to this program")
    return sections


def _show(kind: bytes) -> str:
    return repr(kind.decode("latin-1"))
