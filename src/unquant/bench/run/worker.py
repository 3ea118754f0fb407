"""Measures one image: every file of the plan, every decode, every score that the cache lacks.

    picture ──►┤encode│cache├──► file ──►┤decode├──► image ──►┤metrics├──► scores ──► cache ──► row
                                                        └────►┤patch features├──► cache

Every step is kept as soon as it is done: a process that is killed loses the step that it was at.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from PIL import Image

from unquant.bench.metrics import Meter
from unquant.bench.metrics.sets.patches import Extractor, load_extractor, patch_features
from unquant.bench.run.plan import Decoding, Item, Request, Subject, file_key, row_key
from unquant.bench.run.rows import Row
from unquant.bench.run.setup import Event, Failure, Note, Picture, Setup, features_key, kept_row, row_of
from unquant.bench.run.store import Decoded, Encoded, Store, finite
from unquant.bench.subjects import anchors
from unquant.bench.subjects.images import pixels_id, read_image
from unquant.bench.subjects.models import Codec, load, q_index_of
from unquant.bench.subjects.search import Ladder
from unquant.errors import ImageTooLarge, InputError, OptionError, RateUnreachable, UnquantError

__all__ = ["Worker", "shared_extractor", "shared_meter"]

Scorer: TypeAlias = Callable[[Image.Image], Mapping[str, float | None]]


@lru_cache
def shared_extractor(name: str, directory: Path | None) -> Extractor:
    """The network that describes patches; loaded once in a process."""
    return load_extractor(name, directory)


@lru_cache(maxsize=3)
def shared_meter(names: tuple[str, ...], directory: Path | None) -> Meter:
    """The meter of these metrics; its networks are loaded once in a process."""
    return Meter(names, directory)


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
        return row_of(self.setup, opened.picture, item, key, made, decoded)

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
