"""A few executions of every fuzzing target; `make fuzz` has many more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import checksums_hold, seeds
from unquant.container import parse
from unquant.errors import CorruptStream

RUNS = {"container": 4000, "ratevar": 300, "cdc": 100, "av1": 400}


@pytest.mark.slow
@pytest.mark.parametrize("target", RUNS)
def test_executions(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="there are builds for Linux alone")
    command = [sys.executable, str(Path(__file__).with_name("fuzz.py")), target, f"-runs={RUNS[target]}", "-seed=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS[target]} runs" in done.stderr


def test_checksums_hold_while_fuzzing() -> None:
    (*_, data) = seeds("container")
    damaged = data.replace(b"<xmp/>", b"<XMP/>").replace(b"\x00alpha", b"\x00ALPHA")
    for _ in range(2):
        with pytest.raises(CorruptStream, match="checksum"):
            parse(damaged)
        with checksums_hold():
            assert parse(damaged).alpha == b"\x00ALPHA"
