"""Integer symbols to bytes and back: frequency tables and an entropy coder. No float of a network enters here.

    symbols, table_index ──► SymbolEncoder ──► bytes ──► SymbolDecoder ──► symbols
                                   ▲                          ▲
                                   └───── Tables (stored) ────┘

The tables are stored with the weights and never computed again, so both sides code with the same integers.
"""

from __future__ import annotations

from unquant.coding.coder import STREAM_ASSUMPTION, SymbolDecoder, SymbolEncoder
from unquant.coding.tables import MAX_SCALE, PRECISION, TOTAL, Tables, gaussian_tables, scale_grid

__all__ = [
    "MAX_SCALE",
    "PRECISION",
    "STREAM_ASSUMPTION",
    "TOTAL",
    "SymbolDecoder",
    "SymbolEncoder",
    "Tables",
    "gaussian_tables",
    "scale_grid",
]
