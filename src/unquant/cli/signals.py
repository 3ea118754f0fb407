"""SIGTERM ends a command as an interrupt does: what it has begun to write is removed, and it says so."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final

from unquant.files import remove_unfinished

__all__ = ["Terminated", "raise_on_sigterm"]

_GRACE: Final = 1.0
"""Seconds that the main thread has to come out of a library's code."""


class Terminated(KeyboardInterrupt):
    """SIGTERM was sent; raised in the main thread."""


def raise_on_sigterm(leave: Callable[[], None]) -> None:
    """From now on SIGTERM raises `Terminated`, unless the program has another handler for it by then.

    leave: ends the process at once; called from a thread where the main thread is in a library's code for longer than a
    moment: no Python handler runs before that returns. Of use on POSIX alone, and once in a process.
    """
    if os.name != "posix":
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    raised = threading.Event()

    def handler(_number: int, _frame: object) -> None:
        raised.set()
        raise Terminated

    def watch() -> None:
        while number := os.read(heard, 1):
            ours = number[0] == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is handler
            if ours and not raised.wait(_GRACE):
                remove_unfinished()
                leave()

    signal.signal(signal.SIGTERM, handler)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # or its signals would be taken for ours
    threading.Thread(target=watch, name="unquant-sigterm", daemon=True).start()
