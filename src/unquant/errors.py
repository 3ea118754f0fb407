"""The errors that `unquant` raises and its warnings. A message names the file or option and the cause.

UnquantError
├── BitstreamError          the bytes are not a file that this program can decode
│   ├── NotUnquant          no `.unq` magic at the start
│   ├── CorruptStream       truncated, damaged, or a checksum that does not match
│   └── UnsupportedVersion  a newer format version, an unknown family or an unknown critical section
├── InputError              an image (or training data) that cannot be read or written
├── ImageTooLarge           pixels, dimensions or a section beyond the limits, or memory that ran out
├── ModelMissing            weights (of the codec or of a metric) that are needed and not installed
├── CodecMissing            a codec of the image library, or an optional package, that is needed and not there
├── WeightsError            a weights file that is damaged or of another format
├── OptionError             an argument outside its range, or two that exclude each other (also a ValueError)
│   ├── OptionTypeError     an argument of a type that is not taken (also a TypeError)
│   └── RateUnreachable     a target size below the smallest that the codec can reach
└── TrainingError           a training run that cannot start or go on

UnquantWarning              (a UserWarning) something was left out, or is other than asked for; the result stands
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

__all__ = [
    "BitstreamError",
    "CodecMissing",
    "CorruptStream",
    "ImageTooLarge",
    "InputError",
    "ModelMissing",
    "NotUnquant",
    "OptionError",
    "OptionTypeError",
    "RateUnreachable",
    "TrainingError",
    "UnquantError",
    "UnquantWarning",
    "UnsupportedVersion",
    "WeightsError",
    "warn",
]


class UnquantError(Exception):
    """Base of every error raised on purpose by `unquant`."""


class BitstreamError(UnquantError):
    """The bytes given are not a file that this program can decode."""


class NotUnquant(BitstreamError):
    """The bytes do not start with the magic of a `.unq` file."""


class CorruptStream(BitstreamError):
    """The file is truncated or damaged: never a wrong picture, always this error."""


class UnsupportedVersion(BitstreamError):
    """The file needs a newer program: format version, codec family or critical section unknown here."""


class InputError(UnquantError):
    """An input cannot be read as what it should be, or an output cannot be written."""


class ImageTooLarge(UnquantError):
    """Dimensions, pixels or a section beyond the limits, or more memory needed than there is."""


class ModelMissing(UnquantError):
    """Weights that are needed are not installed; the message says which and where they go."""


class CodecMissing(UnquantError):
    """The image library lacks a codec, or the installation a package, that is needed; the message says how to get it."""


class WeightsError(UnquantError):
    """A weights file is damaged, of another format, or does not match its own hashes."""


class OptionError(UnquantError, ValueError):
    """An argument is outside its range or excludes another one."""


class OptionTypeError(OptionError, TypeError):
    """An argument is of a type that is not taken."""


class RateUnreachable(OptionError):
    """The target is below the smallest file that this codec can make of this image.

    smallest: the size in bytes that can be reached.
    """

    def __init__(self, message: str, smallest: int) -> None:
        super().__init__(message)
        self.smallest = smallest

    def __reduce__(self) -> tuple[Any, ...]:
        # an exception is pickled by its arguments, of which its base knows the message alone
        return type(self), (str(self), self.smallest), vars(self)


class TrainingError(UnquantError):
    """A training run cannot start or go on; the message says what to change."""


class UnquantWarning(UserWarning):
    """Something was left out, or is other than asked for; the result stands. Base of every warning of `unquant`."""


def warn(message: str) -> None:
    """An `UnquantWarning` at the line that called the package, however deep within it the cause lies."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UnquantWarning, stacklevel=level)
