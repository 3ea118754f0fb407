"""Measures one image: every file of the plan, every decode, every score that the cache lacks.

    picture ──►┤encode│cache├──► file ──►┤decode├──► image ──►┤metrics├──► scores ──► cache ──► row
                                                        └────►┤patch features├──► cache

Every step is kept as soon as it is done: a process that is killed loses the step that it was at.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

from PIL import Image

from unquant.bench.metrics import Meter
from unquant.bench.metrics.sets.patches import Extractor, load_extractor, patch_features
from unquant.bench.run.plan import Decoding, Item, Plan, Request, Subject, file_key, row_key
from unquant.bench.run.rows import Row
from unquant.bench.run.store import Decoded, Encoded, Store, finite
from unquant.bench.subjects import anchors
from unquant.bench.subjects.models import Codec, load, pixels_id, q_index_of, read_image
from unquant.bench.subjects.search import Ladder
from unquant.errors import ImageTooLarge, InputError, OptionError, RateUnreachable, UnquantError

__all__ = [
    "Event",
    "Failure",
    "Note",
    "Picture",
    "Setup",
    "Worker",
    "features_key",
    "kept_row",
    "shared_extractor",
    "shared_meter",
]

Scorer: TypeAlias = Callable[[Image.Image], Mapping[str, float | None]]

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


@lru_cache
def shared_extractor(name: str, directory: Path | None) -> Extractor:
    """The network that describes patches; loaded once in a process."""
    return load_extractor(name, directory)


@lru_cache(maxsize=3)
def shared_meter(names: tuple[str, ...], directory: Path | None) -> Meter:
    """The meter of these metrics; its networks are loaded once in a process."""
    return Meter(names, directory)


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
    return _row(setup, picture, item, key, made, decoded)


def features_key(key: str, extractor: tuple[str, str]) -> str:
    """Names features in the store. key: of a row, or the id of an original. extractor: its name and version."""
    return "-".join((key, *extractor))


def _row(setup: Setup, picture: Picture, item: Item, key: str, made: Encoded, decoded: Decoded | None) -> Row:
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


class _Open:
    """An image while it is measured: what its files and decodes share."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.image = read_image(picture.path)
        if pixels_id(self.image) != picture.id:
            raise InputError(f"{picture.path}: was changed while it was measured")
        self.meters: list[Meter] = []
        self._ladders: dict[str, Ladder] = {}
        self._scorers: dict[tuple[str, ...], Scorer] = {}

    def ladder(self, name: str) -> Ladder:
        if name not in self._ladders:
            self._ladders[name] = Ladder(self.image, name)
        return self._ladders[name]

    def scorer(self, names: tuple[str, ...], directory: Path | None) -> Scorer:
        if names not in self._scorers:
            self.meters.append(shared_meter(names, directory))
            self._scorers[names] = self.meters[-1].against(self.image)
        return self._scorers[names]


class Worker:
    """Measures images one after the other; a codec and the networks of the metrics are loaded once."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.store = setup, Store(setup.out)
        self._codecs: dict[str, Codec] = {}

    def measure(self, picture: Picture) -> Iterator[Event]:
        """The rows of one image, those that the cache has as well; a codec that fails is left out from there on."""
        try:
            opened = _Open(picture)
        except UnquantError as error:
            yield Failure(str(picture.path), "", error)
            return
        failed: set[str] = set()
        for item in self.setup.plan.items():
            name = item.subject.name
            if name in failed:
                continue
            try:
                yield kept_row(self.store, self.setup, picture, item) or self._measure(opened, item)
            except (UnquantError, MemoryError) as error:
                failed.add(name)
                yield Failure(picture.name, name, _portable(error))
        yield from (Note(text) for meter in opened.meters for text in meter.notes)

    def _measure(self, opened: _Open, item: Item) -> Row:
        subject, request, decoding = item
        file = file_key(opened.picture.id, subject, request)
        data, made = self.store.file(file, subject.suffix) or self._encode(opened, subject, request, file)
        key = row_key(file, decoding)
        decoded = self._decode(opened, subject, decoding, data, key) if self.setup.plan.metrics else None
        return _row(self.setup, opened.picture, item, key, made, decoded)

    def _encode(self, opened: _Open, subject: Subject, request: Request, key: str) -> tuple[bytes, Encoded]:
        """Make a file and keep it."""
        image = opened.image
        target = None if request.bpp is None else int(request.bpp * image.width * image.height / 8)
        reached, quality, q_index = True, request.quality, request.q_index
        if subject.is_model:
            codec = self._codec(subject, image)
            start = perf_counter()
            data, reached = _encode_model(codec, image, request, target)
            seconds = perf_counter() - start
            q_index = q_index_of(data) if q_index is None and subject.has_q_index else q_index
        else:
            ladder = opened.ladder(subject.source)
            if target is None:
                assert quality is not None
                start = perf_counter()
                data = anchors.encode(image, subject.source, quality)
                seconds = perf_counter() - start
            else:
                data, quality, reached, seconds = ladder.to_size(target)
        made: dict[str, Any] = {"quality": quality, "q_index": q_index, "reached": reached, "seconds": seconds}
        return data, self.store.put_file(key, subject.suffix, data, environment=self.setup.environment, **made)

    def _decode(self, opened: _Open, subject: Subject, decoding: Decoding, data: bytes, key: str) -> Decoded:
        """Decode a file, compute what is not known of its picture and keep it."""
        setup = self.setup
        known = self.store.decoded(key)
        image, seconds = self.picture(subject, decoding, data, opened.image)
        if image.size != opened.image.size:
            raise UnquantError(f"a picture of {image.size} came back from one of {opened.image.size}")
        scores = dict(known.scores) if known is not None else {}
        lacking = known.lacks(setup.versions) if known is not None else tuple(setup.versions)
        if lacking:
            # the meter of all names serves where all are to be measured: it may be loaded already
            names = setup.plan.metrics if len(lacking) == len(setup.versions) else lacking
            found = opened.scorer(names, setup.metrics_dir)(image)
            scores |= {name: (setup.versions[name], finite(found.get(name))) for name in lacking}
        self._extract(opened, key, image)
        # the seconds of the first decode stand, with the place that they are from
        place = (seconds, setup.environment) if known is None else (known.seconds, known.environment)
        decoded = Decoded(*place, scores)
        self.store.put_decoded(key, decoded)
        return decoded

    def _extract(self, opened: _Open, key: str, image: Image.Image) -> None:
        """Keep the features of the patches of a decode, and of its original, where they are not here yet."""
        for extractor in self.setup.extractors:
            for of, each in ((key, image), (opened.picture.id, opened.image)):
                if not self.store.has_features(features_key(of, extractor)):
                    found = patch_features(each, shared_extractor(extractor[0], self.setup.metrics_dir))
                    self.store.put_features(features_key(of, extractor), found)

    def picture(
        self, subject: Subject, decoding: Decoding, data: bytes, original: Image.Image | None = None
    ) -> tuple[Image.Image, float]:
        """The picture in a file, and the seconds of the decode. original: to get a codec going before it is timed."""
        if not subject.is_model:
            start = perf_counter()
            return anchors.decode(data, subject.source), perf_counter() - start
        codec = self._codec(subject, original)
        options = {name: value for name, value in decoding._asdict().items() if value is not None}
        start = perf_counter()
        return codec.decode(data, **options), perf_counter() - start

    def _codec(self, subject: Subject, image: Image.Image | None) -> Codec:
        """The codec of a model, loaded and warm: the first call in a process takes longer than the others."""
        if subject.name not in self._codecs:
            codec = self._codecs[subject.name] = load(subject.source)
            if image is not None:
                with suppress(UnquantError):
                    codec.decode(codec.encode(image, quality=50), realism=1.0)
        return self._codecs[subject.name]


def _encode_model(codec: Codec, image: Image.Image, request: Request, target: int | None) -> tuple[bytes, bool]:
    """A model's file and True; where the target cannot be reached, its smallest one and False."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a target above the highest rate shows in the bytes
        if target is None:
            options = {name: value for name, value in request._asdict().items() if value is not None}
            return codec.encode(image, **options), True
        try:
            return codec.encode(image, target_bytes=target), True
        except RateUnreachable as error:
            return codec.encode(image, target_bytes=error.smallest), False


def _portable(error: UnquantError | MemoryError) -> UnquantError:
    """The error as one that can travel between processes."""
    if isinstance(error, UnquantError):
        return OptionError(str(error)) if isinstance(error, RateUnreachable) else error
    return ImageTooLarge(f"out of memory: {error}".rstrip(": "))
