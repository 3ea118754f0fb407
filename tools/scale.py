"""What `unquant bulk` takes on many small photographs, beside a plain `unquant encode` of the same ones."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import numpy as np
from PIL import Image

from unquant.bench.analysis.tables import markdown_table
from unquant.bench.subjects.images import find_images, read_image
from unquant.errors import InputError

__all__ = ["HOW", "Scale", "crops", "lines_of", "measure", "read_scale", "table"]

HOW: Final = ("encode", "bulk")

_EVERY: Final = 0.2
"""Seconds between two looks at the processes; what one does after the last look is not counted."""
_SUBREAPER: Final = 36
"""PR_SET_CHILD_SUBREAPER of Linux: processes whose parent ends become children of this one."""
_MAPPED: Final = "MapWorker"
"""In the name of a process of Ray that keeps a codec."""
_PAIRS: Final = ("driver", "worker", "all")


@dataclass(frozen=True)
class Scale:
    """A command on so many images. how: "encode" or "bulk". options: of both. seconds: by the clock; cpu: core seconds of
    all its processes; actors: those of the processes that keep a codec, 0 where not measured. driver, worker, all: memory
    in MB, of the command's own process, of its largest actor, of all its processes, each the largest of the first quarter
    of the run and of the last."""

    how: str
    images: int
    width: int
    height: int
    options: str
    jobs: int
    cpu_kind: str
    seconds: float
    cpu: float
    actors: float
    driver: tuple[int, int]
    worker: tuple[int, int]
    all: tuple[int, int]

    @property
    def each(self) -> float:
        """Core milliseconds an image."""
        return 1000 * self.cpu / self.images


def crops(photos: Path, folder: Path, count: int, size: tuple[int, int], seed: int = 0) -> None:
    """`count` JPEGs of size (width, height) in a folder, cut out of photographs, some of them mirrored or made smaller."""
    sources = [read_image(path) for path in find_images(photos)]
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        source = sources[number % len(sources)]
        most = min(source.width / size[0], source.height / size[1])
        scale = random.uniform(1, min(2, most))
        width, height = (int(side * scale) for side in size)
        x, y = (int(random.integers(room + 1)) for room in (source.width - width, source.height - height))
        cut = source.resize(size, Image.Resampling.LANCZOS, (x, y, x + width, y + height))
        if random.integers(2):
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        cut.save(folder / f"{number:06}.jpg", quality=90)


@dataclass
class _Watch:
    """The processes below this one: core seconds by process as they were last seen, and memory in bytes at every look."""

    command: int
    cpu: dict[tuple[int, float], float] = field(default_factory=dict[tuple[int, float], float])
    mapped: set[tuple[int, float]] = field(default_factory=set[tuple[int, float]])
    memory: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])

    def look(self) -> None:
        import psutil

        driver = worker = together = 0
        for process in psutil.Process().children(recursive=True):
            try:
                with process.oneshot():
                    times, resident = process.cpu_times(), process.memory_info().rss
                    mapped = _MAPPED in " ".join(process.cmdline()[:1])
                    key = process.pid, process.create_time()
            except psutil.Error:  # it has just ended
                continue
            self.cpu[key] = times.user + times.system
            if mapped:
                self.mapped.add(key)
            together += resident
            if process.pid == self.command:
                driver = resident
            elif mapped:
                worker = max(worker, resident)
        self.memory.append((driver, worker, together))

    def quarters(self) -> list[tuple[int, int]]:
        """The largest in the first and in the last quarter of the looks: MB of driver, worker, all."""
        count = max(1, len(self.memory) // 4)
        parts = self.memory[:count], self.memory[-count:]
        return [(_most(parts[0], column), _most(parts[1], column)) for column in range(3)]


def _most(looks: Sequence[tuple[int, int, int]], column: int) -> int:
    return round(max((look[column] for look in looks), default=0) / 1e6)


def measure(how: str, folder: Path, *, options: Sequence[str], jobs: int, cpu_kind: str) -> Scale:
    """One command over a folder of images of one size, with `jobs` threads ("encode") or workers ("bulk").

    Raises InputError where the command fails."""
    names = sorted(folder.glob("*.jpg"))
    with Image.open(names[0]) as image:
        size = image.size
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory() as out:
        ways = {"encode": ["encode", "-r", str(folder), "-o", out], "bulk": ["bulk", str(folder), out]}
        command = [sys.executable, "-m", "unquant", *ways[how], *options, "-j", str(jobs), "--quiet"]
        start = perf_counter()
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        watch, ended = _Watch(process.pid), threading.Event()

        def looks() -> None:
            while not ended.wait(_EVERY):
                watch.look()

        thread = threading.Thread(target=looks)
        thread.start()
        _, status, used = os.wait4(process.pid, 0)
        seconds = perf_counter() - start
        ended.set()
        thread.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise InputError(f"{' '.join(command)}: exit code {process.returncode}")
    # what a process did after the last look is in the kernel's sum, if its parent waited for it
    cpu = max(sum(watch.cpu.values()), used.ru_utime + used.ru_stime)
    driver, worker, together = watch.quarters()
    actors = sum(watch.cpu[key] for key in watch.mapped)
    figures = round(seconds, 2), round(cpu, 2), round(actors, 2)
    return Scale(how, len(names), *size, " ".join(options), jobs, cpu_kind, *figures, driver, worker, together)


def read_scale(path: Path) -> list[Scale]:
    """The rows of a file. Raises InputError, naming it."""
    try:
        rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for row in rows:
            row.update((name, tuple(row[name])) for name in _PAIRS)
        return [Scale(**row) for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: no rows of scale: {error}") from error


def lines_of(rows: Iterable[Scale]) -> str:
    """The rows as a file holds them."""
    return "".join(json.dumps(asdict(row)) + "\n" for row in rows)


def table(rows: Sequence[Scale]) -> str:
    """Commands with their options, images and sizes, medians of their runs, as a Markdown table. The ratio is of core
    seconds."""
    found: dict[tuple[int, int, int, str, str], list[Scale]] = {}
    for row in rows:
        found.setdefault((row.images, row.width, row.height, row.options, row.how), []).append(row)
    lines: list[list[str]] = []
    for (images, width, height, options, how), runs in sorted(found.items(), reverse=True):
        each = median(run.each for run in runs)
        plain = [run.each for run in found.get((images, width, height, options, "encode"), [])]
        one = runs[0]
        lines.append(
            [
                f"{how} {options} -j {one.jobs}",
                f"{width}×{height}",
                str(images),
                str(len(runs)),
                f"{each:.1f}",
                "–" if not one.actors else f"{median(1000 * run.actors / run.images for run in runs):.1f}",
                f"{median(plain) / each:.2f}" if plain else "–",
                f"{median(run.seconds for run in runs):.0f}",
                _change(one.driver),
                "–" if how == "encode" else _change(one.worker),
            ]
        )
    heads = ["command", "pixels", "images", "runs", "core ms an image", "of them actors'", "ratio"]
    return markdown_table([*heads, "seconds by the clock", "its memory, MB", "an actor's, MB"], lines)


def _change(quarters: Sequence[int]) -> str:
    """Memory in the first quarter of a run and in the last."""
    return f"{quarters[0]} → {quarters[1]}"
