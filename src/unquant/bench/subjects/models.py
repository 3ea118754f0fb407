"""The codec under test, as the benchmarks see it: the public surface and no more."""

from __future__ import annotations

from typing import Protocol

from PIL import Image

import unquant
from unquant.errors import BitstreamError
from unquant.families import Family, family_of

__all__ = ["Codec", "family_of_file", "load", "q_index_of"]


class Codec(Protocol):
    """What the benchmarks ask of a codec; the object that `unquant.load` gives satisfies it."""

    @property
    def weights_id(self) -> str: ...

    def encode(
        self,
        image: Image.Image,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        target_bytes: int | None = None,
        q_index: int | None = None,
    ) -> bytes: ...

    def decode(
        self, data: bytes, *, realism: float | None = None, steps: int | None = None, seed: int | None = None
    ) -> Image.Image: ...


def load(name: str) -> Codec:
    """The codec called `name` (see `unquant models`). Raises ModelMissing."""
    return unquant.load(name)


def family_of_file(data: bytes) -> Family | None:
    """The family of a file; None for one that is not of this format."""
    try:
        return family_of(unquant.info(data).family)
    except BitstreamError:
        return None


def q_index_of(data: bytes) -> int | None:
    """The q index in a file's header; None for a file that is not of this format."""
    try:
        return unquant.info(data).q_index
    except BitstreamError:
        return None
