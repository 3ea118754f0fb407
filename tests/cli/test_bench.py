"""`unquant bench` as a user meets it: exit codes, messages, files; runs that are killed, interrupted and taken up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fake_codec import picture
from PIL import Image
from typer.testing import Result

from unquant.bench.run.rows import Row, read_rows
from unquant.cli.exits import Code

Call = Callable[..., Result]
Spawn = Callable[..., "subprocess.CompletedProcess[bytes]"]

SMALL = ("--codecs", "jpeg,webp", "--metrics", "psnr", "--no-report")
PROC = Path("/proc/self/task")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for seed in range(2):
        save(folder / f"{'ab'[seed]}.png", seed)
    return folder


def save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(96, 80, seed=seed).save(path)
    return path


def rows_of(out: Path) -> list[Row]:
    return read_rows(out / "rows.jsonl")


def timeless(rows: list[Row]) -> list[Row]:
    return [replace(row, encode_s=None, decode_s=None, environment="") for row in rows]


# --- a run -------------------------------------------------------------------------------------------------------


def test_a_table_rows_and_places(call: Call, images: Path, tmp_path: Path) -> None:
    result = call("bench", images, *SMALL, "--at-bpp", "1,2", "-o", "out")
    assert result.exit_code == 0, result.stderr
    head, _, *lines = result.stdout.splitlines()
    assert [cell.strip() for cell in head.strip("|").split("|")] == ["target", "codec", "bpp", "PSNR, dB"]
    assert [line.split("|")[1].strip() + " " + line.split("|")[2].strip() for line in lines[:4]] == [
        "1 bpp jpeg", "1 bpp webp", "2 bpp jpeg", "2 bpp webp",
    ]  # fmt: skip
    found = rows_of(tmp_path / "out")
    assert len(found) == 8
    assert {row.image for row in found} == {"a", "b"}
    assert {row.environment for row in found} == json.loads((tmp_path / "out/environments.json").read_text()).keys()
    assert "out: 8 rows, 8 measured, 0 known before" in result.stderr
    again = call("bench", images, *SMALL, "--at-bpp", "1,2", "-o", "out")
    assert again.stdout == result.stdout
    assert "8 rows, 0 measured, 8 known before" in again.stderr


def test_against_a_codec_at_equal_bytes(call: Call, images: Path) -> None:
    rates = ("--at-bpp", "0.8,1.2,1.8,2.7,4", "-o", "out")
    result = call("bench", images, *SMALL, *rates, "--against", "webp")
    assert result.exit_code == 0, result.stderr
    _, table = result.stdout.split("\n\n| codec ")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [line[:3] for line in lines[:2]] == [["webp", "0.1", "0"], ["jpeg", "0.1", "0"]]
    for arguments, cause in (
        (("--against", "avif"), "'avif' is not among the codecs"),
        (("--against", "webp", "--json"), "--json has none"),
        (("--against", "webp", "--metrics", "none"), "nothing is decoded"),
    ):
        refused = call("bench", images, *SMALL, *rates, *arguments)
        assert refused.exit_code == Code.USAGE
        assert cause in refused.stderr


@pytest.mark.slow
def test_av1_beside_avif_with_its_options(call: Call, images: Path, tmp_path: Path, tiny_av1_weights: Path) -> None:
    codecs = ("--codecs", f"{tiny_av1_weights},avif-base", "--metrics", "psnr", "--no-report")
    result = call("bench", images / "a.png", *codecs, "-q", "20,40", "--at-bpp", "2", "--q-index", "60", "-o", "out")
    assert result.exit_code == 0, result.stderr
    rows = {(row.codec, row.target, row.realism): row for row in rows_of(tmp_path / "out")}
    targets, name = ("2 bpp", "quality 20", "quality 40"), tiny_av1_weights.stem
    assert rows.keys() == {
        *((name, target, realism) for target in targets for realism in (0.0, 1.0)),
        *(("avif-base", target, None) for target in targets),
    }
    # the same stream of the same options, in a file without boxes
    for target in targets[1:]:
        assert 215 < rows["avif-base", target, None].bytes - rows[name, target, 1.0].bytes < 275
    assert rows[name, "2 bpp", 1.0].bpp <= 2


def test_the_summary_as_json(call: Call, images: Path) -> None:
    (images / "broken.png").write_bytes(b"")
    result = call("bench", images, *SMALL, "--at-bpp", "0.01,2", "--json")
    assert result.exit_code == Code.PARTIAL
    content = json.loads(result.stdout)
    assert [(group["target"], group["codec"], group["n"]) for group in content["groups"]] == [
        ("0.01 bpp", "jpeg", 2), ("0.01 bpp", "webp", 2), ("2 bpp", "jpeg", 2), ("2 bpp", "webp", 2),
    ]  # fmt: skip
    assert content["groups"][0]["unreached"] == 2
    assert content["groups"][0]["scores"]["psnr"] > 10
    assert content["images"] == 2
    assert [failure["codec"] for failure in content["failures"]] == [""]
    assert any("not reached" in note and "jpeg at 0.01 bpp (2 of 2)" in note for note in content["notes"])
    assert content["violations"] == []


def test_folders_files_and_levels(call: Call, images: Path, tmp_path: Path) -> None:
    save(images / "deep" / "c.png", 2)
    save(images / ".hidden" / "d.png", 3)
    other = save(tmp_path / "e.png", 4)
    (images / "notes.txt").write_text("no image")
    arguments = (*SMALL, "-q", "50", "-o", images / "out")
    assert call("bench", images, other, *arguments).exit_code == 0
    assert {row.image for row in rows_of(images / "out")} == {"a", "b", "e"}
    assert any((images / "out/cache/files").glob("*.webp"))
    assert call("bench", images, "-r", *arguments).exit_code == 0
    assert {row.image for row in rows_of(images / "out")} == {"a", "b", "c"}


@pytest.mark.slow
def test_sizes_of_a_model_and_violations(
    call: Call, images: Path, tmp_path: Path, tiny_weights: Path, monkeypatch
) -> None:
    arguments = ("bench", images, "--codecs", tiny_weights, "--metrics", "none", "--no-report", "-o", "out")
    result = call(*arguments, "--q-index", "40, 80,120")
    assert result.exit_code == 0, result.stderr
    assert {(row.codec, row.q_index, row.realism) for row in rows_of(tmp_path / "out")} == {
        ("tiny", q, None) for q in (40, 80, 120)
    }
    from unquant.codecs.ratevar import RatevarCodec

    plain = RatevarCodec.encode
    monkeypatch.setattr(
        RatevarCodec, "encode", lambda self, image, q_index=40, **_: plain(self, image, q_index=160 - q_index)
    )
    result = call(*arguments, "-o", "other", "--q-index", "40,80,120")
    assert result.exit_code == Code.OTHER
    assert "bytes at q index 80, more than" in result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("requires_weights")
def test_the_real_codec_on_a_photograph(call: Call, tmp_path: Path, photo: Image.Image) -> None:
    for number in range(2):
        photo.crop((150 + 40 * number, 80, 406 + 40 * number, 336)).save(tmp_path / f"cup{number}.png")
    arguments = ("--codecs", "ratevar,jpeg", "--at-bpp", "0.3", "--metrics", "fast", "-o", "out")
    result = call("bench", "cup0.png", "cup1.png", *arguments)
    assert result.exit_code == 0, result.stderr
    found = {(row.image, row.codec, row.realism): row for row in rows_of(tmp_path / "out")}
    assert len(found) == 2 * 3
    plain, drawn, jpeg = (found["cup0", *each] for each in (("ratevar", 0.0), ("ratevar", 1.0), ("jpeg", None)))
    assert plain.bytes == drawn.bytes <= 0.3 * 256 * 256 / 8
    assert plain.scores["psnr"] > drawn.scores["psnr"] > jpeg.scores["psnr"] > 20
    assert plain.q_index == drawn.q_index
    assert plain.encode_s == drawn.encode_s > 0
    assert plain.decode_s > 0
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert "ratevar" in page


# --- what cannot be done -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("--codecs", "jpeg,gif"), "no codec is called 'gif'; there are jpeg, webp"),
        (("--codecs", ","), "--codecs: a list of names"),
        (("--metrics", "psnr,fid"), "--metrics: 'fid' is none; there are psnr"),
        (("--at-bpp", "much"), "--at-bpp: 'much' is not a list of rates"),
        (("-q", "5,x"), "--quality: '5,x' is not a list of numbers"),
        (("-q", "500"), "0..100, not 500"),
        (("--q-index", "1.5"), "--q-index: '1.5'"),
        (("--codecs", "jpeg", "--q-index", "4"), "without a model"),
        (("--realism", "2"), "realism lies in 0..1"),
        (("--metrics", "none", "--distances"), "--distances: nothing is decoded"),
    ],
)
def test_usage_errors(call: Call, images: Path, tmp_path: Path, arguments: tuple[str, ...], cause: str) -> None:
    result = call("bench", images, *SMALL, *arguments)
    assert result.exit_code == Code.USAGE
    assert cause in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_none(call: Call, images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    result = call("bench", "empty", *SMALL)
    assert result.exit_code == Code.INPUT
    assert result.stderr == "unquant: error: empty: no image files in this folder\n"
    result = call("bench", "gone.png", *SMALL)
    assert (result.exit_code, "gone.png: " in result.stderr) == (Code.INPUT, True)
    for name in ("x.png", "y.png"):
        (tmp_path / "empty" / name).write_bytes(b"no picture")
    result = call("bench", "empty", *SMALL)
    assert result.exit_code == Code.INPUT
    assert all(f"{name}: cannot be read: not an image" in result.stderr for name in ("x.png", "y.png"))


def test_a_broken_image_among_others(call: Call, images: Path, tmp_path: Path) -> None:
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:500])
    result = call("bench", images, *SMALL, "-q", "50", "-o", "out")
    assert result.exit_code == Code.PARTIAL
    assert "broken.png: " in result.stderr
    assert "left out" in result.stderr
    assert {row.image for row in rows_of(tmp_path / "out")} == {"a", "b"}


def test_a_codec_that_fails_on_an_image(call: Call, images: Path, tmp_path: Path) -> None:
    Image.new("RGB", (17_000, 2)).save(images / "wide.png")
    result = call("bench", images, *SMALL, "-q", "50", "-o", "out")
    assert result.exit_code == Code.PARTIAL
    assert "wide, webp: WebP cannot encode a picture of 17000×2" in result.stderr
    assert "images missing: webp at quality 50 (wide)" in result.stdout
    assert len(rows_of(tmp_path / "out")) == 5
    result = call("bench", images / "wide.png", "--codecs", "webp", "--metrics", "psnr", "-q", "50", "-o", "alone")
    assert result.exit_code == Code.INPUT


def test_a_plugin_that_is_not_installed(call: Call, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    result = call("bench", images, *SMALL, "--codecs", "jpeg,jxl", "-q", "50")
    assert result.exit_code == 0
    assert "unquant: note: JPEG XL: " in result.stderr
    assert "install pillow-jxl-plugin; left out" in result.stderr
    assert call("bench", images, *SMALL, "--codecs", "jxl", "-q", "50").exit_code == Code.USAGE


def test_a_model_that_is_not_installed(call: Call, images: Path, tmp_path: Path) -> None:
    result = call("bench", images, *SMALL, "--codecs", "jpeg,gone.safetensors")
    assert result.exit_code == Code.MODEL
    assert "gone.safetensors" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(call: Call, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("bench", images, *SMALL, "-o", "file/out")
    assert result.exit_code == Code.INPUT
    assert "file/out: results cannot be written here" in result.stderr


def test_published_points_are_read_first(call: Call, images: Path, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("no points")
    result = call("bench", images, *SMALL, "--published", "points.csv")
    assert result.exit_code == Code.INPUT
    assert not (tmp_path / "out").exists()


def test_help_is_light_and_complete(spawn: Spawn) -> None:
    done = spawn("bench", "--help", python=("-X", "importtime"))
    imported = {line.rsplit(b"|", 1)[-1].strip() for line in done.stderr.splitlines() if b"|" in line}
    assert imported.isdisjoint({b"torch", b"numpy", b"PIL.Image", b"unquant.bench"})
    assert all(option in done.stdout.decode() for option in ("--at-bpp", "--realism", "--metrics", "--published"))


# --- runs that come to a sudden end --------------------------------------------------------------------------------

LONG = ("--codecs", "jpeg,webp", "--metrics", "psnr,gradient", "--no-report", "--at-bpp", "0.8,1.2,2,3")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    for seed in range(6):
        path = tmp_path / "many" / f"{seed}.png"
        path.parent.mkdir(exist_ok=True)
        picture(256, 160, seed=seed).save(path)
    return path.parent


@pytest.fixture
def begin(tmp_path: Path, environment: dict[str, str], many: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a run of 48 rows in a process group of its own and waits for its first rows."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "unquant", "bench", str(many), *LONG, "-o", "out", *arguments]
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=tmp_path, env=environment,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if lines(tmp_path) >= 5:
                return process
            time.sleep(0.01)
        raise AssertionError(f"no rows: {process.communicate()[1].decode()}")

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def lines(folder: Path) -> int:
    path = folder / "out/rows.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def group_of(process: subprocess.Popen[bytes]) -> dict[int, str]:
    """The processes that are alive in the group that `process` leads, and their command lines."""
    found: dict[int, str] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = status.read_text().rpartition(")")[2].split()[:3]
            if int(group) == process.pid and state != "Z":
                found[int(status.parent.name)] = (status.parent / "cmdline").read_text()
        except OSError:
            continue
    return found


def ends(process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 20
    while group_of(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not group_of(process)


@pytest.mark.slow
def test_a_killed_run_is_taken_up_where_it_was(
    begin: Callable[..., subprocess.Popen[bytes]], call: Call, many: Path, tmp_path: Path
) -> None:
    process = begin()
    process.kill()
    process.wait(30)
    known = {row.key for row in rows_of(tmp_path / "out")}
    assert 5 <= len(known) < 48
    rest = call("bench", many, *LONG, "-o", "out")
    assert rest.exit_code == 0
    measured = int(rest.stderr.rsplit(" measured", 1)[0].rsplit(" ", 1)[1])
    assert 48 - len(known) - 1 <= measured <= 48 - len(known)  # one may have been kept, its row not written
    whole = call("bench", many, *LONG, "-o", "whole")
    assert whole.exit_code == 0
    assert timeless(rows_of(tmp_path / "out")) == timeless(rows_of(tmp_path / "whole"))
    assert rest.stdout == whole.stdout


@pytest.mark.slow
@pytest.mark.skipif(not PROC.exists(), reason="needs /proc")
def test_processes_end_with_a_killed_run(begin: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = begin("-j", "2")
    assert len(group_of(process)) >= 3
    process.kill()
    process.wait(30)
    assert ends(process)


@pytest.mark.slow
@pytest.mark.skipif(not PROC.exists(), reason="needs /proc")
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run(
    begin: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, jobs: str, sent: signal.Signals
) -> None:
    process = begin("-j", jobs)
    if sent == signal.SIGINT:  # as a terminal does
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    _, stderr = process.communicate(timeout=30)
    code, words = {
        signal.SIGINT: (Code.INTERRUPTED, "interrupted"),
        signal.SIGTERM: (Code.TERMINATED, "stopped by SIGTERM"),
    }[sent]
    assert process.returncode == code
    assert stderr.decode() == f"unquant: error: {words}\n"
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert 5 <= len(rows_of(tmp_path / "out")) < 48
    assert ends(process)


@pytest.mark.slow
@pytest.mark.skipif(not PROC.exists(), reason="needs /proc")
def test_a_process_that_dies(begin: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    process = begin("-j", "2")
    os.kill(next(pid for pid, command in group_of(process).items() if "spawn_main" in command), signal.SIGKILL)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == Code.LIMIT
    (line,) = stderr.decode().splitlines()
    assert "a process died, most likely for lack of memory: try fewer at a time (-j); out has what was measured" in line
    assert len(rows_of(tmp_path / "out")) >= 5
