"""What coding or drawing a picture will take, foretold from its size before the work begins, and memory that is not there
after all; no torch.

The figures of each family are measured ones, in costs.json (`python -m tools costs`, from the rows of docs/benchmarks.md):
core seconds on the machine that is named there, divided by the cores that are here; and peaks of the commands, between which
memory is read off. What lies on top is known: ŷ (y where a size is searched for) and x_t, where they are kept as a whole.
Alpha is not counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from unquant.container import DEFAULT_LIMITS
from unquant.errors import ImageTooLarge

__all__ = ["Forecast", "available_memory", "foretell_decode", "foretell_encode", "memory_errors"]

_MOST_CORES: Final = 4
"""That a picture keeps busy, roughly."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """pixels: of the picture, or the part that is drawn. memory: bytes of the whole process. seconds: by the clock."""

    pixels: int
    memory: int
    seconds: float

    def __str__(self) -> str:
        time = f"{self.seconds:.0f} s" if self.seconds < 120 else f"{self.seconds / 60:.0f} min"
        return f"{self.pixels / 1e6:.1f} megapixels: about {time} and {self.memory / 1e9:.2f} GB of memory"

    def check(self) -> None:
        """Raises ImageTooLarge beyond the memory that `Limits` allow."""
        most = DEFAULT_LIMITS.now.max_memory
        if most is not None and self.memory > most:
            raise ImageTooLarge(
                f"{self}, of which at most {most / 1e9:.2f} GB are allowed (--max-memory, Limits.max_memory)"
            )


def foretell_encode(family: str, pixels: int, *, search: bool = False) -> Forecast:
    """Of an encode. search: for a size."""
    costs = _costs(family)
    per_pixel = costs["search"] if search else costs["encode"]
    kept = costs["latent_bytes"] * pixels if search else 0
    return _forecast(costs, "encode", pixels, per_pixel * pixels / 1e6, kept)


def foretell_decode(family: str, pixels: int, *, realism: float | None = None, steps: int | None = None) -> Forecast:
    """Of a decode. realism: None for one of the ends. steps: None for the default of the package's weights."""
    costs = _costs(family)
    count: int = costs["steps"] if steps is None else steps
    ends = 2 if realism is not None and 0 < realism < 1 else 1
    passes = ends * (count if costs["steps_cost"] else 1)
    kept = (costs["latent_bytes"] + costs["state_bytes"] * ends) * pixels if costs["steps_cost"] and count > 1 else 0
    return _forecast(costs, "decode", pixels, (costs["read"] + costs["draw"] * passes) * pixels / 1e6, kept)


def available_memory() -> int | None:
    """Bytes that this machine can give without swapping; None where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


@contextmanager
def memory_errors(what: str = "this image") -> Generator[None]:
    """Every way in which torch and numpy run out of memory, as ImageTooLarge. what: it was not enough for."""
    try:
        yield
    except MemoryError as e:
        raise ImageTooLarge(f"not enough memory for {what}") from e
    except RuntimeError as e:
        if type(e).__name__ == "OutOfMemoryError":  # torch's
            raise ImageTooLarge(f"not enough memory on the device for {what}") from e
        # the CPU allocator has no error type of its own
        if "DefaultCPUAllocator" not in str(e):
            raise
        raise ImageTooLarge(f"not enough memory for {what}") from e


def _forecast(costs: Mapping[str, Any], direction: str, pixels: int, seconds: float, kept: float) -> Forecast:
    cores = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _MOST_CORES)
    memory = _between(costs["peaks"][direction], pixels / 1e6) * 1e6 + kept
    return Forecast(pixels, round(memory), costs["start"] + seconds / cores)


def _between(points: Sequence[tuple[float, float]], at: float) -> float:
    """Piecewise linear through points, ascending; before the first its value, after the last as between the last two."""
    if at <= points[0][0]:
        return points[0][1]
    (x, y), (to_x, to_y) = next((pair for pair in pairwise(points) if at <= pair[1][0]), (points[-2], points[-1]))
    return y + (to_y - y) * (at - x) / (to_x - x)


@cache
def _all_costs() -> dict[str, Any]:
    return json.loads(files("unquant.codecs").joinpath("costs.json").read_text("utf-8"))


def _costs(family: str) -> Mapping[str, Any]:
    return _all_costs()["families"][family]
