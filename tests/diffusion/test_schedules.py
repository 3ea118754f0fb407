"""Schedules: exact ends, order, shapes, what they refuse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unquant.diffusion import geometric, randomness
from unquant.errors import OptionError

steps_of_q = st.floats(2**-10, 2**13, width=32)


@settings(deadline=None)
@given(steps_of_q, steps_of_q, st.integers(1, 40), st.floats(0.1, 8), st.sampled_from([torch.float32, torch.float64]))
def test_geometric_has_exact_ends_and_never_increases(
    a: float, b: float, steps: int, power: float, dtype: torch.dtype
) -> None:
    start, end = torch.tensor(max(a, b), dtype=dtype), torch.tensor(min(a, b), dtype=dtype)
    qs = geometric(start, end, steps, power)
    assert qs.shape == (steps + 1,)
    assert qs.dtype == dtype
    assert bool(qs[0] == start)
    assert bool(qs[-1] == end)
    assert bool((qs[1:] <= qs[:-1]).all())
    t = (torch.arange(steps + 1, dtype=torch.float64) / steps) ** power
    expected = start.double() ** (1 - t) * end.double() ** t
    torch.testing.assert_close(qs.double(), expected, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0.25, 4))
def test_geometric_of_a_map_is_that_of_its_values(seed: int, steps: int, power: float) -> None:
    start = 1 + 20 * torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(seed))
    end = torch.tensor([0.5, 1.0]).reshape(2, 1, 1, 1)
    qs = geometric(start, end, steps, power)
    assert qs.shape == (steps + 1, 2, 1, 3, 4)
    assert torch.equal(qs[0], start)
    assert torch.equal(qs[-1], end.expand_as(start))
    torch.testing.assert_close(qs[:, 1, 0, 2, 3], geometric(start[1, 0, 2, 3], end[1, 0, 0, 0], steps, power))


def test_geometric_of_equal_ends_is_constant() -> None:
    qs = geometric(torch.tensor(3.7), torch.tensor(3.7), 6)
    assert qs.tolist() == [torch.tensor(3.7).item()] * 7


def test_power_moves_the_reduction() -> None:
    start, end = torch.tensor(16.0), torch.tensor(1.0)
    assert geometric(start, end, 2).tolist() == pytest.approx([16, 4, 1])
    assert geometric(start, end, 2, 2.0).tolist() == pytest.approx([16, 8, 1])
    assert geometric(start, end, 2, 0.5)[1] < 4


@pytest.mark.parametrize(
    ("start", "end", "steps", "power"),
    [
        (2.0, 1.0, 0, 1.0),
        (2.0, 1.0, 4, 0.0),
        (2.0, 1.0, 4, float("nan")),
        (2.0, 1.0, 4, float("inf")),
        (1.0, 2.0, 4, 1.0),
        (1.0, 0.0, 4, 1.0),
        (1.0, -1.0, 4, 1.0),
        (float("nan"), 1.0, 4, 1.0),
        (float("inf"), 1.0, 4, 1.0),
        (1.0, float("nan"), 4, 1.0),
    ],
)
def test_geometric_refuses(start: float, end: float, steps: int, power: float) -> None:
    with pytest.raises(OptionError):
        geometric(torch.tensor(start), torch.tensor(end), steps, power)


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 30))
def test_randomness_is_linear_and_in_range(first: float, last: float, steps: int) -> None:
    alphas = randomness(first, last, steps)
    assert alphas.shape == (steps,)
    assert alphas[0].item() == pytest.approx(first, abs=1e-7)
    if steps > 1:
        assert alphas[-1].item() == pytest.approx(last, abs=1e-7)
        torch.testing.assert_close(alphas.diff(), torch.full((steps - 1,), (last - first) / (steps - 1)))
    assert bool(((alphas >= 0) & (alphas <= 1)).all())


@pytest.mark.parametrize(
    ("first", "last", "steps"), [(-0.1, 1, 3), (0, 1.1, 3), (float("nan"), 1, 3), (0.0, float("nan"), 3), (0, 1, 0)]
)
def test_randomness_refuses(first: float, last: float, steps: int) -> None:
    with pytest.raises(OptionError):
        randomness(first, last, steps)
