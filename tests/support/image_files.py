"""Pictures, metadata and colour profiles for tests of images."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import ExifTags, Image

RNG = np.random.default_rng(1)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 255, (5, 7), dtype=np.uint8)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6" note="kept"/></x:xmpmeta>'


def make_exif(orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Copyright] = "(c) somebody"
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.LensModel: "Lens 50mm"}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return exif.tobytes()


def parse_exif(data: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(data)
    return exif


def saved(image: Image.Image, kind: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return Image.open(buffer)


def png_chunk(tag: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


SRGB_XYZ = [(0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]
P3_XYZ = [(0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)]


def s15f16(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(v * 65_536) for v in values))


def make_icc(space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 2 profile with the given tags; `space` and `pcs` are four bytes each."""
    description = b"desc" + bytes(4) + struct.pack(">I", 5) + b"Test\0" + bytes(12 + 67)
    tags = {b"desc": description, b"cprt": b"text" + bytes(4) + b"none\0", **tags}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + s15f16(0.9642, 1.0, 0.8249)
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s28x", offset + len(body), b"lcms", 0x02400000, b"mntr", space, pcs, b"acsp")
    head += s15f16(0.9642, 1.0, 0.8249) + bytes(48)
    assert len(head) == 128
    return head + struct.pack(">I", len(tags)) + table + body


def gamma_curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def rgb_icc(primaries: list[tuple[float, float, float]], gamma: float) -> bytes:
    tags = {f"{c}XYZ".encode(): b"XYZ " + bytes(4) + s15f16(*p) for c, p in zip("rgb", primaries, strict=True)}
    return make_icc(b"RGB ", b"XYZ ", {**tags, **{f"{c}TRC".encode(): gamma_curve(gamma) for c in "rgb"}})


def cmyk_icc() -> bytes:
    """Cyan is a printer's cyan, Lab (55, -37, -50); magenta and yellow likewise, their mixtures roughly."""
    inks = np.array([(-45, -37, -50), (-52, 74, -3), (-11, -5, 93), (-100, 0, 0)], float)
    corners = []
    for index in range(16):
        amounts = np.array([index >> 3 & 1, index >> 2 & 1, index >> 1 & 1, index & 1], float)
        lightness, a, b = np.array([100.0, 0, 0]) + amounts @ inks
        corners += [round(max(0, lightness) * 2.55), round(np.clip(a, -99, 99) + 128), round(np.clip(b, -99, 99) + 128)]
    identity = bytes(range(256))
    matrix = s15f16(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + identity * 4 + bytes(corners) + identity * 3
    return make_icc(b"CMYK", b"Lab ", {b"A2B0": lut})


def with_icc(image: Image.Image, icc: bytes) -> Image.Image:
    image.info["icc_profile"] = icc
    return image


def difference(a: Image.Image, b: Image.Image) -> int:
    """The largest difference of two pictures of one mode and size, in levels of 255."""
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def png_rows(values: np.ndarray) -> bytes:
    """The rows of a PNG file, unfiltered, of (h, w, c) uint8 or uint16."""
    rows = values.astype(f">u{values.itemsize}").reshape(len(values), -1)
    return b"".join(b"\0" + row.tobytes() for row in rows)


def png_of(values: np.ndarray, extra: bytes = b"") -> bytes:
    """A PNG file of (h, w, 1..4) uint8 or uint16. extra: chunks after the header."""
    height, width, channels = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return raw_png(width, height, 8 * values.itemsize, colour, png_rows(values), extra)


def icc_chunk(icc: bytes) -> bytes:
    return png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc))


def smooth(channels: int, dtype: type = np.uint8, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """(h, w, channels) of slow waves over the whole range of the type, no two channels alike."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    waves = [0.5 + 0.5 * np.sin(3 * x * (n + 1) + 2 * y * (4 - n) + n) for n in range(channels)]
    return np.rint(np.dstack(waves) * np.iinfo(dtype).max).astype(dtype)
