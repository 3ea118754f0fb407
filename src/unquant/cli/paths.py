"""From the paths on the command line to one job per file: what is read, what is written, what clashes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from unquant.errors import InputError, OptionError, UnquantError
from unquant.files import IMAGE_SUFFIXES

__all__ = ["FILES", "IMAGES", "Job", "Kind", "plan"]

PIPE: Final = "-"
_EITHER: Final = frozenset([".avif"])
"""Suffixes of inputs that an output may have as well."""


@dataclass(frozen=True)
class Kind:
    """What a command takes from a folder. noun: for messages. suffixes: in lower case, with the dot."""

    noun: str
    suffixes: frozenset[str]


IMAGES: Final = Kind("images", IMAGE_SUFFIXES)
FILES: Final = Kind(".unq and .avif files", frozenset([".unq", ".avif"]))


@dataclass(frozen=True)
class Job:
    """One file to read and one to write.

    source, target: None for a pipe. make_folder: the target's folder may be made. problem: why it cannot be done.
    """

    source: Path | None
    target: Path | None
    make_folder: bool = False
    problem: UnquantError | None = None

    @property
    def source_name(self) -> str:
        """The input for messages."""
        return "standard input" if self.source is None else str(self.source)

    @property
    def target_name(self) -> str:
        """The output for messages."""
        return "standard output" if self.target is None else str(self.target)


def plan(arguments: Sequence[str], output: str | None, *, recursive: bool, kind: Kind, suffix: str) -> list[Job]:
    """The jobs of `IN... [OUT]`, or of `IN... -o OUT`; nothing is written yet.

    suffix: of an output whose name is not given, which lies beside its input. The output of several inputs, and of a
    folder (`recursive`), is a folder; the tree of a single folder goes straight into it, those of several under their
    names.
    Raises OptionError, or InputError for a folder with nothing in it.
    """
    inputs = list(arguments)
    named = output is not None
    if not named and len(inputs) > 1:
        output = inputs.pop()
    if PIPE in inputs:
        return [_pipe(inputs, output)]
    folders = [name for name in inputs if Path(name).is_dir()]
    if folders and not recursive:
        raise OptionError(f"{folders[0]}: is a folder; -r takes the {kind.noun} in it")
    if not folders and len(inputs) == 1:
        if not named and output is not None:
            _check_no_input(Path(inputs[0]), Path(output))
        jobs = [_single(Path(inputs[0]), output, kind, suffix)]
    else:
        _check_folder(output, kind, must_exist=len(inputs) > 1 and not named)
        jobs = list(_several(inputs, output, kind, suffix))
    return _without_clashes(jobs)


def _pipe(inputs: list[str], output: str | None) -> Job:
    if len(inputs) > 1:
        raise OptionError("the standard input cannot be one of several inputs")
    if output is None or output == PIPE:
        return Job(None, None)
    if _is_folder(output):
        raise OptionError(f"{output}: is a folder; what comes from the standard input needs the name of a file")
    return Job(None, Path(output))


def _single(source: Path, output: str | None, kind: Kind, suffix: str) -> Job:
    if output is None:
        return Job(source, _renamed(source, kind, suffix))
    if output == PIPE:
        return Job(source, None)
    if _is_folder(output):
        return Job(source, Path(output) / _renamed(source, kind, suffix).name, make_folder=True)
    if Path(output).suffix.lower() in kind.suffixes - _EITHER:
        raise OptionError(f"{output}: this is the name of an input, not of an output; several inputs need -o FOLDER")
    return Job(source, Path(output))


def _check_no_input(source: Path, output: Path) -> None:
    """Raises OptionError if what stands last may be an input as well, as in `*.avif` of a shell."""
    alike = source.suffix.lower() == output.suffix.lower() in _EITHER
    if alike and output.is_file() and not _same_file(source, output):
        raise OptionError(f"{output}: a file like the input, which exists: an output of that name needs -o")


def _check_folder(output: str | None, kind: Kind, *, must_exist: bool) -> None:
    """Raises OptionError if `output` cannot be the folder of several files. must_exist: or end in a slash."""
    if output is None:
        return
    if output == PIPE:
        raise OptionError("several files cannot go to the standard output")
    if Path(output).exists() and not Path(output).is_dir():
        raise OptionError(f"{output}: is not a folder; several inputs need -o FOLDER")
    if must_exist and not _is_folder(output):
        raise OptionError(f"{output}: no such folder; several inputs need -o FOLDER")


def _several(inputs: list[str], output: str | None, kind: Kind, suffix: str) -> Iterator[Job]:
    for name in inputs:
        source = Path(name)
        if not source.is_dir():
            target = _renamed(source, kind, suffix)
            yield Job(source, target if output is None else Path(output) / target.name, make_folder=True)
            continue
        root = None if output is None else Path(output)
        if root is not None and len(inputs) > 1:
            root = root / source.resolve().name
        found = False
        for path, problem in _walk(source, kind):
            found = True
            target = _renamed(path, kind, suffix)
            yield Job(path, target if root is None else root / target.relative_to(source), True, problem)
        if not found:
            raise InputError(f"{name}: no {kind.noun} in this folder")


def _walk(folder: Path, kind: Kind) -> Iterator[tuple[Path, UnquantError | None]]:
    """The files of a kind under a folder, in order of their names; hidden ones are left out. A subfolder that cannot be
    read comes with its error."""
    unreadable: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in kind.suffixes:
                yield Path(parent, name), None
    for error in unreadable:
        yield Path(error.filename), InputError(f"{error.filename}: cannot be read: {error.strerror}")


def _renamed(source: Path, kind: Kind, suffix: str) -> Path:
    return source.with_suffix(suffix) if source.suffix.lower() in kind.suffixes else Path(f"{source}{suffix}")


def _is_folder(output: str) -> bool:
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def _without_clashes(jobs: list[Job]) -> list[Job]:
    """The jobs, those with a problem that would write over an input, or over what a job before them writes."""
    inputs = {os.path.realpath(job.source): job for job in jobs if job.source is not None}
    outputs: dict[str, Job] = {}
    checked: list[Job] = []
    for job in jobs:
        if job.target is None or job.problem is not None:
            checked.append(job)
            continue
        real = os.path.realpath(job.target)
        first = outputs.setdefault(real, job)
        if real in inputs or _same_file(job.source, job.target):
            problem = OptionError(f"{job.source_name}: would be written over an input, {job.target}")
            checked.append(replace(job, problem=problem))
        elif first is not job:
            problem = OptionError(f"{job.source_name}: its output {job.target} is that of {first.source_name} as well")
            checked.append(replace(job, problem=problem))
        else:
            checked.append(job)
    return checked


def _same_file(source: Path | None, target: Path) -> bool:
    try:
        return source is not None and os.path.samefile(source, target)
    except OSError:
        return False
