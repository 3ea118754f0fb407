"""Where files lie: folders of this machine, and object stores by URL, through the filesystems of pyarrow and fsspec."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from urllib.parse import quote, unquote

from unquant.errors import CodecMissing, InputError, OptionError
from unquant.files import remove_leftovers, write_whole

__all__ = ["Place", "is_url"]

_SAFE: Final = "/:@!$&'()*+,;=~"
"""What stands in the path of a URL as it is, beside letters, digits, "-", "." and "_" (RFC 3986)."""
_BUFFER: Final = 2**16
_METADATA: Final = "169.254.169.254", 80
"""Where a machine of EC2 is told its role."""
_NO_METADATA: Final = "AWS_EC2_METADATA_DISABLED"
_METADATA_SECONDS: Final = 1


def is_url(name: str) -> bool:
    """Whether a name is a URL, not a path."""
    return "://" in name


@dataclass(frozen=True)
class Place:
    """A file or folder. uri: a path, or a URL such as s3://bucket/key?endpoint_override=host, in which %20 is a space.
    Pickles."""

    uri: str

    @classmethod
    def named(cls, name: str) -> Place:
        """As someone names it; a path becomes absolute, as workers may have another working folder."""
        if not is_url(name):
            return cls(os.path.abspath(name))
        head, query = cls(name).address()
        root, path = _split(head)
        return cls(f"{root}/{quote(unquote(path), _SAFE)}{query}" if path else name)

    @property
    def is_local(self) -> bool:
        """Whether it lies on a filesystem of this machine."""
        return not is_url(self.uri) or self.uri.startswith("file://")

    @property
    def name(self) -> str:
        """Its last part."""
        last = self.address()[0].rstrip("/").rsplit("/", 1)[-1]
        return unquote(last) if is_url(self.uri) else last

    def child(self, relative: str) -> Place:
        """What lies below, by names between slashes."""
        head, query = self.address()
        return Place(f"{head.rstrip('/')}/{quote(relative, _SAFE) if is_url(head) else relative}{query}")

    def address(self) -> tuple[str, str]:
        """The address, and the options behind its question mark, if it is a URL."""
        if not is_url(self.uri):
            return self.uri, ""
        head, mark, query = self.uri.partition("?")
        return head, mark + query

    def opened(self) -> tuple[Any, str]:
        """The `pyarrow.fs.FileSystem`, and the path in it. Raises OptionError for a URL that none reads, CodecMissing."""
        try:
            from pyarrow import fs
        except ImportError as error:
            raise CodecMissing(
                "pyarrow is missing: pip install 'unquant[stream]', or for bulk 'unquant[bulk]'"
            ) from error
        if not is_url(self.uri):
            return fs.LocalFileSystem(), os.path.abspath(self.uri)
        head, query = self.address()
        root, path = _split(head)
        filesystem, start = _filesystem(root, query, os.getpid())
        if filesystem is not None:
            return filesystem, f"{start.rstrip('/')}/{unquote(path)}".rstrip("/") or "/"
        try:
            from fsspec.core import url_to_fs

            found, path = cast("tuple[Any, str]", url_to_fs(unquote(head) + query))  # it keeps what it makes
        except (ImportError, ValueError, OSError) as error:
            raise OptionError(f"{self.uri}: no filesystem for {root.partition(':')[0]}://: {error}") from error
        return fs.PyFileSystem(fs.FSSpecHandler(found)), path

    @contextmanager
    def _errors(self, did: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            hint = " (are there credentials for it?)" if "ACCESS_DENIED" in str(error) else ""
            raise InputError(f"{self.uri}: cannot be {did}: {_cause(error)}{hint}") from error

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder. Raises InputError where there is neither it nor a file."""
        from pyarrow.fs import FileType

        filesystem, path = self.opened()
        with self._errors("read"):
            kind = filesystem.get_file_info(path).type
        if kind == FileType.NotFound:
            raise InputError(f"{self.uri}: no such file or folder")
        return kind == FileType.Directory

    @property
    def exists(self) -> bool:
        """Whether a file is there. Raises InputError."""
        from pyarrow.fs import FileType

        filesystem, path = self.opened()
        with self._errors("read"):
            return filesystem.get_file_info(path).type == FileType.File

    def files(self) -> Iterator[tuple[str, int]]:
        """The files below a folder, by their names relative to it, in order, with their bytes; hidden ones, and those in
        hidden folders, not. None where there is no such folder. Raises InputError."""
        from pyarrow.fs import FileSelector, FileType

        filesystem, path = self.opened()
        with self._errors("read"):
            found = filesystem.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
        base = path.rstrip("/") + "/"
        for info in sorted(found, key=lambda each: each.path):
            relative = info.path.removeprefix(base)
            if info.type == FileType.File and not any(part.startswith(".") for part in relative.split("/")):
                yield relative, int(info.size or 0)

    def read(self, limit: int | None = None) -> bytes:
        """All of a file, or its first `limit` bytes. Raises InputError."""
        filesystem, path = self.opened()
        with self._errors("read"), filesystem.open_input_file(path) as file:
            return cast(bytes, file.read() if limit is None else file.read(limit))

    @contextmanager
    def stream(self) -> Generator[BinaryIO]:
        """A file to be read from, anywhere in it. Raises InputError."""
        filesystem, path = self.opened()
        with self._errors("read"), filesystem.open_input_file(path) as file:
            # one with readline, which Pillow's readers of some formats call; each of its reads is a request
            yield cast(BinaryIO, io.BufferedReader(file, _BUFFER))

    def write(self, data: bytes) -> None:
        """The file as a whole, or not at all: in an object store an upload is there when it is complete. One that exists is
        replaced. Raises InputError."""
        if self.is_local:
            write_whole(self.local, data, force=True)
            return
        filesystem, path = self.opened()
        with self._errors("written"), filesystem.open_output_stream(path) as file:
            file.write(data)

    def make(self) -> None:
        """The folder, and those above. Raises InputError."""
        filesystem, path = self.opened()
        with self._errors("made"):
            if self.is_local:
                filesystem.create_dir(path, recursive=True)

    def remove(self) -> None:
        """The folder and what is in it, if it is there."""
        filesystem, path = self.opened()
        with self._errors("removed"):
            if any(True for _ in self.files()):
                filesystem.delete_dir(path)

    def tidy(self) -> None:
        """Removes what a process that was killed has left in a local folder, at any depth."""
        if self.is_local and (root := self.local).is_dir():
            for folder, *_ in os.walk(root):
                remove_leftovers(Path(folder))

    @property
    def local(self) -> Path:
        """The path of a local one."""
        return Path(self.opened()[1])


def _cause(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror or error).splitlines()[0].split(" Detail: ")[-1]


def _split(head: str) -> tuple[str, str]:
    """Scheme and host of a URL, and the path, which is still quoted."""
    scheme, _, rest = head.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", path


@lru_cache
def _filesystem(root: str, query: str, process: int) -> tuple[Any, str]:
    """The `pyarrow.fs.FileSystem` of a scheme and host, made once in a process with its connections, and where in it the
    host's files begin; None where pyarrow has none of that scheme. process: this one's id; a child that was forked has not
    the threads of its parent's. Raises OptionError."""
    import pyarrow as pa
    from pyarrow import fs

    if root.startswith("s3://"):
        _ask_no_one()
        # else an object is written in three requests: begun, its one part, ended
        if "allow_delayed_open=" not in query:
            query = f"{query or '?'}{'&' if query else ''}allow_delayed_open=true"
    try:
        return fs.FileSystem.from_uri(f"{root}/{query}")
    except (pa.ArrowException, ValueError, OSError) as error:
        if "nrecognized" in str(error):
            return None, ""
        raise OptionError(f"{root}: {_cause(error)}") from error


def _ask_no_one() -> None:
    """Keeps AWS's library from asking for the role of a machine that has none, which without an answer it does for 4 seconds
    at every request."""
    if _NO_METADATA not in os.environ:
        try:
            socket.create_connection(_METADATA, _METADATA_SECONDS).close()
        except OSError:
            os.environ[_NO_METADATA] = "true"
