"""A picture and a codec for benchmarks without weights, and none of the metrics' weights."""

from __future__ import annotations

import pytest
from bench_rows import Measured, measured
from stand_in import picture, stand_in

__all__ = ["bench", "no_metric_weights", "picture", "stand_in"]


@pytest.fixture
def no_metric_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNQUANT_METRICS", raising=False)


@pytest.fixture(scope="session")
def bench() -> Measured:
    """What a benchmark of three images would have found; tests must leave it as it is."""
    return measured()
