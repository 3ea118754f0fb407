"""A codec that needs no weights, and pictures for it."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from unquant.container import Container, Header, Tile, parse
from unquant.errors import CorruptStream, RateUnreachable

STREAM_ID = bytes.fromhex("00c0ffee")
SMALLEST = 100


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth colour gradient with a little noise: something that a codec can be asked to code."""
    y, x = np.mgrid[0:height, 0:width]
    planes = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 4, planes.shape)
    return Image.fromarray((planes + noise).clip(0, 255).astype(np.uint8))


class FakeCodec:
    """A codec whose files are true containers with a PNG in them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.threads: set[int] = set()
        self.calls: list[dict[str, Any]] = []
        self.before: Callable[[], None] = lambda: None

    def encode(self, image: Image.Image, **options: Any) -> bytes:
        self.threads.add(threading.get_ident())
        self.calls.append(options)
        self.before()
        target = options["target_bytes"]
        if target is not None and target < SMALLEST:
            raise RateUnreachable(f"at least {SMALLEST} bytes are needed", SMALLEST)
        if (options["bpp"] or 0) > 20:
            warnings.warn("the rate is above the highest, which is used", stacklevel=2)
        png = io.BytesIO()
        image.convert("RGB").save(png, "PNG")
        percent = None if options["realism"] is None else round(100 * options["realism"])
        wishes = {"realism": percent, "steps": options["steps"], "seed": options["seed"]}
        header = Header("ratevar", STREAM_ID, image.width, image.height, 321, **wishes)
        return Container(header, (Tile(png.getvalue(), 0),)).to_bytes()

    def decode(self, data: bytes, **options: Any) -> Image.Image:
        self.threads.add(threading.get_ident())
        self.calls.append(options)
        self.before()
        try:
            image = Image.open(io.BytesIO(parse(data).tiles[0].stream))
            image.load()
        except (OSError, SyntaxError) as error:
            raise CorruptStream("tile 0: symbols do not match their checksum") from error
        return image
