"""Whatever the bytes are, `parse` gives a Container or an UnquantError, in little memory."""

from __future__ import annotations

import tracemalloc
import zlib
from contextlib import suppress
from struct import pack

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unquant.container import Container, Header, Limits, Tile, parse, parse_header, salvage
from unquant.container.varint import encode_varint
from unquant.errors import CorruptStream, ImageTooLarge, UnquantError

HEADER = Header("ratevar", b"\x01\x02\x03\x04", 300, 200, 300, b"\x2c\x01" * (19 * 13), 40, 2, 12345)
SAMPLES = (
    Container(Header("cdc", b"abcd", 768, 512, 200), (Tile(b"stream", 1),)).to_bytes(),
    Container(HEADER, (Tile(b"one", 1), Tile(b"", 2), Tile(b"three" * 40, 3)), b"A" * 150, b"I", b"", b"X").to_bytes(),
    Container(Header("av1", b"abcd", 77, 51, 200), (Tile(b"obus", 1), Tile(b"alpha", 2)), None, b"I").to_bytes(),
    Container(Header("av1", b"abcd", 77, 51, 200), (Tile(b"obus", 1),), exif=b"E" * 90, xmp=b"<xmp/>" * 50).to_bytes(),
)


def outcome(data: bytes) -> Container | None:
    """What `parse` gives; anything but an UnquantError passes through and fails the test."""
    with suppress(UnquantError):
        parse_header(data)
    with suppress(UnquantError):
        salvage(data)
    with suppress(UnquantError):
        return parse(data)
    return None


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "set", "cut", "delete", "insert", "repeat"])):
            case "flip" if where < len(data):
                data[where] ^= 1 << draw(st.integers(0, 7))
            case "set" if where < len(data):
                data[where] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
            case "cut":
                del data[where:]
            case "delete":
                del data[where : where + draw(st.integers(1, 8))]
            case "insert":
                data[where:where] = draw(st.binary(max_size=12))
            case _:
                data[where:where] = data[where : where + draw(st.integers(1, 40))]
    return bytes(data)


@given(damaged())
@settings(max_examples=400, deadline=None)
def test_damaged_files(data: bytes) -> None:
    container = outcome(data)
    if container is not None:
        assert parse(container.to_bytes()) == container


@given(st.binary(max_size=200), st.sampled_from([0, 4, 5, 6, 10, 14]))
@example(b"", 0)
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes(data: bytes, kept: int) -> None:
    outcome(SAMPLES[1][:kept] + data)


@pytest.mark.parametrize("sample", SAMPLES)
def test_no_prefix_is_a_file(sample: bytes) -> None:
    """So a cut file never loses its alpha plane, or anything else, unnoticed."""
    assert outcome(sample) is not None
    for size in range(len(sample)):
        assert outcome(sample[:size]) is None
    for byte in range(256):
        assert outcome(sample + bytes((byte,))) is None


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_bit_flip_shows(sample: bytes) -> None:
    """A flipped bit is refused, or changes what the tile's checksum covers: header bytes, stream or checksum."""
    whole, raw = parse(sample), parse_header(sample)[1]
    for bit in range(8 * len(sample)):
        data = bytearray(sample)
        data[bit // 8] ^= 1 << bit % 8
        container = outcome(bytes(data))
        if container is not None:
            assert parse_header(data)[1] != raw or container.tiles != whole.tiles
            assert (container.alpha, container.icc, container.exif, container.xmp) == (
                whole.alpha,
                whole.icc,
                whole.exif,
                whole.xmp,
            )


def start(width: int, height: int, flags: int) -> bytes:
    return b"\x89UNQ\x01\x01abcd" + encode_varint(width) + encode_varint(height) + b"\x00" + bytes((flags,))


def packed_q_map(packed: bytes) -> bytes:
    return encode_varint(len(packed)) + packed


LARGE = Limits(max_pixels=2**62, max_dimension=2**31)
TILE = b"\x00" + bytes(4)
BOMB = zlib.compress(bytes(64 * 2**20), 9)  # 64 kB, inflates to 64 MB

BOMBS = {
    "dimensions": (start(65_535, 65_535, 0) + b"\x02" + TILE, Limits(), ImageTooLarge),
    "dimensions, q map": (start(65_535, 65_535, 1) + packed_q_map(BOMB), Limits(), ImageTooLarge),
    "q map of a small image": (start(64, 64, 1) + packed_q_map(BOMB), Limits(), CorruptStream),
    "q map shorter than promised": (start(2**31 - 1, 2**31 - 1, 1) + packed_q_map(BOMB[:300]), LARGE, CorruptStream),
    "q map length": (start(64, 64, 1) + encode_varint(2**63), Limits(), ImageTooLarge),
    "tiles": (start(16_384, 16_384, 0) + encode_varint(2 * 16_384) + TILE, Limits(), CorruptStream),
    "tiles of a huge image": (start(2**31 - 1, 2**31 - 1, 0) + encode_varint(2**45) + TILE, LARGE, CorruptStream),
    "tile length": (start(64, 64, 0) + b"\x02" + encode_varint(2**60) + bytes(4), Limits(), CorruptStream),
    "section length": (start(64, 64, 0) + b"\x03" + TILE + b"\x01exif" + encode_varint(2**60), Limits(), ImageTooLarge),
    "section length in limits": (
        start(64, 64, 0) + b"\x03" + TILE + b"\x01exif" + encode_varint(2**26) + pack("<I", 0),
        Limits(),
        CorruptStream,
    ),
    "number of sections": (start(64, 64, 0) + b"\x03" + TILE + encode_varint(2**60), Limits(), CorruptStream),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_take_no_memory(name: str) -> None:
    data, limits, error = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(error):
            parse(data, limits)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # copies of the file's own bytes, what 300 bytes of q map inflate to, and change
    assert peak < 3 * len(data) + 2**20 + 2**18


def deflated(*packed: bytes) -> bytes:
    kinds = (b"EXIF", b"XMP ", b"ICCP")[: len(packed)]
    sections = (
        kind + encode_varint(len(data)) + data + pack("<I", zlib.crc32(kind + data))
        for kind, data in zip(kinds, packed, strict=True)
    )
    return start(64, 64, 0) + b"\x03" + TILE + bytes((len(packed),)) + b"".join(sections)


def test_deflated_sections_inflate_to_the_limit_in_all() -> None:
    """A stream that claims more is inflated no further than that, and so are several together."""
    half = zlib.compress(bytes(2**19), 9)
    limits = Limits(max_section=2**20)
    whole = parse(deflated(half, half), limits)
    assert whole.exif == whole.xmp == bytes(2**19)
    assert whole.to_bytes(limits) == deflated(half, half)
    with pytest.raises(ImageTooLarge):
        Container(whole.header, whole.tiles, icc=bytes(2**19), exif=whole.exif, xmp=whole.xmp).to_bytes(limits)
    for packed in ((BOMB,), (half, BOMB), (half, half, zlib.compress(b"!"))):
        tracemalloc.start()
        try:
            with pytest.raises(ImageTooLarge, match="deflated sections"):
                parse(deflated(*packed), limits)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * 2**20
