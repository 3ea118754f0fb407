"""Files that are damaged where it costs no pixel: mended as far as Pillow needs it, in memory."""

from __future__ import annotations

import io
import itertools
from typing import BinaryIO, Final, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from unquant.images.checks import without_pillows_limit
from unquant.images.png import SIGNATURE, Chunk, chunks, inflated, read_chunk

__all__ = ["Mended", "is_cut_png", "mended"]

_EOI: Final = b"\xff\xd9"
_TEXT: Final = (b"tEXt", b"zTXt", b"iTXt")
_MOST_PROFILE: Final = 2**24
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_BARE: Final = frozenset((0x01, 0xD8, *range(0xD0, 0xD8)))  # markers without a length


class Mended(NamedTuple):
    """A file that Pillow reads, and what was wrong with the other, "" for nothing. icc: a profile too long for Pillow."""

    data: bytes
    cause: str
    icc: bytes | None = None


def mended(file: BinaryIO) -> Mended | None:
    """A file that Pillow did not read, so that it does; None where pixels are missing, or for any other damage.

    A JPEG without its end marker gets one. Of a PNG text longer than Pillow takes is left out.
    """
    file.seek(0)
    data = file.read()
    if data.startswith(b"\xff\xd8\xff"):
        data = data.rstrip(b"\xff")  # half a marker
        return Mended(data + _EOI, "cut after its last pixel (no end marker)") if _is_whole_jpeg(data) else None
    return _without_long_text(data) if data.startswith(SIGNATURE) else None


def is_cut_png(file: BinaryIO) -> bool:
    """Whether a PNG file, whose pixels were all there, ends before its last chunk does."""
    return all(chunk.kind != b"IEND" for chunk in chunks(file))


def _is_whole_jpeg(data: bytes) -> bool:
    """Whether all scans are there, and the last one needs none of the bytes that would follow: it decodes to the same
    pixels whatever these are."""
    if not _has_all_scans(data):
        return False
    noise = [row.tobytes() for row in np.random.default_rng(0).integers(0, 255, (8, 256), np.uint8)]  # none is FF
    try:
        shown = _pixels(data + _EOI)
        # libjpeg takes a restart marker for another, but for the two after the one that it expects
        for first in (0, 4):
            restarts = (bytes((0xFF, 0xD0 + (first + number) % 8)) for number in range(len(noise)))
            other = b"".join(itertools.chain.from_iterable(zip(noise, restarts, strict=True)))
            if _pixels(data + other + _EOI) != shown:
                return False
        return True
    except Exception:  # Pillow's, on a damaged file
        return False


def _pixels(data: bytes) -> bytes:
    with without_pillows_limit(), Image.open(io.BytesIO(data)) as image:
        image.load()
    return image.tobytes()


def _has_all_scans(data: bytes) -> bool:
    """Whether the scans that begin in a JPEG bring all 64 coefficients of all components, to the last bit."""
    bits: dict[int, list[int]] = {}
    position = 2
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 <= len(data):
        marker = data[position + 1]
        if marker in (0x00, 0xFF) or marker in _BARE:
            position += 1 if marker == 0xFF else 2
            continue
        body = data[position + 4 : position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")]
        position += 4 + len(body)
        if marker in _FRAMES and len(body) >= 6:
            bits = {component: [1] * 64 for component in body[6::3]}
        elif marker == 0xDA and body and len(body) >= 4 + 2 * body[0]:
            first, last, approximation = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            for component in body[1 : 1 + 2 * body[0] : 2]:
                coefficients = bits.get(component, [])
                coefficients[first : last + 1] = [approximation & 15] * len(coefficients[first : last + 1])
    return bool(bits) and not any(any(coefficients) for coefficients in bits.values())


def _without_long_text(data: bytes) -> Mended | None:
    file = io.BytesIO(data)
    kept, left_out, total, icc = [SIGNATURE], 0, 0, None
    for chunk in chunks(file):
        if chunk.kind in _TEXT or chunk.kind == b"iCCP":
            body = read_chunk(file, chunk)
            size = _text_size(chunk, body)
            if size is None and chunk.kind == b"iCCP":
                icc = inflated(body.partition(b"\0")[2][1:], _MOST_PROFILE)
                left_out += icc is None
                continue
            if size is None or total + size > PngImagePlugin.MAX_TEXT_MEMORY:
                left_out += 1
                continue
            total += size
        kept.append(data[chunk.start : chunk.start + 12 + chunk.length])
    if not left_out and icc is None:
        return None
    return Mended(b"".join(kept), f"text too long to be read is left out ({left_out} chunks)" if left_out else "", icc)


def _text_size(chunk: Chunk, body: bytes) -> int | None:
    """Bytes of a text or a profile, decompressed; None for more than Pillow takes."""
    most = PngImagePlugin.MAX_TEXT_CHUNK
    _, _, rest = body.partition(b"\0")
    packed = rest[1:]
    if chunk.kind == b"iTXt":
        packed = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    if chunk.kind == b"tEXt" or (chunk.kind == b"iTXt" and rest[:1] != b"\1"):
        return chunk.length if chunk.length <= most else None
    plain = inflated(packed, most)
    return None if plain is None else len(plain)
