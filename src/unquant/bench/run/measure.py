"""Measures many images, in this process or in several; keeps the rows; gathers what a report needs.

    paths ──►┤read, hash├──► pictures ──►┤what the cache lacks├──►┤Worker, one image at a time, × jobs├──► rows.jsonl

Only this process writes rows. A run that is interrupted leaves those it has; the next one does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unquant.bench.metrics.sets.distances import Results as SetDistances
from unquant.bench.metrics.sets.distances import distances as distances_of
from unquant.bench.metrics.sets.patches import extractor_versions
from unquant.bench.run.environment import cores, environment, limited_threads
from unquant.bench.run.json_files import write_json
from unquant.bench.run.plan import Item, Plan, file_key, row_key
from unquant.bench.run.processes import events_of
from unquant.bench.run.rows import Row, write_rows
from unquant.bench.run.setup import Failure, Picture, Setup, features_key, kept_row
from unquant.bench.run.store import Store
from unquant.bench.run.worker import Worker, shared_meter
from unquant.bench.subjects.images import pixels_id, read_image
from unquant.errors import InputError, UnquantError

__all__ = ["Results", "Watch", "measure", "read_pictures"]

Watch = Callable[[int, int], None]
"""Is told how many of the rows that had to be measured are done, and how many there are."""


@dataclass
class Results:
    """What a run found. rows: in the order of the plan; failures, notes: in the order of their appearance.

    pictures: the images measured; measured: how many rows were not in the cache. distances: as JSON holds them, None where
    they were not asked for.
    """

    setup: Setup
    pictures: list[Picture]
    rows: list[Row] = field(default_factory=list[Row])
    failures: list[Failure] = field(default_factory=list[Failure])
    notes: list[str] = field(default_factory=list[str])
    measured: int = 0
    distances: dict[str, Any] | None = None

    def original(self, image_id: str) -> Image.Image:
        """The original of a row. Raises InputError."""
        return read_image(next(picture.path for picture in self.pictures if picture.id == image_id))

    def picture(self, row: Row) -> Image.Image:
        """The picture of a row, decoded once more. Raises InputError or another UnquantError."""
        item = self._items[row.key]
        kept = self._worker.store.file(file_key(row.image_id, item.subject, item.request), item.subject.suffix)
        if kept is None:
            raise InputError(f"{self.setup.out}: the file of {row.image}, {row.setting}, {row.target} is gone")
        return self._worker.picture(item.subject, item.decoding, kept[0])[0]

    @cached_property
    def _worker(self) -> Worker:
        return Worker(self.setup)

    @cached_property
    def _items(self) -> dict[str, Item]:
        return {key: item for item, _, key in _wanted(self.setup.plan, self.pictures)}


def read_pictures(paths: Iterable[Path]) -> tuple[list[Picture], list[Failure], list[str]]:
    """The images, those that cannot be read, and a note for each picture that occurs once more (it is left out)."""

    def read(path: Path) -> Picture | Failure:
        try:
            image = read_image(path)
        except UnquantError as error:
            return Failure(str(path), "", error)
        return Picture(path, path.stem, pixels_id(image), *image.size)

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(read, dict.fromkeys(paths)))
    pictures: dict[str, Picture] = {}
    notes: list[str] = []
    for each in found:
        if isinstance(each, Picture) and pictures.setdefault(each.id, each) is not each:
            notes.append(f"{each.path}: the same picture as {pictures[each.id].path}; measured once")
    return list(pictures.values()), [each for each in found if isinstance(each, Failure)], notes


def measure(
    paths: Iterable[Path],
    plan: Plan,
    out: Path,
    *,
    metrics_dir: Path | None = None,
    distances: bool = False,
    jobs: int = 1,
    threads: int | None = None,
    tell: Callable[[Failure], None] = lambda _: None,
    watch: Watch = lambda done, total: None,
) -> Results:
    """All rows of all images, kept in the folder `out`.

    metrics_dir: folder of the metrics' weights. distances: between the sets of pictures as well; needs metrics. jobs:
    processes; threads: of each, None for its share of the cores.
    tell: is given every failure at once. Raises the error of the first image if none can be read, InputError where `out`
    cannot be written, ImageTooLarge if a process dies; KeyboardInterrupt passes. In each case `rows.jsonl` has the rows
    that there are.
    """
    store = Store(out)
    pictures, failures, notes = read_pictures(paths)
    for failure in failures:
        tell(failure)
    if not pictures:
        raise failures[0].error if failures else InputError("no images")
    jobs = max(1, min(jobs, len(pictures)))
    threads = threads or max(1, cores() // jobs)
    with limited_threads(threads):
        place = _prepare(plan, store, metrics_dir, jobs, notes)
        setup = replace(place, threads=threads, extractors=_extractors(metrics_dir, notes) if distances else ())
        results = Results(setup, pictures, failures=failures, notes=notes)
        wanted = list(_wanted(plan, pictures))
        rows = {key: row for item, picture, key in wanted if (row := kept_row(store, setup, picture, item))}
        store.start(rows.values())
        pending = {picture.id: picture for _, picture, key in wanted if key not in rows}
        total, before = len(wanted) - len(rows), len(rows)
        watch(0, total)
        try:
            with closing(events_of(store, setup, list(pending.values()), jobs)) as events:
                for event in events:
                    if isinstance(event, Row):
                        if event.key not in rows:
                            rows[event.key] = event  # first: an interruption may come before the next line
                            store.append(event)
                            watch(len(rows) - before, total)
                    elif isinstance(event, Failure):
                        results.failures.append(event)
                        tell(event)
                    elif event.text not in results.notes:
                        results.notes.append(event.text)
        finally:
            results.rows = [rows[key] for _, _, key in wanted if key in rows]
            results.measured = len(rows) - before
            write_rows(store.rows_path, results.rows)
    if distances:
        found = _distances(setup, store, results)
        results.distances = found.flat() if found else None
        results.notes += found.notes if found else []
        write_json(store.out / "distances.json", results.distances or {})
    return results


def _prepare(plan: Plan, store: Store, metrics_dir: Path | None, jobs: int, notes: list[str]) -> Setup:
    """What workers have to know, beside their threads; what cannot be measured joins the notes."""
    versions: Mapping[str, str] = {}
    if plan.metrics:
        meter = shared_meter(plan.metrics, metrics_dir)
        versions = {name: version for name, version in meter.versions.items() if name in plan.metrics}
        notes += meter.notes
        if jobs > 1:  # the networks are for the other processes
            shared_meter.cache_clear()
    place = environment(
        {subject.name: subject.version for subject in plan.subjects if subject.is_model},
        [subject.source for subject in plan.subjects if not subject.is_model],
        processes=jobs,
        metrics=dict(versions),
    )
    name = store.put_environment(place)
    return Setup(store.out, plan, name, store.environments(), versions, metrics_dir=metrics_dir)


def _extractors(directory: Path | None, notes: list[str]) -> tuple[tuple[str, str], ...]:
    """The extractors of patch features that are here, with their versions."""
    versions, lacking = extractor_versions(directory)
    notes += lacking
    return tuple(versions.items())


def _distances(setup: Setup, store: Store, results: Results) -> SetDistances | None:
    """Distances between the sets of originals and of decodes, by every extractor; None without one."""
    joined: SetDistances | None = None
    for extractor in setup.extractors:

        def features(key: str, extractor: tuple[str, str] = extractor) -> npt.NDArray[np.float32] | None:
            return store.features(features_key(key, extractor))

        originals = {each.id: found for each in results.pictures if (found := features(each.id)) is not None}
        decoded: dict[tuple[str, str], dict[str, npt.NDArray[np.float32]]] = {}
        for row in results.rows:
            found = features(row.key)
            if found is not None:
                decoded.setdefault((row.target, row.setting), {})[row.image_id] = found
        here = distances_of(originals, decoded, extractor[0])
        joined = joined.joined(here) if joined else here
    return joined


def _wanted(plan: Plan, pictures: Sequence[Picture]) -> Iterator[tuple[Item, Picture, str]]:
    """Every row of the run with its key, in the order of the results: by setting, then by image."""
    for item in plan.items():
        for picture in pictures:
            yield item, picture, row_key(file_key(picture.id, item.subject, item.request), item.decoding)
