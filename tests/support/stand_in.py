"""A picture and a stand-in codec, so that the benchmarks are tested without weights."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unquant.bench.subjects import anchors
from unquant.bench.subjects.search import encode_to_size
from unquant.errors import RateUnreachable


class StandIn:
    """The interface of a codec over WebP: the q index is 100 minus the quality.

    At realism 1 red is a little off: by 4 less the steps.
    """

    weights_id = "stand-in"

    def __init__(self) -> None:
        self.decoded = 0

    def encode(self, image, *, quality=None, bpp=None, target_bytes=None, q_index=None) -> bytes:
        if q_index is not None:
            return anchors.encode(image, "webp", 100 - q_index)
        if quality is not None:
            return anchors.encode(image, "webp", round(quality))
        target = target_bytes if target_bytes is not None else int(bpp * image.width * image.height / 8)
        found = encode_to_size(image, "webp", target)
        if not found.fits:
            raise RateUnreachable(f"{target} bytes cannot be reached", len(found.data))
        return found.data

    def decode(self, data: bytes, *, realism=None, steps=None, seed=None) -> Image.Image:
        self.decoded += 1
        image = anchors.decode(data)
        added = 4 - (steps or 0)
        return image.point([min(v + added, 255) for v in range(256)] + [*range(256)] * 2) if realism else image


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """192×180 with smooth parts, edges and some noise."""
    y, x = np.mgrid[0:180, 0:192].astype(np.float64)
    noise = np.random.default_rng(0).normal(0, 6, (180, 192, 3))
    shades = np.stack([x, y, 90 + 60 * np.sin(x / 9) * np.cos(y / 13)], -1)
    shades[40:90, 60:120] += 50
    return Image.fromarray(np.clip(shades + noise, 0, 255).astype(np.uint8))
