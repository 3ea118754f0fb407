"""What a reader accepts at most. Checked before anything whose size the file names is allocated."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from unquant.container.varint import MAX_VARINT, checked_int
from unquant.errors import ImageTooLarge

__all__ = ["DEFAULT_LIMITS", "MAX_PIXELS", "Limits", "pixel_limit"]

MAX_PIXELS: Final = 2**28
"""Width times height of a picture, unless another limit is asked for."""
_max_pixels: ContextVar[int] = ContextVar("max_pixels", default=MAX_PIXELS)


@contextmanager
def pixel_limit(max_pixels: int | None) -> Generator[None]:
    """Another limit on width times height within, in this thread, wherever `Limits` names none; None changes nothing.

    Raises OptionError for a limit below 1.
    """
    if max_pixels is None:
        yield
        return
    token = _max_pixels.set(checked_int("max_pixels", max_pixels, 1, MAX_VARINT))
    try:
        yield
    finally:
        _max_pixels.reset(token)


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds on a file. Raises OptionError if a bound is below 1.

    max_pixels: width times height; None for that of `pixel_limit`. max_dimension: width and height, each, in pixels.
    max_section: bytes of one section, or of the compressed q map. max_file: bytes of the whole file.
    """

    max_pixels: int | None = None
    max_dimension: int = 65_535
    max_section: int = 64 * 2**20
    max_file: int = 2**29

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_dimension", "max_section", "max_file"):
            if getattr(self, name) is not None:
                checked_int(name, getattr(self, name), 1, MAX_VARINT)

    @property
    def pixels(self) -> int:
        """The limit on width times height that holds."""
        return _max_pixels.get() if self.max_pixels is None else self.max_pixels

    def check_size(self, width: int, height: int) -> None:
        """Raises ImageTooLarge if an image of width by height pixels is beyond the limits."""
        if max(width, height) > self.max_dimension:
            raise ImageTooLarge(f"image of {width}x{height} pixels: at most {self.max_dimension} a side are accepted")
        if width * height > self.pixels:
            raise ImageTooLarge(
                f"image of {width}x{height} pixels: at most {self.pixels} pixels are accepted (--max-pixels, max_pixels=)"
            )

    def check_section(self, name: str, size: int) -> None:
        """Raises ImageTooLarge if a section of `size` bytes is beyond the limits."""
        if size > self.max_section:
            raise ImageTooLarge(f"{name} of {size} bytes: at most {self.max_section} are accepted")

    def check_file(self, size: int) -> None:
        """Raises ImageTooLarge if a file of `size` bytes is beyond the limits."""
        if size > self.max_file:
            raise ImageTooLarge(f"file of {size} bytes: at most {self.max_file} are accepted")


DEFAULT_LIMITS = Limits()
