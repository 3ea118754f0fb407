"""What an encode and a decode are asked for, checked as far as no codec is needed to say what is right. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict, cast

from unquant.errors import OptionError

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt

    from unquant.container import Limits
    from unquant.images import ImageInput

__all__ = [
    "DEFAULT_QUALITY",
    "DEFAULT_ROI_GAIN",
    "DEFAULT_SEED",
    "DEFAULT_SEEDS",
    "QUALITY_MAX",
    "SCALES",
    "ContainerName",
    "DecodeKeywords",
    "DecodeOptions",
    "EncodeKeywords",
    "EncodeOptions",
    "ImageSource",
    "QIndex",
    "QMap",
    "Region",
    "Source",
    "checked_quality",
    "checked_seeds",
]

DEFAULT_QUALITY: Final = 40
"""Quality of an encode that names no rate."""
QUALITY_MAX: Final = 100
DEFAULT_SEED: Final = 0
"""Seed of the noise of a decode that names none."""
DEFAULT_ROI_GAIN: Final = 1.5
"""How much finer the step is in a region of interest than beyond it."""
MOST_ROI_GAIN: Final = 4
DEFAULT_SEEDS: Final = 4
"""Pictures that a map of uncertainty is made from."""

Source: TypeAlias = "bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]"
"""A compressed file: its bytes, its path, or a binary stream to read it from."""
ImageSource: TypeAlias = "ImageInput | Source"
"""An image, or an image file: its bytes, its path, or a binary stream to read it from."""
QIndex: TypeAlias = "int | npt.NDArray[np.integer[Any]]"
"""A quantisation step by its index, or one for each latent position, (⌈h/16⌉, ⌈w/16⌉)."""
QMap: TypeAlias = "npt.NDArray[np.integer[Any]]"
"""What is added to the q index of each latent position, (⌈h/16⌉, ⌈w/16⌉)."""
Region: TypeAlias = tuple[int, int, int, int]
"""A part of a picture in its pixels: x and y of its upper left corner, width, height."""
SCALES: Final = (1, 1 / 2, 1 / 4, 1 / 8)
"""The sizes that a picture can be decoded at."""
ContainerName: TypeAlias = Literal["unq", "avif"]


class EncodeKeywords(TypedDict, total=False):
    """The fields of `EncodeOptions`, as keywords of a call."""

    quality: float | None
    bpp: float | None
    target_bytes: int | None
    q_index: QIndex | None
    roi: ImageSource | None
    roi_gain: float
    q_map: QMap | None
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
    region: Region | None
    scale: float
    allow_partial: bool
    max_pixels: int | None
    limits: Limits | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodeOptions:
    """What one encode is asked for; None leaves it to the codec. See `Codec.encode`.

    Raises OptionError for a value out of range, for more than one of quality, bpp, target_bytes and q_index, and for more
    than one of what moves the step across the picture: roi, q_map, a q_index of many.
    """

    quality: float | None = None
    bpp: float | None = None
    target_bytes: int | None = None
    q_index: QIndex | None = None
    roi: ImageSource | None = None
    roi_gain: float = DEFAULT_ROI_GAIN
    q_map: QMap | None = None
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
        moving = [name for name in ("roi", "q_map") if getattr(self, name) is not None]
        if getattr(self.q_index, "ndim", 0):
            moving.append("a map of q_index")
        if len(moving) > 1:
            raise OptionError(f"{' and '.join(moving)} exclude each other")
        gain = self.roi_gain
        if not (isinstance(gain, int | float) and 1 / MOST_ROI_GAIN <= gain <= MOST_ROI_GAIN):
            raise OptionError(f"roi_gain must lie in 1/{MOST_ROI_GAIN}..{MOST_ROI_GAIN}, got {gain!r}")
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

    Raises OptionError for a value out of range, for a preview with a realism above 0, and for a scale below 1 with that or
    with steps.
    """

    realism: float | None = None
    steps: int | None = None
    seed: int | None = None
    preview: bool = False
    region: Region | None = None
    scale: float = 1
    allow_partial: bool = False
    max_pixels: int | None = None
    limits: Limits | None = None

    def __post_init__(self) -> None:
        if self.preview and self.realism:
            raise OptionError("preview is the plain decode: it excludes a realism above 0")
        if self.scale not in SCALES:
            raise OptionError(f"scale must be 1, 1/2, 1/4 or 1/8, got {self.scale!r}")
        if self.scale < 1 and (self.realism or self.steps):
            raise OptionError("scale: a small picture is not drawn: it excludes steps and a realism above 0")
        if self.region is not None:
            _check_region(self.region)
        _check_drawing(self.realism, self.seed)

    @property
    def reduction(self) -> int:
        """Pixels a side that one pixel of the result stands for."""
        return round(1 / self.scale)

    def part(self, width: int, height: int) -> Region:
        """What is decoded of a picture of so many pixels: the region, or all; of whole squares where they become small.

        Raises OptionError for a region that is not all within the picture.
        """
        if self.region is None:
            return 0, 0, width, height
        x, y, across, down = (int(number) for number in self.region)
        if x + across > width or y + down > height:
            raise OptionError(f"region: {across}x{down} pixels at {x},{y} are not all in a picture of {width}x{height}")
        r = self.reduction
        right, bottom = min(-(-(x + across) // r) * r, width), min(-(-(y + down) // r) * r, height)
        x, y = x // r * r, y // r * r
        return x, y, right - x, bottom - y

    @property
    def glances(self) -> bool:
        """Whether a first look will do, where the codec has one: a preview that asks for nothing else."""
        return self.preview and self.steps is None and self.scale == 1 and not self.allow_partial

    @property
    def is_plain(self) -> bool:
        """Whether realism is 0 whatever the file asks for."""
        return self.preview or self.scale < 1


def checked_quality(quality: float) -> float:
    """`quality` itself. Raises OptionError unless it is a number in 0..100."""
    if not (isinstance(quality, int | float) and 0 <= quality <= QUALITY_MAX):
        raise OptionError(f"quality must lie in 0..{QUALITY_MAX}, got {quality!r}")
    return quality


def checked_seeds(seeds: int) -> int:
    """`seeds` itself. Raises OptionError unless it is a whole number of 1 or more."""
    if not (_is_whole(seeds) and seeds > 0):
        raise OptionError(f"seeds must be a whole number of 1 or more, got {seeds!r}")
    return seeds


def _check_drawing(realism: float | None, seed: int | None) -> None:
    if realism is not None and not (isinstance(realism, int | float) and 0 <= realism <= 1):
        raise OptionError(f"realism must lie in 0..1, got {realism!r}")
    if seed is not None and not (_is_whole(seed) and 0 <= seed < 2**64):
        raise OptionError(f"seed must be a whole number in 0..2^64-1, got {seed!r}")


def _check_region(region: object) -> None:
    numbers = tuple(cast("tuple[object, ...]", region)) if isinstance(region, tuple | list) else ()
    if len(numbers) != 4 or not all(map(_is_whole, numbers)):
        raise OptionError(f"region must be four whole numbers, x, y, width and height, got {region!r}")
    x, y, width, height = cast(Region, numbers)
    if min(x, y) < 0 or min(width, height) < 1:
        raise OptionError(f"region must have x and y of 0 or more, width and height of 1 or more, got {region!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
