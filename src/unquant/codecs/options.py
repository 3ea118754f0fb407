"""What an encode and a decode are asked for, checked as far as no codec is needed to say what is right. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict

from unquant.errors import OptionError

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt

    from unquant.images import ImageInput

__all__ = [
    "DEFAULT_QUALITY",
    "DEFAULT_SEED",
    "QUALITY_MAX",
    "ContainerName",
    "DecodeKeywords",
    "DecodeOptions",
    "EncodeKeywords",
    "EncodeOptions",
    "ImageSource",
    "QIndex",
    "Source",
    "checked_quality",
]

DEFAULT_QUALITY: Final = 40
"""Quality of an encode that names no rate."""
QUALITY_MAX: Final = 100
DEFAULT_SEED: Final = 0
"""Seed of the noise of a decode that names none."""

Source: TypeAlias = "bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]"
"""A compressed file: its bytes, its path, or a binary stream to read it from."""
ImageSource: TypeAlias = "ImageInput | Source"
"""An image, or an image file: its bytes, its path, or a binary stream to read it from."""
QIndex: TypeAlias = "int | npt.NDArray[np.integer[Any]]"
"""A quantisation step by its index, or one for each latent position, (⌈h/16⌉, ⌈w/16⌉)."""
ContainerName: TypeAlias = Literal["unq", "avif"]


class EncodeKeywords(TypedDict, total=False):
    """The fields of `EncodeOptions`, as keywords of a call."""

    quality: float | None
    bpp: float | None
    target_bytes: int | None
    q_index: QIndex | None
    metadata: bool
    realism: float | None
    steps: int | None
    seed: int | None
    effort: int | None
    container: ContainerName
    max_pixels: int | None


class DecodeKeywords(TypedDict, total=False):
    """The fields of `DecodeOptions`, as keywords of a call."""

    realism: float | None
    steps: int | None
    seed: int | None
    preview: bool
    max_pixels: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodeOptions:
    """What one encode is asked for; None leaves it to the codec. See `Codec.encode`.

    Raises OptionError for a value out of range, and for more than one of quality, bpp, target_bytes and q_index.
    """

    quality: float | None = None
    bpp: float | None = None
    target_bytes: int | None = None
    q_index: QIndex | None = None
    metadata: bool = True
    realism: float | None = None
    steps: int | None = None
    seed: int | None = None
    effort: int | None = None
    container: ContainerName = "unq"
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        rates = ("quality", "bpp", "target_bytes", "q_index")
        chosen = [name for name in rates if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise OptionError(f"{' and '.join(chosen)} exclude each other")
        if self.quality is not None:
            checked_quality(self.quality)
        if self.bpp is not None and not (isinstance(self.bpp, int | float) and 0 < self.bpp < float("inf")):
            raise OptionError(f"bpp must be positive, got {self.bpp!r}")
        if self.target_bytes is not None and not (_is_whole(self.target_bytes) and self.target_bytes > 0):
            raise OptionError(f"target_bytes must be a positive whole number, got {self.target_bytes!r}")
        if self.effort is not None and not (_is_whole(self.effort) and 1 <= self.effort <= 9):
            raise OptionError(f"effort must be a whole number in 1..9, got {self.effort!r}")
        if self.container not in ("unq", "avif"):
            raise OptionError(f"container: unq or avif, not {self.container!r}")
        _check_drawing(self.realism, self.seed)

    def target(self, pixels: int) -> int | None:
        """The bytes that a file of so many pixels may have at most; None where no size is asked for."""
        return self.target_bytes if self.bpp is None else int(self.bpp * pixels / 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """What one decode is asked for; None leaves it to the file or the weights. See `Codec.decode`.

    Raises OptionError for a value out of range, and for a preview with a realism above 0.
    """

    realism: float | None = None
    steps: int | None = None
    seed: int | None = None
    preview: bool = False
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.preview and self.realism:
            raise OptionError("preview is the plain decode: it excludes a realism above 0")
        _check_drawing(self.realism, self.seed)


def checked_quality(quality: float) -> float:
    """`quality` itself. Raises OptionError unless it is a number in 0..100."""
    if not (isinstance(quality, int | float) and 0 <= quality <= QUALITY_MAX):
        raise OptionError(f"quality must lie in 0..{QUALITY_MAX}, got {quality!r}")
    return quality


def _check_drawing(realism: float | None, seed: int | None) -> None:
    if realism is not None and not (isinstance(realism, int | float) and 0 <= realism <= 1):
        raise OptionError(f"realism must lie in 0..1, got {realism!r}")
    if seed is not None and not (_is_whole(seed) and 0 <= seed < 2**64):
        raise OptionError(f"seed must be a whole number in 0..2^64-1, got {seed!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
