"""AVIF: files by Pillow and by hand, taken apart and rebuilt; contradictions and damage refused."""

from __future__ import annotations

import io
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import pytest
from av1_files import (
    BitWriter,
    deep,
    exif_bytes,
    first_item,
    grid,
    heif,
    info,
    obu,
    photograph,
    pillow_avif,
    pixels,
    still,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps, features

from unquant.container.avif import UUID, AvifFile, Nclx, build_avif, is_avif, parse_avif
from unquant.container.isobmff import box, full_box
from unquant.container.limits import Limits
from unquant.container.obu import parse_obus
from unquant.errors import CorruptStream, ImageTooLarge, OptionError, UnquantError, UnsupportedVersion

if not features.check("avif"):
    pytest.skip("this Pillow has no AVIF", allow_module_level=True)

SIZES = [(1, 1), (3, 7), (17, 33), (65, 1), (96, 64)]
SRGB = Nclx(1, 13, 6, True)


def sample(width: int = 17, height: int = 33, mode: str = "RGB", **options: Any) -> bytes:
    return pillow_avif(photograph(width, height, mode), **{"subsampling": "4:4:4", **options})


@cache
def rich() -> bytes:
    """Alpha, profile, EXIF, XMP, orientation and unquant's own box."""
    file = parse_avif(sample(mode="RGBA"))
    assert file.obus is not None
    exif = exif_bytes(artist="a", orientation=6)
    return build_avif(
        file.obus, alpha=file.alpha, icc=b"profile", exif=exif, xmp=b"<x/>", orientation=6, uuid_payload=b"\1\2"
    )


def rebuilt(file: AvifFile) -> bytes:
    assert file.obus is not None
    return build_avif(
        file.obus,
        alpha=file.alpha,
        premultiplied=file.premultiplied,
        nclx=file.nclx,
        icc=file.icc,
        exif=file.exif,
        xmp=file.xmp,
        orientation=file.orientation,
        uuid_payload=file.uuid_payload,
    )


# --- rebuilt files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("mode", "subsampling"),
    [("RGB", "4:2:0"), ("RGB", "4:2:2"), ("RGB", "4:4:4"), ("L", "4:0:0"), ("RGBA", "4:2:0"), ("RGBA", "4:4:4")],
)
@pytest.mark.parametrize("options", [{"advanced": {"tune": "iq"}}, {"advanced": {"tune": "ssim"}, "range": "limited"}])
def test_rebuilt_files_decode_to_the_same_pixels(
    size: tuple[int, int], mode: str, subsampling: str, options: dict[str, Any]
) -> None:
    data = pillow_avif(photograph(*size, mode), quality=60, subsampling=subsampling, **options)
    file = parse_avif(data)
    again = rebuilt(file)
    assert np.array_equal(pixels(again), pixels(data))
    assert (file.width, file.height) == size
    assert file.picture.chroma == subsampling
    assert file.colour == Nclx(1, 13, 6, "range" not in options)
    assert file.has_alpha == (file.alpha is not None) == (mode == "RGBA")
    assert file.coded_bytes == len(file.obus or b"")
    assert len(again) < len(data)
    # once more: nothing left to save, nothing lost
    assert rebuilt(parse_avif(again)) == again


@pytest.mark.parametrize("quality", [0, 1, 30, 75, 99, 100])
def test_every_quality(quality: int) -> None:
    data = sample(quality=quality, advanced={"tune": "ssim"})
    file = parse_avif(data)
    assert np.array_equal(pixels(rebuilt(file)), pixels(data))
    assert (file.picture.base_q_idx == 0) == (quality == 100)


@pytest.mark.parametrize(
    ("mode", "subsampling", "overhead"),
    [("RGB", "4:2:0", 246), ("RGB", "4:2:2", 246), ("RGB", "4:4:4", 246), ("L", "4:0:0", 244), ("RGBA", "4:4:4", 396)],
)
def test_bytes_of_boxes(mode: str, subsampling: str, overhead: int) -> None:
    """Without temporal delimiters, of two bytes each. Pillow's own boxes take 275 and 430."""
    file = parse_avif(sample(mode=mode, subsampling=subsampling))
    coded = [part for part in (file.obus, file.alpha) if part is not None]
    assert all(part.startswith(b"\x12\0") for part in coded)
    assert len(rebuilt(file)) == sum(map(len, coded)) - 2 * len(coded) + overhead


def test_golden_boxes() -> None:
    """Byte for byte, around OBUs that need no encoder: 3x7 pixels, 4:2:0."""
    coded = bytes.fromhex(
        "0a0818 04acc1010d0684 3219 18000a28a2840046804f1a4189ace8a9efa8785930b219ce60".replace(" ", "")
    )
    expected = (
        "0000001c 66747970 61766966 00000000 61766966 6d696631 6d696166"
        "000000d2 6d657461 00000000"
        "00000021 68646c72 00000000 00000000 70696374 00000000 00000000 00000000 00"
        "0000000e 7069746d 00000000 0001"
        "0000001e 696c6f63 00000000 4400 0001 0001 0000 0001 000000f6 00000025"
        "00000023 69696e66 00000000 0001 00000015 696e6665 02000000 0001 0000 61763031 00"
        "00000056 69707270"
        "00000038 6970636f"
        "00000014 69737065 00000000 00000003 00000007"
        "00000010 70697869 00000000 03 080808"
        "0000000c 61763143 81000c00"
        "00000016 69706d61 00000000 00000001 0001 03 010283"
        "0000002d 6d646174"
    )
    assert build_avif(coded) == bytes.fromhex(expected) + coded
    assert pixels(build_avif(coded)).shape == (7, 3, 3)


def test_metadata_comes_back() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = sample(icc_profile=profile, exif=exif_bytes("somebody"), xmp=b"<x:xmpmeta/>")
    file = parse_avif(data)
    assert (file.icc, file.exif, file.xmp) == (profile, exif_bytes("somebody"), b"<x:xmpmeta/>")
    again = rebuilt(file)
    for name in ("icc_profile", "exif", "xmp"):
        assert info(again)[name] == info(data)[name]
    assert np.array_equal(pixels(again), pixels(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    """Written as irot and imir; Pillow reads both back into the EXIF tag, and turns the picture as it should."""
    by_pillow = sample(exif=exif_bytes(orientation=orientation))
    file = parse_avif(by_pillow)
    assert file.orientation == orientation
    again = rebuilt(file)
    assert parse_avif(again).orientation == orientation
    turned = [ImageOps.exif_transpose(Image.open(io.BytesIO(data))) for data in (by_pillow, again)]
    assert np.array_equal(np.array(turned[0]), np.array(turned[1]))
    assert file.obus is not None
    with_exif = build_avif(file.obus, exif=exif_bytes("a", orientation), orientation=orientation)
    assert parse_avif(with_exif).exif == exif_bytes("a", orientation)
    with Image.open(io.BytesIO(with_exif)) as picture:
        assert picture.getexif().get(ExifTags.Base.Orientation, 1) == orientation


@pytest.mark.parametrize("angle", range(4))
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_every_turn_and_mirror_as_pillow_reads_it(angle: int, axis: int | None) -> None:
    coded = first_item(sample())
    turns = [(box(b"irot", bytes((angle,))), True)]
    if axis is not None:
        turns.append((box(b"imir", bytes((axis,))), True))
    data = heif([(b"av01", coded, still(coded) + turns)])
    with Image.open(io.BytesIO(data)) as picture:
        assert parse_avif(data).orientation == picture.getexif().get(ExifTags.Base.Orientation, 1)


def test_premultiplied_alpha() -> None:
    data = sample(mode="RGBA", alpha_premultiplied=True)
    file = parse_avif(data)
    assert file.premultiplied
    again = rebuilt(file)
    assert parse_avif(again).premultiplied
    assert np.array_equal(pixels(again), pixels(data))
    assert not parse_avif(rich()).premultiplied


def test_own_box() -> None:
    file = parse_avif(rich())
    assert file.uuid_payload == b"\1\2"
    assert rich().endswith(box(b"uuid", UUID, b"\1\2"))
    foreign = sample() + box(b"uuid", bytes(16), b"of another program") + box(b"free", bytes(5))
    assert parse_avif(foreign).uuid_payload is None
    assert np.array_equal(pixels(foreign), pixels(sample()))
    with pytest.raises(CorruptStream, match="two boxes of unquant"):
        parse_avif(rich() + box(b"uuid", UUID))


def test_colour_description() -> None:
    """Written only where it differs from the sequence header's, and then it is what holds."""
    coded = first_item(sample())
    assert build_avif(coded, nclx=SRGB) == build_avif(coded)
    other = Nclx(9, 13, 9, False)
    file = parse_avif(build_avif(coded, nclx=other))
    assert (file.nclx, file.colour) == (other, other)
    assert not np.array_equal(pixels(build_avif(coded, nclx=other)), pixels(build_avif(coded)))


def test_options() -> None:
    coded = first_item(sample())
    for options in ({"orientation": 0}, {"orientation": 9}, {"premultiplied": True}):
        with pytest.raises(OptionError):
            build_avif(coded, **options)
    with pytest.raises(CorruptStream, match="alpha of 3x7, picture of 17x33"):
        build_avif(coded, alpha=first_item(sample(3, 7)))
    with pytest.raises(CorruptStream):
        build_avif(b"")


def test_is_avif() -> None:
    assert is_avif(sample()[:32])
    assert is_avif(box(b"ftyp", b"mif1", bytes(4), b"mif1", b"avif"))
    assert is_avif(box(b"ftyp", b"avis", bytes(4)))
    for other in (
        b"",
        sample()[:20],
        box(b"ftyp", b"heic", bytes(4), b"mif1", b"heic"),
        b"\x89PNG\r\n\x1a\n" + bytes(40),
    ):
        assert not is_avif(other)
        with pytest.raises(CorruptStream, match="not an AVIF file"):
            parse_avif(other)


# --- other programs' files ------------------------------------------------------------------------------------------


FORMS = [
    {},
    {"wide": True},
    {"pieces": 3},
    {"data_first": True, "sizes": "large"},
    {"sizes": "open", "pieces": 2},
]


@pytest.mark.parametrize(
    "options",
    [
        *({"iloc": version} | form for version in range(3) for form in FORMS),
        *({"iloc": version, "idat": True, "wide": True, "pieces": 2} for version in (1, 2)),
    ],
    ids=str,
)
def test_every_form_of_the_boxes(options: dict[str, Any]) -> None:
    coded = first_item(sample())
    other = first_item(sample(3, 7))
    data = heif([(b"av01", coded, still(coded)), (b"av01", other, still(other))], **options)
    file = parse_avif(data)
    assert file.obus == coded
    assert file.depths is None
    assert np.array_equal(pixels(data), pixels(sample()))


def test_open_extent() -> None:
    """An extent of length 0 reaches to the end of the file."""
    coded = first_item(sample())
    data = bytearray(build_avif(coded))
    length = data.index(b"iloc") + 4 + 4 + 2 + 2 + 2 + 2 + 2 + 4
    assert data[length : length + 4] == (len(coded) - 2).to_bytes(4, "big")
    data[length : length + 4] = bytes(4)
    assert parse_avif(data).obus == coded[2:]


def test_grid() -> None:
    """Taken as it is: the image library puts it together."""
    file = parse_avif(grid())
    assert (file.width, file.height, file.grid, file.obus, file.has_alpha) == (120, 64, True, None, False)
    assert (file.picture.width, file.picture.chroma) == (64, "4:4:4")
    assert file.coded_bytes == 2 * len(first_item(sample(64, 64)))
    assert pixels(grid()).shape == (64, 120, 3)
    with_alpha = parse_avif(grid(alpha=True))
    assert (with_alpha.has_alpha, with_alpha.alpha) == (True, None)
    assert pixels(grid(alpha=True)).shape == (64, 120, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": 1}, "1 cells in a grid of 2x1"),
        ({"columns": 1, "cells": 1}, "1x1 cells of 64x64 for 120x64"),
        ({"size": (119, 64)}, "120x64 pixels by ispe, 119x64 by the grid"),
    ],
)
def test_grid_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(CorruptStream, match=message):
        parse_avif(grid(**changes))


def test_clean_aperture_is_told() -> None:
    coded = first_item(sample())
    clap = box(b"clap", b"".join(value.to_bytes(4, "big") for value in (8, 1, 8, 1, 0, 1, 0, 1)))
    assert parse_avif(heif([(b"av01", coded, [*still(coded), (clap, True)])])).clap
    assert not parse_avif(sample()).clap


def test_film_grain_and_full_headers_are_told() -> None:
    assert parse_avif(sample(advanced={"film-grain-test": "1"})).picture.film_grain
    # the sequence's own picture, put into a file for one
    frames = [photograph(80, 60), photograph(80, 60).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    coded = first_item(pillow_avif(frames[0], save_all=True, append_images=frames[1:]))
    file = parse_avif(build_avif(coded))
    assert not file.picture.reduced_header
    assert file.picture.base_q_idx is not None
    assert pixels(build_avif(coded)).shape == (60, 80, 3)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_deep_and_high_dynamic_range_pictures() -> None:
    coded = deep()
    form = bytes((0x81, 0, 0x4C, 0))
    size = full_box(b"ispe", (3).to_bytes(4, "big"), (7).to_bytes(4, "big"))
    with pytest.raises(UnsupportedVersion, match="10 bits"):
        parse_avif(heif([(b"av01", coded, [(size, False), (box(b"av1C", form), True)])]))
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        with pytest.raises(UnsupportedVersion, match=name):
            parse_avif(build_avif(deep(0, transfer)))
        # what the box says holds, and not the sequence header
        with pytest.raises(UnsupportedVersion, match=name):
            parse_avif(build_avif(first_item(sample()), nclx=Nclx(9, transfer, 9, True)))
        assert parse_avif(build_avif(deep(0, transfer), nclx=SRGB)).colour == SRGB


def test_sequences() -> None:
    frames = [photograph(80, 60), photograph(80, 60).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    data = pillow_avif(frames[0], save_all=True, append_images=frames[1:])
    assert is_avif(data)
    with pytest.raises(UnsupportedVersion, match="sequence"):
        parse_avif(data)


def patched(data: bytes, kind: bytes, offset: int, value: bytes) -> bytes:
    """The file with bytes changed in the body of the first box of that type."""
    start = data.index(kind) + 4 + offset
    return data[:start] + value + data[start + len(value) :]


U32 = [value.to_bytes(4, "big") for value in range(70)]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        # the size: Pillow decodes these without complaint, to pictures of the size that ispe names
        (patched(sample(), b"ispe", 4, U32[18]), CorruptStream, "18x33 pixels by ispe, 17x33 by the sequence header"),
        (patched(sample(), b"ispe", 8, U32[1]), CorruptStream, "17x1 pixels by ispe, 17x33 by the sequence header"),
        (patched(sample(), b"ispe", 4, U32[0]), CorruptStream, "0x33 pixels by ispe"),
        (patched(sample(), b"ispe", 4, b"\0\1\0\0"), ImageTooLarge, "65536x33"),
        (patched(sample(), b"ispe", 4, b"\0\0\xff\xff\0\0\xff\xff"), ImageTooLarge, "65535x65535"),
        (patched(sample(), b"av1C", 1, b"\0"), CorruptStream, "0000, by the sequence header 2000"),
        (patched(sample(), b"av1C", 2, b"\x10"), CorruptStream, "2010, by the sequence header 2000"),
        (patched(sample(), b"pixi", 5, b"\x0a"), CorruptStream, "by pixi, 8 by the sequence header"),
        (patched(sample(), b"hdlr", 8, b"soun"), CorruptStream, "not pictures"),
        (patched(sample(), b"pitm", 4, b"\0\7"), CorruptStream, "item 7 has no size"),
        (patched(sample(), b"infe", 8, b"hvc1"), UnsupportedVersion, "'hvc1', not an AV1 picture"),
        (patched(sample(), b"infe", 8, b"iden"), UnsupportedVersion, "'iden', not an AV1 picture"),
        (patched(sample(), b"iloc", 0, b"\3"), UnsupportedVersion, "version 3"),
        (patched(sample(), b"iloc", 4, b"\x54"), CorruptStream, "sizes 5400"),
        (patched(sample(), b"iloc", 10, b"\0\1"), UnsupportedVersion, "another file"),
        (patched(sample(), b"iloc", 14, b"\xff"), CorruptStream, "truncated or damaged"),
        (patched(sample(), b"ipma", 0, b"\0\0\0\0\0\0\0\2"), CorruptStream, "ipma"),
        (patched(sample(), b"iinf", 4, b"\0\2"), CorruptStream, "1 entries where 2"),
        (patched(sample(), b"ipco", 4, b"free"), CorruptStream, "no size"),
        (sample() + b"\0", CorruptStream, "1 bytes where a box was expected"),
        (sample()[: sample().index(b"meta") - 4], CorruptStream, "no primary item"),
        (sample() + box(b"meta", bytes(4)), CorruptStream, "two meta boxes"),
    ],
)
def test_refused(data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_avif(data)


def test_properties_that_choose_or_are_unknown() -> None:
    coded = first_item(sample())
    for extra, message in (
        ((box(b"zzzz", b"?"), True), "'zzzz' is unknown"),
        ((box(b"a1op", b"\1"), True), "a1op"),
        ((box(b"lsel", b"\0\1"), True), "lsel"),
    ):
        with pytest.raises(UnsupportedVersion, match=message):
            parse_avif(heif([(b"av01", coded, [*still(coded), extra])]))
    for extra in ((box(b"zzzz", b"?"), False), (box(b"lsel", b"\xff\xff"), True)):
        assert parse_avif(heif([(b"av01", coded, [*still(coded), extra])])).obus == coded
    for twice in (box(b"colr", b"nclx", bytes(7)), box(b"colr", b"prof", b"1"), box(b"irot", b"\1")):
        other = twice[:-1] + b"\2"
        with pytest.raises(CorruptStream, match=r"two colour|properties 'irot'"):
            parse_avif(heif([(b"av01", coded, [*still(coded), (twice, False), (other, False)])]))


def test_sizes_of_alpha_and_frame() -> None:
    coded = first_item(sample())
    plane = first_item(sample(3, 7, "L"))
    auxiliary = (full_box(b"auxC", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"), False)
    reference = box(b"auxl", b"\0\2\0\1\0\1")
    small = heif([(b"av01", coded, still(coded)), (b"av01", plane, [*still(plane), auxiliary])], reference)
    with pytest.raises(CorruptStream, match="alpha of 3x7, picture of 17x33"):
        parse_avif(small)
    lying = [*still(plane, (17, 33)), auxiliary]
    with pytest.raises(CorruptStream, match="17x33 pixels by ispe, 3x7 by the sequence header"):
        parse_avif(heif([(b"av01", coded, still(coded)), (b"av01", plane, lying)], reference))
    # a video's header whose frame is smaller than its sequence allows
    sequence = BitWriter().f(0, 3).f(0).f(0).f(0).f(0).f(0, 5).f(0, 12).f(0, 5).f(7, 4).f(7, 4).f(199, 8).f(99, 8)
    sequence.f(0).f(0, 3).f(0, 4).f(0).f(0).f(0).f(0, 3).f(0).f(0).f(0).f(1).f(0, 2).f(0).f(0)
    frame = BitWriter().f(0).f(0, 2).f(1).f(1).f(1).f(149, 8).f(99, 8).f(0).f(1).f(0, 4).f(100, 8).f(0, 200)
    data = obu(1, sequence.to_bytes()) + obu(6, frame.to_bytes())
    assert (parse_obus(data).width, parse_obus(data).max_width) == (150, 200)
    for size, where in (((200, 100), "150x100 by the frame header"), ((150, 100), "200x100 by the sequence header")):
        with pytest.raises(CorruptStream, match=where):
            parse_avif(heif([(b"av01", data, still(data, size))]))


def test_limits() -> None:
    data = rich()
    exact = Limits(max_pixels=17 * 33, max_dimension=33, max_section=len(exif_bytes("a", 6)) + 4, max_file=len(data))
    assert parse_avif(data, exact) == parse_avif(data)
    for tight in (
        Limits(max_pixels=17 * 33 - 1),
        Limits(max_dimension=32),
        Limits(max_section=len(exif_bytes("a", 6)) + 3),
        Limits(max_section=6),
        Limits(max_file=len(data) - 1),
    ):
        with pytest.raises(ImageTooLarge):
            parse_avif(data, tight)


def test_bombs() -> None:
    """Counts without bytes behind them are refused before anything is counted."""
    coded = first_item(sample())
    whole = build_avif(coded)
    start = whole.index(b"iloc") - 4
    rest = whole[start + 30 :]
    endless = b"".join(number.to_bytes(2, "big") + b"\0\0\xff\xff" for number in range(2, 4000))
    iloc = full_box(b"iloc", b"\0\0", (3998).to_bytes(2, "big"), endless)
    for table, message in (
        (iloc, "65535 extents without"),
        (full_box(b"iloc", b"\x44\0\xff\xff"), "truncated"),
        (full_box(b"iloc", bytes(2**21)), "at most"),
    ):
        meta = whole.index(b"meta")
        size = int.from_bytes(whole[meta - 4 : meta], "big") - 30 + len(table)
        data = whole[: meta - 4] + size.to_bytes(4, "big") + whole[meta:start] + table + rest
        with pytest.raises((CorruptStream, ImageTooLarge), match=message):
            parse_avif(data)
    with pytest.raises(CorruptStream, match="overlap"):
        parse_avif(overlapping(coded))


def overlapping(coded: bytes) -> bytes:
    """One item whose 200 extents are nearly all of its bytes, each."""
    payload = coded * 200
    data = heif([(b"av01", payload, still(coded))], pieces=200)
    start = data.index(b"iloc") + 4 + 4 + 2 + 2 + 2 + 2 + 8 + 2
    return data[:start] + (bytes(4) + (len(payload) - 1).to_bytes(8, "big")) * 200 + data[start + 2400 :]


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [rich(), sample(), grid(alpha=True)], ids=["rich", "plain", "grid"])
def test_cut_anywhere(data: bytes) -> None:
    """No cut file passes for the whole one; one that ends where a box ends has lost the box after the picture alone."""
    whole = parse_avif(data)
    for size in range(len(data)):
        with suppress(UnquantError):
            assert parse_avif(data[:size]) != whole
            assert data[size + 4 : size + 8] == b"uuid"


DAMAGED = [rich(), sample(), sample(mode="L"), grid(alpha=True), heif([(b"av01", b"", [])], iloc=1, idat=True)]


@given(
    st.sampled_from(DAMAGED),
    st.lists(
        st.tuples(st.integers(0, 1500), st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 127, 128, 255]))),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 3000),
)
@settings(max_examples=500, deadline=None)
def test_damaged(data: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    """Whatever the bytes are: an AvifFile that can be written again, or an error of ours."""
    damaged = bytearray(data)
    for where, value in changes:
        damaged[where % len(damaged)] = value
    with suppress(UnquantError):
        file = parse_avif(bytes(damaged[: cut or None]))
        if not file.grid:
            assert parse_avif(rebuilt(file)).width == file.width
    is_avif(damaged)


@given(st.binary(max_size=200), st.integers(0, 330))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes(data: bytes, kept: int) -> None:
    with suppress(UnquantError):
        parse_avif(rich()[:kept] + data)
    with suppress(UnquantError):
        parse_avif(rich()[:28] + full_box(b"meta", data))
