"""The header of a `.unq` file, version 1, and the checksums that bind every tile to it (docs/format.md)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Final

from unquant.container.limits import DEFAULT_LIMITS, Limits
from unquant.container.varint import MAX_VARINT, BytesLike, Reader, checked_int, encode_varint
from unquant.errors import CorruptStream, NotUnquant, OptionError, UnsupportedVersion

MAGIC: Final = b"\x89UNQ"
VERSION: Final = 1
FAMILIES: Final[dict[int, str]] = {1: "ratevar", 2: "cdc", 3: "av1"}
"""Family id in the file to family name. Part of the format: ids are never reused or reordered."""

STREAM_ID_BYTES: Final = 4
MAX_SIDE: Final = 2**31 - 1
MAX_Q_INDEX: Final = 1023
MAX_BASE_Q_IDX: Final = 255
"""The largest q index of the family `av1`, whose q index is AV1's base_q_idx."""
MAX_REALISM: Final = 100
MAX_STEPS: Final = 256
"""What a file may ask for: a decoder's time must not be in the hands of who wrote the file."""

_FLAG_Q_MAP = 0x01
_FLAG_REALISM = 0x02
_FLAG_STEPS = 0x04
_FLAG_SEED = 0x08
_FLAG_HALF = 0x10
_COMMON_FLAGS = _FLAG_REALISM | _FLAG_STEPS | _FLAG_SEED

_AV1 = "av1"
_FAMILY_IDS = {name: number for number, name in FAMILIES.items()}


@dataclass(frozen=True, slots=True)
class Header:
    """What a decoder has to know before the first tile. Raises OptionError if a field is outside its range.

    family: "ratevar", "cdc" or "av1". stream_id: 4 bytes that name the weights. width, height: pixels, 1..2^31-1.
    q_index: 0..1023; of an av1 file its base_q_idx, 0..255. q_map: None, or ceil(height/16)*ceil(width/16) values
    0..1023, uint16 little-endian, row by row; none in an av1 file. realism: None (the default of the weights) or 0..100
    per cent. steps: None or 1..256. seed: None or 0..2^64-1. half: the base is coded at half size; av1 only.
    """

    family: str
    stream_id: bytes
    width: int
    height: int
    q_index: int
    q_map: bytes | None = None
    realism: int | None = None
    steps: int | None = None
    seed: int | None = None
    half: bool = False
    # The bytes in the file. Kept, because another build of zlib may compress the same q map to other bytes, which
    # would break the checksums of the tiles. Not an init field, so dataclasses.replace() forgets it, as it must.
    _raw: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.family not in _FAMILY_IDS:
            raise OptionError(f"family must be one of {', '.join(_FAMILY_IDS)}, not {self.family!r}")
        if len(self.stream_id) != STREAM_ID_BYTES:
            raise OptionError(f"stream_id must be {STREAM_ID_BYTES} bytes, not {len(self.stream_id)}")
        checked_int("width", self.width, 1, MAX_SIDE)
        checked_int("height", self.height, 1, MAX_SIDE)
        checked_int("q_index", self.q_index, 0, _max_q_index(self.family))
        if self.family == _AV1 and self.q_map is not None:
            raise OptionError("q_map: an av1 file has none")
        if self.family != _AV1 and self.half:
            raise OptionError(f"half: only the base of an av1 file is coded at half size, not {self.family}")
        if self.realism is not None:
            checked_int("realism in per cent", self.realism, 0, MAX_REALISM)
        if self.steps is not None:
            checked_int("steps", self.steps, 1, MAX_STEPS)
        if self.seed is not None:
            checked_int("seed", self.seed, 0, MAX_VARINT)
        if self.q_map is not None:
            expected = q_map_bytes(self.width, self.height)
            if len(self.q_map) != expected:
                raise OptionError(f"q_map must be {expected} bytes, not {len(self.q_map)}")
            if not _q_map_in_range(self.q_map):
                raise OptionError(f"q_map: a value above {MAX_Q_INDEX}")

    @property
    def max_tiles(self) -> int:
        """The largest number of tiles that a file of this size may have: one for each 8x8 block of latents, begun; of the
        family av1 two, the picture and its alpha plane, and at half size the picture alone."""
        if self.family == _AV1:
            return 1 if self.half else 2
        rows, columns = latent_size(self.width, self.height)
        return -(-rows // 8) * -(-columns // 8)

    def to_bytes(self) -> bytes:
        """The header from the magic up to, not including, the tile word.

        A header that was read gives exactly the bytes that were in the file. The same object always gives the same
        bytes; two equal headers with a q map may differ in them, so use one object for checksums and file.
        """
        if self._raw is None:
            object.__setattr__(self, "_raw", self._serialise())
        assert self._raw is not None
        return self._raw

    def _serialise(self) -> bytes:
        flags = 0
        options = b""
        if self.q_map is not None:
            flags |= _FLAG_Q_MAP
            packed = zlib.compress(self.q_map, 9)
            options += encode_varint(len(packed)) + packed
        if self.realism is not None:
            flags |= _FLAG_REALISM
            options += bytes((self.realism,))
        if self.steps is not None:
            flags |= _FLAG_STEPS
            options += encode_varint(self.steps)
        if self.seed is not None:
            flags |= _FLAG_SEED
            options += encode_varint(self.seed)
        if self.half:
            flags |= _FLAG_HALF
        return b"".join(
            (
                MAGIC,
                bytes((VERSION, _FAMILY_IDS[self.family])),
                self.stream_id,
                encode_varint(self.width),
                encode_varint(self.height),
                encode_varint(self.q_index),
                bytes((flags,)),
                options,
            )
        )


def latent_size(width: int, height: int) -> tuple[int, int]:
    """(h16, w16): rows and columns of the latent of an image of width by height pixels."""
    return -(-height // 16), -(-width // 16)


def q_map_bytes(width: int, height: int) -> int:
    """The size in bytes of an uncompressed q map."""
    rows, columns = latent_size(width, height)
    return 2 * rows * columns


def parse_header(data: BytesLike, limits: Limits = DEFAULT_LIMITS) -> tuple[Header, bytes]:
    """The header and its raw bytes (the seed of the tiles' checksums), from a file or any part of its start that holds it.

    Raises NotUnquant (no magic), UnsupportedVersion (version, family or flag unknown here), ImageTooLarge (beyond
    `limits`) and CorruptStream (everything else, a header that is cut short among it).
    """
    return read_header(Reader(data), limits)


def read_header(reader: Reader, limits: Limits) -> tuple[Header, bytes]:
    """`parse_header` at the cursor; leaves the cursor on the tile word."""
    start = reader.position
    if reader.remaining < len(MAGIC) or reader.take(len(MAGIC), "magic") != MAGIC:
        raise NotUnquant("not an unquant file: it does not start with the bytes 89 55 4E 51")
    version = reader.byte("format version")
    if version != VERSION:
        raise UnsupportedVersion(f"format version {version}: this program reads version {VERSION}")
    family_id = reader.byte("codec family")
    family = FAMILIES.get(family_id)
    if family is None:
        raise UnsupportedVersion(f"codec family {family_id} is unknown to this program")
    stream_id = reader.take(STREAM_ID_BYTES, "stream id")
    width = reader.varint("width")
    height = reader.varint("height")
    limits.check_size(width, height)
    width = _within("width", width, 1, MAX_SIDE)
    height = _within("height", height, 1, MAX_SIDE)
    q_index = _within("q index", reader.varint("q index"), 0, _max_q_index(family))
    flags = reader.byte("flags")
    unknown = flags & ~(_COMMON_FLAGS | (_FLAG_HALF if family == _AV1 else _FLAG_Q_MAP))
    if unknown:
        raise UnsupportedVersion(
            f"header flags {flags:#04x}: bits {unknown:#04x} are unknown here in a file of {family}"
        )
    q_map = _read_q_map(reader, width, height, limits) if flags & _FLAG_Q_MAP else None
    realism = _within("realism", reader.byte("realism"), 0, MAX_REALISM) if flags & _FLAG_REALISM else None
    steps = _within("steps", reader.varint("steps"), 1, MAX_STEPS) if flags & _FLAG_STEPS else None
    seed = reader.varint("seed") if flags & _FLAG_SEED else None
    half = bool(flags & _FLAG_HALF)
    header = Header(family, stream_id, width, height, q_index, q_map, realism, steps, seed, half)
    raw = reader.since(start)
    object.__setattr__(header, "_raw", raw)
    return header, raw


def stream_crc(header: BytesLike, tile_index: int, stream: BytesLike) -> int:
    """The checksum of one tile of an av1 file: CRC-32 of header bytes + tile index (uint32, little-endian) + stream.

    header: `Header.to_bytes()`, or the raw bytes from `parse_header`. tile_index: 0..2^32-1, in file order.
    stream: the tile's OBUs as they stand in the file. Raises OptionError if the index is out of range.
    """
    index = checked_int("tile_index", tile_index, 0, 2**32 - 1)
    return zlib.crc32(stream, zlib.crc32(index.to_bytes(4, "little"), zlib.crc32(header)))


def symbols_crc(header: BytesLike, tile_index: int, symbols: BytesLike) -> int:
    """The checksum of one tile of the other families: `stream_crc` over its symbols instead of its bytes.

    symbols: the tile's symbols in coding order as little-endian int32. Raises OptionError if the index is out of
    range or `symbols` is not a whole number of int32.
    """
    if memoryview(symbols).nbytes % 4:
        raise OptionError(f"symbols must be int32 values, not {memoryview(symbols).nbytes} bytes")
    return stream_crc(header, tile_index, symbols)


def _read_q_map(reader: Reader, width: int, height: int, limits: Limits) -> bytes:
    size = reader.varint("q map length")
    limits.check_section("q map", size)
    packed = reader.take(size, "q map")
    expected = q_map_bytes(width, height)
    inflater = zlib.decompressobj()
    try:
        # One byte more than expected is asked for, so that a map that is too long is seen, and never inflated.
        q_map = inflater.decompress(packed, expected + 1)
    except zlib.error as error:
        raise CorruptStream(f"q map: {error}") from None
    if len(q_map) != expected or not inflater.eof or inflater.unused_data:
        raise CorruptStream(f"q map: does not inflate to exactly {expected} bytes")
    if not _q_map_in_range(q_map):
        raise CorruptStream(f"q map: a value above {MAX_Q_INDEX}")
    return q_map


def _q_map_in_range(q_map: bytes) -> bool:
    """Whether no value is above 1023, which is to say that no high byte is above 3."""
    return max(q_map[1::2]) <= MAX_Q_INDEX >> 8


def _max_q_index(family: str) -> int:
    return MAX_BASE_Q_IDX if family == _AV1 else MAX_Q_INDEX


def _within(what: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise CorruptStream(f"{what}: {value} is outside {low}..{high}")
    return value
