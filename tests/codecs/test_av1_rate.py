"""Rate control of `av1`: the largest file below a target, made of few files, each of them once."""

from __future__ import annotations

import warnings
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unquant.codecs.av1_rate import base_q_idx_of, largest_file, nominal_base_q_idx
from unquant.errors import RateUnreachable, UnquantWarning

STRENGTH, LEAST_FULL = 50, 11


class Encoder:
    """Files of about the sizes that AV1 would give: a few per cent a quality, a quarter for deltaq, 30% at half size."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.calls: Counter[tuple[int, int, bool]] = Counter()

    def size(self, quality: int, strength: int, half: bool) -> int:
        finer = (255 - base_q_idx_of(quality)) / 4
        return 20 + int(self.scale * 1.06**finer * (1 + 0.25 * strength / 50) * (0.3 if half else 1))

    def __call__(self, quality: int, strength: int, half: bool) -> bytes:
        self.calls[quality, strength, half] += 1
        return bytes(self.size(quality, strength, half))


@settings(max_examples=200, deadline=None)
@given(st.floats(50, 5000), st.floats(0.2, 60), st.booleans())
def test_the_largest_file_below_a_target(scale: float, times: float, may_halve: bool) -> None:
    encoder = Encoder(scale)
    target = max(1, int(scale * times))
    smallest = encoder.size(0, 0, may_halve)
    if target < smallest:
        with pytest.raises(RateUnreachable) as caught:
            largest_file(encoder, target, STRENGTH, may_halve=may_halve)
        assert caught.value.smallest == smallest
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        size = len(largest_file(encoder, target, STRENGTH, may_halve=may_halve))
    highest, slack = encoder.size(100, STRENGTH, False), max(0.02 * target, 16)
    if target >= highest:
        assert size == highest
    else:
        at_half = may_halve and target < encoder.size(LEAST_FULL, STRENGTH, False)
        # of half size the best one may be all there is
        assert size == encoder.size(100, STRENGTH, at_half) or target - slack <= size <= target
    assert [w.category for w in caught] == [UnquantWarning] * (target - highest > slack)
    assert set(encoder.calls.values()) == {1}
    assert len(encoder.calls) < 14


def test_half_size_is_for_low_qualities() -> None:
    encoder = Encoder(1000)
    full = encoder.size(LEAST_FULL, STRENGTH, False)
    largest_file(encoder, full, STRENGTH, may_halve=True)
    assert not any(half for *_, half in encoder.calls)
    assert 0.97 * full < len(largest_file(encoder, full - 1, STRENGTH, may_halve=True)) < full
    assert any(half for *_, half in encoder.calls)


def test_without_half_size_the_smallest_file_has_no_deltaq() -> None:
    encoder = Encoder(1000)
    full = encoder.size(0, 0, False)
    assert len(largest_file(encoder, full, STRENGTH, may_halve=False)) == full
    with pytest.raises(RateUnreachable, match=str(full)):
        largest_file(encoder, full - 1, STRENGTH, may_halve=False)
    assert not any(half for *_, half in encoder.calls)
    assert len(largest_file(encoder, full - 1, STRENGTH, may_halve=True)) < full


def test_the_typical_quantiser_of_a_rate() -> None:
    assert nominal_base_q_idx(0.001) == 245
    assert nominal_base_q_idx(100) == 10
    found = [nominal_base_q_idx(0.05 * 1.1**i) for i in range(60)]
    assert all(a >= b for a, b in pairwise(found))
    assert nominal_base_q_idx(0.2) == 200
