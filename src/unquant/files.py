"""Files written whole or not at all: no reader finds half of one, and no failure loses the one that was there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from unquant.errors import InputError

__all__ = ["check_target", "remove_leftovers", "remove_unfinished", "whole_file", "write_whole"]

_TEMPORARY: Final = ".unquant-{}.tmp"
_unfinished: set[Path] = set()
"""Temporary files of this process."""


def check_target(path: str | os.PathLike[str], *, force: bool = False, hint: str = "") -> Path:
    """The file that a path stands for, links followed, which may be written: it is new, or `force` replaces it.

    hint: what the message says of a way to overwrite. Raises InputError, naming the path: a file that exists, a folder, what
    is no regular file, a link to nothing, also among its folders, or a path that no file can have.
    """
    name = os.fspath(path)
    try:
        dangling = next(
            (part for part in (Path(name), *Path(name).parents) if part.is_symlink() and not part.exists()), None
        )
        target = Path(os.path.realpath(name))
        is_folder, exists, is_file = target.is_dir(), target.exists(), target.is_file()
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be written: {_cause(error)}") from error
    if dangling is not None:
        raise InputError(f"{name}: cannot be written: {dangling} is a link to nothing")
    if is_folder:
        raise InputError(f"{name}: is a folder")
    if exists and not is_file:
        raise InputError(f"{name}: is not a regular file")
    if exists and not force:
        raise InputError(f"{name}: exists already{hint and f' ({hint})'}")
    return target


@contextmanager
def whole_file(path: str | os.PathLike[str], *, force: bool = False) -> Generator[Path]:
    """A temporary file beside `path` to be written in this context; at its end it is on the disk and takes the name.

    force: replace a file that exists. A symbolic link is followed; folders that are missing are made. The permissions are
    those of any new file, however it was written. Raises InputError, naming the path, for an OSError within as well; after
    any exception the old file is untouched and nothing is left behind.
    """
    name = os.fspath(path)
    target = check_target(name, force=force)
    temporary = target.with_name(_TEMPORARY.format(secrets.token_hex(8)))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _unfinished.add(temporary)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode & 0o777
        yield temporary
        temporary.chmod(mode)  # the library may have made it anew, readable to its owner alone
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        check_target(name, force=force)  # it may have appeared in the meantime
        temporary.replace(target)
    except FileExistsError as error:  # what should be its folder
        raise InputError(f"{name}: cannot be written: {target.parent} is not a folder") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be written: {_cause(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


def write_whole(path: str | os.PathLike[str], data: bytes | str, *, force: bool = False) -> None:
    """Writes a file in one step, as in `whole_file`. Text becomes UTF-8."""
    with whole_file(path, force=force) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def remove_unfinished() -> None:
    """Removes what this process has begun to write and not finished; for one that is about to end without cleaning up."""
    for path in list(_unfinished):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what a process that was killed amid `whole_file` has left; for a folder that only the caller writes to."""
    for path in folder.glob(_TEMPORARY.format("*")):
        path.unlink(missing_ok=True)


def _cause(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
