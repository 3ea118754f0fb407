"""Integer frequency tables of zero-mean Gaussians over unit bins, one per scale (docs/design.md).

They are computed once, when a model is made, and stored with its weights: `erfc` may differ in its last digit between
machines, so a decoder must never compute them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from unquant.coding import golomb
from unquant.errors import OptionError, WeightsError

PRECISION = 24
"""Bits of a probability: the counts of every table sum to 2^PRECISION."""
TOTAL = 1 << PRECISION
MAX_SCALE = 256.0
"""Largest σ in steps. Beyond it the least count, 1, would distort the tails of a 24-bit table."""
TAIL_MASS = 2.0**-20
"""A table ends where the mass outside falls below this; the escape symbol holds the rest."""
_MAX_TABLES = 1 << 15


@dataclass(frozen=True, eq=False)
class Tables:
    """T frequency tables. Table t codes −K..K at positions 0..2K, then one escape symbol for everything outside.

    scales: (T,) float64, > 0, strictly ascending, σ of each table in quantisation steps.
    counts: (n,) int32, >= 1, the tables one after the other; each sums to 2^24.
    offsets: (T + 1,) int32, table t is counts[offsets[t]:offsets[t + 1]], of even length 2K + 2 >= 4.
    The arrays are copied and made read-only. Raises WeightsError if any of this does not hold.
    """

    scales: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        for name, dtype in (("scales", np.float64), ("counts", np.int32), ("offsets", np.int32)):
            array: Any = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
                raise WeightsError(f"tables: {name} must be a 1-D array of {np.dtype(dtype).name}")
            copy = array.copy()
            copy.setflags(write=False)
            object.__setattr__(self, name, copy)
        self._validate()

    def _validate(self) -> None:
        scales, counts, offsets = self.scales, self.counts, self.offsets
        if not 1 <= scales.size <= _MAX_TABLES or offsets.size != scales.size + 1:
            raise WeightsError(f"tables: {scales.size} scales and {offsets.size} offsets")
        if not np.all(np.isfinite(scales)) or scales[0] <= 0 or np.any(np.diff(scales) <= 0):
            raise WeightsError("tables: scales must be positive, finite and ascending")
        lengths = np.diff(offsets.astype(np.int64))
        if offsets[0] != 0 or offsets[-1] != counts.size or np.any(lengths < 4) or np.any(lengths % 2):
            raise WeightsError("tables: offsets do not cut the counts into tables of even length >= 4")
        if np.any(counts < 1):
            raise WeightsError("tables: a count is below 1")
        sums = np.add.reduceat(counts.astype(np.int64), offsets[:-1])
        if np.any(sums != TOTAL):
            raise WeightsError(f"tables: the counts of table {int(np.argmax(sums != TOTAL))} do not sum to 2^24")

    def __len__(self) -> int:
        return self.scales.size

    @cached_property
    def half_widths(self) -> npt.NDArray[np.int64]:
        """K of every table, (T,): the largest magnitude coded without escape."""
        return np.diff(self.offsets.astype(np.int64)) // 2 - 1

    @cached_property
    def escape_orders(self) -> npt.NDArray[np.int64]:
        """Exp-Golomb order of every table's escapes, (T,): bit_length(K) − 2, at least 0, so 2^order is near K/4."""
        return np.maximum(golomb.bit_length(self.half_widths) - 2, 0)

    def half_width(self, table: int) -> int:
        """K of one table, 0 <= table < T."""
        return int(self.half_widths[table])

    def table_counts(self, table: int) -> npt.NDArray[np.int32]:
        """The 2K + 2 counts of one table (a read-only view), 0 <= table < T."""
        return self.counts[self.offsets[table] : self.offsets[table + 1]]

    def bits(
        self, table: npt.NDArray[np.integer[Any]], symbol: npt.NDArray[np.integer[Any]]
    ) -> npt.NDArray[np.float64]:
        """Cost of each symbol in bits, escape codes included: the length that the coder approaches.

        table: any shape, −1..T−1, where −1 (not coded) costs nothing and its symbol must be 0. symbol: same shape,
        int32 range. Returns float64 of that shape. Raises OptionError for anything else.
        """
        index, value = check_symbols(self, table, symbol)
        coded = index >= 0
        t = np.where(coded, index, 0).astype(np.int64)
        k = self.half_widths[t]
        escaped = np.abs(value) > k
        entry = self.offsets[t] + np.where(escaped, 2 * k + 1, value + k)
        total = np.where(coded, self._entry_bits[entry], 0.0)
        excess = np.abs(value[escaped]) - k[escaped] - 1
        total[escaped] += golomb.cost(excess, self.escape_orders[t[escaped]]) + 1.0
        return total

    @cached_property
    def _entry_bits(self) -> npt.NDArray[np.float64]:
        return PRECISION - np.log2(self.counts)

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays to store: scales (float64), counts and offsets (int32)."""
        return {"scales": self.scales, "counts": self.counts, "offsets": self.offsets}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Tables:
        """Tables from `to_arrays`. Raises WeightsError if an array is missing or anything about them is not valid."""
        try:
            return cls(arrays["scales"], arrays["counts"], arrays["offsets"])
        except KeyError as error:
            raise WeightsError(f"tables: {error.args[0]} is missing") from error


def check_symbols(
    tables: Tables, table: npt.NDArray[np.integer[Any]], symbol: npt.NDArray[np.integer[Any]]
) -> tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.int64]]:
    """Table indices and symbols (as int64) after the checks that `Tables.bits` and the encoder share; OptionError."""
    index, value = check_index(tables, table), np.asarray(symbol)
    if value.shape != index.shape or not np.issubdtype(value.dtype, np.integer):
        raise OptionError("symbols must be integers, as many as table indices")
    if value.size and (value.min() < -(1 << 31) or value.max() >= 1 << 31):
        raise OptionError("a symbol does not fit 32 bits")
    if np.any(value[index < 0]):
        raise OptionError("a symbol without a table is not 0")
    return index, value.astype(np.int64)


def check_index(tables: Tables, table: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
    """Table indices as an array, after the check that they are integers in −1..T−1; OptionError otherwise."""
    index = np.asarray(table)
    if not np.issubdtype(index.dtype, np.integer):
        raise OptionError("table indices must be integers")
    if index.size and (index.min() < -1 or index.max() >= len(tables)):
        raise OptionError(f"a table index lies outside -1..{len(tables) - 1}")
    return index


def scale_grid(low: float = 0.12, high: float = 64.0, n: int = 64) -> npt.NDArray[np.float64]:
    """n scales from low to high, evenly spaced in their logarithm. 0 < low < high <= MAX_SCALE, n >= 2; OptionError."""
    if not 0 < low < high <= MAX_SCALE or n < 2:
        raise OptionError(f"scale grid: 0 < low < high <= {MAX_SCALE} and n >= 2 are needed")
    return np.geomspace(low, high, n, dtype=np.float64)


def gaussian_tables(scales: npt.NDArray[np.float64]) -> Tables:
    """Tables of N(0, σ²) integrated over unit bins, one for each σ in `scales`.

    scales: (T,) float64 in steps, 0 < σ <= MAX_SCALE, strictly ascending. K is the least one >= 1 with a mass of less
    than 2^-20 outside ±(K + ½). Counts are rounded to the nearest, at least 1, and the symbol 0 takes what is left of
    2^24. Raises OptionError for other scales.
    """
    sigma = np.asarray(scales)
    if sigma.dtype != np.float64 or sigma.ndim != 1 or not 1 <= sigma.size <= _MAX_TABLES:
        raise OptionError("scales must be a 1-D float64 array, not empty")
    if not (np.all(sigma > 0) and np.all(sigma <= MAX_SCALE) and np.all(np.diff(sigma) > 0)):
        raise OptionError(f"scales must ascend within (0, {MAX_SCALE}]")
    each = [_gaussian_counts(float(s)) for s in sigma]
    offsets = np.cumsum([0, *(len(counts) for counts in each)]).astype(np.int32)
    return Tables(sigma, np.concatenate([np.array(counts, dtype=np.int32) for counts in each]), offsets)


def _gaussian_counts(sigma: float) -> list[int]:
    """Counts of −K..K and escape of one table."""
    outside = [math.erfc((k + 0.5) / (sigma * math.sqrt(2.0))) for k in range(2)]
    while outside[-1] >= TAIL_MASS:
        outside.append(math.erfc((len(outside) + 0.5) / (sigma * math.sqrt(2.0))))
    side = [max(1, round(TOTAL * 0.5 * (outside[k - 1] - outside[k]))) for k in range(1, len(outside))]
    escape = max(1, round(TOTAL * outside[-1]))
    return [*side[::-1], TOTAL - 2 * sum(side) - escape, *side, escape]
