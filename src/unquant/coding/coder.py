"""The entropy coder: a thin layer over constriction's range coder, with nothing left to its defaults.

Order of the bytes' content. `encode` sorts the coded positions by table, keeping their order within one table. For
each table that occurs, in ascending order: all its symbols (s + K, or 2K + 1 for an escape, |s| > K); then the
escapes among them, in order, as integers |s| − K − 1 with the sign as flag (1 = negative). `encode_overrides` writes
one symbol 'any?'; if so, count − 1 as an integer of order 0, then one integer per position, its distance to the one
before less one (the first counts from −1), with the side as flag, of order bit_length(size // count) − 1.

Integers go in chunks of 2^16: the Exp-Golomb classes of the chunk, each one symbol of the prefix table, then bits of
probability ½: of each integer its remainder, most significant bit first, and its flag where there is one.

Bytes: the coder's 32-bit words, little-endian, without the zero bytes at the very end. The decoder reads zeros beyond
the end, so these carry nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from constriction import stream  # pyright: ignore[reportAttributeAccessIssue]

from unquant.coding import golomb
from unquant.coding.tables import TOTAL, Tables, check_index, check_symbols
from unquant.errors import CorruptStream, OptionError

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.integer[Any]]

STREAM_ASSUMPTION = "constriction 0.4.2 to 0.5: queue coder, 32-bit words, 64-bit state, 24-bit probabilities"
"""The arithmetic of this coder is part of the file format. Golden words in the tests hold any other version to it."""

_ANY_COUNTS = np.array([TOTAL - (1 << 16), 1 << 16], dtype=np.int32)
"""'Are there overrides?': no costs 0.006 bit, yes costs 8."""
_CHUNK = 1 << 16
_MAX_SIZE = (1 << 31) - 1


def _categorical(counts: Int32s) -> Any:
    """A model whose effective counts are exactly `counts`, (n,) >= 1 with the sum 2^24.

    With perfect=False the coder gives every symbol one count and shares out the other 2^24 − n by probability. So the
    probabilities passed are (counts − 1)/2^24: dyadic, hence no rounding anywhere. counts/2^24 would be off by up to n.
    """
    return stream.model.Categorical((counts - 1).astype(np.float64) / TOTAL, lazy=False, perfect=False)


@dataclass(frozen=True)
class Models:
    """The coder's models: of each table, of the classes of integers, of whether there are overrides, and of a bit."""

    tables: list[Any]
    prefix: Any
    any: Any
    bit: Any


_cache: WeakKeyDictionary[Tables, Models] = WeakKeyDictionary()


def models_of(tables: Tables) -> Models:
    """The coder's models of `tables`, built on first use and kept as long as the tables live."""
    models = _cache.get(tables)
    if models is None:
        models = Models(
            tables=[_categorical(tables.table_counts(t)) for t in range(len(tables))],
            prefix=_categorical(golomb.PREFIX_COUNTS),
            any=_categorical(_ANY_COUNTS),
            bit=_categorical(np.array([TOTAL // 2, TOTAL // 2], dtype=np.int32)),
        )
        _cache[tables] = models
    return models


def _group(index: Integers, n_tables: int) -> tuple[Int64s, list[tuple[int, slice]]]:
    """Coded positions sorted by table, and for each table that occurs its number and its slice of them."""
    coded = np.flatnonzero(index >= 0)
    table = index[coded].astype(np.uint16)  # 16 bits: the stable sort is then a radix sort
    positions = coded[np.argsort(table, kind="stable")]
    ends = np.cumsum(np.bincount(table, minlength=n_tables)).tolist()
    starts = [0, *ends[:-1]]
    return positions, [(t, slice(a, b)) for t, (a, b) in enumerate(zip(starts, ends, strict=True)) if b > a]


def _check_flat(array: npt.NDArray[Any], name: str) -> None:
    if array.ndim != 1:
        raise OptionError(f"{name} must be 1-D, not of shape {array.shape}")


def _check_size(size: int) -> None:
    if not 0 <= size <= _MAX_SIZE:
        raise OptionError(f"overrides: size {size} lies outside 0..2^31 - 1")


def _gap_order(size: int, count: int) -> int:
    """Exp-Golomb order of override gaps, 1 <= count <= size: 2^order is the mean gap rounded down to a power of two."""
    return (size // count).bit_length() - 1


class SymbolEncoder:
    """Writes symbols and overrides into one stream, in the order of the calls; the decoder makes the same calls."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._models = models_of(tables)
        self._coder = stream.queue.RangeEncoder()

    def encode(self, symbols: Integers, table_index: Integers) -> None:
        """Append symbols[i], coded with table table_index[i].

        symbols: (n,) integers in int32 range. table_index: (n,) integers, −1..T−1; where it is −1 the symbol is 0 by
        definition and nothing is written. Raises OptionError for anything else.
        """
        index, value = check_symbols(self._tables, table_index, symbols)
        _check_flat(index, "table_index")
        positions, groups = _group(index, len(self._tables))
        value = value[positions]
        k = self._tables.half_widths[index[positions]]
        excess = np.abs(value) - k - 1
        escaped = excess >= 0
        entry = np.where(escaped, 2 * k + 1, value + k).astype(np.int32)
        any_escape = bool(escaped.any())
        for table, part in groups:
            self._put(entry[part], self._models.tables[table])
            if any_escape and escaped[part].any():
                chosen = np.flatnonzero(escaped[part]) + part.start
                self._put_integers(excess[chosen], int(self._tables.escape_orders[table]), value[chosen] < 0)

    def encode_overrides(self, positions: Int64s, sides: Bools, size: int) -> None:
        """Append a list of positions out of `size`, each with one bit; an empty list costs 0.006 bit.

        positions: (n,) integers, strictly ascending, in [0, size). sides: (n,) bool. size: 0..2^31 − 1, known to the
        decoder; if it is 0 nothing is written. Raises OptionError for anything else.
        """
        _check_size(size)
        where, side = np.asarray(positions), np.asarray(sides)
        _check_flat(where, "positions")
        if side.shape != where.shape or side.dtype != np.bool_:
            raise OptionError("sides must be bool, as many as positions")
        if where.size and not np.issubdtype(where.dtype, np.integer):
            raise OptionError("positions must be integers")
        gaps = np.diff(where.astype(np.int64), prepend=-1) - 1
        if where.size and (gaps.min() < 0 or where[-1] >= size):
            raise OptionError(f"override positions must ascend within 0..{size - 1}")
        if size == 0:
            return
        self._put(np.array([where.size > 0], dtype=np.int32), self._models.any)
        if where.size:
            self._put_integers(np.array([where.size - 1], dtype=np.int64), 0, None)
            self._put_integers(gaps, _gap_order(size, where.size), side)

    def to_bytes(self) -> bytes:
        """The whole stream so far; empty if nothing was written. Its length must be stored beside it."""
        return self._coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")

    def _put(self, symbols: Int32s, model: Any) -> None:
        self._coder.encode(symbols, model)

    def _put_integers(self, values: Int64s, order: int, flags: Bools | None) -> None:
        for start in range(0, values.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            classes, widths, remainders = golomb.split(values[part], order)
            self._put(classes.astype(np.int32), self._models.prefix)
            if flags is not None:
                widths, remainders = widths + 1, 2 * remainders + flags[part]
            bits = golomb.to_bits(remainders, widths)
            if bits.size:
                self._put(bits, self._models.bit)


class SymbolDecoder:
    """Reads what a `SymbolEncoder` with the same tables wrote, by the same calls in the same order.

    data: the bytes of `SymbolEncoder.to_bytes`. Damaged data gives CorruptStream or other symbols (a checksum of the
    symbols must tell), in bounded time and memory: both are proportional to what the caller asks for.
    """

    def __init__(self, tables: Tables, data: bytes) -> None:
        self._tables = tables
        self._models = models_of(tables)
        words = np.frombuffer(bytes(data) + bytes(-len(data) % 4), dtype="<u4").astype(np.uint32)
        self._coder = stream.queue.RangeDecoder(words)

    def decode(self, table_index: Integers) -> Int32s:
        """The symbols (n,) of table indices (n,), −1..T−1; 0 where the index is −1.

        Raises CorruptStream if the data cannot come from an encoder, OptionError for other table indices.
        """
        index = check_index(self._tables, table_index)
        _check_flat(index, "table_index")
        positions, groups = _group(index, len(self._tables))
        grouped = np.empty(positions.size, dtype=np.int32)
        for table, part in groups:
            k = self._tables.half_width(table)
            entry = self._take(self._models.tables[table], part.stop - part.start)
            grouped[part] = entry - k
            chosen = np.flatnonzero(entry == 2 * k + 1)
            if chosen.size:
                grouped[part.start + chosen] = self._escapes(table, chosen.size)
        symbols = np.zeros(index.size, dtype=np.int32)
        symbols[positions] = grouped
        return symbols

    def decode_overrides(self, size: int) -> tuple[Int64s, Bools]:
        """Positions (n,) int64, strictly ascending in [0, size), and sides (n,) bool.

        size: as at the encoder, 0..2^31 − 1 (OptionError). Raises CorruptStream for a count or position beyond it.
        """
        _check_size(size)
        positions, sides = [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)]
        if size and self._take(self._models.any, 1)[0]:
            count = int(next(self._take_integers(1, 0, flagged=False))[0][0]) + 1
            if count > size:
                raise CorruptStream(f"{count} overrides for {size} positions")
            last = -1
            for gaps, side in self._take_integers(count, _gap_order(size, count), flagged=True):
                positions.append(last + np.cumsum(gaps + 1))
                sides.append(side)
                last = int(positions[-1][-1])
                if last >= size:
                    raise CorruptStream(f"override at {last} of {size} positions")
        return np.concatenate(positions), np.concatenate(sides)

    def _escapes(self, table: int, n: int) -> Int64s:
        k, order = self._tables.half_width(table), int(self._tables.escape_orders[table])
        parts: list[Int64s] = []
        for excess, negative in self._take_integers(n, order, flagged=True):
            value = np.where(negative, -(excess + k + 1), excess + k + 1)
            if value.min() < -(1 << 31) or value.max() >= 1 << 31:
                raise CorruptStream("an escaped symbol does not fit 32 bits")
            parts.append(value)
        return np.concatenate(parts)

    def _take(self, model: Any, n: int) -> Int32s:
        try:
            return self._coder.decode(model, n)
        except (AssertionError, ValueError) as error:
            raise CorruptStream("the entropy-coded data is damaged") from error

    def _take_integers(self, n: int, order: int, *, flagged: bool) -> Iterator[tuple[Int64s, Bools]]:
        """n integers with their flags (False where not flagged), chunk by chunk, so that a caller can stop early."""
        for start in range(0, n, _CHUNK):
            widths = self._take(self._models.prefix, min(_CHUNK, n - start)).astype(np.int64) + order
            if widths.max() > golomb.MAX_WIDTH:
                raise CorruptStream("an integer in the entropy-coded data is too long")
            total = int(widths.sum()) + (widths.size if flagged else 0)
            bits = self._take(self._models.bit, total) if total else np.zeros(0, np.int32)
            remainders = golomb.from_bits(bits, widths + 1 if flagged else widths)
            flags = np.zeros(widths.size, np.bool_)
            if flagged:
                flags, remainders = (remainders & 1).astype(np.bool_), remainders >> 1
            yield golomb.join(widths, remainders, order), flags
