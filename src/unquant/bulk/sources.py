"""What a run works on: a folder, a list of names, or a Parquet file or folder of paths or of the images' bytes."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from unquant.errors import InputError, OptionError
from unquant.places import Place, is_url

__all__ = ["Item", "items_of"]

_LISTS: Final = (".txt", ".lst")
_PARQUET: Final = (".parquet", ".pq")


@dataclass(frozen=True)
class Item:
    """One input. source: its path or URL; of bytes in Parquet FILE#ROW. relative: the name that its output is made from.
    group and row: where in the Parquet file FILE its bytes are, −1 for a file of its own. size: bytes, 0 where unknown."""

    source: str
    relative: str
    group: int = -1
    row: int = -1
    size: int = 0

    def read(self, column: str) -> bytes:
        """Its bytes. column: of those in Parquet. Raises InputError."""
        if self.group < 0:
            return Place(self.source).read()
        return _group(self.source.rpartition("#")[0], self.group, column)[self.row]


_last: dict[tuple[str, int, str], Sequence[bytes]] = {}
"""The row group that was read last: the images of a block lie together."""


def _group(uri: str, group: int, column: str) -> Sequence[bytes]:
    from pyarrow import parquet

    key = uri, group, column
    if key not in _last:
        _last.clear()
        with Place(uri).stream() as file:
            table = parquet.ParquetFile(file).read_row_group(group, columns=[column])
        _last[key] = [value.as_py() or b"" for value in table.column(column)]
    return _last[key]


def items_of(source: Place, suffixes: frozenset[str], column: str | None) -> list[Item]:
    """All inputs in order. suffixes: of the files that are taken from a folder. column: of a Parquet file, "path" or
    "bytes" by default, whichever there is. Raises InputError where there is nothing, OptionError."""
    lowered = source.uri.partition("?")[0].lower()
    if lowered.endswith(_LISTS):
        found = list(_listed(source.read().decode("utf-8", "surrogateescape").splitlines()))
    elif lowered.endswith(_PARQUET):
        parts = [source]
        if source.is_folder:
            parts = [source.child(name) for name, _ in source.files() if name.lower().endswith(_PARQUET)]
        found = [item for part in parts for item in _in_parquet(part, column)]
    elif source.is_folder:
        found = [
            Item(source.child(name).uri, name, size=size)
            for name, size in source.files()
            if posixpath.splitext(name)[1].lower() in suffixes
        ]
    else:
        found = [Item(source.uri, source.name)]
    if not found:
        raise InputError(f"{source.uri}: nothing in it that is to be read")
    return found


def _listed(lines: Sequence[str]) -> Iterator[Item]:
    """An item for each path or URL, relative to the working folder; the outputs' names begin below what all have in
    common."""
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    plain = [Place(name).address()[0] for name in names]
    common = posixpath.commonprefix([posixpath.dirname(name) + "/" for name in plain]).rpartition("/")[0]
    for name, address in zip(names, plain, strict=True):
        below = address.removeprefix(common)
        yield Item(Place.named(name).uri, _below(unquote(below) if is_url(name) else below))


def _below(name: str) -> str:
    """A name that leads out of no folder."""
    return posixpath.normpath("/" + name.replace("://", "/")).lstrip("/")


def _in_parquet(file: Place, column: str | None) -> Iterator[Item]:
    import pyarrow as pa
    from pyarrow import parquet

    with file.stream() as stream:
        try:
            opened = parquet.ParquetFile(stream)
            schema = opened.schema_arrow
            chosen = column or next((name for name in ("path", "bytes") if name in schema.names), None)
            if chosen is None or chosen not in schema.names:
                wanted = (
                    f"no column {column!r}" if column else "neither a column path nor bytes (--column names another)"
                )
                raise OptionError(f"{file.uri}: {wanted}; it has {', '.join(schema.names)}")
            if pa.types.is_string(schema.field(chosen).type) or pa.types.is_large_string(schema.field(chosen).type):
                yield from _listed([str(name) for name in opened.read([chosen]).column(chosen).to_pylist() if name])
                return
            named = next((name for name in ("name", "path") if name in schema.names and name != chosen), None)
            count = 0
            for group in range(opened.metadata.num_row_groups):
                rows = opened.metadata.row_group(group).num_rows
                names: list[Any] = [None] * rows
                if named is not None:
                    names = opened.read_row_group(group, columns=[named]).column(named).to_pylist()
                for row in range(rows):
                    relative = _below(str(names[row] or f"{count:08}"))
                    yield Item(f"{file.uri}#{count}", relative, group, row)
                    count += 1
        except pa.ArrowException as error:
            raise InputError(f"{file.uri}: no Parquet file: {str(error).splitlines()[0]}") from error
