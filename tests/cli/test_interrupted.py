"""Commands that are stopped, or cannot write, in processes of their own: whole files or none, the right exit code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_codec import picture
from PIL import Image

import unquant
from unquant.cli.exits import Code
from unquant.codecs.interface import AnyCodec
from unquant.weights_file import read_weights, write_shards

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs POSIX")]

COUNT = 24
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Start]:
    """Starts a command; file_size: what `ulimit -f` allows, in bytes."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: object, file_size: int | None = None) -> subprocess.Popen[str]:
        def limit() -> None:
            import resource

            if file_size is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

        command = [sys.executable, "-m", "unquant", *map(str, arguments)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environment,
            text=True,
            preexec_fn=limit,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(COUNT):
        picture(96, 64, seed=seed).save(folder / f"{seed:02}.png")
    return folder


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, Code.INTERRUPTED), (signal.SIGTERM, Code.TERMINATED)])
def test_a_batch_is_stopped_and_resumed(
    sent: signal.Signals,
    code: Code,
    jobs: int,
    start: Start,
    images: Path,
    tiny: AnyCodec,
    tiny_weights: Path,
    tmp_path: Path,
) -> None:
    command = ("encode", "-r", images, "out", "--model", tiny_weights, "-j", jobs, "--quiet")
    process = start(*command)
    deadline = time.monotonic() + 60
    while (
        not any(name.endswith(".unq") for name in written(tmp_path / "out"))
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said == f"unquant: error: {'interrupted' if sent == signal.SIGINT else 'stopped by SIGTERM'}\n"
    before = written(tmp_path / "out")
    assert 0 < len(before) < COUNT
    assert all(name.endswith(".unq") and tiny.decode(data).size == (96, 64) for name, data in before.items())
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before}
    process = start(*command, "--resume")
    assert process.communicate(timeout=120)[1] == ""
    assert process.returncode == 0
    after = written(tmp_path / "out")
    assert set(after) == {f"{seed:02}.unq" for seed in range(COUNT)}
    assert all(after[name] == before[name] for name in before)
    assert times == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before}


def test_files_that_may_not_grow(start: Start, images: Path, tiny_weights: Path, tmp_path: Path) -> None:
    data = unquant.load(tiny_weights).encode(picture(96, 64))
    (tmp_path / "a.unq").write_bytes(data)
    precious = (images / "00.png").read_bytes()
    for arguments, name in (
        (("encode", images / "00.png", "b.unq", "--model", tiny_weights), "b.unq"),
        (("decode", "a.unq", "b.png", "--model", tiny_weights), "b.png"),
        (("decode", "a.unq", images / "00.png", "--model", tiny_weights, "--force"), "00.png"),
        (("bench", images, "--codecs", "jpeg", "--metrics", "none", "--no-report", "-o", "out"), "out"),
    ):
        process = start(*arguments, file_size=64)
        _, said = process.communicate(timeout=120)
        assert process.returncode == Code.INPUT, said
        assert "cannot be written: File too large" in said
        assert name in said
        assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.unq", "in", "out"]
    assert not list(
        Path(unquant.__file__).parents[2].glob(".git/index.lock")
    )  # of git, which bench asks for the commit
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    assert (images / "00.png").read_bytes() == precious


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder))
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("room", [0, 4096])
def test_a_full_disk(start: Start, disk: Path, tiny: AnyCodec, tiny_weights: Path, tmp_path: Path, room: int) -> None:
    """Also one on which a file is begun before it is full."""
    image = picture(256, 192)
    image.putalpha(Image.effect_noise(image.size, 100))  # which no coder makes small
    image.save(tmp_path / "a.png")
    (tmp_path / "a.unq").write_bytes(tiny.encode(tmp_path / "a.png", quality=100))
    weights = read_weights(tiny_weights)
    state = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith("tables.")}
    (tmp_path / "export").mkdir()
    write_shards(tmp_path / "export", weights.family, weights.config, state, {})
    filler = disk / "filler"
    filler.write_bytes(bytes(8192 - room))
    with pytest.raises(OSError, match="No space left"):
        (disk / "more").write_bytes(bytes(room + 1))
    (disk / "more").unlink()
    for arguments, name in (
        (("encode", "a.png", disk / "b.unq", "--model", tiny_weights, "--quality", 100), "b.unq"),
        (("decode", "a.unq", disk / "b.png", "--model", tiny_weights), "b.png"),
        (("train", "export", "export", "-o", disk / "w.safetensors"), "w.safetensors"),
    ):
        process = start(*arguments)
        _, said = process.communicate(timeout=120)
        assert process.returncode == Code.INPUT, said
        assert f"{name}: cannot be written: " in said
        assert "No space left on device" in said
        assert "Traceback" not in said
        assert [path.name for path in disk.iterdir()] == ["filler"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that root cannot write to either")
def test_folders_that_cannot_be_written(start: Start, images: Path, tiny_weights: Path, tmp_path: Path) -> None:
    for arguments in (
        ("encode", images / "00.png", "/proc/b.unq", "--model", tiny_weights),
        ("bench", images, "--codecs", "jpeg", "--metrics", "none", "-o", "/proc/out"),
        ("demo", "-o", "/proc/demo"),
    ):
        process = start(*arguments)
        _, said = process.communicate(timeout=120)
        assert process.returncode == Code.INPUT, said
        (line,) = said.splitlines()
        assert line.startswith("unquant: error: /proc/")


def test_two_writers_of_one_output(start: Start, images: Path, tiny_weights: Path, tmp_path: Path) -> None:
    processes = [
        start("encode", images / name, "a.unq", "--model", tiny_weights, "--force")
        for name in ("00.png", "01.png", "02.png")
    ]
    assert [process.communicate(timeout=120)[1].count("error") for process in processes] == [0] * 3
    assert [process.returncode for process in processes] == [0] * 3
    codec = unquant.load(tiny_weights)
    each = [codec.encode(images / name) for name in ("00.png", "01.png", "02.png")]
    assert (tmp_path / "a.unq").read_bytes() in each
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.unq", "in"]
