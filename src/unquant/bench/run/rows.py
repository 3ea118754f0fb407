"""Rows of results: one picture of one image from one codec at one setting; as JSON lines, one row a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from unquant.errors import InputError
from unquant.files import write_whole

__all__ = ["Row", "line_of", "read_rows", "write_rows"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One picture from one file.

    key: hash of the image's pixels, the codec with its version, and the setting. image: the file's name without its
    extension; image_id: hash of its pixels. width, height: in pixels. codec: the name of a model or of an anchor; version:
    the weights id of a model, the library's version of an anchor. target_bpp: what the file was searched for; quality: the
    codec's own scale; q_index: a model's step; at least one of the three is given. realism, steps: of the decode, None for
    anchors, and None for steps where they are the model's own. bytes: the size of the file; reached: it is within the target.
    encode_s, decode_s: seconds of the whole call, None where it was not timed. scores: by the name of the metric, None where
    it cannot be measured. environment: the id of the place it was measured in, see `unquant.bench.run.environment`.
    """

    key: str
    image: str
    image_id: str
    width: int
    height: int
    codec: str
    version: str
    target_bpp: float | None = None
    quality: float | None = None
    q_index: int | None = None
    realism: float | None = None
    steps: int | None = None
    bytes: int
    reached: bool = True
    encode_s: float | None = None
    decode_s: float | None = None
    environment: str = ""
    scores: Mapping[str, float | None] = field(default_factory=dict[str, float | None])

    @property
    def bpp(self) -> float:
        """Bits of the file per pixel of the image."""
        return 8 * self.bytes / (self.width * self.height)

    @property
    def target(self) -> str:
        """How the file was asked for, in words."""
        if self.target_bpp is not None:
            return f"{self.target_bpp:g} bpp"
        return f"quality {self.quality:g}" if self.quality is not None else f"q index {self.q_index}"

    @property
    def setting(self) -> str:
        """Codec, realism and steps in words: what a curve over the rates is called."""
        parts = [self.codec, f"realism {self.realism:g}" if self.realism is not None else ""]
        return ", ".join(filter(None, [*parts, f"{self.steps} steps" if self.steps is not None else ""]))

    def flat(self) -> dict[str, Any]:
        """The row as JSON holds it: `bpp` beside the fields that are given, scores without nesting, None for what is not
        finite.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "scores"}
        head: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        head["bpp"] = self.bpp
        finite = {k: v if v is None or math.isfinite(v) else None for k, v in self.scores.items()}
        return head | finite

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Row:
        """The inverse of `flat`. Raises KeyError or TypeError for what is no row."""
        names = {f.name for f in fields(cls)} - {"scores"}
        scores = {k: v if v is None else float(v) for k, v in values.items() if k not in names and k != "bpp"}
        return cls(**{k: v for k, v in values.items() if k in names}, scores=scores)


def line_of(row: Row) -> str:
    """The row as a line of a file, with its end."""
    return json.dumps(row.flat(), ensure_ascii=False, allow_nan=False) + "\n"


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, in its order; of rows with one key the last. A last line cut short by a kill is left out.

    Raises InputError naming file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: rows of results cannot be read: {getattr(e, 'strerror', None) or e}") from e
    rows: dict[str, Row] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = Row.from_flat(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            if number == len(lines):  # no line end: a write was interrupted
                break
            raise InputError(f"{path}, line {number}: not a row of results: {e}") from e
        rows[row.key] = row
    return list(rows.values())


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write the file in one step, so that a reader never sees half of it. Raises InputError."""
    write_whole(path, "".join(map(line_of, rows)), force=True)
