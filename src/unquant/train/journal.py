"""What a run says and hears: rows of `metrics.jsonl`, and orders to stop by a file or a signal."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

__all__ = ["Journal", "StopSwitch", "Window"]


class Journal:
    """Appends rows to `metrics.jsonl`, one JSON object a line, and tells each in words to `echo`.

    A last line cut off by a crash is removed. path: None (on devices other than the first) writes nothing.
    """

    def __init__(self, path: Path | None, echo: Callable[[str], Any]) -> None:
        self._echo = echo
        self._file = None
        if path is not None:
            if path.is_file():
                _drop_partial_line(path)
            self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, kind: str, values: dict[str, Any]) -> None:
        """One row; values that are not finite become null. `echo` leaves out nested values."""
        if self._file is None:
            return
        row = {"kind": kind, **values}
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self._file.write(json.dumps(finite, allow_nan=False, ensure_ascii=False) + "\n")
        self._file.flush()
        flat = {k: v for k, v in row.items() if not isinstance(v, dict | list)}
        self._echo(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in flat.items()))


def _drop_partial_line(path: Path) -> None:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as f:
            f.truncate(data.rfind(b"\n") + 1)


class Window:
    """The loss terms of the steps since the last row, kept on the device until `close`: no wait in between."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Tensor]] = []
        self.begin = time.monotonic()
        self._paused = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, terms: dict[str, Tensor]) -> None:
        """Take the detached terms of one step."""
        self._rows.append(terms)

    def pause(self, seconds: float) -> None:
        """Leave out time that went into saving or validation."""
        self._paused += seconds

    def close(self, now: float) -> tuple[dict[str, float], int, float]:
        """Means over the steps whose gradient was finite, how many were not, and steps a second; then empties itself."""
        rows, busy = self._rows, max(now - self.begin - self._paused, 1e-9)
        self._rows, self.begin, self._paused = [], now, 0.0
        if not rows:
            return {}, 0, 0.0
        table = {k: torch.stack([row[k].float() for row in rows]).cpu() for k in rows[0]}
        good = torch.isfinite(table["grad"])
        means = {k: float(v[good].mean()) for k, v in table.items()}
        return means, len(rows) - int(good.sum()), len(rows) / busy


class StopSwitch:
    """Whether the run shall end early: by `orders.json` in its folder, or by SIGINT or SIGTERM.

    The first signal ends the run in good order, a second one at once. An order obeyed is removed, so that it does not stop
    the next run as well.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, folder: Path) -> None:
        self.path = folder / "orders.json"
        self.signalled = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSwitch:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._on_signal) for s in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True
        self._restore()

    def ordered(self) -> bool:
        """Whether `orders.json` says `{"stop": true}`; half-written orders are read again at the next look."""
        try:
            return self.path.is_file() and json.loads(self.path.read_text()).get("stop") is True
        except (OSError, ValueError, AttributeError):
            return False

    def obeyed(self) -> None:
        """Remove a stop order after it has been carried out."""
        if self.ordered():
            self.path.unlink(missing_ok=True)
