"""Limits on pictures, and whatever Pillow raises as one of `unquant.errors`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import RLock
from typing import Final

from PIL import Image, UnidentifiedImageError

from unquant.container import DEFAULT_LIMITS, MAX_PIXELS
from unquant.errors import ImageTooLarge, InputError, OptionError, UnquantError

__all__ = ["MAX_PIXELS", "cause_of", "check_size", "typed_errors", "without_pillows_limit"]

_PILLOW_LIMIT: Final = RLock()


@contextmanager
def typed_errors(name: str, action: str = "cannot be read") -> Generator[None]:
    """Whatever Pillow or the system raises within, as InputError or ImageTooLarge."""
    try:
        yield
    except UnquantError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise ImageTooLarge(f"{name}: {cause_of(error)}") from error
    except Exception as error:  # third-party parsers on hostile bytes raise nearly everything
        raise InputError(f"{name}: {action}: {cause_of(error)}") from error


@contextmanager
def without_pillows_limit() -> Generator[None]:
    """Pillow's own limit on pixels does not hold within, so that ours is the only one. The limit is Pillow's for the whole
    process: keep it short."""
    with _PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def cause_of(error: BaseException) -> str:
    """What went wrong, for a message."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format, or one whose header is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def check_size(name: str, height: int, width: int, max_pixels: int | None = None) -> None:
    """Raises OptionError for a picture without pixels, ImageTooLarge for one with too many.

    max_pixels: None is the limit of `container.pixel_limit`.
    """
    max_pixels = DEFAULT_LIMITS.pixels if max_pixels is None else max_pixels
    if height < 1 or width < 1:
        raise OptionError(f"{name}: has no pixels ({width}x{height})")
    if height * width > max_pixels:
        raise ImageTooLarge(
            f"{name}: {width}x{height} pixels: at most {max_pixels} are accepted (--max-pixels, max_pixels=)"
        )
