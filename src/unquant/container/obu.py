"""The headers of one AV1 still picture: low-overhead OBUs up to the quantisation parameters and film grain.

Field names and order are those of the AV1 Bitstream & Decoding Process Specification, section 5. Nothing is decoded: what
is arithmetic-coded (coefficients, the deltas of each superblock) is not looked into. Intra frames are followed to the end
of their header, reduced or not; of an inter frame, or of an existing one that is shown again, only the fact is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from unquant.container.av1_headers import Frame, FrameReader, Sequence, read_sequence
from unquant.container.bits import Bits
from unquant.container.varint import BytesLike, byte_view, checked_int
from unquant.errors import CorruptStream, UnsupportedVersion

__all__ = ["AC_QLOOKUP", "StillPicture", "ac_q", "parse_obus", "strip_temporal_delimiter"]

# fmt: off
AC_QLOOKUP: Final = (
    4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34,
    35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61,
    62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88,
    89, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 101, 102, 104, 106, 108, 110, 112, 114, 116, 118, 120, 122,
    124, 126, 128, 130, 132, 134, 136, 138, 140, 142, 144, 146, 148, 150, 152, 155, 158, 161, 164, 167, 170,
    173, 176, 179, 182, 185, 188, 191, 194, 197, 200, 203, 207, 211, 215, 219, 223, 227, 231, 235, 239, 243,
    247, 251, 255, 260, 265, 270, 275, 280, 285, 290, 295, 300, 305, 311, 317, 323, 329, 335, 341, 347, 353,
    359, 366, 373, 380, 387, 394, 401, 408, 416, 424, 432, 440, 448, 456, 465, 474, 483, 492, 501, 510, 520,
    530, 540, 550, 560, 571, 582, 593, 604, 615, 627, 639, 651, 663, 676, 689, 702, 715, 729, 743, 757, 771,
    786, 801, 816, 832, 848, 864, 881, 898, 915, 933, 951, 969, 988, 1007, 1026, 1046, 1066, 1087, 1108, 1129,
    1151, 1173, 1196, 1219, 1243, 1267, 1292, 1317, 1343, 1369, 1396, 1423, 1451, 1479, 1508, 1537, 1567, 1597,
    1628, 1660, 1692, 1725, 1759, 1793, 1828,
)
"""Ac_Qlookup[0] of the specification, 8 bits: base_q_idx 0..255 to eight times the AC step in sample units, 4..1828."""
# fmt: on

_SEQUENCE_HEADER, _TEMPORAL_DELIMITER, _FRAME_HEADER, _TILE_GROUP, _FRAME, _TILE_LIST = 1, 2, 3, 4, 6, 8
_MAX_LEB128_BYTES = 8
_MAX_UNITS = 10_000  # a frame has at most 4,096 tiles, each in a tile group of its own at the very most


@dataclass(frozen=True, slots=True)
class StillPicture:
    """What the headers of one picture say. Of several frames (layers) the sequence header and the last frame count.

    width, height: pixels of the frame that a decoder hands out, after super-resolution, before any render size;
    the sequence's where the frame cannot be followed. render_width, render_height: the size to show it at, which image
    files ignore. max_width, max_height: the sequence header's. profile 0..2, level 0..31, tier 0..1: as av1C has them.
    bit_depth: 8, 10 or 12. mono: luma only (subsampling_x and _y are then 1). subsampling_x, subsampling_y: 0 or 1.
    chroma_sample_position: 0 unknown, 1 vertical, 2 colocated. primaries, transfer, matrix: H.273 code points, 2 where
    unspecified. full_range: 0..255 rather than 16..235. reduced_header: reduced_still_picture_header. still_picture: the
    sequence's flag. frames: frame headers seen, at least 1.

    base_q_idx: 0..255, or None where the last frame is not an intra frame, whose header needs other frames; everything
    below is then at its default. y_dc_delta, u_dc_delta, u_ac_delta, v_dc_delta, v_ac_delta: -64..63, added to
    base_q_idx. using_qmatrix and qm_levels (y, u, v), 0..15, None without. segmentation_enabled. delta_q_present: the
    step differs by superblock. film_grain: noise is added after decoding; for a frame not followed: may be.
    """

    width: int
    height: int
    render_width: int
    render_height: int
    max_width: int
    max_height: int
    profile: int
    level: int
    tier: int
    bit_depth: int
    mono: bool
    subsampling_x: int
    subsampling_y: int
    chroma_sample_position: int
    primaries: int
    transfer: int
    matrix: int
    full_range: bool
    reduced_header: bool
    still_picture: bool
    frames: int
    film_grain: bool
    base_q_idx: int | None = None
    y_dc_delta: int = 0
    u_dc_delta: int = 0
    u_ac_delta: int = 0
    v_dc_delta: int = 0
    v_ac_delta: int = 0
    using_qmatrix: bool = False
    qm_levels: tuple[int, int, int] | None = None
    segmentation_enabled: bool = False
    delta_q_present: bool = False

    @property
    def chroma(self) -> str:
        """One of "4:0:0", "4:2:0", "4:2:2" or "4:4:4"."""
        if self.mono:
            return "4:0:0"
        return ("4:4:4", "4:2:2", "4:2:0")[self.subsampling_x + self.subsampling_y]


def ac_q(base_q_idx: int) -> int:
    """Eight times the AC quantiser step in sample units of an 8-bit picture, 4..1828. Raises OptionError outside 0..255."""
    return AC_QLOOKUP[checked_int("base_q_idx", base_q_idx, 0, 255)]


def strip_temporal_delimiter(data: BytesLike) -> bytes:
    """The OBUs without the temporal delimiters at their start, which image files leave out. Raises CorruptStream."""
    start = 0
    for unit in _units(data):
        if unit.kind != _TEMPORAL_DELIMITER:
            break
        start = unit.end
    return bytes(byte_view(data)[start:])


def parse_obus(data: BytesLike) -> StillPicture:
    """The headers of one coded picture; data: its OBUs in the low-overhead format, with or without temporal delimiter.

    Takes no memory beyond a few fields, whatever the headers claim. Raises CorruptStream (cut short, a field outside its
    range, no sequence header or frame, tile data missing) and UnsupportedVersion (reserved profiles, tile lists).
    """
    view = byte_view(data)
    raw: memoryview | None = None
    sequence: Sequence | None = None
    frame: Frame | None = None
    frames = 0
    tiles = True
    for unit in _units(view):
        payload = view[unit.start : unit.end]
        if unit.kind == _SEQUENCE_HEADER:
            if raw is not None and raw != payload:
                raise CorruptStream("AV1: two sequence headers that differ")
            raw, sequence = payload, read_sequence(Bits(payload, "sequence header"))
        elif unit.kind == _TILE_LIST:
            raise UnsupportedVersion("AV1: a tile list (large scale tile coding) is not a still picture")
        elif unit.kind in (_FRAME, _FRAME_HEADER, _TILE_GROUP):
            if sequence is None:
                raise CorruptStream("AV1: a frame before any sequence header")
            if not unit.in_operating_point(sequence.operating_point_idc):
                continue
            if unit.kind == _TILE_GROUP:
                if frames == 0 or not payload:
                    raise CorruptStream("AV1: tiles without a frame header, or an empty tile group")
                tiles = True
            elif not tiles:
                raise CorruptStream("AV1: a frame header without tile data")
            else:
                bits = Bits(payload, "frame header")
                frame = FrameReader(sequence, bits).read(unit.temporal_id, unit.spatial_id)
                frames += 1
                tiles = frame.shown_again or (unit.kind == _FRAME and bits.bytes_left > 0)
                if unit.kind == _FRAME and not tiles:
                    raise CorruptStream("AV1: a frame without tile data (truncated or damaged)")
    if sequence is None:
        raise CorruptStream("AV1: no sequence header")
    if frame is None or not tiles:
        raise CorruptStream("AV1: no frame" if frame is None else "AV1: a frame header without tile data")
    return _picture(sequence, frame, frames)


class _Unit(NamedTuple):
    """One OBU: its type and layer, and where its payload lies."""

    kind: int
    extended: bool
    temporal_id: int
    spatial_id: int
    start: int
    end: int

    def in_operating_point(self, idc: int) -> bool:
        if idc == 0 or not self.extended:
            return True
        return bool(idc >> self.temporal_id & 1 and idc >> (self.spatial_id + 8) & 1)


def _units(data: BytesLike) -> Iterator[_Unit]:
    """The OBUs in order, each checked to end within the data."""
    view = byte_view(data)
    position, size = 0, len(view)
    for _ in range(_MAX_UNITS):
        if position == size:
            return
        head = view[position]
        position += 1
        if head & 0x80:
            raise CorruptStream(f"AV1: not an OBU at byte {position - 1}: the forbidden bit is set")
        layer = 0
        if head & 0x04:
            if position == size:
                raise CorruptStream("AV1: cut in the header of an OBU")
            layer = view[position]
            position += 1
        length = size - position
        if head & 0x02:
            length, position = _leb128(view, position)
        if length > size - position:
            raise CorruptStream(f"AV1: an OBU of {length} bytes, {size - position} left (truncated or damaged)")
        yield _Unit(head >> 3 & 15, bool(head & 0x04), layer >> 5, layer >> 3 & 3, position, position + length)
        position += length
    raise CorruptStream(f"AV1: more than {_MAX_UNITS} OBUs")


def _leb128(view: memoryview, position: int) -> tuple[int, int]:
    """The value and the position after it. Longer forms than need be are legal here, unlike in a varint of `.unq`."""
    value = 0
    for index, byte in enumerate(view[position : position + _MAX_LEB128_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= 1 << 32:
                break
            return value, position + index + 1
    raise CorruptStream("AV1: the size of an OBU is cut short or above 32 bits")


def _picture(sequence: Sequence, frame: Frame, frames: int) -> StillPicture:
    return StillPicture(
        width=frame.width,
        height=frame.height,
        render_width=frame.render_width,
        render_height=frame.render_height,
        max_width=sequence.max_width,
        max_height=sequence.max_height,
        profile=sequence.profile,
        level=sequence.level,
        tier=sequence.tier,
        bit_depth=sequence.bit_depth,
        mono=sequence.mono,
        subsampling_x=sequence.subsampling_x,
        subsampling_y=sequence.subsampling_y,
        chroma_sample_position=sequence.chroma_sample_position,
        primaries=sequence.primaries,
        transfer=sequence.transfer,
        matrix=sequence.matrix,
        full_range=sequence.full_range,
        reduced_header=sequence.reduced,
        still_picture=sequence.still_picture,
        frames=frames,
        film_grain=frame.film_grain,
        base_q_idx=frame.base_q_idx,
        y_dc_delta=frame.deltas[0],
        u_dc_delta=frame.deltas[1],
        u_ac_delta=frame.deltas[2],
        v_dc_delta=frame.deltas[3],
        v_ac_delta=frame.deltas[4],
        using_qmatrix=frame.qm_levels is not None,
        qm_levels=frame.qm_levels,
        segmentation_enabled=frame.segmentation_enabled,
        delta_q_present=frame.delta_q_present,
    )
