"""What a folder of results holds. Rows are the product; the cache lets nothing be computed twice.

    OUT/rows.jsonl              one row a line: this command's
    OUT/environments.json       the places they were measured in, by their ids
    OUT/cache/files/KEY.avif    every encoded file; KEY.json beside it says how it was made
    OUT/cache/scores/KEY.json   what is known of one decode of one file, each score with the version of its metric
    OUT/cache/features/…npy     features of the patches of a picture

The cache outlives commands, rows do not: what a command does not ask for is not in its rows. All keys are hashes of what
a result depends on (see `plan`), so nothing ever has to be thrown away; a damaged entry is made again.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unquant.bench.run.json_files import read_json, write_json
from unquant.bench.run.rows import Row, line_of, write_rows
from unquant.errors import InputError
from unquant.files import write_whole

__all__ = ["Decoded", "Encoded", "Store"]


@dataclass(frozen=True)
class Encoded:
    """How a file was made. quality: the codec's own; q_index: a model's; reached: it is within the target, if there was one.

    bytes, sha256: of the file. seconds: of the whole call, the search included. environment: where.
    """

    bytes: int
    sha256: str
    quality: float | None
    q_index: int | None
    reached: bool
    seconds: float
    environment: str


@dataclass(frozen=True)
class Decoded:
    """What is known of a decode. seconds: of the call; environment: where; scores: version and value by metric."""

    seconds: float
    environment: str
    scores: Mapping[str, tuple[str, float | None]] = field(default_factory=dict[str, tuple[str, float | None]])

    def lacks(self, versions: Mapping[str, str]) -> tuple[str, ...]:
        """The metrics that are to be computed: those of `versions` that are not there, or of another version."""
        return tuple(name for name, version in versions.items() if self.scores.get(name, ("", 0))[0] != version)


class Store:
    """The folder of the results of one command. Raises InputError where it cannot be written."""

    def __init__(self, out: Path) -> None:
        self.out, self.rows_path = out, out / "rows.jsonl"
        cache = out / "cache"
        self._files, self._scores, self._features = cache / "files", cache / "scores", cache / "features"
        try:
            for folder in (self._files, self._scores, self._features):
                folder.mkdir(parents=True, exist_ok=True)
            with self.rows_path.open("a"):
                pass
        except OSError as e:
            raise InputError(f"{out}: results cannot be written here: {e.strerror or e}") from e

    # ---- cache -------------------------------------------------------------------------------------------------------

    def encoded(self, key: str) -> Encoded | None:
        """How a file was made; None if it is not here."""
        content = read_json(self._files / f"{key}.json")
        try:
            return None if content is None else Encoded(**content)
        except TypeError:
            return None

    def file(self, key: str, suffix: str) -> tuple[bytes, Encoded] | None:
        """A file and how it was made; None if it is not here, or not what was written."""
        made = self.encoded(key)
        try:
            data = (self._files / f"{key}{suffix}").read_bytes()
        except OSError:
            return None
        return (data, made) if made is not None and hashlib.sha256(data).hexdigest() == made.sha256 else None

    def put_file(self, key: str, suffix: str, data: bytes, **made: Any) -> Encoded:
        """Keep a file. made: the fields of `Encoded` that the file does not tell."""
        encoded = Encoded(len(data), hashlib.sha256(data).hexdigest(), **made)
        write_whole(self._files / f"{key}{suffix}", data, force=True)
        write_json(self._files / f"{key}.json", asdict(encoded))
        return encoded

    def decoded(self, key: str) -> Decoded | None:
        """What is known of a decode, None if nothing is."""
        content = read_json(self._scores / f"{key}.json")
        try:
            if content is None:
                return None
            scores = {name: (str(version), value) for name, (version, value) in content["scores"].items()}
            return Decoded(float(content["seconds"]), str(content["environment"]), scores)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def put_decoded(self, key: str, decoded: Decoded) -> None:
        """Keep what is known of a decode."""
        write_json(self._scores / f"{key}.json", asdict(decoded))

    def features(self, key: str) -> npt.NDArray[np.float32] | None:
        """The features of the patches of a picture, (n, d); None if they are not here."""
        try:
            return np.load(self._features / f"{key}.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None

    def has_features(self, key: str) -> bool:
        """Whether `features` has them."""
        return (self._features / f"{key}.npy").is_file()

    def put_features(self, key: str, features: npt.NDArray[np.float32]) -> None:
        """Keep features, (n, d)."""
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        write_whole(self._features / f"{key}.npy", buffer.getvalue(), force=True)

    # ---- results -----------------------------------------------------------------------------------------------------

    def start(self, rows: Iterable[Row]) -> None:
        """Replace the rows by these: what the cache has of the command that begins."""
        write_rows(self.rows_path, rows)

    def append(self, row: Row) -> None:
        """Add a row; it is on the disk when this returns, as far as the system tells. Raises InputError."""
        try:
            with self.rows_path.open("a", encoding="utf-8") as file:
                file.write(line_of(row))
        except OSError as e:
            raise InputError(f"{self.rows_path}: cannot be written: {e.strerror or e}") from e

    def environments(self) -> dict[str, Any]:
        """Places by their ids."""
        return read_json(self.out / "environments.json") or {}

    def put_environment(self, place: Mapping[str, object]) -> str:
        """Keep a place; its id, 8 hex digits, the same for the same place."""
        name = hashlib.sha256(json.dumps(place, sort_keys=True).encode()).hexdigest()[:8]
        write_json(self.out / "environments.json", {**self.environments(), name: place})
        return name


def finite(value: float | None) -> float | None:
    """The value as JSON can hold it: None for what is not finite."""
    return value if value is None or math.isfinite(value) else None
