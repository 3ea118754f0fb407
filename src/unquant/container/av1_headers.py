"""The sequence and frame header of AV1, bit by bit (AV1 Bitstream & Decoding Process Specification, section 5).

Names, and the order of what is read, are the specification's. obu.py is the way in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from unquant.container.bits import Bits
from unquant.errors import CorruptStream, UnsupportedVersion

__all__ = ["Frame", "FrameReader", "Sequence", "read_sequence"]

_KEY_FRAME, _INTRA_ONLY_FRAME, _SWITCH_FRAME = 0, 2, 3
_SELECT: Final = 2  # SELECT_SCREEN_CONTENT_TOOLS and SELECT_INTEGER_MV
_UNSPECIFIED: Final = 2
_BT709, _SRGB, _IDENTITY = 1, 13, 0
_NUM_REF_FRAMES: Final = 8
_MAX_SEGMENTS: Final = 8
_SEGMENT_FEATURE_BITS: Final = (9, 7, 7, 7, 7, 3, 0, 0)  # the sign of the first five included
_SIGNED_FEATURES: Final = 5
_MAX_TILE_WIDTH, _MAX_TILE_AREA, _MAX_TILE_COLS, _MAX_TILE_ROWS = 4096, 4096 * 2304, 64, 64


@dataclass(slots=True)
class Sequence:
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


def read_sequence(bits: Bits) -> Sequence:
    sequence = Sequence(bits.f(3), bits.flag(), bits.flag())
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


def _read_operating_points(bits: Bits, sequence: Sequence) -> None:
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


def _read_color_config(bits: Bits, sequence: Sequence) -> None:
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
class Frame:
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


class FrameReader:
    """uncompressed_header() of the specification, for intra frames."""

    def __init__(self, sequence: Sequence, bits: Bits) -> None:
        self.sequence = sequence
        self.bits = bits
        self.frame = Frame(
            sequence.max_width,
            sequence.max_height,
            sequence.max_width,
            sequence.max_height,
            sequence.film_grain_params_present,
        )
        self.coded_width = sequence.max_width
        self.allow_intrabc = False
        self.segment_q = (0,) * _MAX_SEGMENTS

    def read(self, temporal_id: int, spatial_id: int) -> Frame:
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
