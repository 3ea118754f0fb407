"""From the paths on the command line to one job per file: what is read, what is written, what clashes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from unquant.errors import CodecMissing, InputError, OptionError, UnquantError

__all__ = ["FILES", "IMAGES", "Job", "Kind", "Naming", "Plan", "plan", "without_clashes"]

PIPE: Final = "-"
_EITHER: Final = frozenset([".avif"])
"""Suffixes of inputs that an output may have as well."""
_SORTS: Final = 6
"""Of what is left out, that are named."""


class Kind:
    """What a command takes from a folder. noun: for messages."""

    noun = ".unq and .avif files"

    @cached_property
    def suffixes(self) -> frozenset[str]:
        """Of the files that are taken; in lower case, with the dot."""
        return frozenset([".unq", ".avif"])

    def takes(self, path: Path) -> bool:
        """Whether a file in a folder is taken."""
        return path.suffix.lower() in self.suffixes

    def missed(self, path: Path) -> UnquantError | None:
        """Why a file cannot be taken that should be; None where it need not be."""
        return None


class _Images(Kind):
    noun = "images"

    @cached_property
    def suffixes(self) -> frozenset[str]:
        """Of what the image library opens."""
        from unquant.images import readable_suffixes

        return readable_suffixes()

    def takes(self, path: Path) -> bool:
        """By its suffix, and where it has none by its first bytes."""
        return super().takes(path) or (not path.suffix and path.is_file() and self._begins_as_image(path))

    def missed(self, path: Path) -> UnquantError | None:
        """An image by its name, of a kind that is not read."""
        from unquant.images import names_picture, why_unread

        return why_unread(path) if names_picture(path) else None

    @staticmethod
    def _begins_as_image(path: Path) -> bool:
        from unquant.images import has_picture_magic

        try:
            with path.open("rb") as file:
                return has_picture_magic(file.read(12))
        except OSError:
            return False


IMAGES: Final = _Images()
FILES: Final = Kind()


@dataclass(frozen=True)
class Job:
    """One file to read and one to write.

    source, target: None for a pipe. make_folder: the target's folder may be made. problem: why it cannot be done. frame: of
    the source, from 0; None where nobody asks for one.
    """

    source: Path | None
    target: Path | None
    make_folder: bool = False
    problem: UnquantError | None = None
    frame: int | None = None

    @property
    def source_name(self) -> str:
        """The input for messages."""
        return "standard input" if self.source is None else str(self.source)

    @property
    def target_name(self) -> str:
        """The output for messages."""
        return "standard output" if self.target is None else str(self.target)


@dataclass(frozen=True)
class Naming:
    """How an output is called whose name is not given. kind: of the inputs. suffix: in place of the input's, or after it
    (keep)."""

    kind: Kind
    suffix: str
    keep: bool = False

    def of(self, source: Path) -> Path:
        """The output beside its input."""
        replaced = not self.keep and source.suffix.lower() in self.kind.suffixes
        return source.with_suffix(self.suffix) if replaced else Path(f"{source}{self.suffix}")


@dataclass(frozen=True)
class Plan:
    """The jobs of a command, and how many files of each sort in its folders are none of its kind (noun)."""

    jobs: list[Job]
    left_out: Counter[str]
    noun: str

    @property
    def is_partial(self) -> bool:
        """Whether a folder has something that should be taken and cannot be."""
        return any(isinstance(job.problem, (InputError, CodecMissing)) for job in self.jobs)

    @property
    def note(self) -> str:
        """One line on what is left out, empty for nothing."""
        if not self.left_out:
            return ""
        sorts = [f"{count} {sort}" for sort, count in self.left_out.most_common(_SORTS)]
        more = ["and others"] if len(self.left_out) > _SORTS else []
        return f"{self.left_out.total()} other files left out, which are no {self.noun}: {', '.join(sorts + more)}"


def plan(arguments: Sequence[str], output: str | None, *, recursive: bool, naming: Naming) -> Plan:
    """The jobs of `IN... [OUT]`, or of `IN... -o OUT`; nothing is written yet.

    naming: of an output whose name is not given, which lies beside its input. The output of several inputs, and of a
    folder (`recursive`), is a folder; the tree of a single folder goes straight into it, those of several under their
    names.
    Raises OptionError, or InputError for a folder with nothing in it.
    """
    inputs = list(arguments)
    named = output is not None
    if not named and len(inputs) > 1:
        output = inputs.pop()
    if PIPE in inputs:
        return Plan([_pipe(inputs, output)], Counter(), naming.kind.noun)
    folders = [name for name in inputs if Path(name).is_dir()]
    if folders and not recursive:
        raise OptionError(f"{folders[0]}: is a folder; -r takes the {naming.kind.noun} in it")
    left_out: Counter[str] = Counter()
    if not folders and len(inputs) == 1:
        if not named and output is not None:
            _check_no_input(Path(inputs[0]), Path(output))
        jobs = [_single(Path(inputs[0]), output, naming)]
    else:
        _check_folder(output, must_exist=len(inputs) > 1 and not named)
        jobs = list(_several(inputs, output, naming, left_out))
    return Plan(without_clashes(jobs), left_out, naming.kind.noun)


def _pipe(inputs: list[str], output: str | None) -> Job:
    if len(inputs) > 1:
        raise OptionError("the standard input cannot be one of several inputs")
    if output is None or output == PIPE:
        return Job(None, None)
    if _is_folder(output):
        raise OptionError(f"{output}: is a folder; what comes from the standard input needs the name of a file")
    return Job(None, Path(output))


def _single(source: Path, output: str | None, naming: Naming) -> Job:
    if output is None:
        return Job(source, naming.of(source))
    if output == PIPE:
        return Job(source, None)
    if _is_folder(output):
        return Job(source, Path(output) / naming.of(source).name, make_folder=True)
    if Path(output).suffix.lower() in naming.kind.suffixes - _EITHER:
        raise OptionError(f"{output}: this is the name of an input, not of an output; several inputs need -o FOLDER")
    return Job(source, Path(output))


def _check_no_input(source: Path, output: Path) -> None:
    """Raises OptionError if what stands last may be an input as well, as in `*.avif` of a shell."""
    alike = source.suffix.lower() == output.suffix.lower() in _EITHER
    if alike and output.is_file() and not _same_file(source, output):
        raise OptionError(f"{output}: a file like the input, which exists: an output of that name needs -o")


def _check_folder(output: str | None, *, must_exist: bool) -> None:
    """Raises OptionError if `output` cannot be the folder of several files. must_exist: or end in a slash."""
    if output is None:
        return
    if output == PIPE:
        raise OptionError("several files cannot go to the standard output")
    if Path(output).exists() and not Path(output).is_dir():
        raise OptionError(f"{output}: is not a folder; several inputs need -o FOLDER")
    if must_exist and not _is_folder(output):
        raise OptionError(f"{output}: no such folder; several inputs need -o FOLDER")


def _several(inputs: list[str], output: str | None, naming: Naming, left_out: Counter[str]) -> Iterator[Job]:
    """The jobs of files and folders; what a folder holds beside them is counted in left_out."""
    for name in inputs:
        source = Path(name)
        if not source.is_dir():
            target = naming.of(source)
            yield Job(source, target if output is None else Path(output) / target.name, make_folder=True)
            continue
        root = None if output is None else Path(output)
        if root is not None and len(inputs) > 1:
            root = root / source.resolve().name
        found = False
        for path, problem in _walk(source, naming, left_out):
            found = True
            target = naming.of(path)
            yield Job(path, target if root is None else root / target.relative_to(source), True, problem)
        if not found:
            raise InputError(f"{name}: no {naming.kind.noun} in this folder")


def _walk(folder: Path, naming: Naming, left_out: Counter[str]) -> Iterator[tuple[Path, UnquantError | None]]:
    """The files under a folder that are taken, in order of their names, and with the reason those that should be but cannot:
    of a kind that is not read, no regular file, a subfolder that cannot be read."""
    kind = naming.kind
    unreadable: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        left_out.update("hidden folders" for name in folders if name.startswith("."))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        left_out.update("links to folders" for name in folders if Path(parent, name).is_symlink())
        for path in (Path(parent, name) for name in sorted(names)):
            if path.name.startswith("."):
                left_out["hidden"] += 1
            elif kind.takes(path):
                yield (
                    path,
                    None if path.is_file() else InputError(f"{path}: is not a regular file, or a link to nothing"),
                )
            elif (problem := kind.missed(path)) is not None:
                yield path, problem
            elif path.suffix.lower() != naming.suffix:  # what was encoded before
                left_out[path.suffix.lower() or "without suffix"] += 1
    for error in unreadable:
        yield Path(error.filename), InputError(f"{error.filename}: cannot be read: {error.strerror}")


def _is_folder(output: str) -> bool:
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def without_clashes(jobs: list[Job]) -> list[Job]:
    """The jobs, those with a problem that would write over an input, or over what a job before them writes."""
    inputs = {file for job in jobs if job.source is not None for file in _identities(job.source)}
    outputs: dict[str | tuple[int, int], Job] = {}
    checked: list[Job] = []
    for job in jobs:
        if job.target is None or job.problem is not None:
            checked.append(job)
            continue
        files = _identities(job.target)
        first = next((outputs[file] for file in files if file in outputs), job)
        outputs.update((file, job) for file in files if file not in outputs)
        problem = None
        if inputs.intersection(files):
            problem = OptionError(f"{job.source_name}: would be written over an input, {job.target}")
        elif first is not job:
            hint = "" if first.source == job.source else " (--keep-suffix tells them apart)"
            problem = OptionError(
                f"{job.source_name}: its output {job.target} is that of {first.source_name} as well{hint}"
            )
        checked.append(job if problem is None else replace(job, problem=problem))
    return checked


def _identities(path: Path) -> list[str | tuple[int, int]]:
    """What tells that two paths are one file: where the path leads, and the file there, which may have other names."""
    real = os.path.realpath(path)
    try:
        found = os.stat(real)
    except (OSError, ValueError):
        return [real]
    return [real, (found.st_dev, found.st_ino)]


def _same_file(source: Path, target: Path) -> bool:
    return bool(set(_identities(source)) & set(_identities(target)))
