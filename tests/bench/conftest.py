"""A picture and a codec for benchmarks without weights, and none of the metrics' weights."""

from __future__ import annotations

import pytest
from stand_in import picture, stand_in

__all__ = ["no_metric_weights", "picture", "stand_in"]


@pytest.fixture
def no_metric_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNQUANT_METRICS", raising=False)
