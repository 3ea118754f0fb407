"""The size of a JPEG XL picture by its header (ISO/IEC 18181-1, SizeHeader): the plug-in decodes when it opens."""

from __future__ import annotations

from typing import BinaryIO, Final

__all__ = ["jxl_size"]

_CONTAINER: Final = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_CODESTREAM: Final = b"\xff\x0a"
_WIDTHS: Final = (9, 13, 18, 30)
_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_HEADER_BYTES: Final = 16
_MOST_BOXES: Final = 1024


def jxl_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height as coded, before any orientation; None where there is no header so far. Moves the position."""
    file.seek(0)
    head = file.read(_HEADER_BYTES)
    if head.startswith(_CONTAINER):
        head = _codestream_in_container(file)
    if not head.startswith(_CODESTREAM) or len(head) < 12:
        return None
    bits = int.from_bytes(head[2:], "little")
    small, bits = bits & 1, bits >> 1
    height, bits = _side(bits, small=bool(small))
    ratio, bits = bits & 7, bits >> 3
    if ratio:
        numerator, denominator = _RATIOS[ratio - 1]
        return height * numerator // denominator, height
    return _side(bits, small=bool(small))[0], height


def _side(bits: int, *, small: bool) -> tuple[int, int]:
    """A side, and the bits after it."""
    if small:
        return 8 * ((bits & 31) + 1), bits >> 5
    width = _WIDTHS[bits & 3]
    return (bits >> 2 & (1 << width) - 1) + 1, bits >> 2 + width


def _codestream_in_container(file: BinaryIO) -> bytes:
    """Its first bytes, from the first box that has any."""
    start = 0
    for _ in range(_MOST_BOXES):
        file.seek(start)
        head = file.read(16)
        size, kind, body = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:
            size, body = int.from_bytes(head[8:16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            file.seek(start + body + (4 if kind == b"jxlp" else 0))
            return file.read(_HEADER_BYTES)
        if len(head) < 8 or size < body:
            break
        start += size
    return b""
