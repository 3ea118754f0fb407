"""Every entropy model in turn, where the other tests take every family."""

from __future__ import annotations

from pathlib import Path

import pytest

from unquant.codecs.latent import AnyLatentCodec


@pytest.fixture(scope="session", params=["tiny", "tiny_sliced", "tiny_cdc"])
def either_weights(request: pytest.FixtureRequest) -> Path:
    """The tiny weights file of each entropy model in turn."""
    return request.getfixturevalue(f"{request.param}_weights")


@pytest.fixture(scope="session")
def either(request: pytest.FixtureRequest, either_weights: Path) -> AnyLatentCodec:
    """The codec of `either_weights`, here as well: one of the whole session would keep that of another folder's."""
    return request.getfixturevalue(either_weights.stem)
