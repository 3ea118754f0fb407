"""Every entropy model in turn, where the other tests take every family."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session", params=["tiny", "tiny_sliced", "tiny_cdc"])
def either_weights(request: pytest.FixtureRequest) -> Path:
    """The tiny weights file of each entropy model in turn."""
    return request.getfixturevalue(f"{request.param}_weights")
