"""A run: the sources in blocks of so many pixels, through actors of Ray Data, into outputs and a manifest."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, Final, TextIO, TypeAlias, cast

from unquant.bulk.manifest import Manifest
from unquant.bulk.sources import Item, items_of
from unquant.bulk.work import Task, Worker, empty_row
from unquant.errors import CodecMissing, InputError, OptionError, UnquantError, UnquantWarning
from unquant.places import Place

__all__ = ["BATCH_PIXELS", "Bulk", "Summary", "run"]

Table: TypeAlias = Any
"""A `pyarrow.Table`: the package has no types."""
BATCH_PIXELS: Final = 100_000_000
"""What a worker does at most before it writes a part of the manifest, unless a run says otherwise."""
_BLOCKS_EACH: Final = 8
"""Blocks for each worker at least, where there are images enough, so that all have work until the end."""
_UNKNOWN_PIXELS: Final = 1_000_000
"""Counted for an image whose headers do not tell."""
_CHUNK: Final = 256
"""Images whose headers are read by one task."""
_FEW: Final = 20_000
"""Files whose headers the driver reads before it begins: 0.1 ms each, where a task takes 2 core seconds to start."""
_RETRIES: Final = 3
"""Times that a block is begun anew after the loss of its worker."""
_STORE_BYTES: Final = 100 * 2**20
"""Of a local cluster's object store: rows alone pass through it."""
_STANDS: Final = "OutputExists"
"""The kind of an error row of an image whose output was there before."""
_CONNECT_SECONDS: Final = 10
_LOST: Final = "WorkerLost"
"""The kind of an error row of an image with which the worker ended every time: most likely it was out of memory."""


@dataclass(frozen=True)
class Bulk:
    """What a run is asked for.

    source: a folder, a list (.txt) or Parquet; suffixes: of the files that are taken from a folder. manifest: its file.
    workers: None for a worker a core of the cluster. address: of a running cluster; None for one of this machine. resume:
    go on with an earlier run; force: begin anew, over what is there. bars: Ray's progress bars on the standard
    error. batch_pixels: that a worker does at most before it writes a part of the manifest."""

    task: Task
    source: Place
    suffixes: frozenset[str]
    manifest: Place
    asked: dict[str, Any]
    column: str | None = None
    workers: int | None = None
    address: str | None = None
    resume: bool = False
    force: bool = False
    bars: bool = False
    batch_pixels: int = BATCH_PIXELS


@dataclass
class Summary:
    """What became of a run. skipped: images that the manifest had. bytes_in, bytes_out: of sources and outputs of this
    run's. failures: images by kind of error. seconds: by the clock; workers: that shared the work."""

    images: int = 0
    skipped: int = 0
    megapixels: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    workers: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])

    def count(self, row: dict[str, Any]) -> None:
        """One row more."""
        self.images += 1
        self.bytes_in += row["source_bytes"] or 0
        if row["kind"] is not None:
            self.failures[row["kind"]] += 1
            return
        self.megapixels += row["width"] * row["height"] / 1e6
        self.bytes_out += row["output_bytes"] or 0

    @property
    def images_per_core_second(self) -> float:
        """Images a second and worker."""
        return self.images / max(1e-9, self.seconds * max(1, self.workers))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        rounded = {"megapixels": round(self.megapixels, 3), "seconds": round(self.seconds, 3)}
        return {
            **asdict(self),
            **rounded,
            "failures": dict(self.failures),
            "images_per_core_second": round(self.images_per_core_second, 3),
        }


def run(bulk: Bulk, told: Callable[[dict[str, Any]], None] = lambda row: None) -> Summary:
    """Does what is left of a run; `told` hears of each row. An image that fails is a row.

    Raises OptionError (of another run's manifest, two outputs of one name), InputError (nothing to read, a full disk, no
    cluster at the address), ModelMissing, CodecMissing without Ray."""
    items = items_of(bulk.source, bulk.suffixes, bulk.column)
    _check_names(bulk.task, items)
    manifest = Manifest(bulk.manifest, bulk.asked)
    rows = manifest.begin(resume=bulk.resume, force=bulk.force)
    left = [item for item in items if item.source not in rows or rows[item.source]["error"] is not None]
    summary, start = Summary(skipped=len(items) - len(left)), perf_counter()
    standing = {} if bulk.force else _standing(bulk, left, rows, manifest.goes_on)
    _put(manifest, list(standing.values()), summary, told)
    left = [item for item in left if item.source not in standing]
    home = bulk.task.output
    try:
        if left:
            if bulk.resume and home is not None:
                home.tidy()
            with _cluster(bulk) as workers:
                summary.workers = workers
                missing = {item.source: item for item in left}
                # images that took their workers with them are tried once more, each alone
                for pixels in (bulk.batch_pixels, 1):
                    for row in _rows(bulk, manifest, list(missing.values()), workers, pixels):
                        if missing.pop(row["source"], None) is not None:
                            summary.count(row)
                            told(row)
                    if not missing:
                        break
            lost = [
                empty_row(item, bulk.task.target(item).uri)
                | {"error": f"{item.source}: its worker was lost, however often it was begun", "kind": _LOST}
                for item in missing.values()
            ]
            _put(manifest, lost, summary, told)
    finally:
        if left and home is not None:
            home.tidy()
    manifest.finish(item.source for item in items)
    summary.seconds = perf_counter() - start
    return summary


def _put(
    manifest: Manifest, rows: list[dict[str, Any]], summary: Summary, told: Callable[[dict[str, Any]], None]
) -> None:
    """Rows of what no worker does."""
    if rows:
        manifest.add(rows)
    for row in rows:
        summary.count(row)
        told(row)


def _standing(
    bulk: Bulk, items: Sequence[Item], earlier: Mapping[str, dict[str, Any]], goes_on: bool
) -> dict[str, dict[str, Any]]:
    """Rows, by source, of the items whose output was there before the run began. Of a run that goes on those that stood in
    its way then: what else is there is its own, of a batch that was cut short."""
    if goes_on:
        items = [item for item in items if earlier.get(item.source, {}).get("kind") == _STANDS]
    home = bulk.task.output
    there = None if home is None else {home.child(name).uri for name, _ in home.files()}
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        target = bulk.task.target(item)
        if target.exists if there is None else target.uri in there:
            found[item.source] = empty_row(item, target.uri) | {
                "error": f"{target.uri}: exists already (--force overwrites)",
                "kind": _STANDS,
            }
    return found


def _check_names(task: Task, items: Sequence[Item]) -> None:
    """Raises OptionError for two items with one output, and for an output that is an input."""
    sources = {item.source for item in items}
    first: dict[str, str] = {}
    for item in items:
        target = task.target(item).uri
        if target in sources:
            raise OptionError(f"{item.source}: would be written over an input, {target}")
        if target in first:
            raise OptionError(f"{item.source}: its output {target} is that of {first[target]} as well")
        first[target] = item.source


@contextmanager
def _cluster(bulk: Bulk) -> Generator[int]:
    """A cluster of this machine, or the one at an address, for this context; yields the number of workers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if bulk.address is not None:
        _check_address(bulk.address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        import ray
    except ImportError as error:
        raise CodecMissing("unquant bulk needs Ray Data: pip install 'unquant[bulk]'") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with _mute():
            if bulk.address is None:
                # Ray's are 15: where others work as well, all of Ray waits, at a price, for workers that get no core
                os.environ.setdefault("RAY_worker_niceness", "0")
                cores = bulk.workers or len(os.sched_getaffinity(0))
                ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=_STORE_BYTES, **quiet)
            else:
                ray.init(bulk.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "a local cluster" if bulk.address is None else f"the cluster at {bulk.address}"
        token = " (RAY_AUTH_MODE=token, if it asks for a token)" if bulk.address else ""
        raise InputError(f"{where} cannot be reached: {str(error).splitlines()[0]}{token}") from error
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own prints a stack
    try:
        with warnings.catch_warnings(), redirect_stdout(cast(TextIO, _OfThisThread(sys.stdout))):
            warnings.simplefilter("ignore")  # Ray's, of blocks and actors
            warnings.simplefilter("default", UnquantWarning)
            yield bulk.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        with redirect_stdout(io.StringIO()):  # where Ray would say once more what it said of lost workers
            ray.shutdown()


def _check_address(address: str) -> None:
    """Raises InputError where nobody listens, for which Ray itself waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # auto, and other names that are Ray's
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"the cluster at {address} cannot be reached: {error}") from error


class _OfThisThread:
    """A stream for the thread that makes it: Ray tells of workers that were lost from another, on the standard output."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """What this thread writes goes on, all else is gone."""
        return self._stream.write(text) if threading.get_ident() == self._thread else len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _mute() -> Generator[None]:
    """Nothing on the standard error in this context, not by C++ either, which says there what its log level is."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _rows(bulk: Bulk, manifest: Manifest, items: Sequence[Item], workers: int, pixels: int) -> Iterator[dict[str, Any]]:
    """The rows of items as they are done; of a block whose worker was lost too often none. pixels: of a block."""
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy, from_items
    from ray.exceptions import RayError

    context = DataContext.get_current()
    context.enable_progress_bars = bulk.bars
    context.print_on_execution_start = False
    context.target_min_block_size = context.target_max_block_size = 1  # bytes: a task for each of our blocks
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    most = min(_CHUNK, -(-len(items) // (_BLOCKS_EACH * workers)))
    cut = Blocks(bulk.task, pixels, most)
    # of rows the driver makes Ray's blocks itself; of tables a task would look at each, in processes begun for that
    if len(items) <= _FEW and all(item.group < 0 and Place(item.source).is_local for item in items):
        held = [_held(block) for block in cut.blocks([asdict(item) for item in items])]
        blocks = from_items(held, override_num_blocks=len(held))
    else:
        size = _CHUNK // most * most  # so that no chunk ends in a small block
        held = [_held([asdict(item) for item in items[i : i + size]]) for i in range(0, len(items), size)]
        # headers take no core, for actors hold them all; but each task that runs at a time is a process with its start
        blocks = from_items(held, override_num_blocks=len(held)).map_batches(
            cut,
            batch_size=None,
            batch_format="pyarrow",
            compute=TaskPoolStrategy(size=max(1, workers // 2)),
            num_cpus=0,
        )
    rows = blocks.map_batches(
        Actor,
        fn_constructor_args=(bulk.task, manifest),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers),
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=_RETRIES,
    )
    try:
        for block in rows.iter_rows():
            for row in json.loads(block["rows"]):
                if "fatal" in row:
                    raise InputError(row["fatal"])
                yield row
    except (RayError, RuntimeError) as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, UnquantError):
            raise cause from None
        raise


def table_of(items: Sequence[dict[str, Any]]) -> Table:
    """A chunk of items, or a block of them, as it passes through the cluster: one row."""
    import pyarrow as pa

    return pa.Table.from_pylist([_held(items)])


def _held(items: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {"block": json.dumps(items)}


class Blocks:
    """Cuts a chunk of items into blocks of at most so many pixels and so many images, of one image at least."""

    def __init__(self, task: Task, pixels: int, images: int = _CHUNK) -> None:
        self.task, self.pixels, self.images = task, pixels, images
        self.__name__ = "headers"

    @staticmethod
    def items(block: Table) -> list[dict[str, Any]]:
        """What is in a table of `table_of`."""
        return json.loads(block.column("block")[0].as_py())

    def __call__(self, chunk: Table) -> Iterator[Table]:
        for block in self.blocks(self.items(chunk)):
            yield table_of(block)

    def blocks(self, items: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """The blocks of a chunk."""
        block: list[dict[str, Any]] = []
        room = self.pixels
        for found in items:
            # of blocks of one pixel none holds two images, whatever the headers say
            needed = (self.task.pixels(Item(**found)) or _UNKNOWN_PIXELS) if self.pixels > 1 else 1
            if block and (needed > room or len(block) == self.images):
                yield block
                block, room = [], self.pixels
            block.append(found)
            room -= needed
        yield block


class Actor:
    """A `Worker` of the cluster: a block in, its rows out, once they are in a part of the manifest."""

    def __init__(self, task: Task, manifest: Manifest) -> None:
        self.worker, self.manifest = Worker(task), manifest

    def __call__(self, batch: Table) -> Table:
        import pyarrow as pa

        try:
            rows = self.worker.rows([Item(**item) for item in Blocks.items(batch)])
            self.manifest.add(rows)
        except InputError as error:  # the disk is full
            rows = [{"fatal": str(error)}]
        # in one row, for Ray would make each a block of its own, and wait until a few are taken before it sends more
        return pa.table({"rows": [json.dumps(rows)]})
