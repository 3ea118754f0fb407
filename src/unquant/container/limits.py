"""What a reader accepts at most. Checked before anything whose size the file names is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from unquant.container.varint import MAX_VARINT, checked_int
from unquant.errors import ImageTooLarge


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds on a file. Raises OptionError if a bound is below 1.

    max_pixels: width times height. max_dimension: width and height, each, in pixels.
    max_section: bytes of one section, or of the compressed q map. max_file: bytes of the whole file.
    """

    max_pixels: int = 2**28
    max_dimension: int = 65_535
    max_section: int = 64 * 2**20
    max_file: int = 2**29

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_dimension", "max_section", "max_file"):
            checked_int(name, getattr(self, name), 1, MAX_VARINT)

    def check_size(self, width: int, height: int) -> None:
        """Raises ImageTooLarge if an image of width by height pixels is beyond the limits."""
        if max(width, height) > self.max_dimension:
            raise ImageTooLarge(f"image of {width}x{height} pixels: at most {self.max_dimension} a side are accepted")
        if width * height > self.max_pixels:
            raise ImageTooLarge(f"image of {width}x{height} pixels: at most {self.max_pixels} pixels are accepted")

    def check_section(self, name: str, size: int) -> None:
        """Raises ImageTooLarge if a section of `size` bytes is beyond the limits."""
        if size > self.max_section:
            raise ImageTooLarge(f"{name} of {size} bytes: at most {self.max_section} are accepted")

    def check_file(self, size: int) -> None:
        """Raises ImageTooLarge if a file of `size` bytes is beyond the limits."""
        if size > self.max_file:
            raise ImageTooLarge(f"file of {size} bytes: at most {self.max_file} are accepted")


DEFAULT_LIMITS = Limits()
