"""Exp-Golomb code of non-negative integers, for the few values that no table covers: escapes and override gaps.

A value v at order k is written as v + 2^k = 2^n + r with 0 <= r < 2^n: a class c = n - k, then the n bits of r.
The class costs c + 1 bits as in the usual unary prefix up to 15, and 20 bits from 16 to 31, so that it is one symbol
of a table with power-of-two counts. Everything below 2^31 has a code at every order up to 30.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

CLASSES = 32
"""Number of classes, 0..31."""
MAX_WIDTH = 31
"""Most bits that r may have. A decoder must refuse a class above MAX_WIDTH - order."""
_SHORT = 16

PREFIX_COUNTS: npt.NDArray[np.int32] = np.array(
    [1 << (23 - c) if c < _SHORT else 1 << 4 for c in range(CLASSES)], dtype=np.int32
)
"""Counts of the classes, of 2^24 in all. Part of the format."""
PREFIX_COUNTS.setflags(write=False)


def bit_length(values: npt.NDArray[np.int64]) -> Int64s:
    """Bits of each integer, 0 for 0. values: any shape, 0 <= values < 2^53 (beyond, float64 would round)."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def split(values: Int64s, order: int | Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Class, width n and remainder r of each value.

    values: (n,), 0 <= values and values + 2^order < 2^32. order: 0..30, one or (n,). Returns three arrays (n,).
    """
    base = np.left_shift(np.int64(1), np.asarray(order, dtype=np.int64))
    shifted = values + base
    widths = bit_length(shifted) - 1
    return widths - order, widths, shifted - np.left_shift(np.int64(1), widths)


def join(widths: Int64s, remainders: Int64s, order: int) -> Int64s:
    """The values of widths and remainders (n,): the inverse of `split`."""
    return np.left_shift(np.int64(1), widths) + remainders - (1 << order)


def cost(values: Int64s, order: int | Int64s) -> npt.NDArray[np.float64]:
    """Bits that each value takes, flags not counted. Same arguments as `split`."""
    classes, widths, _ = split(values, order)
    return np.where(classes < _SHORT, classes + 1, 20).astype(np.float64) + widths


def to_bits(values: Int64s, widths: Int64s) -> npt.NDArray[np.int32]:
    """The low widths[i] bits of values[i], most significant first, one value after the other. (n,), (n,) → (bits,)."""
    starts, total = _starts(widths)
    owner = np.repeat(np.arange(widths.size), widths)
    shift = widths[owner] - 1 - (np.arange(total) - starts[owner])
    return ((values[owner] >> shift) & 1).astype(np.int32)


def from_bits(bits: npt.NDArray[np.int32], widths: Int64s) -> Int64s:
    """The inverse of `to_bits`. At most 2^16 values at a time, so that their sum fits 64 bits."""
    starts, total = _starts(widths)
    owner = np.repeat(np.arange(widths.size), widths)
    shift = widths[owner] - 1 - (np.arange(total) - starts[owner])
    running = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.left_shift(bits.astype(np.int64), shift))])
    return running[starts + widths] - running[starts]


def _starts(widths: Int64s) -> tuple[Int64s, int]:
    ends = np.cumsum(widths)
    return ends - widths, int(ends[-1]) if widths.size else 0
