"""The manifest: a Parquet file of a row an image, and while a run lasts a part for each block that is done.

FILE.parts/ holds what no run has put into FILE yet: run.json, what the run was asked for, and the parts. A part is written
whole or not at all, so that a process that is killed takes nothing with it but the block that it was at.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final

from unquant.bulk.work import ROW
from unquant.errors import InputError, OptionError
from unquant.places import Place

__all__ = ["Manifest"]

_ASKED: Final = b"unquant.bulk"
_RUN: Final = "run.json"


class Manifest:
    """The rows of a run. asked: what makes its outputs what they are, JSON-ready: a run that goes on must ask for the
    same."""

    def __init__(self, file: Place, asked: Mapping[str, Any]) -> None:
        self.file, self.asked = file, dict(asked)
        head, query = file.address()
        self.parts = Place(f"{head}.parts{query}")

    def begin(self, *, resume: bool, force: bool) -> dict[str, dict[str, Any]]:
        """The rows there are, by source; from here on parts may be written.

        Raises OptionError where an earlier run's are there and neither is asked for, and where that run asked for something
        else; InputError.
        """
        begun, whole = self.parts.child(_RUN), self.file.exists
        rows: dict[str, dict[str, Any]] = {}
        if (whole or begun.exists) and not force:
            if not resume:
                raise OptionError(f"{self.file.uri}: of an earlier run: --resume goes on with it, --force begins anew")
            if begun.exists:
                self._check(json.loads(begun.read()))
            rows = self._rows(whole)
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

    def _rows(self, whole: bool) -> dict[str, dict[str, Any]]:
        """All rows; of two of one source the one without an error."""
        import pyarrow as pa
        from pyarrow import parquet

        rows: dict[str, dict[str, Any]] = {}
        files = [self.file] if whole else []
        files += [self.parts.child(name) for name, _ in self.parts.files() if name.endswith(".parquet")]
        for file in files:
            try:
                table = parquet.read_table(pa.BufferReader(file.read()))
                if file is self.file:
                    self._check(json.loads((table.schema.metadata or {})[_ASKED]))
                found = table.select(list(ROW)).to_pylist()
            except (pa.ArrowException, KeyError, ValueError) as error:
                if isinstance(error, OptionError):
                    raise
                raise InputError(f"{file.uri}: no manifest of unquant bulk: {str(error).splitlines()[0]}") from error
            rows.update((row["source"], row) for row in found if row["error"] is None or row["source"] not in rows)
        return rows

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """A part of these rows; by any process. Raises InputError."""
        self._write(self.parts.child(f"{secrets.token_hex(8)}.parquet"), rows)

    def finish(self, order: Iterable[str]) -> None:
        """Puts all parts into the file and removes them. order: of the sources. Raises InputError."""
        rows = self._rows(self.file.exists)
        ordered = [rows.pop(source) for source in order if source in rows]
        self._write(self.file, [*ordered, *rows.values()])
        self.parts.remove()

    def _write(self, place: Place, rows: Iterable[Mapping[str, Any]]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        types = {name: pa.type_for_alias(kind) for name, kind in ROW.items()}
        schema = pa.schema(list(types.items()), metadata={_ASKED: json.dumps(self.asked).encode()})
        buffer = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), buffer, compression="zstd")
        place.write(buffer.getvalue())
