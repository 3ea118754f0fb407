"""The `.unq` file, bytes only: header, tiles, sections, checksums, limits. docs/format.md is the contract.

A change here is a change of the format: a new version, new golden files, and docs/format.md. `avif` and `obu` read and
write what the family `av1` shares with other programs: AVIF boxes and the headers of AV1.
"""

from __future__ import annotations

from unquant.container.file import Container, Salvage, Tile, metadata_bytes, parse, salvage
from unquant.container.header import (
    FAMILIES,
    MAGIC,
    MAX_STEPS,
    VERSION,
    Header,
    latent_size,
    parse_header,
    stream_crc,
    symbols_crc,
)
from unquant.container.limits import (
    DECODE_MAX_PIXELS,
    DEFAULT_LIMITS,
    MAX_PIXELS,
    Limits,
    decode_limit,
    limits_within,
    pixel_limit,
)

__all__ = [
    "DECODE_MAX_PIXELS",
    "DEFAULT_LIMITS",
    "FAMILIES",
    "MAGIC",
    "MAX_PIXELS",
    "MAX_STEPS",
    "VERSION",
    "Container",
    "Header",
    "Limits",
    "Salvage",
    "Tile",
    "decode_limit",
    "latent_size",
    "limits_within",
    "metadata_bytes",
    "parse",
    "parse_header",
    "pixel_limit",
    "salvage",
    "stream_crc",
    "symbols_crc",
]
