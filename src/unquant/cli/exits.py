"""From errors to exit codes and to one line on the standard error."""

from __future__ import annotations

import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any, ParamSpec

import typer

from unquant.cli.signals import Terminated
from unquant.errors import (
    BitstreamError,
    CodecMissing,
    ImageTooLarge,
    InputError,
    ModelMissing,
    OptionError,
    UnquantError,
    UnquantWarning,
    WeightsError,
)

__all__ = [
    "Code",
    "code_of",
    "describe",
    "guarded",
    "is_debugging",
    "print_traceback",
    "say",
    "say_stopped",
    "write_bytes",
    "write_line",
]

P = ParamSpec("P")

STDOUT = "standard output"


class Code(IntEnum):
    """The exit codes of `unquant`."""

    OTHER = 1  # a training run that cannot go on, or a defect of this program
    USAGE = 2
    INPUT = 3  # an input that cannot be read or an output that cannot be written
    CORRUPT = 4
    MODEL = 5
    LIMIT = 6
    PARTIAL = 7
    INTERRUPTED = 130
    TERMINATED = 143


_CODES: tuple[tuple[type[BaseException], Code], ...] = (
    (OptionError, Code.USAGE),
    (InputError, Code.INPUT),
    (BitstreamError, Code.CORRUPT),
    (ModelMissing, Code.MODEL),
    (CodecMissing, Code.MODEL),
    (WeightsError, Code.MODEL),
    (ImageTooLarge, Code.LIMIT),
    (MemoryError, Code.LIMIT),
    (UnquantError, Code.OTHER),
    (OSError, Code.INPUT),
)


def code_of(error: BaseException) -> Code | None:
    """The exit code of an error; None for one that nobody foresaw: a defect, to be shown with its traceback."""
    if _is_torch_out_of_memory(error):
        return Code.LIMIT
    return next((code for kind, code in _CODES if isinstance(error, kind)), None)


def describe(error: BaseException, *names: str) -> str:
    """`NAME: cause` of an error. names: the file it happened with first; one that the message starts with stands."""
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        lines = str(error).splitlines()
        text = f"out of memory: {lines[0]}" if lines else "out of memory"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    if code_of(error) is None:
        text = f"internal error: {type(error).__name__}: {text} (UNQUANT_DEBUG=1 shows where)"
    if names and not text.startswith(tuple(f"{name}: " for name in names)):
        text = f"{names[0]}: {text}"
    return text


def say(text: str, kind: str = "") -> None:
    """One line on the standard error, `unquant: KIND: TEXT`, or TEXT alone. Control characters are escaped."""
    line = f"unquant: {kind}: {text}" if kind else text
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]  # it is, where the shell closed it
        return
    with suppress(OSError):
        print(_printable(line), file=sys.stderr, flush=True)


def write_line(text: str) -> None:
    """One line on the standard output. Raises InputError, or BrokenPipeError."""
    _to_stdout(lambda: print(text, flush=True))


def write_bytes(data: bytes) -> None:
    """Bytes to the standard output. Raises InputError, or BrokenPipeError."""

    def write() -> None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    _to_stdout(write)


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """A command whose errors become one line and an exit code; a traceback comes before it if UNQUANT_DEBUG is set."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _plain_warnings():
                command(*args, **kwargs)
        except KeyboardInterrupt as error:
            raise typer.Exit(say_stopped(error)) from None
        except BrokenPipeError:  # whoever reads has enough
            raise typer.Exit(Code.INPUT) from None
        except Exception as error:
            code = code_of(error)
            if code is None:
                raise
            print_traceback(error)
            say(describe(error), "error")
            raise typer.Exit(code) from None

    return wrapper


def say_stopped(error: KeyboardInterrupt) -> Code:
    """Says that the command was stopped, and gives the exit code for it."""
    terminated = isinstance(error, Terminated)
    say("stopped by SIGTERM" if terminated else "interrupted", "error")
    return Code.TERMINATED if terminated else Code.INTERRUPTED


def print_traceback(error: BaseException) -> None:
    """The traceback of an error on the standard error, if UNQUANT_DEBUG is set."""
    if is_debugging():
        traceback.print_exception(error)


def is_debugging() -> bool:
    """Whether UNQUANT_DEBUG is set."""
    return os.environ.get("UNQUANT_DEBUG", "0") not in ("", "0")


@contextmanager
def _plain_warnings() -> Generator[None]:
    """Our own warnings as one line each; all others as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UnquantWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *args: Any, **named: Any) -> None:
            if issubclass(category, UnquantWarning):
                say(str(message), "warning")
            else:
                others(message, category, *args, **named)

        warnings.showwarning = show
        yield


def _to_stdout(write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        with suppress(OSError):  # or the interpreter would try once more as it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise InputError(f"{STDOUT}: cannot be written: {error.strerror or error}") from error


def _is_torch_out_of_memory(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError):
        return False
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
