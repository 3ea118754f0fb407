"""`unquant bulk` as a user runs it, on a cluster of this machine: workers and drivers that are killed, an object store."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import unquant
from unquant.cli.exits import Code

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")
pq = pytest.importorskip("pyarrow.parquet")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shipped_av1")]
Start = Callable[..., "subprocess.Popen[str]"]
SOURCE = Path(unquant.__file__).parents[1]


def kill_all(process: subprocess.Popen[Any]) -> None:
    """It and what it has begun; asked to end, Ray takes half a minute."""
    parts = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    process.wait()
    for part in parts:
        with contextlib.suppress(psutil.NoSuchProcess):
            part.kill()


class Cluster:
    """A cluster of two cores, which runs. address: its own; asked: the environment of who may use it."""

    def __init__(self, folder: Path) -> None:
        self.asked = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of these tests"}
        command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--port=0", "--num-cpus=2"]
        command += ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000"]
        # workers read object stores with the keys that the cluster was begun with
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_EC2_METADATA_DISABLED": "true"}
        given = os.environ | self.asked | keys | {"PYTHONPATH": str(SOURCE)}
        said = folder / "said"
        with said.open("w") as file:
            self.process = subprocess.Popen(
                [*command, f"--temp-dir={folder}"], env=given, stdout=file, stderr=subprocess.STDOUT
            )
        until(lambda: "block forever" in said.read_text() or self.process.poll() is not None, None)
        found = re.search(r"--address='([\d.]+:\d+)'", said.read_text())
        assert found is not None, said.read_text()
        self.address = found[1]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One for all tests of this file that may share it: starting one takes seconds."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # the names of Ray's sockets may not be long
    found = Cluster(folder)
    yield found
    kill_all(found.process)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """24 small photographs in two folders, of 15 KB each, and three files that are none."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    with Image.open(Path(unquant.__file__).parent / "demo/coffee.png") as image:
        coffee = image.convert("RGB")
    for number in range(24):
        name = f"deep/{number:02}.jpg" if number % 4 == 0 else f"{number:02}.jpg"
        coffee.crop((9 * number, 7 * number, 9 * number + 96, 7 * number + 80)).save(folder / name)
    for name in ("broken.jpg", "deep/empty.png"):
        (folder / name).write_bytes(b"")
    (folder / "cut.jpg").write_bytes((folder / "01.jpg").read_bytes()[:200])
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Begins the command in a process of its own."""
    begun: list[subprocess.Popen[str]] = []

    def begin(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        given = os.environ | {"PYTHONPATH": str(SOURCE), "PYTHONUTF8": "1", "COLUMNS": "200"} | environment
        command = [sys.executable, "-m", "unquant", "bulk", *map(str, arguments)]
        begun.append(
            subprocess.Popen(
                command, cwd=tmp_path, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        return begun[-1]

    yield begin
    for process in begun:
        kill_all(process)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def finished(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]], str]:
    out, err = process.communicate(timeout=400)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


def rows_of(manifest: Path) -> list[dict[str, Any]]:
    return pq.read_table(manifest).to_pylist()


def check(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Every row that has no error is of a file that decodes, and there is nothing else."""
    good = [row for row in rows if row["error"] is None]
    for row in good:
        data = Path(row["output"]).read_bytes()
        assert (len(data), unquant.info(data).width) == (row["output_bytes"], 96)
        assert np.asarray(unquant.decode(data, preview=True)).std() > 5
    found = {str(path) for path in folder.rglob("*") if path.is_file()}
    assert found == {row["output"] for row in good} | {str(folder / "manifest.parquet")}


def test_a_folder_and_again(photos: Path, tmp_path: Path, start: Start, cluster: Cluster) -> None:
    """With a file of someone in the way of an output, which stays."""
    standing = tmp_path / "out/02.unq"
    standing.parent.mkdir()
    standing.write_bytes(b"of someone")
    code, rows, err = finished(start(photos, "out", "--bpp", "0.4", "-j", "2", "--json"))
    assert code == Code.PARTIAL, err
    *each, last = rows
    assert len(each) == 27
    assert [row["output"] for row in each if row.get("kind") == "OutputExists"] == [str(standing)]
    bad = sorted(Path(row["source"]).name for row in each if "error" in row)
    assert bad == ["02.jpg", "broken.jpg", "cut.jpg", "empty.png"]
    summary = last["summary"]
    assert (summary["images"], summary["skipped"], summary["workers"]) == (27, 0, 2)
    assert summary["failures"] == {"InputError": 3, "OutputExists": 1}
    assert summary["megapixels"] == pytest.approx(23 * 96 * 80 / 1e6, abs=1e-3)
    assert err.splitlines() == [err.strip()]  # the summary, and nothing of Ray's
    assert "27 images, 3 InputError, 1 OutputExists; 0.2 megapixels" in err
    written = rows_of(tmp_path / "out/manifest.parquet")
    assert [row["source"] for row in written] == sorted(row["source"] for row in each)
    assert standing.read_bytes() == b"of someone"
    standing.rename(tmp_path / "elsewhere")
    check(tmp_path / "out", written)
    (tmp_path / "elsewhere").rename(standing)
    assert all(row["bpp"] <= 0.4 for row in written if row["error"] is None)
    before = {Path(row["output"]): Path(row["output"]).stat().st_mtime_ns for row in written if row["error"] is None}
    for name in ("broken.jpg", "deep/empty.png"):
        (photos / name).unlink()
    (photos / "cut.jpg").write_bytes((photos / "01.jpg").read_bytes())
    there = ["--address", cluster.address]
    code, rows, err = finished(start(photos, "out", "--bpp", "0.4", "--json", "--resume", *there, **cluster.asked))
    assert (code, len(rows), rows[-1]["summary"]["skipped"]) == (Code.PARTIAL, 3, 23), err
    assert standing.read_bytes() == b"of someone"
    standing.unlink()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    auto = {**cluster.asked, "RAY_ADDRESS": cluster.address}
    code, rows, _ = finished(start(photos, "out", "--bpp", "0.4", "--json", "--resume", "--address", "auto", **auto))
    assert (code, rows[-1]["summary"]["images"], rows[-1]["summary"]["skipped"]) == (0, 1, 24)
    code, rows, _ = finished(start(photos, "out", "--bpp", "0.4", "--json", "--resume"))
    assert (code, rows[-1]["summary"]["images"], rows[-1]["summary"]["skipped"]) == (0, 0, 25)
    code, _, err = finished(start(photos, "out", "--bpp", "0.4"))
    assert (code, "--resume goes on with it" in err) == (Code.USAGE, True)
    code, _, err = finished(start(photos, "out", "--bpp", "0.3", "--resume"))
    assert (code, "{'bpp': 0.4}, now {'bpp': 0.3}" in err) == (Code.USAGE, True)


def until(begun: Callable[[], bool], process: subprocess.Popen[str] | None) -> None:
    """Waits; a process must not end meanwhile."""
    end = time.monotonic() + 300
    while not begun():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def workers_of(process: subprocess.Popen[Any]) -> list[Any]:
    """Those with a codec, of a run's own cluster or of the one that runs."""
    found: list[Any] = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended; a ZombieProcess is one of these
            if any("MapWorker" in part for part in child.cmdline()):
                found.append(child)
    return found


def test_workers_that_are_killed(photos: Path, tmp_path: Path, start: Start, cluster: Cluster) -> None:
    """Twice, at work: every image has its row and its file, and nothing is left of what they were at."""
    there = ["--address", cluster.address]
    process = start(photos, "out", "--bpp", "0.4", "--batch-pixels", "50000", *there, **cluster.asked)
    out = tmp_path / "out"
    for files in (1, 8):
        until(lambda n=files: len(list(out.rglob("*.unq"))) >= n, process)
        found = workers_of(cluster.process)
        assert found
        found[0].send_signal(signal.SIGKILL)
    code, _, err = finished(process)
    assert code == Code.PARTIAL, err
    rows = rows_of(out / "manifest.parquet")
    assert len(rows) == 27
    assert sorted(Path(row["source"]).name for row in rows if row["error"]) == ["broken.jpg", "cut.jpg", "empty.png"]
    check(out, rows)


def test_a_driver_that_is_killed(photos: Path, tmp_path: Path, start: Start, cluster: Cluster) -> None:
    """Its own cluster ends with it; the next one is stopped on a cluster that runs, which goes on. What was done stays done,
    and a run that goes on does the rest."""
    asked = photos, "out", "--bpp", "0.4", "--batch-pixels", "30000"
    there = "--resume", "--address", cluster.address
    out = tmp_path / "out"
    parts = out / "manifest.parquet.parts"
    process = start(*asked, "-j", "1")
    until(lambda: len(list(parts.glob("*.parquet"))) >= 2, process)
    workers: list[Any] = []
    until(lambda: bool(workers.extend(workers_of(process)) or workers), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert workers
    assert not alive
    before = len(list(parts.glob("*.parquet")))
    process = start(*asked, "-j", "1", *there, **cluster.asked)
    until(lambda: len(list(parts.glob("*.parquet"))) >= before + 2, process)
    process.send_signal(signal.SIGINT)
    code, _, err = finished(process)
    assert (code, err.strip()) == (Code.INTERRUPTED, "unquant: error: interrupted")
    done = {row["source"] for part in parts.glob("*.parquet") for row in rows_of(part) if row["error"] is None}
    assert len(done) < 24
    written_at = {path: path.stat().st_mtime_ns for path in out.rglob("*.unq")}
    code, rows, err = finished(start(*asked, "--json", *there, **cluster.asked))
    assert code == Code.PARTIAL, err
    assert rows[-1]["summary"]["skipped"] == len(done)
    written = rows_of(out / "manifest.parquet")
    assert len(written) == 27
    check(out, written)
    kept = [Path(row["output"]) for row in written if row["source"] in done]
    assert all(path.stat().st_mtime_ns == written_at[path] for path in kept)


def test_an_object_store(bucket: str, photos: Path, tmp_path: Path, start: Start, cluster: Cluster) -> None:
    """There and back; what is missing is told in a line."""
    from unquant.places import Place

    stored, small = (Place.named(bucket.format(name)) for name in ("in 1", "out"))
    for path in photos.rglob("*.*"):
        stored.child(path.relative_to(photos).as_posix()).write(path.read_bytes())
    there = ["--json", "--address", cluster.address]
    code, rows, err = finished(start(bucket.format("in 1"), small.uri, "--bpp", "0.4", *there, **cluster.asked))
    assert (code, rows[-1]["summary"]["images"]) == (Code.PARTIAL, 27), err
    written = pq.read_table(io.BytesIO(small.child("manifest.parquet").read())).to_pylist()
    good = [row for row in written if row["error"] is None]
    assert len(good) == 24
    for row in good[:3]:
        assert len(Place(row["output"]).read()) == row["output_bytes"]
    assert len(list(small.files())) == 25
    code, rows, err = finished(start(small.uri, "png", "--decode", "--realism", "0", *there, **cluster.asked))
    assert (code, rows[-1]["summary"]["images"]) == (0, 24), err
    assert len(list((tmp_path / "png").rglob("*.png"))) == 24
    code, _, err = finished(start(bucket.format("nowhere"), "a"))
    assert (code, "nowhere?" in err, "no such file or folder" in err) == (Code.INPUT, True, True)
    assert "Traceback" not in err


def test_a_cluster_that_is_not_there(photos: Path, start: Start) -> None:
    code, _, err = finished(start(photos, "out", "--address", "127.0.0.1:1"))
    assert code == Code.INPUT
    assert err.strip().startswith("unquant: error: the cluster at 127.0.0.1:1 cannot be reached")


def test_a_cluster_of_others(photos: Path, start: Start, cluster: Cluster) -> None:
    """That asks for a token."""
    stranger = {**cluster.asked, "RAY_AUTH_TOKEN": "another"}
    code, _, err = finished(start(photos, "out", "--address", cluster.address, **stranger))
    assert (code, "RAY_AUTH_MODE=token" in err, "Traceback" in err) == (Code.INPUT, True, False), err
