"""Chunks of PNG files, for what Pillow does not tell of them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

__all__ = ["SIGNATURE", "Chunk", "chunks", "inflated", "read_chunk"]

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


class Chunk(NamedTuple):
    """start: where its length stands. length: of its data, which begin 8 bytes further on."""

    kind: bytes
    start: int
    length: int


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """The chunks of a PNG file, up to IEND or to where it is cut. Moves the file's position as it goes on."""
    start, end = len(SIGNATURE), file.seek(0, io.SEEK_END)
    while start + 12 <= end:
        file.seek(start)
        head = file.read(8)
        chunk = Chunk(head[4:], start, int.from_bytes(head[:4], "big"))
        start += 12 + chunk.length
        if start > end:
            return
        yield chunk
        if chunk.kind == b"IEND":
            return


def read_chunk(file: BinaryIO, chunk: Chunk) -> bytes:
    """Its data, without length, name and checksum."""
    file.seek(chunk.start + 8)
    return file.read(chunk.length)


def inflated(data: bytes, most: int) -> bytes | None:
    """What zlib has compressed; None where it is damaged or longer than `most` bytes."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, most + 1)
    except zlib.error:
        return None
    return plain if len(plain) <= most else None
