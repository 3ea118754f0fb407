"""Golden bytes, round trips, every refusal, and the documentation."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
import zlib
from array import array
from dataclasses import replace
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unquant.container import (
    DEFAULT_LIMITS,
    Container,
    Header,
    Limits,
    Tile,
    metadata_bytes,
    parse,
    parse_header,
    stream_crc,
    symbols_crc,
)
from unquant.container.varint import Reader, encode_varint
from unquant.errors import CorruptStream, ImageTooLarge, NotUnquant, OptionError, UnsupportedVersion

ROOT = Path(__file__).resolve().parents[2]

# 33x16, cdc, a q map of 0, 1023, 64, realism 0, 17 steps, seed 2^64-1
RICH_HEADER = bytes.fromhex(
    "89554e51 01 02 01020304 21 10 01 0f 0e 78da6360f8cfecc00000048b0143 00 11 ffffffffffffffffff01"
)
RICH_FILE = RICH_HEADER + bytes.fromhex(
    "03 00 efbeadde 04416c7068 01 61 6e162111 69636370 01 69 bf6f532a 65786966 01 65 0a2e0270 786d7020 01 78 31c66759"
)
PLAIN_FILE = bytes.fromhex("89554e51 01 01 a1b2c3d4 8006 8004 ff07 00 02 03 78563412 aabbcc")
PLAIN_HEADER = PLAIN_FILE[:17]


def q_map(*values: int) -> bytes:
    return b"".join(pack("<H", value) for value in values)


def plain(**changes: object) -> Header:
    return replace(Header("ratevar", b"\xa1\xb2\xc3\xd4", 768, 512, 1023), **changes)


def section(kind: bytes, payload: bytes) -> bytes:
    return kind + encode_varint(len(payload)) + payload + pack("<I", zlib.crc32(kind + payload))


def with_sections(*sections: bytes) -> bytes:
    return PLAIN_HEADER + bytes.fromhex("03 00 00000000") + encode_varint(len(sections)) + b"".join(sections)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    width, height = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    family = draw(st.sampled_from(["ratevar", "cdc", "av1"]))
    cells = -(-width // 16) * -(-height // 16)
    maps = st.lists(st.integers(0, 1023), min_size=cells, max_size=cells).map(lambda values: q_map(*values))
    return Header(
        family=family,
        stream_id=draw(st.binary(min_size=4, max_size=4)),
        width=width,
        height=height,
        q_index=draw(st.integers(0, 255 if family == "av1" else 1023)),
        q_map=None if family == "av1" else draw(st.none() | maps),
        realism=draw(st.none() | st.integers(0, 100)),
        steps=draw(st.none() | st.integers(1, 256)),
        seed=draw(st.none() | st.integers(0, 2**64 - 1)),
        half=family == "av1" and draw(st.booleans()),
    )


@st.composite
def containers(draw: st.DrawFn) -> Container:
    header = draw(headers())
    tile = st.builds(Tile, st.binary(max_size=200), st.integers(0, 2**32 - 1))
    tiles = draw(st.lists(tile, min_size=1, max_size=header.max_tiles))
    payloads = st.none() | st.binary(max_size=200)
    return Container(header, tuple(tiles), draw(payloads), draw(payloads), draw(payloads), draw(payloads))


# --- golden bytes ---------------------------------------------------------------------------------------------------


def test_golden_plain_file() -> None:
    container = Container(plain(), (Tile(b"\xaa\xbb\xcc", 0x12345678),))
    assert container.to_bytes() == PLAIN_FILE
    assert parse(PLAIN_FILE) == container


def test_golden_file_with_every_field() -> None:
    header = Header("cdc", b"\x01\x02\x03\x04", 33, 16, 1, q_map(0, 1023, 64), 0, 17, 2**64 - 1)
    container = parse(RICH_FILE)
    assert container == Container(header, (Tile(b"", 0xDEADBEEF),), b"a", b"i", b"e", b"x")
    assert parse_header(RICH_FILE) == (header, RICH_HEADER)
    assert container.to_bytes() == RICH_FILE


def test_golden_av1_file() -> None:
    header = Header("av1", b"\x01\x02\x03\x04", 33, 16, 255, realism=60)
    colour, alpha = b"\x0a\x00", b""
    tiles = (
        Tile(colour, stream_crc(header.to_bytes(), 0, colour)),
        Tile(alpha, stream_crc(header.to_bytes(), 1, alpha)),
    )
    data = bytes.fromhex("89554e51 01 03 01020304 21 10 ff01 02 3c 04 02 2ee488d4 0a00 00 6d838e0a")
    assert Container(header, tiles).to_bytes() == data
    assert parse(data) == Container(header, tiles)
    assert tiles[0].crc == zlib.crc32(header.to_bytes() + bytes(4) + colour)
    half = bytes.fromhex("89554e51 01 03 01020304 21 10 40 10")
    assert parse_header(half) == (Header("av1", b"\x01\x02\x03\x04", 33, 16, 64, half=True), half)


def test_golden_deflated_metadata() -> None:
    """Stored by hand in blocks of other kinds than zlib would choose: what was read is written as it was."""
    data = with_sections(
        section(b"XMP ", bytes.fromhex("7801 010400fbff 61626364 03d8018b")),  # a stored block
        section(b"EXIF", zlib.compress(b"e" * 300, 1)),
        section(b"iccp", b"i"),
        section(b"Alph", b"a"),
    )
    container = parse(data)
    assert container == Container(plain(), (Tile(b"", 0),), b"a", b"i", b"e" * 300, b"abcd")
    assert container.to_bytes() == data
    sizes = {"alpha": 1, "icc": 1, "exif": len(zlib.compress(b"e" * 300, 1)), "xmp": 15}
    assert container.section_sizes == sizes
    fresh = replace(container)
    assert fresh == container
    assert fresh.section_sizes == {**sizes, "exif": len(zlib.compress(b"e" * 300, 9)), "xmp": 4}


def test_golden_symbols_crc() -> None:
    symbols = array("i", [1, -1, 0, 2**31 - 1])
    if sys.byteorder == "big":
        symbols.byteswap()
    assert symbols_crc(PLAIN_HEADER, 0, symbols.tobytes()) == 0x2BA572E1
    assert symbols_crc(PLAIN_HEADER, 1, symbols.tobytes()) == 0x4EC249A7
    joined = PLAIN_HEADER + pack("<I", 1) + symbols.tobytes()
    assert symbols_crc(PLAIN_HEADER, 1, memoryview(symbols)) == zlib.crc32(joined)


def test_documented_example() -> None:
    """The dump in docs/format.md, byte for byte and offset for offset."""
    text = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    dump = re.search(r"^```hexdump\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert dump is not None
    documented = bytearray()
    for line in dump[1].splitlines():
        match = re.fullmatch(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} )+) +\S.*", line)
        assert match is not None, line
        assert int(match[1], 16) == len(documented), line
        documented += bytes.fromhex(match[2])
    header = Header("ratevar", bytes.fromhex("c0ffee01"), 200, 120, 300, realism=50)
    crc = symbols_crc(header.to_bytes(), 0, pack("<4i", 1, -1, 0, 2))
    tile = Tile(bytes.fromhex("0123456789abcdef"), crc)
    assert documented == Container(header, (tile,), exif=b"MM\0*\0\0\0\x08\0\0").to_bytes()


def test_documented_limits() -> None:
    assert Limits(None, 65_535, 64 * 2**20, 512 * 2**20) == DEFAULT_LIMITS
    assert DEFAULT_LIMITS.pixels == 2**28


# --- round trips ----------------------------------------------------------------------------------------------------


@given(containers())
@settings(max_examples=100, deadline=None)
def test_roundtrip(container: Container) -> None:
    data = container.to_bytes()
    parsed = parse(data)
    assert parsed == container
    assert parsed.to_bytes() == data == container.to_bytes()
    assert parse(bytearray(data)) == parse(memoryview(data)) == container


metadata = st.none() | st.binary(max_size=60) | st.builds(bytes.__mul__, st.binary(max_size=8), st.integers(0, 500))


@given(metadata, metadata, metadata, st.binary(max_size=100))
@settings(max_examples=100, deadline=None)
def test_metadata_is_stored_in_its_shorter_form(
    icc: bytes | None, exif: bytes | None, xmp: bytes | None, alpha: bytes
) -> None:
    bare = Container(plain(), (Tile(b"", 0),), alpha)
    container = replace(bare, icc=icc, exif=exif, xmp=xmp)
    data = container.to_bytes()
    assert parse(data) == container
    assert parse(data).section_sizes == container.section_sizes
    assert len(data) == len(bare.to_bytes()) + metadata_bytes(icc, exif, xmp)
    for name, payload in (("icc", icc), ("exif", exif), ("xmp", xmp)):
        if payload is not None:
            assert container.section_sizes[name] == min(len(payload), len(zlib.compress(payload, 9)))


def test_programs_without_deflated_sections_refuse_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a reader that knows the plain ones alone they are critical."""
    from unquant.container import file

    data = Container(plain(), (Tile(b"", 0),), exif=bytes(300)).to_bytes()
    monkeypatch.setattr(file, "_DEFLATED", {})
    with pytest.raises(UnsupportedVersion, match="'EXIF': critical"):
        parse(data)


@given(headers(), st.binary(max_size=20))
@settings(max_examples=100, deadline=None)
def test_header_needs_only_the_start(header: Header, rest: bytes) -> None:
    raw = header.to_bytes()
    assert parse_header(raw + rest) == (header, raw)


@given(st.integers(0, 2**64 - 1))
def test_varint_roundtrip(value: int) -> None:
    data = encode_varint(value)
    assert len(data) == max(1, -(-value.bit_length() // 7))
    reader = Reader(data)
    assert reader.varint("x") == value
    assert reader.remaining == 0


@pytest.mark.parametrize("text", ["", "80", "8000", "ff00", "ff" * 9 + "02", "ff" * 10, "80" * 20 + "01"])
def test_varint_refused(text: str) -> None:
    with pytest.raises(CorruptStream):
        Reader(bytes.fromhex(text)).varint("x")


def test_header_keeps_its_bytes_as_they_were() -> None:
    """Another zlib compresses a q map to other bytes; the checksums of the tiles depend on those in the file."""
    values = q_map(5, 6)
    packed = zlib.compress(values, 0)
    raw = bytes.fromhex("89554e51 01 01 00000000 14 0a 07 01") + encode_varint(len(packed)) + packed
    header, seen = parse_header(raw)
    assert seen == raw == header.to_bytes()
    assert copy.deepcopy(header).to_bytes() == pickle.loads(pickle.dumps(header)).to_bytes() == raw
    fresh = Header("ratevar", bytes(4), 20, 10, 7, values)
    assert fresh == header
    assert fresh.to_bytes() != raw
    changed = replace(header, q_map=None, seed=3)
    assert changed.to_bytes() == bytes.fromhex("89554e51 01 01 00000000 14 0a 07 08 03")
    assert replace(header, q_index=8).to_bytes() != raw


@pytest.mark.parametrize("side", [1, 127, 128, 768, 8192, 16_383])
@pytest.mark.parametrize("size", [0, 300, 20_000, 2**21 - 1, 2**21])
def test_overhead(side: int, size: int) -> None:
    """32 bytes at most, of which up to 4 are padding of the coder's; with realism and seed in an av1 file too."""
    header = Header("cdc", b"\xff" * 4, side, side, 1023)
    data = Container(header, (Tile(bytes(size), 2**32 - 1),)).to_bytes()
    assert len(data) - size <= 26
    header = Header("av1", b"\xff" * 4, side, side, 255, realism=100, seed=2**32 - 1, half=True)
    data = Container(header, (Tile(bytes(size), 2**32 - 1),)).to_bytes()
    assert len(data) - size <= 32


def test_unknown_ancillary_sections_are_skipped() -> None:
    container = parse(with_sections(section(b"abcd", b"?"), section(b"iccp", b""), section(b"a   ", bytes(300))))
    assert container == Container(plain(), (Tile(b"", 0),), icc=b"")
    assert container.to_bytes() == with_sections(section(b"iccp", b""))


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\x89UN", b"\x89PNG\r\n\x1a\n", b"\x89unq" + PLAIN_FILE[4:], bytes(100)])
def test_not_unquant(data: bytes) -> None:
    for read in (parse, parse_header):
        with pytest.raises(NotUnquant, match="89 55 4E 51"):
            read(data)


def header_bytes(head: str = "89554e51 01 01 00000000", size: str = "10 10", q: str = "07", rest: str = "00") -> bytes:
    return bytes.fromhex(f"{head} {size} {q} {rest}")


AV1_HEAD = "89554e51 01 03 00000000"


def with_q_map(packed: bytes, length: int | None = None) -> bytes:
    """A header of 32x16 pixels, whose q map has 4 bytes."""
    size = encode_varint(len(packed) if length is None else length)
    return header_bytes(size="20 10", rest="01") + size + packed


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (header_bytes("89554e51 00 01 00000000"), UnsupportedVersion, "version 0"),
        (header_bytes("89554e51 02 01 00000000"), UnsupportedVersion, "version 2"),
        (header_bytes("89554e51 01 00 00000000"), UnsupportedVersion, "family 0"),
        (header_bytes("89554e51 01 04 00000000"), UnsupportedVersion, "family 4"),
        (header_bytes(rest="10"), UnsupportedVersion, "flags 0x10"),
        (header_bytes(rest="80"), UnsupportedVersion, "bits 0x80"),
        (header_bytes(AV1_HEAD, rest="20"), UnsupportedVersion, "bits 0x20"),
        (header_bytes(AV1_HEAD, rest="01"), UnsupportedVersion, "bits 0x01 are unknown here in a file of av1"),
        (header_bytes(AV1_HEAD, q="8002"), CorruptStream, "q index: 256 is outside 0..255"),
        (header_bytes(size="00 10"), CorruptStream, "width"),
        (header_bytes(size="10 00"), CorruptStream, "height"),
        (header_bytes(size="9000 10"), CorruptStream, "width.*shortest"),
        (header_bytes(q="8008"), CorruptStream, "q index: 1024"),
        (header_bytes(rest="02 65"), CorruptStream, "realism: 101"),
        (header_bytes(rest="04 00"), CorruptStream, "steps: 0"),
        (header_bytes(rest="04 8102"), CorruptStream, "steps: 257"),
        (header_bytes(rest="08" + "ff" * 9 + "02"), CorruptStream, "seed.*64 bits"),
        (header_bytes(size="808004 10"), ImageTooLarge, "65536x16"),
        (header_bytes(size="10 808004"), ImageTooLarge, "16x65536"),
        (header_bytes(size="ffff03 ffff03"), ImageTooLarge, "pixels"),
        (with_q_map(zlib.compress(bytes(3))), CorruptStream, "exactly 4 bytes"),
        (with_q_map(zlib.compress(bytes(5))), CorruptStream, "exactly 4 bytes"),
        (with_q_map(zlib.compress(bytes(4)) + b"\0"), CorruptStream, "exactly 4 bytes"),
        (with_q_map(zlib.compress(bytes(4))[:-1]), CorruptStream, "exactly 4 bytes"),
        (with_q_map(zlib.compress(bytes(4))[:-1] + b"!"), CorruptStream, "q map"),
        (with_q_map(b""), CorruptStream, "exactly 4 bytes"),
        (with_q_map(b"\0" * 8), CorruptStream, "q map"),
        (with_q_map(zlib.compress(bytes(4)), 100), CorruptStream, "truncated"),
        (with_q_map(b"", 2**26 + 1), ImageTooLarge, "q map"),
        (with_q_map(zlib.compress(q_map(0, 1024))), CorruptStream, "above 1023"),
    ],
)
def test_header_refused(data: bytes, error: type[Exception], message: str) -> None:
    for tail in (b"", bytes.fromhex("02 00 00000000")):
        with pytest.raises(error, match=message):
            parse(data + tail)
        with pytest.raises(error, match=message):
            parse_header(data)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (PLAIN_HEADER + bytes.fromhex("00"), CorruptStream, "number of tiles: 0"),
        (PLAIN_HEADER + encode_varint(2 * 25) + bytes(1000), CorruptStream, "number of tiles: 25"),
        (PLAIN_HEADER + encode_varint(2 * 24) + bytes(100), CorruptStream, "24 tiles announced"),
        (PLAIN_HEADER + encode_varint(2**64 - 1), CorruptStream, "number of tiles"),
        (PLAIN_HEADER + bytes.fromhex("02 ffffffffffffffffff01 00000000"), CorruptStream, "tile 0"),
        (PLAIN_FILE + b"\0", CorruptStream, "1 bytes after the end"),
        (RICH_FILE + b"\0", CorruptStream, "1 bytes after the end"),
        (with_sections(), CorruptStream, "number of sections: 0"),
        (with_sections(*[section(b"a%03d" % i, b"") for i in range(33)]), CorruptStream, "number of sections: 33"),
        (with_sections(section(b"Abcd", b"")), UnsupportedVersion, "'Abcd': critical"),
        (with_sections(section(b"iccp", b""), section(b"iccp", b"")), CorruptStream, "more than once"),
        (with_sections(section(b"abcd", b""), section(b"abcd", b"")), CorruptStream, "more than once"),
        (with_sections(section(b"exif", b""), section(b"EXIF", zlib.compress(b"e"))), CorruptStream, "more than once"),
        (with_sections(*[section(b"ICCP", zlib.compress(b"i"))] * 2), CorruptStream, "more than once"),
        (with_sections(section(b"EXIF", b"")), CorruptStream, "'EXIF': does not hold exactly one zlib stream"),
        (with_sections(section(b"EXIF", b"no zlib")), CorruptStream, "'EXIF': "),
        (with_sections(section(b"XMP ", zlib.compress(b"x" * 99)[:-1])), CorruptStream, "exactly one zlib stream"),
        (with_sections(section(b"XMP ", zlib.compress(b"x")[:-1] + b"!")), CorruptStream, "'XMP '"),
        (with_sections(section(b"ICCP", zlib.compress(b"i") + b"!")), CorruptStream, "exactly one zlib stream"),
        (with_sections(section(b"ICCP", zlib.compress(b"i") * 2)), CorruptStream, "exactly one zlib stream"),
        (with_sections(section(b"ALPH", zlib.compress(b"a"))), UnsupportedVersion, "'ALPH': critical"),
        (with_sections(section(b"1bcd", b"")), CorruptStream, "not a section type"),
        (with_sections(section(b"ab\ncd"[:4], b"")), CorruptStream, "not a section type"),
        (with_sections(section(b"\xe9bcd", b"")), CorruptStream, "not a section type"),
        (with_sections(section(b"exif", b"a")[:-1] + b"!"), CorruptStream, "checksum"),
        (with_sections(section(b"exif", b"a").replace(b"exif", b"exiF")), CorruptStream, "checksum"),
        (with_sections(section(b"exif", b"a")) + section(b"iccp", b"a"), CorruptStream, "after the end"),
        (with_sections(b"exif" + encode_varint(2**26)), CorruptStream, "truncated"),
        (with_sections(b"exif" + encode_varint(2**26 + 1)), ImageTooLarge, "exif"),
        (with_sections(b"zzzz" + encode_varint(2**64 - 1)), ImageTooLarge, "zzzz"),
    ],
)
def test_body_refused(data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "RATEVAR"},
        {"family": ""},
        {"half": True},
        {"family": "av1"},
        {"family": "av1", "q_index": 256},
        {"family": "av1", "q_index": 255, "q_map": bytes(2 * 48 * 32)},
        {"stream_id": b"abc"},
        {"stream_id": b"abcde"},
        {"width": 0},
        {"height": 0},
        {"width": 2**31},
        {"height": -1},
        {"width": 1.0},
        {"q_index": -1},
        {"q_index": 1024},
        {"q_map": b""},
        {"q_map": bytes(2 * 48 * 32 + 2)},
        {"q_map": q_map(1024) + bytes(2 * 48 * 32 - 2)},
        {"realism": -1},
        {"realism": 101},
        {"realism": 0.5},
        {"steps": 0},
        {"steps": 257},
        {"seed": -1},
        {"seed": 2**64},
    ],
)
def test_header_options(changes: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        plain(**changes)


def test_other_options() -> None:
    tile = Tile(b"", 0)
    with pytest.raises(OptionError):
        Container(plain(), ())
    with pytest.raises(OptionError):
        Container(plain(), (tile,) * 25)
    assert len(parse(Container(plain(), (tile,) * 24).to_bytes()).tiles) == 24
    for crc in (-1, 2**32):
        with pytest.raises(OptionError):
            Tile(b"", crc)
    av1 = Header("av1", bytes(4), 16_000, 16_000, 100)
    assert len(parse(Container(av1, (tile,) * 2).to_bytes()).tiles) == 2
    for header, tiles in ((av1, 3), (replace(av1, half=True), 2)):
        with pytest.raises(OptionError):
            Container(header, (tile,) * tiles)
    for checksum in (symbols_crc, stream_crc):
        with pytest.raises(OptionError):
            checksum(PLAIN_HEADER, -1, b"")
    with pytest.raises(OptionError):
        symbols_crc(PLAIN_HEADER, 0, b"abc")
    with pytest.raises(OptionError):
        encode_varint(-1)
    with pytest.raises(OptionError):
        Limits(max_file=0)


def test_limits_hold_for_reading_and_writing() -> None:
    container = Container(plain(), (Tile(b"abc", 0),), exif=bytes(10))
    data = container.to_bytes()
    exact = Limits(max_pixels=768 * 512, max_dimension=768, max_section=10, max_file=len(data))
    assert parse(data, exact) == container
    assert container.to_bytes(exact) == data
    for name in ("max_pixels", "max_dimension", "max_section", "max_file"):
        tight = replace(exact, **{name: getattr(exact, name) - 1})
        with pytest.raises(ImageTooLarge):
            parse(data, tight)
        with pytest.raises(ImageTooLarge):
            container.to_bytes(tight)
    huge = Limits(2**64 - 1, 2**64 - 1)
    assert parse_header(plain(width=2**31 - 1).to_bytes(), huge)[0].width == 2**31 - 1
    with pytest.raises(CorruptStream, match="width"):
        parse_header(header_bytes(size="8080808008 01"), huge)


# --- imports --------------------------------------------------------------------------------------------------------


def test_needs_no_array_library() -> None:
    script = (
        "import sys, unquant.container.avif; print(*({'torch', 'numpy', 'PIL', 'constriction'} & sys.modules.keys()))"
    )
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
