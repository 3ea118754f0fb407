"""Arguments of an encode and a decode, checked; the device, its precision, and what running out of memory is called."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch

from unquant.errors import ImageTooLarge, OptionError

__all__ = ["checked_seed", "checked_unit", "fast_precision", "memory_errors", "target_size", "usable_device"]


def usable_device(device: str | torch.device) -> torch.device:
    """A device on which tensors can be made. Raises OptionError for a name that torch or this machine does not know."""
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as e:
        raise OptionError(f"device {device!r} cannot be used: {str(e).splitlines()[0]}") from None
    return chosen


def fast_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it natively, else float32. Only g_a, g_s and f use it, never the exact path."""
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return torch.bfloat16 if supported is not None and supported() else torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


@contextmanager
def memory_errors() -> Generator[None]:
    """Every way in which torch and numpy run out of memory, as ImageTooLarge."""
    try:
        yield
    except MemoryError as e:
        raise ImageTooLarge("not enough memory for this image") from e
    except torch.OutOfMemoryError as e:
        raise ImageTooLarge("not enough memory on the device for this image") from e
    except RuntimeError as e:
        # the CPU allocator has no error type of its own
        if "DefaultCPUAllocator" not in str(e):
            raise
        raise ImageTooLarge("not enough memory for this image") from e


def checked_unit(name: str, value: float) -> float:
    """`value` as a float. Raises OptionError, calling it `name`, unless it is in [0, 1]."""
    if not (isinstance(value, int | float) and 0 <= value <= 1):
        raise OptionError(f"{name} must lie in 0..1, got {value!r}")
    return float(value)


def checked_seed(seed: int | None) -> int | None:
    """`seed` as an int, or None. Raises OptionError unless it is a whole number in 0..2^64−1."""
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64):
        raise OptionError(f"seed must be a whole number in 0..2^64-1, got {seed!r}")
    return None if seed is None else int(seed)


def target_size(bpp: float | None, target_bytes: int | None, pixels: int) -> int:
    """The bytes that a file may have at most. Raises OptionError for a target that is not positive and finite."""
    if target_bytes is not None:
        if isinstance(target_bytes, bool) or not isinstance(target_bytes, int) or target_bytes <= 0:
            raise OptionError(f"target_bytes must be a positive whole number, got {target_bytes!r}")
        return target_bytes
    if not (isinstance(bpp, int | float) and 0 < bpp < float("inf")):
        raise OptionError(f"bpp must be positive, got {bpp!r}")
    return int(bpp * pixels / 8)
