"""How far a command has come, on a terminal: a bar for the files of a batch, or for the steps of one large picture."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from unquant.codecs.progress import watched

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Bar", "stop_bars"]

_LARGE: Final = 2_000_000
"""Pixels from which on one picture has a bar: it takes a second or more."""
_live: list[Progress] = []


class Bar:
    """The progress of a command on the standard error, if that is a terminal and `shown`; else nothing.

    files: how many there are; a single one has its steps shown.
    """

    def __init__(self, files: int, *, shown: bool) -> None:
        self._files = files
        self._shown = shown and sys.stderr is not None and sys.stderr.isatty()  # pyright: ignore[reportUnnecessaryComparison]
        self._progress: Progress | None = None

    @contextmanager
    def of_files(self) -> Generator[None]:
        """Shows how many of several files are done, while in this context."""
        if self._files == 1 or not self._shown:
            yield
            return
        with _bar("files") as progress:
            task = progress.add_task("", total=self._files, pixels=0, stage="files")
            self._progress = progress
            progress.start_task(task)
            yield
            self._progress = None

    def advance(self, pixels: int) -> None:
        """One file more is done. pixels: of its picture; 0 for one that failed."""
        if self._progress is not None:
            task = self._progress.tasks[0]
            self._progress.update(task.id, advance=1, pixels=task.fields["pixels"] + pixels)

    @contextmanager
    def of_picture(self, pixels: int) -> Generator[None]:
        """Shows the steps of a codec at work on one picture of so many pixels, if it is the only file and a large one."""
        if self._files > 1 or not self._shown or pixels < _LARGE:
            yield
            return
        with _bar("steps") as progress:
            task = progress.add_task("", total=None, pixels=0, stage="")

            def watch(stage: str, done: int, total: int | None) -> None:
                if progress.tasks[0].fields["stage"] != stage or done < progress.tasks[0].completed:
                    progress.reset(task, total=total, stage=stage, pixels=0)
                progress.update(task, completed=done, total=total, pixels=pixels * done // total if total else 0)

            with watched(watch):
                yield


@contextmanager
def _bar(unit: str) -> Generator[Progress]:
    """A bar that goes away at its end: what is done, of how many, megapixels a second, the time that is left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Throughput(ProgressColumn):
        """Megapixels a second since the start of the stage."""

        def render(self, task: Task) -> Text:
            pixels, seconds = task.fields["pixels"], task.elapsed
            return Text(f"{pixels / seconds / 1e6:.2f} MP/s" if pixels and seconds else "")

    columns = (
        TextColumn("{task.fields[stage]}"),
        BarColumn(),
        MofNCompleteColumn(),
        Throughput(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        _live.append(progress)
        yield progress
        _live.remove(progress)


def stop_bars() -> None:
    """Takes bars off the terminal; for a process that is about to end without cleaning up."""
    for progress in _live:
        progress.stop()
