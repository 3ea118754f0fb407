"""The device that networks run on, and its precision."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

import torch

from unquant.errors import OptionError

__all__ = ["check_process", "fast_precision", "one_thread", "survive_fork", "usable_device"]

_CLEANUP_SECONDS = 0.05
"""For the threads of a pool to end after the thread whose pool it was."""


@cache
def survive_fork() -> None:
    """From now on a forked child of this process computes in one thread.

    torch's other threads are not there in a child, and it would wait for them for ever. A child may start threads of its own.
    MKL cleans up after a thread that has ended under a lock, which a child would inherit locked: a fork waits for that.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lambda: time.sleep(_CLEANUP_SECONDS), after_in_child=lambda: torch.set_num_threads(1)
        )


def check_process(device: torch.device, process: int) -> None:
    """Raises OptionError for a device that a forked child cannot use. process: the one that was given it."""
    if device.type != "cpu" and process != os.getpid():
        raise OptionError(
            f"device {str(device)!r} cannot be used in a forked process: load the codec there, started by spawn"
        )


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
def one_thread() -> Generator[None]:
    """This thread computes alone, within this context: sums then have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
