"""The map of uncertainty is what the pictures of several seeds say of each pixel, whatever the family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unquant
from unquant.codecs.av1 import Av1Codec
from unquant.codecs.cdc import CdcCodec
from unquant.codecs.interface import AnyCodec
from unquant.errors import CorruptStream, OptionError

Array = np.ndarray[Any, Any]


def rms(values: Array) -> Array:
    """Over the colours."""
    return np.sqrt((values**2).mean(-1))


def pixels(codec: AnyCodec, data: bytes, **options: Any) -> Array:
    return np.asarray(codec.decode(data, **options).convert("RGB"), np.float64)


@pytest.fixture(scope="module")
def small(photo: Image.Image) -> Image.Image:
    return photo.crop((200, 120, 270, 170))


def test_deviation_and_distance(every: AnyCodec, small: Image.Image) -> None:
    data = every.encode(small, quality=10, realism=0.3)  # which counts as little as the seed that it asks for
    drawn = np.stack([pixels(every, data, realism=1, seed=seed) for seed in range(3)])
    distance = rms(drawn.mean(0) - pixels(every, data, realism=0))
    found = every.uncertainty(data, seeds=3)
    assert (found.shape, found.dtype) == ((50, 70), np.float32)
    assert np.allclose(found, rms(drawn.std(0)) + distance, atol=1e-3)
    assert found.max() > 1
    if isinstance(every, CdcCodec):  # whose tiny weights hear their noise
        assert (found - distance).mean() > 0.2
    one = every.uncertainty(data, seeds=1)
    assert np.allclose(one, rms(drawn[0] - pixels(every, data, realism=0)), atol=1e-3)


def test_a_region_of_the_map(every: AnyCodec, small: Image.Image) -> None:
    data = every.encode(small, quality=10)
    found = every.uncertainty(data, seeds=2, region=(20, 10, 30, 25))
    # decodes of a part agree within a level, and so does each of the two terms
    assert np.abs(found - every.uncertainty(data, seeds=2)[10:35, 20:50]).max() <= 2


def test_nothing_is_invented_where_nothing_was_lost(tiny_av1: Av1Codec, photo: Image.Image) -> None:
    transparent = photo.crop((0, 0, 40, 24)).convert("RGBA")
    transparent.putalpha(7)
    found = tiny_av1.uncertainty(tiny_av1.encode(transparent, quality=100), seeds=1)
    assert found.shape == (24, 40)
    assert not found.any()


def test_public_call_and_errors(tiny_av1: Av1Codec, tiny_av1_weights: Path, small: Image.Image, tmp_path: Path) -> None:
    data = tiny_av1.encode(small, quality=10)
    path = tmp_path / "a.unq"
    path.write_bytes(data)
    found = unquant.uncertainty(path, model=str(tiny_av1_weights), seeds=2)
    assert np.array_equal(found, tiny_av1.uncertainty(data, seeds=2))
    for seeds in (0, -1, 2.0, True):
        with pytest.raises(OptionError, match="seeds must be a whole number of 1 or more"):
            tiny_av1.uncertainty(data, seeds=seeds)  # pyright: ignore[reportArgumentType]
    with pytest.raises(CorruptStream):
        tiny_av1.uncertainty(data[:-3] + b"abc")
    with pytest.raises(OptionError, match="region"):
        tiny_av1.uncertainty(data, region=(0, 0, 71, 1))
