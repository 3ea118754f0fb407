"""Frequency tables: golden counts, invariants, storage, cost lookup."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unquant.coding import MAX_SCALE, TOTAL, Tables, gaussian_tables, scale_grid
from unquant.errors import OptionError, WeightsError


@pytest.fixture(scope="module")
def tables() -> Tables:
    return gaussian_tables(scale_grid())


def test_golden_counts() -> None:
    table = gaussian_tables(np.array([0.5]))
    assert table.counts.tolist() == [22643, 2639146, 11453628, 2639146, 22643, 10]
    assert table.offsets.tolist() == [0, 6]


def test_invariants(tables: Tables) -> None:
    assert len(tables) == 64
    for t in range(64):
        counts, k = tables.table_counts(t), tables.half_width(t)
        assert counts.dtype == np.int32
        assert counts.size == 2 * k + 2
        assert counts.min() >= 1
        assert counts.sum(dtype=np.int64) == TOTAL
        assert np.array_equal(counts[: 2 * k + 1], counts[2 * k :: -1])
        sigma = tables.scales[t]
        assert math.erfc((k + 0.5) / sigma / math.sqrt(2)) < 2**-20
        assert k == 1 or math.erfc((k - 0.5) / sigma / math.sqrt(2)) >= 2**-20


@pytest.mark.parametrize("sigma", [0.12, 0.7, 5.0, 64.0, MAX_SCALE])
def test_tables_are_as_good_as_the_gaussian(sigma: float) -> None:
    counts = gaussian_tables(np.array([sigma])).counts[:-1]
    k = counts.size // 2
    edges = np.array([math.erf((i - k - 0.5) / sigma / math.sqrt(2)) for i in range(2 * k + 2)])
    p = np.maximum(np.diff(edges) / 2, 1e-300)
    excess = np.sum(p * np.log2(p / (counts / TOTAL)))
    assert abs(excess) < 1e-4


def test_grid() -> None:
    grid = scale_grid()
    assert grid.dtype == np.float64
    assert grid[[0, -1]] == pytest.approx([0.12, 64.0])
    assert np.ptp(np.diff(np.log(grid))) < 1e-12
    for arguments in ((0.0, 1.0, 4), (2.0, 1.0, 4), (1.0, 2 * MAX_SCALE, 4), (1.0, 2.0, 1)):
        with pytest.raises(OptionError):
            scale_grid(*arguments)


@pytest.mark.parametrize(
    "scales",
    [
        np.zeros(0),
        np.array([0.0]),
        np.array([np.nan]),
        np.array([2.0, 1.0]),
        np.array([2 * MAX_SCALE]),
        np.ones((1, 1)),
        np.ones(1, np.float32),
    ],
)
def test_scales_are_checked(scales: np.ndarray) -> None:
    with pytest.raises(OptionError):
        gaussian_tables(scales)


def test_store_and_restore(tables: Tables) -> None:
    arrays = tables.to_arrays()
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "scales": "float64",
        "counts": "int32",
        "offsets": "int32",
    }
    again = Tables.from_arrays({name: array.copy() for name, array in arrays.items()})
    for name, array in again.to_arrays().items():
        assert np.array_equal(array, arrays[name])
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def damage(name: str, index: int, value: float) -> dict[str, np.ndarray]:
    arrays = {k: v.copy() for k, v in gaussian_tables(np.array([0.5, 1.0])).to_arrays().items()}
    arrays[name][index] = value
    return arrays


@pytest.mark.parametrize(
    "arrays",
    [
        damage("counts", 0, 22644),  # the sum is off
        damage("counts", 0, -5),
        damage("counts", 0, 0),
        damage("scales", 0, -1.0),
        damage("scales", 0, np.nan),
        damage("scales", 1, 0.5),
        damage("offsets", 0, 2),
        damage("offsets", 1, 5),
        damage("offsets", 1, 0),
        damage("offsets", 1, -6),
        damage("offsets", 1, 1 << 30),
        damage("offsets", 2, 8),
    ],
)
def test_damaged_tables_are_refused(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(WeightsError):
        Tables.from_arrays(arrays)


def test_tables_of_other_types_are_refused(tables: Tables) -> None:
    good = tables.to_arrays()
    for name in good:
        with pytest.raises(WeightsError, match=name):
            Tables.from_arrays({k: v for k, v in good.items() if k != name})
        with pytest.raises(WeightsError, match=name):
            Tables.from_arrays({**good, name: good[name].astype(np.int64)})
        with pytest.raises(WeightsError, match=name):
            Tables.from_arrays({**good, name: good[name][None]})
        with pytest.raises(WeightsError):
            Tables.from_arrays({**good, name: good[name][:0]})
    # two counts that compensate: the sum wraps round in 32 bits, not in 64
    pair = np.array([1, 2**31 - 1, 2**31 - 1, 2**24 + 1], np.int32)
    with pytest.raises(WeightsError, match="sum"):
        Tables(np.ones(1), pair, np.array([0, 4], np.int32))


def test_bits() -> None:
    tables = gaussian_tables(np.array([0.5, 8.0]))  # K = 2 and 39
    cost = tables.bits(np.array([[0, -1, 0], [1, 0, 0]]), np.array([[0, 0, 2], [-40, 3, -5]]))
    assert tables.half_widths.tolist() == [2, 39]
    assert tables.escape_orders.tolist() == [0, 4]
    escape = 24 - np.log2([10, tables.counts[-1]])
    # an escape adds its class, remainder and sign: 1 + 0 + 1 for an excess of 0 at order 0, 2 + 1 + 1 for one of 2
    expected = [[24 - np.log2(11453628), 0, 24 - np.log2(22643)], [escape[1] + 1 + 4 + 1, escape[0] + 2, escape[0] + 4]]
    assert cost == pytest.approx(np.array(expected))


@pytest.mark.parametrize(
    ("table", "symbol"),
    [([-2], [0]), ([1], [0]), ([-1], [1]), ([0, 0], [0]), ([0], [1 << 31]), ([0.0], [0]), ([0], [0.5])],
)
def test_bits_checks_its_arguments(table: list[float], symbol: list[float]) -> None:
    with pytest.raises(OptionError):
        gaussian_tables(np.ones(1)).bits(np.array(table), np.array(symbol))
