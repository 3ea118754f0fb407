"""The commands of `unquant` put together."""

from __future__ import annotations

import ctypes
import io
import os
import sys
from typing import Annotated, Final

import typer

from unquant.cli import benchmark, export, listing, training
from unquant.cli.bulk import bulk
from unquant.cli.compare import compare
from unquant.cli.decode import decode
from unquant.cli.encode import encode
from unquant.cli.exits import Code, guarded, say_stopped, write_line
from unquant.cli.hints import FilesCommand, HintingCommand
from unquant.cli.progress import stop_bars
from unquant.cli.selftest import selftest
from unquant.cli.signals import Terminated, raise_on_sigterm
from unquant.files import remove_unfinished

__all__ = ["app", "main"]

app = typer.Typer(
    name="unquant",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A generative image codec: photographs in very few bytes.",
    epilog="Exit codes: 0 ok, 2 usage, 3 unreadable input or unwritable output, 4 corrupt stream, 5 model missing, "
    "6 out of memory or beyond a limit, 7 part of a batch failed, 130 interrupted, 143 terminated, 1 anything else.",
)
app.command("encode", cls=FilesCommand)(guarded(encode))
app.command("decode", cls=FilesCommand)(guarded(decode))
app.command("bulk", cls=HintingCommand)(guarded(bulk))
app.command("info", cls=HintingCommand)(guarded(listing.info))
app.command("compare", cls=HintingCommand)(guarded(compare))
app.command("models")(guarded(listing.models))
app.command("bench", cls=HintingCommand)(guarded(benchmark.bench))
app.add_typer(training.app, name="train")
app.add_typer(export.app, name="export")
app.command("selftest")(guarded(selftest))
app.command("demo")(guarded(listing.demo))


_M_MMAP_THRESHOLD: Final = -3
_MMAP_THRESHOLD: Final = 16 * 2**20


def _hold_mmap_threshold() -> None:
    """From now on glibc gives arrays of 16 MiB and more back to the system when they are freed.

    Left alone it raises that bound to 32 MiB with the first that it frees, and the holes between arrays grow. With 16
    megapixels of ratevar that is a fifth of the memory, for an eighth more of the time; a lower bound costs more of it.
    """
    if sys.platform == "linux" and "MALLOC_MMAP_THRESHOLD_" not in os.environ and "GLIBC_TUNABLES" not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc alone
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)


def _print_version(wanted: bool) -> None:
    if wanted:
        import unquant

        write_line(f"unquant {unquant.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("-V", "--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """A generative image codec: photographs in very few bytes."""
    _hold_mmap_threshold()


def main() -> None:
    """The console script: runs the command that `sys.argv` names, and exits."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    raise_on_sigterm(_leave_at_once)
    try:
        app()
    except KeyboardInterrupt as error:
        _leave(say_stopped(error))
    except SystemExit as error:
        if error.code in (Code.INTERRUPTED, Code.TERMINATED):
            _leave(Code(error.code))
        raise


def _leave_at_once() -> None:
    stop_bars()
    _leave(say_stopped(Terminated()))


def _leave(code: int) -> None:
    """Exits without waiting for threads at work, which can no longer write anything (see `batch.Batch.write`)."""
    remove_unfinished()  # a second signal may have come while the first one's was being removed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            try:
                stream.flush()
            except OSError:
                continue
    os._exit(code)
