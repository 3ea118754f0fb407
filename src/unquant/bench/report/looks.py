"""Colour and marker of a codec: one name, one look, whatever else is drawn."""

from __future__ import annotations

import zlib

from unquant.bench.subjects.anchors import find
from unquant.families import FAMILIES

__all__ = ["colour", "marker"]

_COLOURS = ("#8c3b4a", "#4d6b1f", "#33569c", "#94571c", "#5b4b8a")
_MARKERS = ("P", "X", "<", ">", "*", "d", "8", "H")


def colour(codec: str) -> str:
    """As "#rrggbb": a family's or an anchor's own, another by its name."""
    known = _known(codec)
    return known[0] if known else _COLOURS[zlib.adler32(codec.encode()) % len(_COLOURS)]


def marker(codec: str) -> str:
    """As matplotlib names it; tells codecs apart without colour."""
    known = _known(codec)
    return known[1] if known else _MARKERS[zlib.adler32(codec.encode()) % len(_MARKERS)]


def _known(codec: str) -> tuple[str, str] | None:
    if codec in FAMILIES:
        return FAMILIES[codec].look
    anchor = find(codec)
    return None if anchor is None else anchor.look
