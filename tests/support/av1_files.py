"""AVIF files for tests: what Pillow writes, HEIF files put together box by box, and headers of AV1 written bit by bit."""

from __future__ import annotations

import io
import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from unquant.container import parse
from unquant.container.avif import is_avif, parse_avif
from unquant.container.isobmff import box, full_box, read_meta
from unquant.container.obu import parse_obus
from unquant.container.varint import byte_view

COFFEE = Path(__file__).resolve().parents[2] / "src" / "unquant" / "demo" / "coffee.png"


@cache
def photograph(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A photograph of that size; RGBA has another one for its alpha."""
    with Image.open(COFFEE) as file:
        picture = file.convert("RGB").resize((width, height), Image.Resampling.BOX)
    if mode == "RGBA":
        picture.putalpha(picture.convert("L").transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        return picture
    return picture.convert(mode)


def pillow_avif(picture: Image.Image, **options: Any) -> bytes:
    """An .avif file by Pillow, fast unless told otherwise."""
    buffer = io.BytesIO()
    picture.save(buffer, "AVIF", **{"speed": 9, "max_threads": 2, "autotiling": False, **options})
    return buffer.getvalue()


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    """(h, w) or (h, w, 3 | 4), as Pillow decodes the file."""
    with Image.open(io.BytesIO(data), formats=("AVIF",)) as picture:
        return np.array(picture)


def info(data: bytes) -> dict[Any, Any]:
    """What Pillow says about the file."""
    with Image.open(io.BytesIO(data), formats=("AVIF",)) as picture:
        return dict(picture.info)


def av1_streams(data: bytes) -> list[bytes]:
    """The AV1 streams of an `.avif` or `.unq` file: the picture, and its alpha where that is one of its own."""
    if is_avif(data):
        file = parse_avif(data)
        return [stream for stream in (file.obus, file.alpha) if stream is not None]
    return [tile.stream for tile in parse(data).tiles]


def first_item(data: bytes) -> bytes:
    """The data of the primary item of any HEIF file, a sequence among them."""
    start = data.index(b"meta")
    size = int.from_bytes(data[start - 4 : start], "big")
    meta = read_meta(byte_view(data)[start + 4 : start - 4 + size])
    assert meta.primary is not None
    return meta.data(meta.primary, byte_view(data))


class BitWriter:
    """Bits, the most significant first."""

    def __init__(self) -> None:
        self.text = ""

    def f(self, value: int, count: int = 1) -> BitWriter:
        assert 0 <= value < 1 << count
        self.text += f"{value:0{count}b}" if count else ""
        return self

    def to_bytes(self) -> bytes:
        """With a trailing one bit, padded to bytes."""
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def obu(kind: int, payload: bytes) -> bytes:
    """One OBU with a size field of one byte."""
    return bytes((kind << 3 | 2, len(payload))) + payload


def heif(
    items: list[tuple[bytes, bytes, list[tuple[bytes, bool]]]],
    references: bytes = b"",
    *,
    iloc: int = 0,
    wide: bool = False,
    idat: bool = False,
    pieces: int = 1,
    data_first: bool = False,
    sizes: str = "plain",
) -> bytes:
    """A HEIF file by hand, in any of the forms that the standards allow. The first item is the primary one.

    items: (type, data, properties), a property being a whole box and whether it is essential. references: the boxes inside
    iref, with 16-bit ids (32 where `wide`). iloc: its version. wide: 32-bit ids and 15-bit indices. idat: the data lies in
    the meta box. pieces: extents of each item. data_first: mdat before meta. sizes: "plain", "large" (64-bit) or "open"
    (mdat to the end of the file).
    """
    known = sorted({data for _, _, used in items for data, _ in used})
    id_size = 4 if wide else 2

    def ident(value: int) -> bytes:
        return value.to_bytes(id_size, "big")

    def meta(start: int) -> bytes:
        position, locations, infos, table = start, b"", b"", b""
        for number, (kind, data, used) in enumerate(items, 1):
            locations += number.to_bytes(4 if iloc == 2 else 2, "big")
            locations += (int(idat).to_bytes(2, "big") if iloc else b"") + bytes(2)
            locations += start.to_bytes(8, "big") + pieces.to_bytes(2, "big")
            cuts = [len(data) * piece // pieces for piece in range(pieces + 1)]
            for low, high in itertools.pairwise(cuts):
                locations += bytes(4 if iloc else 0)
                locations += (position + low - start).to_bytes(4, "big") + (high - low).to_bytes(8, "big")
            position += len(data)
            infos += full_box(b"infe", ident(number), bytes(2), kind, b"\0", version=3 if wide else 2)
            table += ident(number) + bytes((len(used),))
            for prop, essential in used:
                index = known.index(prop) + 1
                table += (index | essential << 15).to_bytes(2, "big") if wide else bytes((index | essential << 7,))
        count = len(items).to_bytes(4 if iloc == 2 else 2, "big")
        parts = [
            full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", ident(1), version=int(wide)),
            full_box(b"iloc", b"\x48", b"\x84" if iloc else b"\x80", count, locations, version=iloc),
            full_box(b"iinf", len(items).to_bytes(4 if wide else 2, "big"), infos, version=int(wide)),
            full_box(b"iref", references, version=int(wide)),
            box(
                b"iprp",
                box(b"ipco", *known),
                full_box(b"ipma", len(items).to_bytes(4, "big"), table, version=int(wide), flags=int(wide)),
            ),
        ]
        if idat:
            parts.append(box(b"idat", payload))
        return full_box(b"meta", *parts)

    payload = b"".join(data for _, data, _ in items)
    head = box(b"ftyp", b"avif", bytes(4), b"avif", b"mif1", b"miaf")
    if idat:
        return head + meta(0)
    if sizes == "large":
        mdat = b"\0\0\0\x01mdat" + (16 + len(payload)).to_bytes(8, "big") + payload
    else:
        mdat = box(b"mdat", payload)
        mdat = bytes(4) + mdat[4:] if sizes == "open" else mdat
    lead = len(mdat) - len(payload)
    if data_first:
        return head + mdat + meta(len(head) + lead)
    return head + meta(len(head) + len(meta(0)) + lead) + mdat


def still(coded: bytes, size: tuple[int, int] | None = None) -> list[tuple[bytes, bool]]:
    """The properties that a picture needs."""
    picture = parse_obus(coded)
    width, height = size or (picture.width, picture.height)
    form = picture.mono << 4 | picture.subsampling_x << 3 | picture.subsampling_y << 2
    return [
        (full_box(b"ispe", width.to_bytes(4, "big"), height.to_bytes(4, "big")), False),
        (box(b"av1C", bytes((0x81, picture.profile << 5 | picture.level, form, 0))), True),
    ]


def grid(
    columns: int = 2, rows: int = 1, size: tuple[int, int] = (120, 64), cells: int = 2, *, alpha: bool = False
) -> bytes:
    """A grid of cells of 64x64 pixels; alpha: each with its own."""
    coded = first_item(pillow_avif(photograph(64, 64), subsampling="4:4:4"))
    description = bytes((0, 0, rows - 1, columns - 1)) + size[0].to_bytes(2, "big") + size[1].to_bytes(2, "big")
    ispe = full_box(b"ispe", (120).to_bytes(4, "big"), (64).to_bytes(4, "big"))
    items = [(b"grid", description, [(ispe, False)]), *[(b"av01", coded, still(coded))] * cells]
    ids = b"".join(number.to_bytes(2, "big") for number in range(2, 2 + cells))
    references = box(b"dimg", b"\0\1", cells.to_bytes(2, "big"), ids)
    if alpha:
        plane = first_item(pillow_avif(photograph(64, 64, "L")))
        auxiliary = (full_box(b"auxC", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"), False)
        items += [(b"av01", plane, [*still(plane), auxiliary])] * cells
        for number in range(2, 2 + cells):
            references += box(b"auxl", (number + cells).to_bytes(2, "big"), b"\0\1", number.to_bytes(2, "big"))
    return heif(items, references)


def deep(high: int = 1, transfer: int = 13) -> bytes:
    """The sequence header of a picture of 3x7 pixels, 4:2:0, of 10 bits or another transfer, and a frame that fits it."""
    bits = BitWriter().f(0, 3).f(1).f(1).f(0, 5).f(1, 4).f(2, 4).f(2, 2).f(6, 3).f(0, 3).f(0, 3)
    bits.f(high).f(0).f(1).f(1, 8).f(transfer, 8).f(6, 8).f(1).f(0, 2).f(0).f(0)
    frame = BitWriter().f(0).f(0).f(0).f(1).f(100, 8).f(0, 3).f(0).f(0).f(0).f(0, 200)
    return obu(1, bits.to_bytes()) + obu(6, frame.to_bytes())


def exif_bytes(artist: str = "", orientation: int = 1) -> bytes:
    """A TIFF structure with these tags."""
    exif = Image.Exif()
    if artist:
        exif[ExifTags.Base.Artist] = artist
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")
