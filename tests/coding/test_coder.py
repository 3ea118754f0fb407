"""The entropy coder: golden bytes, exact probabilities, round trips, length, hostile data."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from constriction import stream
from hypothesis import given, settings
from hypothesis import strategies as st

from unquant.coding import SymbolDecoder, SymbolEncoder, Tables, coder, gaussian_tables, golomb, scale_grid
from unquant.errors import CorruptStream, OptionError

SMALL = gaussian_tables(np.array([0.3, 1.0, 6.0]))
GRID = gaussian_tables(scale_grid())
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
SYMBOL = st.one_of(st.integers(-3, 3), st.integers(-100, 100), INT32)
NONE = (np.zeros(0, np.int64), np.zeros(0, bool))


def draw(sigma: np.ndarray, seed: int) -> np.ndarray:
    return np.rint(np.random.default_rng(seed).normal(size=sigma.size) * sigma).astype(np.int32)


# --- golden: these bytes may never change within a format version ---------------------------------------------------


def test_golden_bytes_plain() -> None:
    encoder = SymbolEncoder(SMALL)
    encoder.encode(
        np.array([0, 1, -2, 0, 7, 0, -11, 3, 0, 1], np.int32), np.array([0, 1, 1, -1, 2, 0, 2, 2, 1, 0], np.int32)
    )
    assert encoder.to_bytes().hex() == "1bb0b8e5"


def test_golden_bytes_escapes_and_overrides() -> None:
    encoder = SymbolEncoder(SMALL)
    encoder.encode_overrides(*NONE, size=1000)
    encoder.encode(
        np.array([5, -40, 1000, 0, -(1 << 31), (1 << 31) - 1], np.int32), np.array([0, 2, 1, 1, 0, 2], np.int32)
    )
    encoder.encode_overrides(np.array([3, 4, 700]), np.array([True, False, True]), size=1000)
    assert encoder.to_bytes().hex() == "fffffffe898cf3fd7f2577caf0fffffa3fcb7f9b7affffff03b8d7125088e8fd4db9a609"


def test_golden_bytes_long() -> None:
    """A fixed pattern without a random generator, over every table of the default grid."""
    index = np.arange(3000) * 7 % 65 - 1
    symbols = np.where(index < 0, 0, (np.arange(3000) * 37 % 11 - 5) * index // 40).astype(np.int32)
    encoder = SymbolEncoder(GRID)
    encoder.encode(symbols, index)
    data = encoder.to_bytes()
    assert (len(data), data[:8].hex(), data[-8:].hex()) == (1632, "b6812e007f332b13", "28a07b654e1ccfc1")
    assert hashlib.sha256(data).hexdigest() == "f296d9fc39b0afbb525000e306418d39d04fe28c9ddc5e1a9f988b1862c00a7c"


# --- probabilities --------------------------------------------------------------------------------------------------


def effective_counts(model: object, n: int) -> list[int]:
    """Counts that the coder really uses, read off its range after one symbol: count · (2^40 − 1), maybe shifted."""
    scale, counts = (1 << 40) - 1, []
    for symbol in range(n):
        queue = stream.queue.RangeEncoder()
        queue.encode(symbol, model)
        _, (_, width) = queue.pos()
        counts.append(width // scale if width % scale == 0 else (width >> 32) // scale)
    return counts


def test_effective_probabilities_are_the_counts() -> None:
    models = coder.models_of(GRID)
    for t in range(0, len(GRID), 7):
        counts = GRID.table_counts(t)
        assert effective_counts(models.tables[t], counts.size) == counts.tolist()
    assert effective_counts(models.prefix, golomb.CLASSES) == golomb.PREFIX_COUNTS.tolist()
    assert effective_counts(models.any, 2) == [2**24 - 2**16, 2**16]
    assert effective_counts(models.bit, 2) == [2**23, 2**23]


@pytest.mark.parametrize("symbol", [0, 2, 9, -14])
def test_long_run_length_matches_bits(symbol: int) -> None:
    """The same symbol many times: the length gives its probability to five digits."""
    table = gaussian_tables(np.array([3.0]))
    symbols, index = np.full(200_000, symbol), np.zeros(200_000, np.int64)
    encoder = SymbolEncoder(table)
    encoder.encode(symbols, index)
    # the range of 64-bit state is cut to a multiple of 2^24 at each symbol, which costs about 1e-4 bit
    assert 8 * len(encoder.to_bytes()) == pytest.approx(table.bits(index, symbols).sum(), abs=200_000 * 5e-4 + 40)


@pytest.mark.parametrize("sigma", [0.12, 0.2, 0.5, 1.0, 4.0, 20.0, 64.0])
def test_length_matches_cross_entropy(sigma: float) -> None:
    table = int(np.argmin(np.abs(GRID.scales - sigma)))
    index = np.full(20_000, table)
    symbols = draw(np.full(20_000, sigma), seed=table)
    encoder = SymbolEncoder(GRID)
    encoder.encode(symbols, index)
    ideal = GRID.bits(index, symbols).sum() / 8
    assert ideal - 1 <= len(encoder.to_bytes()) <= 1.01 * ideal + 16


def test_length_with_escapes_and_mixed_tables() -> None:
    index = np.random.default_rng(3).integers(-1, 64, 20_000)
    symbols = np.where(index < 0, 0, draw(4 * GRID.scales[index], seed=4)).astype(np.int32)
    encoder = SymbolEncoder(GRID)
    encoder.encode(symbols, index)
    data, ideal = encoder.to_bytes(), GRID.bits(index, symbols).sum() / 8
    assert ideal - 1 <= len(data) <= 1.01 * ideal + 16
    assert np.array_equal(SymbolDecoder(GRID, data).decode(index), symbols)


def test_empty_overrides_are_almost_free() -> None:
    encoder = SymbolEncoder(SMALL)
    for _ in range(1000):
        encoder.encode_overrides(*NONE, size=10)
    assert 8 * len(encoder.to_bytes()) / 1000 < 0.05


# --- round trips ----------------------------------------------------------------------------------------------------


@st.composite
def group(draw: st.DrawFn) -> tuple[list[int], list[int], list[int], list[bool], int]:
    index = draw(st.lists(st.integers(-1, 2), max_size=40))
    symbols = [draw(SYMBOL) if t >= 0 else 0 for t in index]
    size = draw(st.one_of(st.integers(0, 20), st.integers(0, (1 << 31) - 1)))
    positions = sorted(draw(st.sets(st.integers(0, size - 1), max_size=20))) if size else []
    sides = draw(st.lists(st.booleans(), min_size=len(positions), max_size=len(positions)))
    return index, symbols, positions, sides, size


@settings(max_examples=300, deadline=None)
@given(st.lists(group(), max_size=4))
def test_round_trip(groups: list[tuple[list[int], list[int], list[int], list[bool], int]]) -> None:
    encoder = SymbolEncoder(SMALL)
    for index, symbols, positions, sides, size in groups:
        encoder.encode_overrides(np.array(positions, np.int64), np.array(sides, bool), size)
        encoder.encode(np.array(symbols, np.int32), np.array(index, np.int8))
    data = encoder.to_bytes()
    assert not data.endswith(b"\0")
    for padding in (0, 1, 9):  # bytes trimmed at the end read as zeros
        decoder = SymbolDecoder(SMALL, data + bytes(padding))
        for index, symbols, positions, sides, size in groups:
            got_positions, got_sides = decoder.decode_overrides(size)
            assert (got_positions.tolist(), got_sides.tolist()) == (positions, sides)
            assert (got_positions.dtype, got_sides.dtype) == (np.int64, np.bool_)
            got = decoder.decode(np.array(index, np.int64))
            assert got.dtype == np.int32
            assert got.tolist() == symbols


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 200), st.integers(0, 2))
def test_round_trip_of_trimmed_streams(n: int, table: int) -> None:
    """Runs of the first entry, whose interval starts at 0: much of the stream is zeros and trimmed away."""
    index, symbols = np.full(n + 1, table), np.full(n + 1, -SMALL.half_width(table), np.int32)
    symbols[-1] = 0
    encoder = SymbolEncoder(SMALL)
    encoder.encode(symbols, index)
    assert np.array_equal(SymbolDecoder(SMALL, encoder.to_bytes()).decode(index), symbols)


def test_all_zero_stream_is_empty_and_decodes() -> None:
    index, symbols = np.zeros(500, np.int64), np.full(500, -SMALL.half_width(0), np.int32)
    encoder = SymbolEncoder(SMALL)
    encoder.encode(symbols, index)
    assert np.array_equal(SymbolDecoder(SMALL, encoder.to_bytes()).decode(index), symbols)


def test_nothing() -> None:
    encoder = SymbolEncoder(SMALL)
    encoder.encode(np.zeros(0, np.int32), np.zeros(0, np.int32))
    encoder.encode(np.zeros(5, np.int32), np.full(5, -1))
    encoder.encode_overrides(*NONE, size=0)
    assert encoder.to_bytes() == b""
    decoder = SymbolDecoder(SMALL, b"")
    assert decoder.decode(np.zeros(0, np.int32)).size == 0
    assert decoder.decode(np.full(5, -1)).tolist() == [0] * 5
    assert decoder.decode_overrides(0)[0].size == 0


def test_more_than_one_chunk_of_integers() -> None:
    n = 150_000
    encoder = SymbolEncoder(SMALL)
    encoder.encode_overrides(np.arange(n) * 3, np.arange(n) % 5 == 0, size=3 * n)
    encoder.encode(np.arange(n, dtype=np.int32) - n // 2, np.ones(n, np.int32))
    decoder = SymbolDecoder(SMALL, encoder.to_bytes())
    positions, sides = decoder.decode_overrides(3 * n)
    assert np.array_equal(positions, np.arange(n) * 3)
    assert np.array_equal(sides, np.arange(n) % 5 == 0)
    assert np.array_equal(decoder.decode(np.ones(n, np.int32)), np.arange(n) - n // 2)


@settings(deadline=None)
@given(st.lists(st.integers(0, (1 << 31) - 1), max_size=30), st.integers(0, 30))
def test_integer_code(values: list[int], order: int) -> None:
    array = np.array(values, np.int64)
    classes, widths, remainders = golomb.split(array, order)
    assert np.all((classes >= 0) & (widths <= golomb.MAX_WIDTH))
    bits = golomb.to_bits(remainders, widths)
    assert bits.tolist() == [int(b) for r, w in zip(remainders, widths, strict=True) for b in f"{r:0{w}b}" if w]
    assert golomb.join(widths, golomb.from_bits(bits, widths), order).tolist() == values


def test_prefix_table_is_a_prefix_code() -> None:
    assert golomb.PREFIX_COUNTS.sum(dtype=np.int64) == 1 << 24
    lengths = 24 - np.log2(golomb.PREFIX_COUNTS)
    assert lengths.tolist() == [*range(1, 17), *[20] * 16]
    values = np.array([0, 1, 2, 65534, 65535, 1 << 30])
    assert golomb.cost(values, 0).tolist() == [1, 3, 3, 31, 36, 50]


def test_threads_and_restored_tables_agree() -> None:
    index = np.arange(4000) % 64
    symbols = draw(GRID.scales[index], seed=9)
    encoder = SymbolEncoder(GRID)
    encoder.encode(symbols, index)
    data, results = encoder.to_bytes(), []

    def work(tables: Tables) -> None:
        results.append(np.array_equal(SymbolDecoder(tables, data).decode(index), symbols))

    threads = [threading.Thread(target=work, args=(t,)) for t in (GRID, Tables.from_arrays(GRID.to_arrays()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True, True]


def test_models_are_cached_as_long_as_the_tables_live() -> None:
    tables = gaussian_tables(np.array([0.9]))
    models = weakref.ref(coder.models_of(tables))
    gc.collect()
    assert models() is coder.models_of(tables)
    del tables
    gc.collect()
    assert models() is None


# --- arguments and hostile data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbols", "index"),
    [([1], [-1]), ([0], [3]), ([0], [-2]), ([0, 0], [0]), ([1 << 31], [0]), ([0.0], [0]), ([0], [0.0]), ([[0]], [[0]])],
)
def test_encoder_checks_symbols(symbols: list[float], index: list[float]) -> None:
    encoder = SymbolEncoder(SMALL)
    with pytest.raises(OptionError):
        encoder.encode(np.array(symbols), np.array(index))
    assert encoder.to_bytes() == b""


@pytest.mark.parametrize(
    ("positions", "sides", "size"),
    [
        ([1, 1], [True, True], 5),
        ([2, 1], [True, True], 5),
        ([-1], [True], 5),
        ([5], [True], 5),
        ([0], [True], 0),
        ([0], [], 5),
        ([0], [1], 5),
        ([0.0], [True], 5),
        ([[0]], [[True]], 5),
        ([0], [True], -1),
        ([0], [True], 1 << 31),
    ],
)
def test_encoder_checks_overrides(positions: list[float], sides: list[bool], size: int) -> None:
    encoder = SymbolEncoder(SMALL)
    with pytest.raises(OptionError):
        encoder.encode_overrides(np.array(positions), np.array(sides), size)
    assert encoder.to_bytes() == b""


def test_decoder_checks_arguments() -> None:
    decoder = SymbolDecoder(SMALL, b"")
    for index in (np.array([3]), np.array([-2]), np.zeros(1), np.zeros((1, 1), int)):
        with pytest.raises(OptionError):
            decoder.decode(index)
    for size in (-1, 1 << 31):
        with pytest.raises(OptionError):
            decoder.decode_overrides(size)


def test_overrides_beyond_the_size_are_corrupt() -> None:
    encoder = SymbolEncoder(SMALL)
    encoder.encode_overrides(np.arange(9) * 100, np.ones(9, bool), size=1000)
    data = encoder.to_bytes()
    with pytest.raises(CorruptStream, match="9 overrides for 8"):
        SymbolDecoder(SMALL, data).decode_overrides(8)
    with pytest.raises(CorruptStream, match=r"override at \d+ of 800"):
        SymbolDecoder(SMALL, data).decode_overrides(800)


def by_hand(*parts: tuple[object, object]) -> bytes:
    """A stream of symbols, each group with its model, as no encoder would write it."""
    queue = stream.queue.RangeEncoder()
    for symbols, model in parts:
        queue.encode(np.array(symbols, np.int32), model)
    return queue.get_compressed().astype("<u4").tobytes()


@pytest.mark.parametrize(("excess", "negative", "expected"), [(0, True, -(1 << 31)), (0, False, None), (1, True, None)])
def test_escapes_beyond_32_bits_are_corrupt(excess: int, negative: bool, expected: int | None) -> None:
    """2^31 + excess at table 0."""
    models, k = coder.models_of(SMALL), SMALL.half_width(0)
    classes, widths, remainders = golomb.split(np.array([(1 << 31) + excess - k - 1]), 0)
    bits = golomb.to_bits(2 * remainders + negative, widths + 1)
    data = by_hand(([2 * k + 1], models.tables[0]), (classes, models.prefix), (bits, models.bit))
    decoder = SymbolDecoder(SMALL, data)
    if expected is not None:
        assert decoder.decode(np.zeros(1, int)).tolist() == [expected]
    else:
        with pytest.raises(CorruptStream, match="32 bits"):
            decoder.decode(np.zeros(1, int))


def test_integers_of_too_many_bits_are_corrupt() -> None:
    models = coder.models_of(GRID)
    # at order 7 the class 31 is 38 bits
    data = by_hand(([2 * GRID.half_width(63) + 1], models.tables[63]), ([31], models.prefix))
    with pytest.raises(CorruptStream, match="too long"):
        SymbolDecoder(GRID, data).decode(np.full(1, 63))


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=80))
def test_random_bytes_never_crash(data: bytes) -> None:
    index = np.arange(200) % 4 - 1
    with contextlib.suppress(CorruptStream):
        decoder = SymbolDecoder(SMALL, data)
        decoder.decode_overrides(1 << 20)
        symbols = decoder.decode(index)
        assert not symbols[index < 0].any()
        positions, _ = decoder.decode_overrides(200)
        assert positions.size <= 200


@pytest.mark.parametrize("data", [b"\xff" * 64, b"\xff" * 7, b"\0" * 64, b"\xff\0" * 32, b"\0\0\0\x80" * 9])
def test_extreme_bytes_never_crash(data: bytes) -> None:
    decoder = SymbolDecoder(GRID, data)
    with contextlib.suppress(CorruptStream):
        for _ in range(3):
            decoder.decode(np.arange(2000) % 64)
            decoder.decode_overrides(1 << 20)


def test_damaged_streams_give_other_symbols_or_corrupt() -> None:
    index = np.arange(3000) % 64
    symbols = draw(GRID.scales[index], seed=5)
    encoder = SymbolEncoder(GRID)
    encoder.encode(symbols, index)
    data = encoder.to_bytes()
    rng = np.random.default_rng(6)
    for _ in range(200):
        damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        with contextlib.suppress(CorruptStream):
            assert SymbolDecoder(GRID, bytes(damaged)).decode(index).shape == index.shape


def test_no_torch() -> None:
    code = "import sys, unquant.coding; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
