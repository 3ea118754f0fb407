"""An anchor's file of a given size, by bisection on its quality."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

from PIL import Image

from unquant.bench.subjects import anchors

__all__ = ["Ladder", "Sized", "encode_to_size", "fit"]


class Sized(NamedTuple):
    """A file and how it was made. fits: whether it is within the target; if not, it is the smallest possible.

    seconds: of all the files that the search made.
    """

    data: bytes
    quality: float
    fits: bool
    seconds: float


class Ladder:
    """The files that one anchor makes of one picture, by the index of the quality; each is made once."""

    def __init__(self, image: Image.Image, name: str) -> None:
        self.anchor = anchors.usable(name)
        self._image, self._name = image, name
        self._made: dict[int, tuple[bytes, float]] = {}

    def at(self, index: int) -> tuple[bytes, float]:
        """The file at `index` and the seconds that it took."""
        if index not in self._made:
            start = perf_counter()
            data = anchors.encode(self._image, self._name, self.anchor.quality(index))
            self._made[index] = data, perf_counter() - start
        return self._made[index]

    def to_size(self, target_bytes: int) -> Sized:
        """The largest file of at most `target_bytes`, by bisection; else the smallest, with fits=False."""
        seconds: dict[int, float] = {}

        def make(index: int) -> bytes:
            data, seconds[index] = self.at(index)
            return data

        data, index = fit(make, self.anchor.steps, target_bytes)
        return Sized(data, self.anchor.quality(index), len(data) <= target_bytes, sum(seconds.values()))


def encode_to_size(image: Image.Image, name: str, target_bytes: int) -> Sized:
    """The largest file of at most `target_bytes`, by bisection on the quality; else the smallest, with fits=False."""
    return Ladder(image, name).to_size(target_bytes)


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
