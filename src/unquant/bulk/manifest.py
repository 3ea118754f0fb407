"""The manifest: a Parquet file of a row an image, and while a run lasts a part for each block that is done.

FILE.parts/ holds what no run has put into FILE yet: run.json, what the run was asked for, and the parts. A part is written
whole or not at all, so that a process that is killed takes nothing with it but the block that it was at.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from unquant.bulk.work import ROW
from unquant.errors import InputError, OptionError
from unquant.places import Place

__all__ = ["Manifest"]

_ASKED: Final = b"unquant.bulk"
_RUN: Final = "run.json"
_READERS: Final = 32
"""Parts that are read at a time: an object store takes its time for each."""


class Manifest:
    """The rows of a run. asked: what makes its outputs what they are, JSON-ready: a run that goes on must ask for the
    same. goes_on: once begun, whether an earlier one does."""

    def __init__(self, file: Place, asked: Mapping[str, Any]) -> None:
        self.file, self.asked, self.goes_on = file, dict(asked), False
        head, query = file.address()
        self.parts = Place(f"{head}.parts{query}")

    def begin(self, *, resume: bool, force: bool) -> dict[str, dict[str, Any]]:
        """Error and kind of the rows there are, by source; from here on parts may be written.

        Raises OptionError where an earlier run's are there and neither is asked for, and where that run asked for something
        else; InputError.
        """
        begun, whole = self.parts.child(_RUN), self.file.exists
        rows: dict[str, dict[str, Any]] = {}
        self.goes_on = (whole or begun.exists) and not force
        if self.goes_on:
            if not resume:
                raise OptionError(f"{self.file.uri}: of an earlier run: --resume goes on with it, --force begins anew")
            if begun.exists:
                self._check(json.loads(begun.read()))
            table = self._table(whole)
            errors, kinds = (table.column(name).to_pylist() for name in ("error", "kind"))
            rows = {source: {"error": errors[at], "kind": kinds[at]} for source, at in _rows(table).items()}
        elif begun.exists:
            self.parts.remove()
        self.parts.make()
        begun.write(json.dumps(self.asked).encode())
        return rows

    def _check(self, earlier: Mapping[str, Any]) -> None:
        other = [name for name in {**earlier, **self.asked} if earlier.get(name) != self.asked.get(name)]
        if other:
            told = ", ".join(f"{name} {earlier.get(name)!r}, now {self.asked.get(name)!r}" for name in sorted(other))
            raise OptionError(f"{self.file.uri}: the earlier run had {told}: --force begins anew")

    def _table(self, whole: bool) -> Any:
        """All there is, in a `pyarrow.Table`: a million rows of it take some hundred megabytes, and as dicts gigabytes."""
        import pyarrow as pa

        files = [self.file] if whole else []
        files += [self.parts.child(name) for name, _ in self.parts.files() if name.endswith(".parquet")]
        with ThreadPoolExecutor(_READERS) as pool:
            return pa.concat_tables([_schema().empty_table(), *pool.map(self._read, files)])

    def _read(self, file: Place) -> Any:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            table = parquet.read_table(pa.BufferReader(file.read()))
            if file is self.file:
                self._check(json.loads((table.schema.metadata or {})[_ASKED]))
            return table.select(list(ROW)).replace_schema_metadata().cast(_schema())
        except (pa.ArrowException, KeyError, ValueError) as error:
            if isinstance(error, OptionError):
                raise
            raise InputError(f"{file.uri}: no manifest of unquant bulk: {str(error).splitlines()[0]}") from error

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """A part of these rows; by any process. Raises InputError."""
        import pyarrow as pa

        part = self.parts.child(f"{secrets.token_hex(8)}.parquet")
        self._write(part, pa.Table.from_pylist([dict(row) for row in rows], _schema()))

    def finish(self, order: Iterable[str]) -> None:
        """Puts all parts into the file and removes them. order: of the sources. Raises InputError."""
        table = self._table(self.file.exists)
        rows = _rows(table)
        ordered = [rows.pop(source) for source in order if source in rows]
        self._write(self.file, table.take([*ordered, *rows.values()]))
        self.parts.remove()

    def _write(self, place: Place, table: Any) -> None:
        from pyarrow import parquet

        buffer = io.BytesIO()
        told = table.replace_schema_metadata({_ASKED: json.dumps(self.asked).encode()})
        parquet.write_table(told, buffer, compression="zstd")
        place.write(buffer.getvalue())


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in ROW.items()])


def _rows(table: Any) -> dict[str, int]:
    """The row of each source; of two the last without an error."""
    found: dict[str, int] = {}
    sources, good = table.column("source").to_pylist(), table.column("error").is_null().to_pylist()
    for at, (source, is_good) in enumerate(zip(sources, good, strict=True)):
        if is_good or source not in found:
            found[source] = at
    return found
