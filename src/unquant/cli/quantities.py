"""Sizes and durations as people write them."""

from __future__ import annotations

import re
from typing import Final

from unquant.errors import OptionError

__all__ = ["parse_duration", "parse_rates", "parse_size"]

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+) ?([kmg]?)(i?)b?", re.IGNORECASE)
_DURATION: Final = re.compile(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3}


def parse_size(text: str, option: str) -> int:
    """Bytes, at least 1, from `20000`, `20k`, `20KB`, `1.5MB`, `2G` (thousands) or `20KiB` (1024). Raises OptionError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise OptionError(f"{option}: {text!r} is not a size such as 20000, 20k, 20KB or 1.5MB")
    size = int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()] + 1e-6)
    if size < 1:
        raise OptionError(f"{option}: a size of at least 1 byte is needed, not {text!r}")
    return size


def parse_duration(text: str, option: str) -> float:
    """Seconds, more than 0, from `90m`, `2h`, `1h30m`, `75s` or `75`. Raises OptionError."""
    match = _DURATION.fullmatch(text.strip())
    try:
        hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    except ValueError:  # more than one decimal point
        hours = minutes = seconds = 0.0
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise OptionError(f"{option}: {text!r} is not a duration such as 90m, 2h, 1h30m or 75s")
    return total


def parse_rates(text: str, option: str) -> tuple[float, ...]:
    """Bits per pixel, each more than 0, from `0.1,0.2,0.4`. Raises OptionError."""
    try:
        rates = tuple(float(part) for part in text.split(","))
    except ValueError:
        rates = ()
    if not rates or not all(0 < rate < float("inf") for rate in rates):
        raise OptionError(f"{option}: {text!r} is not a list of rates such as 0.1,0.2,0.4")
    return rates
