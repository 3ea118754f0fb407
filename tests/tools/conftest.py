"""The picture and the codec of the benchmarks' own tests."""

from __future__ import annotations

import pytest
from PIL import Image
from stand_in import StandIn, smooth_and_noisy


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    return smooth_and_noisy()
