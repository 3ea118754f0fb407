"""What a run hands its workers, what they hand back, and the row that the cache has of an item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from unquant.bench.run.plan import Item, Plan, file_key, row_key
from unquant.bench.run.rows import Row
from unquant.bench.run.store import Decoded, Encoded, Store
from unquant.errors import UnquantError

__all__ = ["Event", "Failure", "Note", "Picture", "Setup", "features_key", "kept_row", "row_of"]

_SAME_PLACE = ("system", "cpu", "cores", "threads", "processes")


class Picture(NamedTuple):
    """An image to be measured. name: for the rows; id: of its pixels; width, height: in pixels."""

    path: Path
    name: str
    id: str
    width: int
    height: int


class Failure(NamedTuple):
    """What could not be measured: an image, or (codec not empty) an image with one codec."""

    image: str
    codec: str
    error: UnquantError


class Note(NamedTuple):
    """Something worth saying once."""

    text: str


Event: TypeAlias = Row | Failure | Note


@dataclass(frozen=True)
class Setup:
    """What a worker has to know; it travels to other processes.

    environment: the id of the place, environments: all of them. versions: of the metrics to be computed, by name.
    extractors: of patch features, each with its version. metrics_dir: of the weights of both. threads: of each process.
    """

    out: Path
    plan: Plan
    environment: str
    environments: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    threads: int = 1
    extractors: tuple[tuple[str, str], ...] = ()
    metrics_dir: Path | None = None

    def same_place(self, a: str, b: str) -> bool:
        """Whether seconds from two environments can be compared."""
        one, other = (self.environments.get(name) for name in (a, b))
        if one is None or other is None:
            return False
        return all(one.get(key) == other.get(key) for key in _SAME_PLACE)


def kept_row(store: Store, setup: Setup, picture: Picture, item: Item) -> Row | None:
    """The row of an item if the cache has all of it."""
    subject, request, decoding = item
    file = file_key(picture.id, subject, request)
    kept = store.file(file, subject.suffix)
    if kept is None:
        return None
    made, key = kept[1], row_key(file, decoding)
    decoded = None
    if setup.plan.metrics:
        decoded = store.decoded(key)
        if decoded is None or decoded.lacks(setup.versions):
            return None
        if not all(store.has_features(features_key(of, each)) for of in (key, picture.id) for each in setup.extractors):
            return None
    return row_of(setup, picture, item, key, made, decoded)


def features_key(key: str, extractor: tuple[str, str]) -> str:
    """Names features in the store. key: of a row, or the id of an original. extractor: its name and version."""
    return "-".join((key, *extractor))


def row_of(setup: Setup, picture: Picture, item: Item, key: str, made: Encoded, decoded: Decoded | None) -> Row:
    subject, request, decoding = item
    place = made.environment if decoded is None else decoded.environment
    scores: dict[str, float | None] = {}
    for name in setup.plan.metrics:
        version, value = (decoded.scores.get(name) if decoded else None) or ("", None)
        scores[name] = value if version == setup.versions.get(name) else None
    return Row(
        key=key,
        image=picture.name,
        image_id=picture.id,
        width=picture.width,
        height=picture.height,
        codec=subject.name,
        version=subject.version,
        target_bpp=request.bpp,
        quality=made.quality,
        q_index=made.q_index,
        realism=decoding.realism,
        steps=decoding.steps,
        bytes=made.bytes,
        reached=made.reached,
        encode_s=made.seconds if setup.same_place(made.environment, place) else None,
        decode_s=None if decoded is None else decoded.seconds,
        environment=place,
        scores=scores,
    )
