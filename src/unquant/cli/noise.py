"""What C libraries (libtiff, libwebp) print past Python is caught, to be shown as warnings like all others."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Final

from unquant.cli.exits import is_debugging

__all__ = ["caught_noise"]

_STDERR: Final = 2
_MOST: Final = 4
"""Lines of one file that are shown at most."""


@contextmanager
def caught_noise() -> Generator[Callable[[], list[str]]]:
    """While in this context the file descriptor 2 leads to a temporary file; `sys.stderr` still leads to where it did.

    Gives a function that returns what has been printed since its last call: a few lines, each once. Nothing is caught with
    UNQUANT_DEBUG set: a process that crashes takes along what it printed.
    """
    with ExitStack() as stack:
        try:
            os.fstat(_STDERR)
            caught = None if is_debugging() else stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # it is closed, or there is no room
            caught = None
        if caught is None:
            yield list
            return
        stack.enter_context(_redirected(caught.fileno()))
        yield _Reader(caught.fileno()).fresh


class _Reader:
    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._place, self._lock = descriptor, 0, threading.Lock()

    def fresh(self) -> list[str]:
        with self._lock:
            text = os.pread(self._descriptor, os.fstat(self._descriptor).st_size - self._place, self._place)
            self._place += len(text)
        lines = list(dict.fromkeys(filter(None, map(str.strip, text.decode(errors="replace").splitlines()))))
        return lines if len(lines) <= _MOST else [*lines[: _MOST - 1], f"and {len(lines) - _MOST + 1} lines more"]


@contextmanager
def _redirected(descriptor: int) -> Generator[None]:
    before, stream = os.dup(_STDERR), sys.stderr
    try:
        with ExitStack() as stack:
            if _is_on_stderr():
                stream.flush()
                sys.stderr = stack.enter_context(open(before, "w", 1, stream.encoding, stream.errors, closefd=False))
            os.dup2(descriptor, _STDERR)
            try:
                yield
            finally:
                sys.stderr = stream
                os.dup2(before, _STDERR)
    finally:
        os.close(before)


def _is_on_stderr() -> bool:
    try:
        return sys.stderr.fileno() == _STDERR
    except (AttributeError, OSError, ValueError):  # None, or a stream in memory
        return False
