"""Headers of AV1: real ones by libaom, every branch by hand, and damage."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace

import pytest
from av1_files import BitWriter, first_item, obu, photograph, pillow_avif
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import features

from unquant.container.obu import AC_QLOOKUP, StillPicture, ac_q, parse_obus, strip_temporal_delimiter
from unquant.errors import CorruptStream, OptionError, UnquantError, UnsupportedVersion

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")

# a picture of 3x7 pixels by libaom, 4:2:0, quality 50, tune ssim: temporal delimiter, sequence header, frame
REAL = bytes.fromhex("12000a081804acc1010d0684321918000a28a2840046804f1a4189ace8a9efa8785930b219ce60")
DESCRIBED = StillPicture(
    width=3,
    height=7,
    render_width=3,
    render_height=7,
    max_width=3,
    max_height=7,
    profile=0,
    level=0,
    tier=0,
    bit_depth=8,
    mono=False,
    subsampling_x=1,
    subsampling_y=1,
    chroma_sample_position=0,
    primaries=1,
    transfer=13,
    matrix=6,
    full_range=True,
    reduced_header=True,
    still_picture=True,
    frames=1,
    film_grain=False,
    base_q_idx=128,
)


def test_golden_picture() -> None:
    assert parse_obus(REAL) == DESCRIBED
    assert strip_temporal_delimiter(REAL) == REAL[2:]
    assert strip_temporal_delimiter(REAL[2:]) == REAL[2:]
    assert parse_obus(memoryview(REAL)[2:]) == DESCRIBED


def test_ac_q() -> None:
    """The table of the specification: unit steps up to index 95, then ever larger ones."""
    assert len(AC_QLOOKUP) == 256
    assert AC_QLOOKUP[:3] == (4, 8, 9)
    assert AC_QLOOKUP[95:98] == (102, 104, 106)
    assert AC_QLOOKUP[-3:] == (1759, 1793, 1828)
    steps = [b - a for a, b in itertools.pairwise(AC_QLOOKUP[1:])]
    assert steps == sorted(steps)
    assert sum(AC_QLOOKUP) == 98_156
    assert (ac_q(0), ac_q(128), ac_q(255)) == (4, 176, 1828)
    for index in (-1, 256):
        with pytest.raises(OptionError):
            ac_q(index)


# --- libaom ---------------------------------------------------------------------------------------------------------

# what libaom makes of its 64 quantisers
QUANTISERS = (*range(0, 245, 4), 249, 255)


def aom(quality: int = 50, size: tuple[int, int] = (80, 60), mode: str = "RGB", **options: object) -> StillPicture:
    return parse_obus(first_item(pillow_avif(photograph(*size, mode), quality=quality, **options)))


@needs_avif
def test_base_q_idx_by_quality() -> None:
    """libavif maps quality to one of libaom's 64 quantisers, rounded; quality 100 is lossless."""
    found = [aom(quality, advanced={"tune": "ssim"}).base_q_idx for quality in range(0, 101, 4)]
    assert found == [QUANTISERS[((100 - quality) * 63 + 50) // 100] for quality in range(0, 101, 4)]


@needs_avif
@pytest.mark.parametrize(
    ("subsampling", "profile", "x", "y"),
    [("4:2:0", 0, 1, 1), ("4:2:2", 2, 1, 0), ("4:4:4", 1, 0, 0), ("4:0:0", 0, 1, 1)],
)
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (17, 33), (65, 1)])
def test_formats(subsampling: str, profile: int, x: int, y: int, size: tuple[int, int]) -> None:
    picture = aom(size=size, mode="L" if subsampling == "4:0:0" else "RGB", subsampling=subsampling)
    assert picture.chroma == subsampling
    assert (picture.profile, picture.subsampling_x, picture.subsampling_y) == (profile, x, y)
    assert picture.mono == (subsampling == "4:0:0")
    assert (picture.width, picture.height) == (picture.max_width, picture.max_height) == size
    assert picture.bit_depth == 8
    assert picture.reduced_header
    assert picture.still_picture


@needs_avif
def test_options_of_the_encoder() -> None:
    plain = aom(advanced={"tune": "ssim", "deltaq-mode": "0"})
    assert not any((plain.using_qmatrix, plain.delta_q_present, plain.segmentation_enabled, plain.film_grain))
    assert plain.qm_levels is None
    assert plain.full_range
    assert aom(advanced={"tune": "ssim", "deltaq-mode": "6", "deltaq-strength": "20"}).delta_q_present
    iq = aom(advanced={"tune": "iq"}, subsampling="4:2:0")
    assert iq.using_qmatrix
    assert iq.qm_levels is not None
    assert all(0 <= level < 15 for level in iq.qm_levels)
    assert iq.u_ac_delta == iq.v_ac_delta != 0
    assert not aom(range="limited").full_range
    lossless = aom(quality=100, subsampling="4:4:4")
    assert (lossless.base_q_idx, lossless.delta_q_present) == (0, False)
    described = aom(advanced={"color-primaries": "bt2020", "chroma-sample-position": "colocated"})
    assert (described.primaries, described.chroma_sample_position) == (9, 2)


@needs_avif
@pytest.mark.parametrize("quality", [0, 40, 75, 100])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("speed", [6, 9])
@pytest.mark.parametrize("extra", [{}, {"tune-content": "screen"}, {"enable-cdef": "0"}, {"sb-size": "128"}])
def test_film_grain_lies_behind_everything_else(quality: int, mode: str, speed: int, extra: dict[str, str]) -> None:
    """The flag stands at the very end of the header: a bit misread before it would show."""
    size = (150, 130)
    advanced = {"tune": "ssim", "film-grain-test": "1", **extra}
    grain = aom(quality, size, mode, speed=speed, advanced=advanced, subsampling="4:0:0" if mode == "L" else "4:4:4")
    assert grain.film_grain


@needs_avif
def test_full_header() -> None:
    """The first picture of a sequence has the header of a video."""
    pictures = [photograph(80, 60), photograph(80, 60).transpose(0)]
    obus = first_item(pillow_avif(pictures[0], quality=50, save_all=True, append_images=pictures[1:]))
    picture = parse_obus(obus)
    assert not picture.reduced_header
    assert not picture.still_picture
    assert (picture.width, picture.height, picture.frames) == (80, 60, 1)
    assert picture.base_q_idx is not None
    assert abs(picture.base_q_idx - 128) <= 16
    assert picture.chroma == "4:2:0"


# --- by hand --------------------------------------------------------------------------------------------------------


def full_sequence(*, superres: int = 0, grain: int = 0, timing: bool = False, frame_ids: int = 0) -> bytes:
    """Profile 1, 4:4:4, at most 300x200 pixels, order hints of 7 bits, two operating points where there is timing."""
    bits = BitWriter().f(1, 3).f(0).f(0).f(timing)  # profile, still, reduced, timing
    if timing:
        bits.f(1, 32).f(50, 32).f(1).f(0b00101, 5)  # a tick, a scale, equal intervals, uvlc 4
        bits.f(1).f(9, 5).f(7, 32).f(11, 5).f(4, 5)  # decoder model: delays of 10 bits, removal times of 12
    bits.f(timing).f(int(timing), 5)  # initial display delay, operating points - 1
    for idc, level in ((0x101, 9), (0x103, 3))[: 1 + timing]:
        bits.f(idc, 12).f(level, 5)
        if level > 7:
            bits.f(1)
        if timing:
            bits.f(1).f(3, 10).f(4, 10).f(0).f(1).f(5, 4)
    bits.f(8, 4).f(7, 4).f(299, 9).f(199, 8)
    bits.f(frame_ids)
    if frame_ids:
        bits.f(3, 4).f(2, 3)  # ids of 8 bits
    bits.f(0).f(0, 2).f(0, 4).f(1).f(0, 2)  # superblocks of 64, tools, order hint
    bits.f(0).f(1).f(0).f(1).f(6, 3)  # screen content on, integer motion vectors on, 7 bits of order hint
    bits.f(superres).f(1).f(1)
    bits.f(0).f(0).f(1).f(1).f(grain)  # 8 bits, no colour description, full range, separate chroma deltas, film grain
    return obu(1, bits.to_bytes())


def key_frame(bits: BitWriter, *, timing: bool = False, frame_ids: int = 0) -> BitWriter:
    """Up to the frame size override, which is next."""
    bits.f(0).f(0, 2).f(1)  # not an existing one, key frame, shown
    bits.f(1)  # no adaptation of probabilities; screen content is forced, and so are integer motion vectors
    if frame_ids:
        bits.f(77, 8)
    return bits


def quantisation(bits: BitWriter, base: int = 90) -> BitWriter:
    bits.f(base, 8).f(1).f(0b1111011, 7)  # y dc -5
    bits.f(1).f(0).f(1).f(6, 7).f(0).f(1).f(0b1000000, 7)  # u dc 0, u ac 6, v dc 0, v ac -64
    return bits.f(1).f(3, 4).f(4, 4).f(15, 4)


def test_by_hand() -> None:
    """Override of the size, super-resolution, render size, tiles of uneven sizes, segments, film grain not applied."""
    bits = key_frame(BitWriter()).f(1).f(5, 7)  # size override, order hint
    bits.f(255, 9).f(127, 8)  # 256x128
    bits.f(1).f(7, 3)  # superres by 16: 128 columns are coded
    bits.f(1).f(639, 16).f(479, 16)  # to be rendered at 640x480
    # screen content, but scaled: no flag for intrabc. 2x2 superblocks, tiles 1+1 wide and 2 high
    bits.f(0).f(0).f(1)
    bits.f(0, 1).f(3, 2)  # context tile of 1 bit, size of 4 bytes
    quantisation(bits)
    bits.f(1)  # segmentation: one feature in the first segment, two in the second
    bits.f(1).f(0b110000000, 9).f(0, 7)
    bits.f(0, 5).f(1).f(5, 3).f(1).f(0)
    bits.f(0, 48)
    bits.f(1).f(2, 2).f(1).f(1, 2).f(1)  # delta q, delta lf
    bits.f(1, 6).f(2, 6).f(0, 12).f(3, 3).f(1).f(1).f(1).f(9, 7).f(0, 9)  # loop filter
    bits.f(1, 2).f(1, 2).f(0, 24)  # cdef, twice
    bits.f(1, 2).f(0, 4).f(1).f(1)  # restoration of luma alone
    bits.f(1).f(0)  # transform mode, reduced set
    bits.f(0)  # no grain
    assert parse_obus(full_sequence(superres=1, grain=1) + obu(6, bits.to_bytes() + b"tiles")) == replace(
        DESCRIBED,
        width=256,
        height=128,
        render_width=640,
        render_height=480,
        max_width=300,
        max_height=200,
        profile=1,
        level=9,
        tier=1,
        subsampling_x=0,
        subsampling_y=0,
        primaries=2,
        transfer=2,
        matrix=2,
        reduced_header=False,
        still_picture=False,
        base_q_idx=90,
        y_dc_delta=-5,
        u_ac_delta=6,
        v_ac_delta=-64,
        using_qmatrix=True,
        qm_levels=(3, 4, 15),
        segmentation_enabled=True,
        delta_q_present=True,
    )


def intra_block_copy(timing: bool = False, frame_ids: int = 0, present: int = 0) -> BitWriter:
    bits = key_frame(BitWriter(), timing=timing, frame_ids=frame_ids).f(0).f(5, 7)
    if timing:
        bits.f(present)
        if present:
            bits.f(1234, 12).f(1234, 12)
    bits.f(0).f(1)  # no render size, intrabc
    bits.f(1).f(0).f(0)  # one tile: 5x4 superblocks, neither columns nor rows divided
    quantisation(bits).f(0).f(1).f(0, 2)  # no segments, delta q without delta lf
    return bits.f(1).f(0).f(1)  # no filters at all; transform mode, reduced set; film grain


@pytest.mark.parametrize(("timing", "frame_ids", "present"), [(False, 0, 0), (False, 1, 0), (True, 0, 0), (True, 1, 1)])
def test_by_hand_with_intra_block_copy(timing: bool, frame_ids: int, present: int) -> None:
    sequence = full_sequence(grain=1, timing=timing, frame_ids=frame_ids)
    header = intra_block_copy(timing, frame_ids, present).to_bytes()
    picture = parse_obus(sequence + obu(6, header + b"tiles"))
    assert (picture.base_q_idx, picture.v_ac_delta, picture.qm_levels) == (90, -64, (3, 4, 15))
    assert (picture.width, picture.height, picture.level, picture.tier) == (300, 200, 9, 1)
    assert picture.delta_q_present
    assert picture.film_grain
    # the same as a frame header and a tile group, with metadata and padding, which are passed over
    apart = b"\x12\0" + obu(5, b"?") + sequence + obu(3, header) + obu(7, header) + obu(4, b"tiles") + obu(15, b"")
    assert parse_obus(apart) == picture


def test_frames_that_cannot_be_followed() -> None:
    """Nothing is guessed about an inter frame, or one that is shown again; the sequence's size stands in."""
    sequence = full_sequence(grain=1)
    inter = obu(6, BitWriter().f(0).f(1, 2).f(1).f(0, 60).to_bytes())
    again = obu(3, BitWriter().f(1).f(3, 3).to_bytes())
    key = obu(6, intra_block_copy().to_bytes() + b"tiles")
    for data, frames in ((sequence + inter, 1), (sequence + again, 1), (sequence + key + inter, 2)):
        picture = parse_obus(data)
        assert (picture.base_q_idx, picture.using_qmatrix, picture.film_grain) == (None, False, True)
        assert (picture.width, picture.height, picture.frames) == (300, 200, frames)
    assert parse_obus(sequence + key + key).base_q_idx == 90


def test_layers_outside_the_operating_point_are_dropped() -> None:
    """The first operating point of the sequence has temporal and spatial layer 0."""
    sequence = full_sequence(grain=1)
    payload = intra_block_copy().to_bytes() + b"tiles"
    layered = [bytes((6 << 3 | 6, layer << 3, len(payload))) + payload for layer in (0, 1)]
    assert parse_obus(sequence + layered[0] + layered[1]).frames == 1
    with pytest.raises(CorruptStream, match="no frame"):
        parse_obus(sequence + layered[1])


def test_last_obu_without_a_size() -> None:
    size = REAL.index(b"\x32")
    rest = REAL[size + 2 :]
    assert REAL[size + 1] == len(rest)
    assert parse_obus(REAL[:size] + bytes((6 << 3,)) + rest) == DESCRIBED


SEQUENCE, FRAME = REAL[2 : REAL.index(b"\x32")], REAL[REAL.index(b"\x32") :]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", CorruptStream, "no sequence header"),
        (b"\x12\0", CorruptStream, "no sequence header"),
        (SEQUENCE, CorruptStream, "no frame"),
        (FRAME, CorruptStream, "before any sequence header"),
        (SEQUENCE + FRAME + full_sequence() + FRAME, CorruptStream, "differ"),
        (SEQUENCE + b"\xb2\0", CorruptStream, "forbidden bit"),
        (SEQUENCE + b"\x36", CorruptStream, "header of an OBU"),
        (SEQUENCE + b"\x32", CorruptStream, "size of an OBU"),
        (SEQUENCE + b"\x32" + b"\x80" * 8 + b"\0", CorruptStream, "size of an OBU"),
        (SEQUENCE + b"\x32\xff\xff\xff\xff\xff\x01", CorruptStream, "32 bits"),
        (SEQUENCE + b"\x32\xff\x7f" + bytes(100), CorruptStream, "16383 bytes, 100 left"),
        (SEQUENCE + obu(6, FRAME[2:4]), CorruptStream, "frame header: cut"),
        (SEQUENCE + obu(6, FRAME[2:5]), CorruptStream, "frame without tile data"),
        (SEQUENCE + obu(3, FRAME[2:]), CorruptStream, "without tile data"),
        (SEQUENCE + obu(3, FRAME[2:]) + FRAME, CorruptStream, "without tile data"),
        (SEQUENCE + obu(4, b"tiles"), CorruptStream, "without a frame header"),
        (SEQUENCE + obu(8, b""), UnsupportedVersion, "tile list"),
        (obu(1, b"\x78" + bytes(20)), UnsupportedVersion, "profile 3"),
        (obu(1, b"\x08" + bytes(20)), CorruptStream, "not of a still picture"),
        (obu(1, b"\x18\0\0"), CorruptStream, "sequence header: cut"),
        (obu(15, b"") * 20_000, CorruptStream, "more than 10000 OBUs"),
    ],
)
def test_refused(data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_obus(data)


def test_frame_larger_than_its_sequence() -> None:
    bits = key_frame(BitWriter()).f(1).f(5, 7).f(400, 9).f(100, 8).f(0, 400)
    with pytest.raises(CorruptStream, match="401x101 pixels in a sequence of at most 300x200"):
        parse_obus(full_sequence() + obu(6, bits.to_bytes()))


def test_no_prefix_is_a_picture() -> None:
    """Every field that is read is needed: only the tile data, which ends the file, can be cut unnoticed here."""
    last = REAL.index(b"\x32")
    for size in range(last + 2):
        with pytest.raises(CorruptStream):
            parse_obus(REAL[:size])
    for size in range(last + 2, len(REAL)):
        with pytest.raises(CorruptStream, match="truncated"):
            parse_obus(REAL[:size])


# --- damage ---------------------------------------------------------------------------------------------------------

SAMPLES = (
    REAL,
    full_sequence(superres=1, grain=1, timing=True, frame_ids=1) + obu(6, intra_block_copy().to_bytes() + b"tiles"),
)


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 7)), min_size=1, max_size=6),
    st.integers(0, 400),
)
@settings(max_examples=500, deadline=None)
def test_damaged(sample: bytes, flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(sample)
    for where, bit in flips:
        data[where % len(data)] ^= 1 << bit
    with suppress(UnquantError):
        picture = parse_obus(data[: cut or None])
        assert picture.base_q_idx is None or 0 <= picture.base_q_idx <= 255


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes(data: bytes) -> None:
    for start in (b"", SEQUENCE, full_sequence(superres=1, grain=1)):
        with suppress(UnquantError):
            parse_obus(start + data)
        with suppress(UnquantError):
            parse_obus(start + obu(6, data))
