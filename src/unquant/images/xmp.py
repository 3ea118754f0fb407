"""XMP packets as bytes: made true for a picture, and in JPEG their extended part (XMP specification, part 3, 1.1.3.1)."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable
from typing import Final
from xml.etree import ElementTree

from unquant.errors import warn

__all__ = ["JPEG_MARKER_BYTES", "XMP_PREFIX", "jpeg_segments", "true_xmp", "whole_xmp"]

XMP_PREFIX: Final = b"http://ns.adobe.com/xap/1.0/\0"
"""What JPEG puts before a packet."""
_EXTENSION: Final = b"http://ns.adobe.com/xmp/extension/\0"
_EXTENSION_HEAD: Final = struct.Struct(">32sII")  # MD5 of the whole part, in hex; its length; where this piece goes
JPEG_MARKER_BYTES: Final = 65_533
"""Of a segment, at most."""
_NOTE: Final = re.compile(
    rb"""\s*xmpNote:HasExtendedXMP\s*=\s*(?:"(\w+)"|'(\w+)')|<xmpNote:HasExtendedXMP>\s*(\w+)\s*</xmpNote:HasExtendedXMP>"""
)
_RDF: Final = re.compile(rb"<rdf:RDF\b([^>]*)>(.*)</rdf:RDF\s*>", re.DOTALL)
_NAMESPACE: Final = re.compile(rb"""\sxmlns:\w+\s*=\s*(?:"[^"]*"|'[^']*')""")
_PACKET: Final = re.compile(rb"<\?xpacket[^>]*\?>")
_REST: Final = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="%s"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
"""A packet all of whose properties are in its extended part, of which it names the MD5."""


def true_xmp(packet: bytes, width: int, height: int) -> bytes:
    """The packet with what it says of the picture itself, where it does: upright, its size in pixels, sRGB."""
    for names, value in (
        (b"tiff:Orientation|exif:ColorSpace", 1),
        (b"tiff:ImageWidth|exif:PixelXDimension", width),
        (b"tiff:ImageLength|exif:PixelYDimension", height),
    ):
        packet = re.sub(rb"((?:%s)(?:\s*=\s*[\"']|>)\s*)[0-9]+" % names, rb"\g<1>%d" % value, packet)
    return packet


def whole_xmp(packet: bytes, segments: Iterable[tuple[str, bytes]], name: str) -> bytes:
    """A JPEG file's packet with its extended part in it; one that is damaged is left out with an UnquantWarning.

    segments: the file's, by the names of their markers, without marker and length.
    """
    note = _NOTE.search(packet)
    if note is None:
        return packet
    guid = next(group for group in note.groups() if group)
    packet = _NOTE.sub(b"", packet)
    part = _extended_part(guid, segments)
    merged = None if part is None else _merged(packet, part)
    if merged is None:
        warn(f"{name}: extended XMP left out, it is incomplete or damaged")
    return packet if merged is None else merged


def jpeg_segments(packet: bytes) -> bytes:
    """The APP1 segments that hold a packet, with an extended part if it is long."""
    if len(packet) <= JPEG_MARKER_BYTES - len(XMP_PREFIX):
        return _segment(XMP_PREFIX + packet)
    part = _PACKET.sub(b"", packet).strip()
    guid = hashlib.md5(part, usedforsecurity=False).hexdigest().upper().encode()
    step = JPEG_MARKER_BYTES - len(_EXTENSION) - _EXTENSION_HEAD.size
    pieces = (
        _segment(_EXTENSION + _EXTENSION_HEAD.pack(guid, len(part), start) + part[start : start + step])
        for start in range(0, len(part), step)
    )
    return _segment(XMP_PREFIX + _REST % guid) + b"".join(pieces)


def _segment(data: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data


def _extended_part(guid: bytes, segments: Iterable[tuple[str, bytes]]) -> bytes | None:
    """The part of a GUID put together; None unless all of it is there."""
    head = len(_EXTENSION) + _EXTENSION_HEAD.size
    found = [
        data for kind, data in segments if kind == "APP1" and data.startswith(_EXTENSION + guid) and len(data) > head
    ]
    pieces = sorted((*_EXTENSION_HEAD.unpack_from(data, len(_EXTENSION))[:0:-1], data[head:]) for data in found)
    part = b""
    for start, _, piece in pieces:
        if start != len(part):
            return None
        part += piece
    whole = all(size == len(part) for _, size, _ in pieces)
    return part if whole and hashlib.md5(part, usedforsecurity=False).hexdigest().encode() == guid.lower() else None


def _merged(packet: bytes, part: bytes) -> bytes | None:
    """The packet with the descriptions of another in it; None if that is no XML."""
    main, extended = _RDF.search(packet), _RDF.search(part)
    if main is None or extended is None or b"<!DOCTYPE" in packet + part:
        return None
    known = {found.split(b"=")[0].strip() for found in _NAMESPACE.findall(main[1])}
    outer = _NAMESPACE.findall(part[: extended.start(2)])
    more = b"".join(found for found in outer if found.split(b"=")[0].strip() not in {*known, b"xmlns:x"})
    merged = packet[: main.end(1)] + more + b">" + main[2] + extended[2] + packet[main.end(2) :]
    try:
        ElementTree.fromstring(merged.strip(b"\0 \r\n\t"))
    except ElementTree.ParseError:
        return None
    return merged
