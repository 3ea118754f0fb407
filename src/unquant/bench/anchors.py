"""Conventional codecs to compare with: JPEG, WebP and AVIF as Pillow writes them, at good settings, no metadata."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image, features

from unquant.errors import OptionError

__all__ = ["ANCHORS", "Anchor", "Sized", "decode", "encode", "encode_to_size", "fit"]


@dataclass(frozen=True)
class Anchor:
    """One codec of Pillow. options: beside the quality, fixed.

    lowest, highest, step: the range of its `quality` and how finely it can be set. WebP takes fractions, and needs
    them: from 0 to 1 its files grow by half.
    """

    title: str
    format: str
    feature: str
    lowest: int = 0
    highest: int = 100
    step: float = 1
    options: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def version(self) -> str:
        """The version of the library behind it."""
        return str(features.version(self.feature))

    def quality(self, index: int) -> float:
        """The quality `index` steps above the lowest; an int where only those are allowed."""
        return self.lowest + index if self.step == 1 else round(self.lowest + index * self.step, 6)


_JPEG_OPTIONS = {"optimize": True, "progressive": True, "subsampling": "4:2:0"}
_AVIF_OPTIONS = {"speed": 6, "subsampling": "4:2:0", "autotiling": False}
ANCHORS: dict[str, Anchor] = {
    "jpeg": Anchor("JPEG", "JPEG", "libjpeg_turbo", lowest=1, options=_JPEG_OPTIONS),
    "webp": Anchor("WebP", "WEBP", "webp", step=0.01, options={"method": 6}),
    "avif": Anchor("AVIF", "AVIF", "avif", options=_AVIF_OPTIONS),
}


class Sized(NamedTuple):
    """A file and how it was made. fits: whether it is within the target; if not, it is the smallest possible."""

    data: bytes
    quality: float
    fits: bool


def encode(image: Image.Image, name: str, quality: float) -> bytes:
    """The file that the anchor `name` makes of the picture (as 8-bit RGB) at its own `quality`."""
    anchor = _anchor(name)
    bare = image.convert("RGB")
    bare = bare.copy() if bare is image else bare
    bare.info.clear()
    buffer = io.BytesIO()
    bare.save(buffer, anchor.format, quality=quality, **anchor.options)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    """The picture in any file that Pillow reads, as 8-bit RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def encode_to_size(image: Image.Image, name: str, target_bytes: int) -> Sized:
    """The largest file of at most `target_bytes`, by bisection on the quality; else the smallest, with fits=False."""
    anchor = _anchor(name)
    steps = round((anchor.highest - anchor.lowest) / anchor.step)
    data, index = fit(lambda index: encode(image, name, anchor.quality(index)), steps, target_bytes)
    return Sized(data, anchor.quality(index), len(data) <= target_bytes)


def fit(make: Callable[[int], bytes], last: int, target_bytes: int) -> tuple[bytes, int]:
    """The largest `make(index)` of at most `target_bytes` and its index, by bisection over 0 … last; else the smallest.

    Sizes may dip where the index rises by one: the two beyond the one found are tried as well.
    """
    files = {0: make(0)}
    low, high = 0, last if len(files[0]) <= target_bytes else 0
    while low < high:
        middle = (low + high + 1) // 2
        files[middle] = make(middle)
        low, high = (middle, high) if len(files[middle]) <= target_bytes else (low, middle - 1)
    for index in range(low + 1, min(low + 2, last) + 1):
        files[index] = files.get(index) or make(index)
    sizes = {index: len(data) for index, data in files.items()}
    within = [index for index in sizes if sizes[index] <= target_bytes]
    chosen = max(within, key=lambda index: sizes[index]) if within else min(sizes, key=lambda index: sizes[index])
    return files[chosen], chosen


def _anchor(name: str) -> Anchor:
    if name not in ANCHORS:
        raise OptionError(f"no anchor codec is called {name!r}; there are {', '.join(ANCHORS)}")
    return ANCHORS[name]
