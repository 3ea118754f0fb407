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
    """One codec of Pillow. lowest, highest: the range of its integer `quality`; options: the others, fixed."""

    title: str
    format: str
    feature: str
    lowest: int = 0
    highest: int = 100
    options: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def version(self) -> str:
        """The version of the library behind it."""
        return str(features.version(self.feature))


ANCHORS: dict[str, Anchor] = {
    "jpeg": Anchor(
        "JPEG", "JPEG", "libjpeg_turbo", 1, 100, {"optimize": True, "progressive": True, "subsampling": "4:2:0"}
    ),
    "webp": Anchor("WebP", "WEBP", "webp", options={"method": 6}),
    "avif": Anchor("AVIF", "AVIF", "avif", options={"speed": 6, "subsampling": "4:2:0", "autotiling": False}),
}


class Sized(NamedTuple):
    """A file and how it was made. fits: whether it is within the target; if not, it is the smallest possible."""

    data: bytes
    quality: int
    fits: bool


def encode(image: Image.Image, name: str, quality: int) -> bytes:
    """The file that the anchor `name` makes of the picture (as 8-bit RGB) at its own integer `quality`."""
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
    return fit(lambda quality: encode(image, name, quality), anchor.lowest, anchor.highest, target_bytes)


def fit(make: Callable[[int], bytes], lowest: int, highest: int, target_bytes: int) -> Sized:
    """Bisection on an integer quality for the largest `make(quality)` of at most `target_bytes`.

    Sizes may dip where the quality rises by one: the two qualities beyond the one found are tried as well.
    """
    files = {lowest: make(lowest)}
    low, high = lowest, highest if len(files[lowest]) <= target_bytes else lowest
    while low < high:
        middle = (low + high + 1) // 2
        files[middle] = make(middle)
        low, high = (middle, high) if len(files[middle]) <= target_bytes else (low, middle - 1)
    for quality in range(low + 1, min(low + 2, highest) + 1):
        files[quality] = files.get(quality) or make(quality)
    within = [(len(data), quality) for quality, data in files.items() if len(data) <= target_bytes]
    if not within:
        _, quality = min((len(data), quality) for quality, data in files.items())
        return Sized(files[quality], quality, False)
    _, quality = max(within)
    return Sized(files[quality], quality, True)


def _anchor(name: str) -> Anchor:
    if name not in ANCHORS:
        raise OptionError(f"no anchor codec is called {name!r}; there are {', '.join(ANCHORS)}")
    return ANCHORS[name]
