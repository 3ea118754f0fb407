"""Where files lie: folders of this machine, and object stores by URL, through the filesystems of pyarrow and fsspec."""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from unquant.errors import CodecMissing, InputError, OptionError
from unquant.files import remove_leftovers, write_whole

__all__ = ["Place", "is_url"]


def is_url(name: str) -> bool:
    """Whether a name is a URL, not a path."""
    return "://" in name


@dataclass(frozen=True)
class Place:
    """A file or folder. uri: as it was named, a path or a URL such as s3://bucket/key?endpoint_override=host. Pickles."""

    uri: str

    @classmethod
    def named(cls, name: str) -> Place:
        """As someone names it; a path becomes absolute, as workers may have another working folder."""
        return cls(name if is_url(name) else os.path.abspath(name))

    @property
    def is_local(self) -> bool:
        """Whether it lies on a filesystem of this machine."""
        return not is_url(self.uri) or self.uri.startswith("file://")

    @property
    def name(self) -> str:
        """Its last part."""
        return self.address()[0].rstrip("/").rsplit("/", 1)[-1]

    def child(self, relative: str) -> Place:
        """What lies below, by names between slashes."""
        head, query = self.address()
        return Place(f"{head.rstrip('/')}/{relative}{query}")

    def address(self) -> tuple[str, str]:
        """The address, and the options behind its question mark, if it is a URL."""
        if not is_url(self.uri):
            return self.uri, ""
        head, mark, query = self.uri.partition("?")
        return head, mark + query

    def opened(self) -> tuple[Any, str]:
        """The `pyarrow.fs.FileSystem`, and the path in it. Raises OptionError for a URL that none reads, CodecMissing."""
        try:
            import pyarrow as pa
            from pyarrow import fs
        except ImportError as error:
            raise CodecMissing(
                "pyarrow is missing: pip install 'unquant[stream]', or for bulk 'unquant[bulk]'"
            ) from error
        if not is_url(self.uri):
            return fs.LocalFileSystem(), os.path.abspath(self.uri)
        try:
            return fs.FileSystem.from_uri(self.uri)
        except (pa.ArrowException, ValueError, OSError) as error:
            if "nrecognized" not in str(error):
                raise OptionError(f"{self.uri}: {_cause(error)}") from error
        try:
            from fsspec.core import url_to_fs

            found, path = url_to_fs(self.uri)
        except (ImportError, ValueError, OSError) as error:
            raise OptionError(f"{self.uri}: no filesystem for {urlsplit(self.uri).scheme}://: {error}") from error
        return fs.PyFileSystem(fs.FSSpecHandler(found)), path

    @contextmanager
    def _errors(self, did: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.uri}: cannot be {did}: {_cause(error)}") from error

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
            yield cast(
                BinaryIO, io.BufferedReader(file)
            )  # one with readline, which Pillow's readers of some formats call

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
