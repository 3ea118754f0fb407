"""What a reader accepts at most. Checked before anything whose size the file names is allocated."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Final

from unquant.container.varint import MAX_VARINT, checked_int
from unquant.errors import ImageTooLarge

__all__ = [
    "DECODE_MAX_PIXELS",
    "DEFAULT_LIMITS",
    "MAX_PIXELS",
    "Limits",
    "decode_limit",
    "limits_within",
    "pixel_limit",
]

MAX_PIXELS: Final = 2**28
"""Width times height of a picture, unless another limit is asked for."""
DECODE_MAX_PIXELS: Final = 2**27
"""The same of one that is to be drawn: a file of a few bytes may ask for all of it, and for the time that it takes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds on a file. Raises OptionError if a bound is below 1.

    max_pixels: width times height; None for 2^28, and where pixels are drawn for 2^27. max_dimension: width and
    height, each, in pixels. max_section: bytes of one section, or of the compressed q map. max_file: bytes of the whole file.
    max_memory: bytes that coding or drawing may take by what is foretold of it; None for any.
    """

    max_pixels: int | None = None
    max_dimension: int = 65_535
    max_section: int = 64 * 2**20
    max_file: int = 2**29
    max_memory: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is not None:
                checked_int(field.name, getattr(self, field.name), 1, MAX_VARINT)

    @property
    def now(self) -> Limits:
        """Of the default ones those that hold within `limits_within`; all others are what they are."""
        return _within.get() if self is DEFAULT_LIMITS else self

    @property
    def pixels(self) -> int:
        """The limit on width times height that holds."""
        most = self.now.max_pixels
        return MAX_PIXELS if most is None else most

    def check_size(self, width: int, height: int) -> None:
        """Raises ImageTooLarge if an image of width by height pixels is beyond the limits."""
        side = self.now.max_dimension
        if max(width, height) > side:
            raise ImageTooLarge(f"image of {width}x{height} pixels: at most {side} a side are accepted")
        if width * height > self.pixels:
            raise ImageTooLarge(
                f"image of {width}x{height} pixels: at most {self.pixels} pixels are accepted (--max-pixels, max_pixels=)"
            )

    def check_section(self, name: str, size: int) -> None:
        """Raises ImageTooLarge if a section of `size` bytes is beyond the limits."""
        if size > self.now.max_section:
            raise ImageTooLarge(f"{name} of {size} bytes: at most {self.now.max_section} are accepted")

    def check_file(self, size: int) -> None:
        """Raises ImageTooLarge if a file of `size` bytes is beyond the limits."""
        if size > self.now.max_file:
            raise ImageTooLarge(f"file of {size} bytes: at most {self.now.max_file} are accepted")


DEFAULT_LIMITS = Limits()
_UNSET: Final = Limits()
_within: ContextVar[Limits] = ContextVar("limits", default=_UNSET)


@contextmanager
def limits_within(limits: Limits | None) -> Generator[None]:
    """Other limits within, in this thread, in place of the default ones; None changes nothing."""
    if limits is None:
        yield
        return
    token = _within.set(limits.now)
    try:
        yield
    finally:
        _within.reset(token)


@contextmanager
def pixel_limit(max_pixels: int | None) -> Generator[None]:
    """Another limit on width times height alone; None changes nothing. Raises OptionError for a limit below 1."""
    with limits_within(None if max_pixels is None else replace(_within.get(), max_pixels=max_pixels)):
        yield


@contextmanager
def decode_limit() -> Generator[None]:
    """`DECODE_MAX_PIXELS`, unless a limit on pixels has been set around."""
    with pixel_limit(DECODE_MAX_PIXELS if _within.get().max_pixels is None else None):
        yield
