"""Pages in a browser, and `unquant demo --serve` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

GOLDEN = Path(__file__).parents[1] / "golden"
SOURCE = Path(__file__).parents[2] / "src"


class Server(NamedTuple):
    """url: of the page, ending in a slash."""

    process: subprocess.Popen[str]
    url: str


@contextmanager
def served(*options: str) -> Generator[Server]:
    """Serves the page with the models of tests/golden beside the package's; ends it by Ctrl-C and checks that."""
    command = [sys.executable, "-m", "unquant", "demo", "--serve", "--no-browser", "--port", "0", *options]
    environment = os.environ | {"UNQUANT_WEIGHTS": str(GOLDEN), "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), process.stderr.read()
        try:
            yield Server(process, line.split()[0])
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(30)
            errors = process.stderr.read()
        assert (code, errors) == (130, "unquant: error: interrupted\n")


def look(browser: Any, width: int, scheme: str, height: int = 900) -> None:
    """The size and the colour scheme of what the browser shows."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    # without smooth scrolling what is clicked stays where it is
    wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
