"""Running jobs: threads, progress, warnings, JSON lines, atomic output, one exit code."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import typer

from unquant.cli.exits import Code, code_of, describe, print_traceback, say, write_bytes, write_line
from unquant.cli.noise import caught_noise
from unquant.cli.paths import Job, Plan
from unquant.cli.progress import Bar
from unquant.codecs.forecast import Forecast, available_memory
from unquant.container import DEFAULT_LIMITS, Limits, limits_within
from unquant.errors import InputError, OptionError, warn
from unquant.files import check_target, write_whole

__all__ = ["Batch", "Done", "read_bytes"]


_LONG_SECONDS: Final = 10
"""From which on it is said how long a file will take."""
_HEAD_BYTES: Final = 32
"""What a file begins with that tells its format."""


class Done(NamedTuple):
    """What is known of a file that was written. line: for the standard error. row: for its JSON object."""

    line: str
    row: dict[str, Any]


_BEFORE: Final = Done("", {"skipped": True})
"""Of a job that was done before."""
Work: TypeAlias = Callable[[Job], Done]
Outcome: TypeAlias = tuple[Job, Done | Exception]


class Batch:
    """The jobs of one command.

    workers: files at a time. force: overwrite outputs. resume: leave out what an earlier run has done. as_json: one object
    per file on the standard output. quiet: errors only on the standard error. preserve_times: outputs get the times of their
    inputs. limits: on each file, and on the memory that is foretold of it. uses_torch: whether the work does: the
    workers then share its threads.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        workers: int,
        force: bool,
        as_json: bool,
        quiet: bool,
        resume: bool = False,
        preserve_times: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        uses_torch: bool = True,
    ) -> None:
        self.jobs, self.force, self.as_json, self.quiet = plan.jobs, force, as_json, quiet
        self.resume, self.preserve_times, self.limits = resume, preserve_times, limits
        self._note, self._is_partial = plan.note, plan.is_partial
        self.workers = max(1, min(workers, len(self.jobs)))
        self._uses_torch = uses_torch
        self._lock = threading.Lock()
        self._stopped = False
        self._current = threading.local()
        self._noise: Callable[[], list[str]] = list
        self.bar = Bar(len(self.jobs), shown=not quiet and not (as_json and sys.stdout.isatty()))
        if any(job.target is None for job in self.jobs):
            if as_json:
                raise OptionError("--json and the image cannot both go to the standard output: give an output file")
            if sys.stdout.isatty() and not force:
                raise OptionError(
                    "this is no text for a terminal: give an output file, or redirect the standard output"
                )

    def check(self, job: Job) -> None:
        """Raises the job's problem, or InputError if its output cannot be written: before any work is done."""
        if job.problem is not None:
            raise job.problem
        if job.target is None:
            return
        _check_output(job.target, force=self.force)
        if not job.make_folder and not job.target.parent.is_dir():
            raise InputError(f"{job.target}: cannot be written: its folder does not exist")

    def foretell(self, job: Job, forecast: Forecast) -> None:
        """Says what a job will take where that is much; raises ImageTooLarge where it is more memory than is allowed."""
        forecast.check()
        free = available_memory()
        much = forecast.seconds > _LONG_SECONDS or (free is not None and forecast.memory > free / 2)
        if much and not self.quiet:
            say(f"{job.source_name}: {forecast}", "note")

    def write(self, job: Job, data: bytes) -> None:
        """The whole output of a job, or nothing; folders are made. Raises InputError."""
        with self._lock:
            if self._stopped:
                raise InputError(f"{job.target_name}: not written: interrupted")
            if job.target is None:
                write_bytes(data)
                return
            _check_output(job.target, force=self.force)
            write_whole(job.target, data, force=self.force)
            if self.preserve_times and job.source is not None:
                _copy_times(job.source, job.target)

    def run(self, work: Work) -> None:
        """Does all jobs and reports each. Raises typer.Exit if one fails: with its own code if nothing was written and
        all failures are alike and not foreseen in a folder, with 7 otherwise."""
        written = before = 0
        codes: set[Code] = set()
        with (
            self._shown_warnings(),
            caught_noise() as self._noise,
            self.bar.of_files(),
            closing(self._outcomes(work)) as outcomes,
        ):
            for job, outcome in outcomes:
                row = outcome.row if isinstance(outcome, Done) else {}
                self.bar.advance(row.get("width", 0) * row.get("height", 0))
                if isinstance(outcome, Done):
                    written += 1
                    before += outcome is _BEFORE
                    self._report(job, outcome)
                else:
                    codes.add(self._report_failure(job, outcome))
        notes = [f"{before} of {len(self.jobs)} files were done before"] if before else []
        for note in [*notes, self._note] if not self.quiet else ():
            if note:
                say(note, "note")
        if not codes:
            return
        if len(self.jobs) > 1:
            say(f"{len(self.jobs) - written} of {len(self.jobs)} files failed", "error")
        raise typer.Exit(Code.PARTIAL if written or self._is_partial or len(codes) > 1 else codes.pop())

    def _outcomes(self, work: Work) -> Generator[Outcome]:
        if self.workers == 1:
            yield from (self._do(work, job) for job in self.jobs)
            return
        threads = max(1, _cores() // self.workers)
        limit = partial(_limit_threads, threads) if self._uses_torch else None
        pool = ThreadPoolExecutor(self.workers, initializer=limit)
        try:
            futures: list[Future[Outcome]] = [pool.submit(self._do, work, job) for job in self.jobs]
            yield from (future.result() for future in as_completed(futures))
        finally:
            with self._lock:  # a file that is being written is finished, none is begun
                self._stopped = True
            pool.shutdown(wait=False, cancel_futures=True)

    def _do(self, work: Work, job: Job) -> Outcome:
        self._current.name = job.source_name
        try:
            if self.resume and _is_done(job):
                return job, _BEFORE
            self.check(job)
            with limits_within(self.limits):
                return job, work(job)
        except BrokenPipeError:
            raise
        except Exception as error:
            if code_of(error) is None and len(self.jobs) == 1:
                raise
            return job, error
        finally:
            self._report_noise(job)

    def _report_noise(self, job: Job) -> None:
        """What libraries have printed, as warnings; with several files at a time nobody knows which one it is about."""
        for line in self._noise():
            if not self.quiet:
                say(line if self.workers > 1 else f"{job.source_name}: {line}", "warning")

    def _report(self, job: Job, done: Done) -> None:
        if self.as_json:
            write_line(json.dumps({**_names(job), **done.row}))
        elif not self.quiet and done is not _BEFORE:
            say(f"{job.source_name} -> {job.target_name}: {done.line}")

    def _report_failure(self, job: Job, error: Exception) -> Code:
        code = code_of(error) or Code.OTHER
        print_traceback(error)
        cause = describe(error, job.source_name, job.target_name)
        say(cause, "error")
        if self.as_json:
            write_line(json.dumps({**_names(job), "error": cause, "code": int(code)}))
        return code

    @contextmanager
    def _shown_warnings(self) -> Generator[None]:
        """UserWarnings as one line each with the file they are about; all others are left out."""

        def show(message: Warning | str, *_args: object, **_named: object) -> None:
            if not self.quiet:
                name = getattr(self._current, "name", "")
                say(str(message) if not name or str(message).startswith(name) else f"{name}: {message}", "warning")

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            warnings.filterwarnings("ignore", module=r"(torch|numpy)(\.|$)")
            warnings.showwarning = show
            yield


def read_bytes(source: Path | None, limit: int) -> bytes:
    """A whole file, or the standard input (None); of more than `limit` bytes the first `limit` + 1 only.

    Raises InputError, naming the file.
    """
    try:
        if source is None:
            return sys.stdin.buffer.read(limit + 1)
        with source.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise InputError(f"{source or 'standard input'}: cannot be read: {error.strerror or error}") from error


def _check_output(target: Path, *, force: bool) -> None:
    """Raises InputError for an output that may not be written. Even by force no file is overwritten that is not of the kind
    which its name says, `.unq` where the name is none of a picture: it is no earlier output."""
    from unquant.images import FORMATS

    path = check_target(target, force=force, hint="--force overwrites")
    if path.exists() and (head := read_bytes(path, _HEAD_BYTES)) and not _is_output(head, target):
        kind = FORMATS.get(target.suffix.lower(), ".unq")
        raise InputError(f"{target}: exists, and is no {kind} file: --force overwrites earlier outputs alone")


def _is_output(head: bytes, target: Path) -> bool:
    """Whether a file that begins so is of the kind that its name says."""
    from unquant.container import MAGIC
    from unquant.images import FORMATS, is_of_format

    kind = FORMATS.get(target.suffix.lower())
    return head.startswith(MAGIC) if kind is None else is_of_format(head, kind)


def _is_done(job: Job) -> bool:
    """Whether the output of a job is there, which then is whole, and no older than the input."""
    if job.problem is not None or job.source is None or job.target is None:
        return False
    try:
        made, source = job.target.stat(), job.source.stat()
    except OSError:
        return False
    if not stat.S_ISREG(made.st_mode) or made.st_mtime_ns < source.st_mtime_ns:
        return False
    return _is_output(read_bytes(job.target, _HEAD_BYTES), job.target)


def _copy_times(source: Path, target: Path) -> None:
    try:
        times = source.stat()
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    except OSError as error:
        warn(f"{target}: its times could not be set: {error.strerror}")


def _names(job: Job) -> dict[str, str]:
    return {"input": str(job.source or "-"), "output": str(job.target or "-")}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
