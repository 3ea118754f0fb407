"""IPTC-IIM, which a `.unq` has no place for, as an XMP packet (IPTC Photo Metadata standard, table of equivalents)."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Final
from xml.sax.saxutils import escape

__all__ = ["xmp_of_iptc"]

_RECORD: Final = 2
_TEXT: Final = {
    40: "photoshop:Instructions",
    55: "photoshop:DateCreated",
    85: "photoshop:AuthorsPosition",
    90: "photoshop:City",
    95: "photoshop:State",
    101: "photoshop:Country",
    103: "photoshop:TransmissionReference",
    105: "photoshop:Headline",
    110: "photoshop:Credit",
    115: "photoshop:Source",
    122: "photoshop:CaptionWriter",
}
_LISTS: Final = {
    5: ("dc:title", "Alt"),
    25: ("dc:subject", "Bag"),
    80: ("dc:creator", "Seq"),
    116: ("dc:rights", "Alt"),
    120: ("dc:description", "Alt"),
}
_RESOURCE: Final = b"8BIM\x04\x04"
_MARKER: Final = re.compile(rb"\x1c[\x01\x02]")


def xmp_of_iptc(data: bytes) -> bytes | None:
    """The packet of an IPTC record, bare or among the resources of Photoshop; None where nothing in it has a place there."""
    parts: list[str] = []
    for (record, number), values in sorted(_datasets(data[max(data.find(_RESOURCE), 0) :]).items()):
        texts = [escape(_text(value)) for value in values]
        if record == _RECORD and number in _TEXT:
            text = (
                texts[0]
                if number != 55 or len(texts[0]) != 8
                else "-".join((texts[0][:4], texts[0][4:6], texts[0][6:]))
            )
            parts.append(f"<{_TEXT[number]}>{text}</{_TEXT[number]}>")
        elif record == _RECORD and number in _LISTS:
            name, kind = _LISTS[number]
            tag = '<rdf:li xml:lang="x-default">' if kind == "Alt" else "<rdf:li>"
            items = "".join(f"{tag}{text}</rdf:li>" for text in (texts[:1] if kind == "Alt" else texts))
            parts.append(f"<{name}><rdf:{kind}>{items}</rdf:{kind}></{name}>")
    if not parts:
        return None
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        f' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/">{"".join(parts)}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def _datasets(data: bytes) -> dict[tuple[int, int], list[bytes]]:
    """The values of each record and dataset, up to the first that is broken."""
    found: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
    first = _MARKER.search(data)
    place = len(data) if first is None else first.start()
    while place <= len(data) - 5 and data[place] == 0x1C:
        size = int.from_bytes(data[place + 3 : place + 5], "big")
        value = data[place + 5 : place + 5 + size]
        if size >= 0x8000 or len(value) < size:
            break
        found[data[place + 1], data[place + 2]].append(value)
        place += 5 + size
    return found


def _text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return "".join(c for c in text.strip("\0 ") if c.isprintable() or c in "\n\t")
