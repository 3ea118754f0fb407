"""EXIF edited in place."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import make_exif, parse_exif
from PIL import ExifTags

from unquant.errors import InputError
from unquant.images.tiff import LONG, RATIONAL, SHORT, Tiff

PLAIN = make_exif(6)[6:]


def entry(tag: int, kind: int, value: int, order: str = "<", count: int = 1) -> bytes:
    packed = struct.pack(order + ("H" if kind in (3, 8) else "I"), value).ljust(4, b"\0")
    return struct.pack(order + "HHI", tag, kind, count) + packed


def structure(*entries: bytes, follower: int = 0, order: str = "<", rest: bytes = b"") -> bytes:
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", len(entries)) + b"".join(entries) + struct.pack(order + "I", follower) + rest


@pytest.mark.parametrize("data", [b"", b"II*\0", b"II+\0\x08\0\0\0", b"XX*\0\x08\0\0\0", b"Exif\0\0MM\0*"])
def test_what_is_no_tiff(data: bytes) -> None:
    with pytest.raises(InputError, match="EXIF: not a TIFF structure"):
        Tiff(data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4, 8, 9])
def test_numbers(kind: int, order: str) -> None:
    data = structure(
        entry(0x100, kind, 700, order), entry(0x101, 7, 9, order), entry(0x102, kind, 9, order, 2), order=order
    )
    tiff = Tiff(data)
    assert [tiff.number(tiff.first, tag) for tag in (0x100, 0x101, 0x102, 0x103)] == [700, None, None, None]
    for value in (0, 65_535, 65_536, 2**32 - 1):
        for tag in (0x100, 0x101, 0x102, 0x103):
            tiff.set_number(tiff.first, tag, value)
        again = Tiff(tiff.to_bytes())
        assert again.number(again.first, 0x100) == value
        assert tiff.to_bytes()[22:] == data[22:]


def test_values_are_added_and_what_points_into_the_bytes_stays() -> None:
    for data in (PLAIN, None):
        tiff = Tiff(data)
        for x in (300, 96):
            tiff.add(
                {tag: (RATIONAL, tiff.packed(x, 1)) for tag in (0x11A, 0x11B)}
                | {0x128: (SHORT, tiff.packed(2, kind=SHORT))}
            )
            assert (tiff.rational(tiff.first, 0x11A), tiff.number(tiff.first, 0x128)) == (x, 2)
            exif = parse_exif(tiff.to_bytes())
            assert (exif[0x11A], exif[0x11B], exif[0x128]) == (x, x, 2)
            if data is not None:
                assert exif[ExifTags.Base.Make] == "Maker"
                assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.LensModel] == "Lens 50mm"
                assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    tiff = Tiff()
    tiff.add({0x11A: (RATIONAL, tiff.packed(3, 2)), 0x11B: (RATIONAL, tiff.packed(3, 2))})
    assert len(tiff.to_bytes()) == 46


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_thumbnail_is_dropped(order: str) -> None:
    first = [entry(0x112, 3, 6, order), entry(0x132, LONG, 77, order)]
    start = 8 + 6 + 12 * len(first)
    picture = start + 6 + 24
    second = [entry(0x201, 4, picture, order), entry(0x202, 4, 50, order)]
    directory = struct.pack(order + "H", 2) + b"".join(second) + bytes(4)
    data = structure(*first, follower=start, order=order, rest=directory + b"\xff" * 50)
    for rest in (b"", b"!", b"notes of a camera"):
        tiff = Tiff(data + rest)
        tiff.drop_thumbnail()
        kept = tiff.to_bytes()
        assert kept[: start - 4] == data[: start - 4]
        assert kept[start - 4 : start + 30] == bytes(34)
        assert kept[start + 30 :] in (b"", bytes(50) + rest)
        assert len(kept) < len(data) or rest == b"notes of a camera"
        tiff.drop_thumbnail()
        assert tiff.to_bytes() == kept


def test_a_thumbnail_that_lies_in_the_directories_erases_nothing() -> None:
    first = [entry(0x112, 3, 6), entry(0x132, 3, 7)]
    second = struct.pack("<H", 2) + entry(0x201, 4, 0) + entry(0x202, 4, 60) + bytes(4)
    data = structure(*first, follower=38, rest=second)
    tiff = Tiff(data)
    tiff.drop_thumbnail()
    assert tiff.to_bytes()[:34] == data[:34]


@given(st.binary(max_size=80), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", PLAIN[:60], PLAIN]))
@settings(max_examples=300, deadline=None)
def test_hostile_bytes(data: bytes, head: bytes) -> None:
    try:
        tiff = Tiff(head + data)
    except InputError:
        return
    below = tiff.below(tiff.first, 0x8769)
    tiff.set_number(below, 0xA002, 70_000)
    tiff.set_text(tiff.first, 1, b"R03\0", b"R98\0")
    tiff.swap(tiff.first, 0x11A, 0x11B)
    tiff.rational(tiff.first, 0x11A)
    tiff.drop_thumbnail()
    tiff.add({0x11A: (RATIONAL, tiff.packed(300, 1))})
    again = Tiff(tiff.to_bytes())
    assert again.rational(again.first, 0x11A) == 300
