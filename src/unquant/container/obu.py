"""The headers of one AV1 still picture: low-overhead OBUs up to the quantisation parameters and film grain.

Field names and order are those of the AV1 Bitstream & Decoding Process Specification, section 5. Nothing is decoded: what
is arithmetic-coded (coefficients, the deltas of each superblock) is not looked into. Intra frames are followed to the end
of their header, reduced or not; of an inter frame, or of an existing one that is shown again, only the fact is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from unquant.container.varint import BytesLike, checked_int
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

_SEQUENCE_HEADER, _TEMPORAL_DELIMITER, _FRAME_HEADER, _TILE_GROUP = 1, 2, 3, 4
_FRAME, _REDUNDANT_FRAME_HEADER, _TILE_LIST = 6, 7, 8
_KEY_FRAME, _INTRA_ONLY_FRAME, _SWITCH_FRAME = 0, 2, 3
_SELECT = 2  # SELECT_SCREEN_CONTENT_TOOLS and SELECT_INTEGER_MV
_UNSPECIFIED = 2
_BT709, _SRGB, _IDENTITY = 1, 13, 0
_NUM_REF_FRAMES = 8
_MAX_SEGMENTS = 8
_SEGMENT_FEATURE_BITS = (9, 7, 7, 7, 7, 3, 0, 0)  # the sign of the first five included
_SIGNED_FEATURES = 5
_MAX_TILE_WIDTH, _MAX_TILE_AREA, _MAX_TILE_COLS, _MAX_TILE_ROWS = 4096, 4096 * 2304, 64, 64
_MAX_LEB128_BYTES = 8


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
    return bytes(memoryview(data)[start:])


def parse_obus(data: BytesLike) -> StillPicture:
    """The headers of one coded picture; data: its OBUs in the low-overhead format, with or without temporal delimiter.

    Takes no memory beyond a few fields, whatever the headers claim. Raises CorruptStream (cut short, a field outside its
    range, no sequence header or frame, tile data missing) and UnsupportedVersion (reserved profiles, tile lists).
    """
    view = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
    raw: memoryview | None = None
    sequence: _Sequence | None = None
    frame: _Frame | None = None
    frames = 0
    tiles = True
    for unit in _units(view):
        payload = view[unit.start : unit.end]
        if unit.kind == _SEQUENCE_HEADER:
            if raw is not None and raw != payload:
                raise CorruptStream("AV1: two sequence headers that differ")
            raw, sequence = payload, _read_sequence(_Bits(payload, "sequence header"))
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
                bits = _Bits(payload, "frame header")
                frame = _FrameReader(sequence, bits).read(unit.temporal_id, unit.spatial_id)
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
    view = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
    position, size = 0, len(view)
    while position < size:
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


class _Bits:
    """A cursor over bits, the most significant first, that never reads past the end: CorruptStream names `what`."""

    __slots__ = ("_data", "_what", "position")

    def __init__(self, data: memoryview, what: str) -> None:
        self._data = data
        self._what = what
        self.position = 0

    @property
    def bytes_left(self) -> int:
        """Whole bytes after the one that the cursor stands in."""
        return len(self._data) - (self.position + 7) // 8

    def f(self, count: int) -> int:
        """An unsigned number of `count` bits."""
        end = self.position + count
        if end > 8 * len(self._data):
            raise CorruptStream(f"AV1 {self._what}: cut short or damaged")
        last = (end + 7) // 8
        window = int.from_bytes(self._data[self.position // 8 : last], "big")
        self.position = end
        return window >> (8 * last - end) & ((1 << count) - 1)

    def flag(self) -> bool:
        return self.f(1) == 1

    def su(self, count: int) -> int:
        """A signed number of `count` bits, the sign included."""
        value = self.f(count)
        return value - (1 << count) if value >> (count - 1) else value

    def ns(self, n: int) -> int:
        """A number below n."""
        width = n.bit_length()
        short = (1 << width) - n
        value = self.f(width - 1)
        return value if value < short else (value << 1) - short + self.f(1)

    def uvlc(self) -> None:
        """Passes over one variable-length number."""
        zeros = 0
        while zeros < 32 and not self.flag():
            zeros += 1
        if zeros < 32:
            self.f(zeros)


@dataclass(slots=True)
class _Sequence:
    """The sequence header: what `StillPicture` shows, and what the frame header's syntax depends on."""

    profile: int
    still_picture: bool
    reduced: bool
    level: int = 0
    tier: int = 0
    operating_point_idc: int = 0
    # per operating point: idc, and whether a buffer removal time is coded for it
    operating_points: tuple[tuple[int, bool], ...] = ()
    decoder_model: bool = False
    equal_picture_interval: bool = False
    buffer_removal_time_length: int = 0
    frame_presentation_time_length: int = 0
    width_bits: int = 0
    height_bits: int = 0
    max_width: int = 0
    max_height: int = 0
    frame_id_length: int = 0  # 0: no frame ids
    superblock_128: bool = False
    force_screen_content_tools: int = _SELECT
    force_integer_mv: int = _SELECT
    order_hint_bits: int = 0
    enable_superres: bool = False
    enable_cdef: bool = False
    enable_restoration: bool = False
    film_grain_params_present: bool = False
    bit_depth: int = 8
    mono: bool = False
    primaries: int = _UNSPECIFIED
    transfer: int = _UNSPECIFIED
    matrix: int = _UNSPECIFIED
    full_range: bool = True
    subsampling_x: int = 0
    subsampling_y: int = 0
    chroma_sample_position: int = 0
    separate_uv_delta_q: bool = False


def _read_sequence(bits: _Bits) -> _Sequence:
    sequence = _Sequence(bits.f(3), bits.flag(), bits.flag())
    if sequence.profile > 2:
        raise UnsupportedVersion(f"AV1: profile {sequence.profile} is unknown to this program")
    if sequence.reduced:
        if not sequence.still_picture:
            raise CorruptStream("AV1 sequence header: reduced, but not of a still picture")
        sequence.level = bits.f(5)
    else:
        _read_operating_points(bits, sequence)
    sequence.width_bits, sequence.height_bits = bits.f(4) + 1, bits.f(4) + 1
    sequence.max_width, sequence.max_height = bits.f(sequence.width_bits) + 1, bits.f(sequence.height_bits) + 1
    if not sequence.reduced and bits.flag():  # frame_id_numbers_present_flag
        sequence.frame_id_length = bits.f(4) + bits.f(3) + 3
    sequence.superblock_128 = bits.flag()
    bits.f(2)  # enable_filter_intra, enable_intra_edge_filter
    if not sequence.reduced:
        bits.f(4)  # interintra and masked compound, warped motion, dual filter
        enable_order_hint = bits.flag()
        if enable_order_hint:
            bits.f(2)  # enable_jnt_comp, enable_ref_frame_mvs
        sequence.force_screen_content_tools = _SELECT if bits.flag() else bits.f(1)
        if sequence.force_screen_content_tools:
            sequence.force_integer_mv = _SELECT if bits.flag() else bits.f(1)
        if enable_order_hint:
            sequence.order_hint_bits = bits.f(3) + 1
    sequence.enable_superres, sequence.enable_cdef, sequence.enable_restoration = bits.flag(), bits.flag(), bits.flag()
    _read_color_config(bits, sequence)
    sequence.film_grain_params_present = bits.flag()
    return sequence


def _read_operating_points(bits: _Bits, sequence: _Sequence) -> None:
    """From timing_info_present_flag to the last operating point; decoders take the first by default."""
    buffer_delay_length = 0
    if bits.flag():  # timing_info_present_flag
        bits.f(64)
        sequence.equal_picture_interval = bits.flag()
        if sequence.equal_picture_interval:
            bits.uvlc()
        sequence.decoder_model = bits.flag()
        if sequence.decoder_model:
            buffer_delay_length = bits.f(5) + 1
            bits.f(32)
            sequence.buffer_removal_time_length = bits.f(5) + 1
            sequence.frame_presentation_time_length = bits.f(5) + 1
    initial_display_delay = bits.flag()
    points: list[tuple[int, bool]] = []
    for index in range(bits.f(5) + 1):
        idc, level = bits.f(12), bits.f(5)
        tier = bits.f(1) if level > 7 else 0
        with_model = sequence.decoder_model and bits.flag()
        if with_model:
            bits.f(2 * buffer_delay_length + 1)
        if initial_display_delay and bits.flag():
            bits.f(4)
        points.append((idc, with_model))
        if index == 0:
            sequence.operating_point_idc, sequence.level, sequence.tier = idc, level, tier
    sequence.operating_points = tuple(points)


def _read_color_config(bits: _Bits, sequence: _Sequence) -> None:
    high = bits.flag()
    sequence.bit_depth = 8 + 2 * high
    if sequence.profile == 2 and high and bits.flag():
        sequence.bit_depth = 12
    sequence.mono = sequence.profile != 1 and bits.flag()
    if bits.flag():  # color_description_present_flag
        sequence.primaries, sequence.transfer, sequence.matrix = bits.f(8), bits.f(8), bits.f(8)
    if sequence.mono:
        sequence.full_range = bits.flag()
        sequence.subsampling_x = sequence.subsampling_y = 1
        return
    if (sequence.primaries, sequence.transfer, sequence.matrix) == (_BT709, _SRGB, _IDENTITY):
        if sequence.profile == 0:
            raise CorruptStream("AV1 sequence header: RGB in profile 0")
    else:
        sequence.full_range = bits.flag()
        if sequence.profile == 0:
            sequence.subsampling_x = sequence.subsampling_y = 1
        elif sequence.profile == 2:
            sequence.subsampling_x = bits.f(1) if sequence.bit_depth == 12 else 1
            sequence.subsampling_y = bits.f(1) if sequence.bit_depth == 12 and sequence.subsampling_x else 0
        if sequence.matrix == _IDENTITY and sequence.subsampling_x:
            raise CorruptStream("AV1 sequence header: RGB with subsampled planes")
        if sequence.subsampling_x and sequence.subsampling_y:
            sequence.chroma_sample_position = bits.f(2)
    sequence.separate_uv_delta_q = bits.flag()


@dataclass(slots=True)
class _Frame:
    """One frame header; what it leaves at its default could not be followed."""

    width: int
    height: int
    render_width: int
    render_height: int
    film_grain: bool
    shown_again: bool = False
    base_q_idx: int | None = None
    deltas: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)  # y dc, u dc, u ac, v dc, v ac
    qm_levels: tuple[int, int, int] | None = None
    segmentation_enabled: bool = False
    delta_q_present: bool = False


class _FrameReader:
    """uncompressed_header() of the specification, for intra frames."""

    def __init__(self, sequence: _Sequence, bits: _Bits) -> None:
        self.sequence = sequence
        self.bits = bits
        self.frame = _Frame(
            sequence.max_width,
            sequence.max_height,
            sequence.max_width,
            sequence.max_height,
            sequence.film_grain_params_present,
        )
        self.coded_width = sequence.max_width
        self.allow_intrabc = False
        self.segment_q = (0,) * _MAX_SEGMENTS

    def read(self, temporal_id: int, spatial_id: int) -> _Frame:
        sequence, bits, frame = self.sequence, self.bits, self.frame
        frame_type, show_frame, showable_frame, error_resilient = _KEY_FRAME, True, False, True
        if not sequence.reduced:
            if bits.flag():  # show_existing_frame
                frame.shown_again = True
                return frame
            frame_type, show_frame = bits.f(2), bits.flag()
            if show_frame and sequence.decoder_model and not sequence.equal_picture_interval:
                bits.f(sequence.frame_presentation_time_length)
            showable_frame = frame_type != _KEY_FRAME if show_frame else bits.flag()
            if frame_type != _SWITCH_FRAME and not (frame_type == _KEY_FRAME and show_frame):
                error_resilient = bits.flag()
        if frame_type not in (_KEY_FRAME, _INTRA_ONLY_FRAME):
            return frame
        disable_cdf_update = bits.flag()
        screen_content = sequence.force_screen_content_tools
        if screen_content == _SELECT:
            screen_content = bits.f(1)
        if screen_content and sequence.force_integer_mv == _SELECT:
            bits.f(1)
        bits.f(sequence.frame_id_length)
        size_override = not sequence.reduced and bits.flag()
        bits.f(sequence.order_hint_bits)
        if sequence.decoder_model and bits.flag():  # buffer_removal_time_present_flag
            for idc, with_model in sequence.operating_points:
                if with_model and (idc == 0 or (idc >> temporal_id & 1 and idc >> (spatial_id + 8) & 1)):
                    bits.f(sequence.buffer_removal_time_length)
        if not (frame_type == _KEY_FRAME and show_frame) and bits.f(8) != 0xFF and error_resilient:
            bits.f(_NUM_REF_FRAMES * sequence.order_hint_bits)
        self._read_size(size_override)
        if screen_content and self.coded_width == frame.width:
            self.allow_intrabc = bits.flag()
        if not (sequence.reduced or disable_cdf_update):
            bits.f(1)  # disable_frame_end_update_cdf
        self._read_tile_info()
        self._read_quantization()
        self._read_segmentation()
        frame.delta_q_present = frame.base_q_idx != 0 and bits.flag()
        if frame.delta_q_present:
            bits.f(2)
            if not self.allow_intrabc and bits.flag():  # delta_lf_present
                bits.f(3)
        if sequence.film_grain_params_present:
            frame.film_grain = False
            self._skip_filters()
            if show_frame or showable_frame:
                frame.film_grain = bits.flag()
        return frame

    def _read_size(self, override: bool) -> None:
        sequence, bits, frame = self.sequence, self.bits, self.frame
        if override:
            frame.width, frame.height = bits.f(sequence.width_bits) + 1, bits.f(sequence.height_bits) + 1
            if frame.width > sequence.max_width or frame.height > sequence.max_height:
                raise CorruptStream(
                    f"AV1: a frame of {frame.width}x{frame.height} pixels in a sequence of at most "
                    f"{sequence.max_width}x{sequence.max_height}"
                )
        self.coded_width = frame.width
        if sequence.enable_superres and bits.flag():
            denominator = bits.f(3) + 9
            self.coded_width = (frame.width * 8 + denominator // 2) // denominator
        frame.render_width, frame.render_height = frame.width, frame.height
        if bits.flag():  # render_and_frame_size_different
            frame.render_width, frame.render_height = bits.f(16) + 1, bits.f(16) + 1

    def _read_tile_info(self) -> None:
        bits = self.bits
        shift = 7 if self.sequence.superblock_128 else 6
        columns, rows = -(-self.coded_width // (1 << shift)), -(-self.frame.height // (1 << shift))
        max_width = _MAX_TILE_WIDTH >> shift
        least_columns = _tile_log2(max_width, columns)
        least = max(least_columns, _tile_log2(_MAX_TILE_AREA >> (2 * shift), rows * columns))
        if bits.flag():  # uniform_tile_spacing_flag
            columns_log2 = self._increment(least_columns, _tile_log2(1, min(columns, _MAX_TILE_COLS)))
            rows_log2 = self._increment(max(least - columns_log2, 0), _tile_log2(1, min(rows, _MAX_TILE_ROWS)))
        else:
            count, widest = self._spacing(columns, max_width, _MAX_TILE_COLS)
            area = rows * columns >> (least + 1) if least else rows * columns
            columns_log2 = _tile_log2(1, count)
            rows_log2 = _tile_log2(1, self._spacing(rows, max(area // widest, 1), _MAX_TILE_ROWS)[0])
        if columns_log2 or rows_log2:
            bits.f(columns_log2 + rows_log2 + 2)

    def _increment(self, value: int, most: int) -> int:
        while value < most and self.bits.flag():
            value += 1
        return value

    def _spacing(self, total: int, most: int, count_limit: int) -> tuple[int, int]:
        """The number of tiles along one side, and the size of the largest, in superblocks."""
        count = largest = start = 0
        while start < total:
            size = self.bits.ns(min(total - start, most)) + 1
            largest = max(largest, size)
            start += size
            count += 1
            if count > count_limit:
                raise CorruptStream(f"AV1 frame header: more than {count_limit} tiles along one side")
        return count, largest

    def _delta(self) -> int:
        return self.bits.su(7) if self.bits.flag() else 0

    def _read_quantization(self) -> None:
        sequence, bits, frame = self.sequence, self.bits, self.frame
        frame.base_q_idx = bits.f(8)
        y_dc, u, v = self._delta(), (0, 0), (0, 0)
        if not sequence.mono:
            differ = sequence.separate_uv_delta_q and bits.flag()
            u = self._delta(), self._delta()
            v = (self._delta(), self._delta()) if differ else u
        frame.deltas = (y_dc, *u, *v)
        if bits.flag():  # using_qmatrix
            y, u_level = bits.f(4), bits.f(4)
            frame.qm_levels = (y, u_level, bits.f(4) if sequence.separate_uv_delta_q else u_level)

    def _read_segmentation(self) -> None:
        bits = self.bits
        self.frame.segmentation_enabled = bits.flag()
        if not self.frame.segmentation_enabled:
            return
        changes: list[int] = []
        for _ in range(_MAX_SEGMENTS):
            change = 0
            for feature, width in enumerate(_SEGMENT_FEATURE_BITS):
                if bits.flag():
                    value = bits.su(width) if feature < _SIGNED_FEATURES else bits.f(width)
                    change = value if feature == 0 else change
            changes.append(change)
        self.segment_q = tuple(changes)

    def _skip_filters(self) -> None:
        """From loop_filter_params() to reduced_tx_set, up to film_grain_params()."""
        sequence, bits, frame = self.sequence, self.bits, self.frame
        base = frame.base_q_idx or 0
        lossless = not any(frame.deltas) and all(base + change <= 0 for change in self.segment_q)
        if not (lossless or self.allow_intrabc):
            levels = bits.f(6), bits.f(6)
            if not sequence.mono and any(levels):
                bits.f(12)
            bits.f(3)
            if bits.flag() and bits.flag():  # loop_filter_delta_enabled, loop_filter_delta_update
                for _ in range(_NUM_REF_FRAMES + 2):
                    if bits.flag():
                        bits.f(7)
            if sequence.enable_cdef:
                bits.f(2)
                for _ in range(1 << bits.f(2)):
                    bits.f(6 if sequence.mono else 12)
        all_lossless = lossless and self.coded_width == frame.width
        if sequence.enable_restoration and not (all_lossless or self.allow_intrabc):
            self._skip_restoration()
        if not lossless:
            bits.f(1)  # tx_mode_select
        bits.f(1)  # reduced_tx_set

    def _skip_restoration(self) -> None:
        sequence, bits = self.sequence, self.bits
        types = [bits.f(2) for _ in range(1 if sequence.mono else 3)]
        if any(types):
            if bits.flag() and not sequence.superblock_128:
                bits.f(1)
            if sequence.subsampling_x and sequence.subsampling_y and any(types[1:]):
                bits.f(1)


def _tile_log2(size: int, target: int) -> int:
    """The smallest k with size * 2^k >= target."""
    return max(-(-target // size) - 1, 0).bit_length()


def _picture(sequence: _Sequence, frame: _Frame, frames: int) -> StillPicture:
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
