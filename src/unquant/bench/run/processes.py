"""Workers in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing.process import BaseProcess

from unquant.bench.run.environment import limited_threads
from unquant.bench.run.plan import Item
from unquant.bench.run.rows import Row
from unquant.bench.run.setup import Event, Picture, Setup, kept_row
from unquant.bench.run.store import Store
from unquant.bench.run.worker import Worker
from unquant.errors import ImageTooLarge
from unquant.files import remove_unfinished

__all__ = ["events_of"]

_GRACE = 1.0  # seconds
LOOK = 1.0  # seconds between looks at what other processes have done


def events_of(store: Store, setup: Setup, pictures: Sequence[Picture], jobs: int) -> Generator[Event]:
    """What workers find in these images, as it comes: in this process for one job, else in so many others.

    Raises ImageTooLarge if a process dies.
    """
    if jobs == 1 or len(pictures) < 2:
        worker = Worker(setup)
        for picture in pictures:
            yield from worker.measure(picture)
        return
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start, (setup,))
    finished = False
    try:
        running = {pool.submit(_measure, picture): (picture, list(setup.plan.items())) for picture in pictures}
        while running:
            for future in wait(running, LOOK, FIRST_COMPLETED).done:
                yield from future.result()
                del running[future]
            for picture, items in (each for future, each in running.items() if future.running()):
                yield from _arrived(store, setup, picture, items)
        finished = True
    except BrokenProcessPool as e:
        raise ImageTooLarge(
            f"a process died, most likely for lack of memory: try fewer at a time (-j); {setup.out} has what was measured"
        ) from e
    finally:
        if not finished:
            _end(set(multiprocessing.active_children()) - before)
        pool.shutdown(cancel_futures=True)


def _end(processes: set[BaseProcess]) -> None:
    """Ends processes, by force where one is in a library's code for longer than a moment."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_GRACE)
        if process.is_alive():
            process.kill()


def _arrived(store: Store, setup: Setup, picture: Picture, items: list[Item]) -> Iterator[Row]:
    """The rows of an image that another process has made since; their items leave the list."""
    for item in list(items):
        row = kept_row(store, setup, picture, item)
        if row is not None:
            items.remove(item)
            yield row


# ---- in the other processes ------------------------------------------------------------------------------------------

_held = ExitStack()
_worker: Worker | None = None


def _start(setup: Setup) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _held.enter_context(limited_threads(setup.threads))
    _worker = Worker(setup)


def _leave(_number: int, _frame: object) -> None:
    remove_unfinished()
    os._exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        remove_unfinished()
        os._exit(1)


def _measure(picture: Picture) -> list[Event]:
    assert _worker is not None
    return list(_worker.measure(picture))
