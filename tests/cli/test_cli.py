"""The commands as a user meets them: exit codes, messages, files. Most run a fake codec; the last ones the real one."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_codec import STREAM_ID, FakeCodec, picture
from PIL import Image
from typer.testing import Result

import unquant
from unquant.cli.exits import Code, code_of, describe
from unquant.container import Container, Header, Tile
from unquant.errors import ImageTooLarge, OptionError, TrainingError, WeightsError

if TYPE_CHECKING:
    from unquant.codecs.cdc import CdcCodec

Call = Callable[..., Result]
Spawn = Callable[..., "subprocess.CompletedProcess[bytes]"]

HEADER = Header("ratevar", STREAM_ID, 64, 48, 321)
UNASKED = {
    "realism": None,
    "steps": None,
    "seed": None,
    "preview": False,
    "region": None,
    "scale": 1,
    "allow_partial": False,
}
"""Options of a decode for which nobody asks."""


def save(path: Path, **size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(**size).save(path)
    return path


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- in processes of their own, without weights ------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("encode", "--help"), ("info", "a.unq"), ("models",)]
)
def test_light_commands_do_not_import_torch(spawn: Spawn, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "a.unq").write_bytes(Container(HEADER, (Tile(b"abc", 0),)).to_bytes())
    done = spawn(*arguments, python=("-X", "importtime"))
    assert done.returncode == 0
    imported = {line.rsplit(b"|", 1)[-1].strip() for line in done.stderr.splitlines() if b"|" in line}
    assert b"unquant.cli.app" in imported
    assert imported.isdisjoint({b"torch", b"numpy", b"PIL.Image", b"constriction", b"beartype"})


@pytest.mark.slow
def test_help_lists_the_commands(spawn: Spawn) -> None:
    text = spawn("--help").stdout.decode()
    for command in ("encode", "decode", "info", "models", "train", "demo"):
        assert command in text
    assert "IN... [OUT]" in spawn("encode", "--help").stdout.decode()
    train = spawn("train", "--help").stdout.decode()
    assert all(f"stage{number}" in train for number in (1, 2, 3))
    assert "export" in train


@pytest.mark.parametrize("command", ["encode", "decode", "info"])
def test_missing_file(spawn: Spawn, command: str) -> None:
    done = spawn(command, "nowhere.xyz")
    assert done.returncode == Code.INPUT
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("unquant: error: nowhere.xyz: ")
    assert "No such file" in line
    assert line.count("nowhere.xyz") == 1


@pytest.mark.slow
def test_random_bytes_are_no_file(spawn: Spawn, tmp_path: Path) -> None:
    (tmp_path / "a.unq").write_bytes(np.random.default_rng(1).bytes(500))
    done = spawn("decode", "a.unq")
    assert done.returncode == Code.CORRUPT
    assert done.stderr.decode().startswith("unquant: error: a.unq: not an unquant file")
    assert files(tmp_path) == ["a.unq"]
    assert spawn("decode", "-", stdin=b"\x89UNQ").returncode == Code.CORRUPT
    assert spawn("info", "a.unq").returncode == Code.CORRUPT


def test_no_arguments_is_a_usage_error(spawn: Spawn) -> None:
    assert spawn("encode").returncode == Code.USAGE
    assert spawn("nonsense").returncode == Code.USAGE


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (signal.SIGINT, Code.INTERRUPTED, "unquant: error: interrupted"),
        (signal.SIGTERM, Code.TERMINATED, "unquant: error: stopped by SIGTERM"),
    ],
)
def test_interrupt(sent: signal.Signals, code: Code, said: str, tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "unquant", "decode", "-", "a.png"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"unquant.codecs.avif" in line:
                break
        time.sleep(0.5)  # it now waits for the standard input
        process.send_signal(sent)
        rest = process.stderr.read().decode()
        assert process.wait(timeout=30) == code
    assert said in rest
    assert "Traceback" not in rest
    assert files(tmp_path) == []


def test_reader_that_has_enough(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "a.unq").write_bytes(Container(HEADER, (Tile(b"abc", 0),)).to_bytes())
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "unquant", "info", "a.unq"]
    with open(write, "wb") as closed:
        done = subprocess.run(
            command, stdout=closed, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, timeout=60, check=False
        )
    assert done.returncode == Code.INPUT
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_standard_output(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "a.unq").write_bytes(Container(HEADER, (Tile(b"abc", 0),)).to_bytes())
    command = [sys.executable, "-m", "unquant", "info", "a.unq"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, timeout=60, check=False
        )
    assert done.returncode == Code.INPUT
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("unquant: error: standard output: cannot be written: ")


@pytest.mark.slow
def test_training_needs_neither_coder_nor_beartype(tmp_path: Path, environment: dict[str, str]) -> None:
    code = (
        "import sys; sys.modules['constriction'] = sys.modules['beartype'] = None\n"
        "import unquant.train.loop\n"
        "sys.argv = 'unquant train stage1 --config no.toml --data . --out o --time-budget 1'.split()\n"
        "from unquant.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=tmp_path, env=environment, timeout=120, check=False
    )
    assert done.returncode == Code.USAGE
    assert done.stderr.decode().startswith("unquant: error: no.toml: not a readable recipe")


# --- usage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("encode", "a.png", "-q", "5", "--bpp", "0.1"), "--quality and --bpp exclude each other"),
        (("encode", "a.png", "--bpp", "1", "--target-size", "9k"), "--bpp and --target-size exclude each other"),
        (("encode", "a.png", "--target-size", "20 parrots"), "--target-size: '20 parrots' is not a size"),
        (("encode", "a.png", "--target-size", "0"), "at least 1 byte"),
        (("encode", "folder"), "folder: is a folder; -r takes the images in it"),
        (("decode", "folder", "-o", "out"), "folder: is a folder; -r takes the .unq and .avif files in it"),
        (("encode", "a.png", "b.png"), "b.png: this is the name of an input"),
        (("encode", "a.png", "-o", "a.png"), "a.png: this is the name of an input"),
        (("encode", "a.png", "b.png", "c.png"), "several inputs need -o FOLDER"),
        (("encode", "a.png", "b.png", "nowhere"), "nowhere: no such folder"),
        (("encode", "a.png", "b.png", "-o", "-"), "several files cannot go to the standard output"),
        (("encode", "a.png", "-", "-o", "out"), "the standard input cannot be one of several"),
        (("encode", "-", "-o", "folder"), "folder: is a folder; what comes from the standard input"),
        (("encode", "a.png", "-", "--json"), "--json and the image cannot both go to the standard output"),
        (("encode", "plain", "-o", "plain"), "plain: would be written over an input"),
        (("encode", "plain", "-o", "link"), "plain: would be written over an input"),
        (("decode", "a.unq", "b.jpg", "--format", "png"), "b.jpg: the extension of OUT gives the format"),
        (("decode", "a.unq", "--format", "xyz"), "--format xyz: "),
        (("decode", "a.unq", "--region", "1,2,3"), "--region: four whole numbers X,Y,W,H, not '1,2,3'"),
        (("decode", "a.unq", "--region", "1,2,0,4"), "region must have x and y of 0 or more, width and height of 1 or"),
        (("decode", "a.unq", "--scale", "1/3"), "--scale: 1/2, 1/4 or 1/8, not '1/3'"),
        (("decode", "a.unq", "--scale", "1/2", "--realism", "1"), "scale: a small picture is not drawn"),
        (("decode", "a.unq", "--preview", "--realism", "0.5"), "--preview and --realism exclude each other"),
        (("decode", "a.unq", "--preview", "--realism", "0"), "--preview and --realism exclude each other"),
    ],
)
def test_usage_errors(call: Call, codec: FakeCodec, tmp_path: Path, arguments: tuple[str, ...], cause: str) -> None:
    for name in ("a.png", "b.png", "c.png", "folder/d.png"):
        save(tmp_path / name)
    os.link(save(tmp_path / "plain.png").rename(tmp_path / "plain"), tmp_path / "link")
    before = files(tmp_path)
    result = call(*arguments, "--force")
    assert result.exit_code == Code.USAGE
    (line,) = result.stderr.splitlines()
    assert line.startswith("unquant: error: ")
    assert cause in line
    assert result.stdout == ""
    assert files(tmp_path) == before
    assert Image.open(tmp_path / "plain").size == (64, 48)


@pytest.mark.parametrize(
    "arguments",
    [
        ("encode", "a.png", "-q", "101"),
        ("encode", "a.png", "--realism", "-0.1"),
        ("encode", "a.png", "--steps", "0"),
        ("encode", "a.png", "--seed", "-1"),
        ("decode", "a.unq", "--realism", "1.5"),
        ("decode", "a.unq", "--steps", "-1"),
        ("decode", "a.unq", "--steps", "two"),
        ("decode", "a.unq", "--seed", "-1"),
        ("decode", "a.unq", "-j", "0"),
    ],
)
def test_values_out_of_range(call: Call, codec: FakeCodec, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "a.unq").write_bytes(Container(HEADER, (Tile(b"abc", 0),)).to_bytes())
    result = call(*arguments)
    assert result.exit_code == Code.USAGE
    assert arguments[2].replace("-q", "--quality").replace("-j", "--jobs") in result.stderr
    assert codec.calls == []


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20000", 20_000),
        ("20k", 20_000),
        ("20KB", 20_000),
        ("1.5MB", 1_500_000),
        ("1.5 m", 1_500_000),
        ("2KiB", 2048),
        (".3k", 300),
        ("512B", 512),
    ],
)
def test_sizes(call: Call, codec: FakeCodec, tmp_path: Path, text: str, size: int) -> None:
    save(tmp_path / "a.png")
    assert call("encode", "a.png", "--target-size", text).exit_code == 0
    assert codec.calls[0]["target_bytes"] == size


# --- encode and decode -------------------------------------------------------------------------------------------


def test_round_trip_with_default_names(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "photo.v2.png")
    result = call("encode", "photo.v2.png", "-q", "40", "--no-metadata")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("photo.v2.png -> photo.v2.unq: ")
    unasked = {"realism": None, "steps": None, "seed": None}
    assert codec.calls[-1] == {"quality": 40.0, "bpp": None, "target_bytes": None, "metadata": False, **unasked}
    (tmp_path / "photo.v2.png").unlink()
    assert call("decode", "photo.v2.unq", "--quiet").stderr == ""
    assert codec.calls[-1] == UNASKED
    assert Image.open(tmp_path / "photo.v2.png").tobytes() == picture().tobytes()


def test_decode_options_and_formats(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    call("encode", "a.png")
    assert call("decode", "a.unq", "b.webp", "--realism", "0.5", "--steps", "2", "--seed", "7").exit_code == 0
    assert codec.calls[-1].items() >= {"realism": 0.5, "steps": 2, "seed": 7, "preview": False}.items()
    assert Image.open(tmp_path / "b.webp").format == "WEBP"
    assert call("decode", "a.unq", "c.png", "--region", "1,2,30,4", "--scale", "1/4").exit_code == 0
    assert codec.calls[-1].items() >= {"region": (1, 2, 30, 4), "scale": 0.25}.items()
    assert call("decode", "a.unq", "--preview", "--format", "jpg").exit_code == 0
    assert codec.calls[-1]["preview"] is True
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"
    done = call("decode", "a.unq", "b.xyz")
    assert done.exit_code == Code.INPUT
    assert "unknown image extension" in done.stderr


def test_what_a_file_asks_of_its_decoder(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    assert call("encode", "a.png", "--realism", "0.25", "--steps", "3", "--seed", 2**64 - 1).exit_code == 0
    asked = {"realism": 0.25, "steps": 3, "seed": 2**64 - 1}
    assert codec.calls[-1].items() >= asked.items()
    text = call("info", "a.unq").stdout.splitlines()
    assert [line.split() for line in text[5:8]] == [["realism:", "0.25"], ["steps:", "3"], ["seed:", str(2**64 - 1)]]
    assert rows(call("info", "a.unq", "--json"))[0].items() >= asked.items()
    assert call("decode", "a.unq", "b.png").exit_code == 0
    assert codec.calls[-1] == UNASKED
    assert call("encode", "a.png", "c.unq").exit_code == 0
    assert [line.split(maxsplit=1)[1] for line in call("info", "c.unq").stdout.splitlines()[5:8]] == ["the model's"] * 3


def test_decoding_without_the_reverse_network(
    call: Call, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that have none take 0 steps only; what they refuse is said in one line."""
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(tiny_weights.parent))
    save(tmp_path / "a.png")
    assert call("encode", "a.png", "-m", "tiny", "--seed", "9").exit_code == 0
    assert call("decode", "a.unq", "b.png", "--steps", "0").exit_code == 0
    for arguments, cause in (
        (("decode", "a.unq", "c.png", "--steps", 2), "a.unq: the weights tiny have no reverse network for 2 steps"),
        (("encode", "a.png", "c.unq", "-m", "tiny", "--steps", 2), "a.png: the weights tiny have no reverse network"),
        (
            ("decode", "a.unq", "c.png", "--seed", 2**64),
            f"seed must be a whole number in 0..2^64-1, got {2**64}",
        ),
        (("encode", "a.png", "c.unq", "-m", "tiny", "--seed", 2**64), "a.png: seed must be a whole number"),
    ):
        result = call(*arguments)
        assert result.exit_code == Code.USAGE
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"unquant: error: {cause}")
    assert files(tmp_path) == ["a.png", "a.unq", "b.png"]


@pytest.mark.slow
def test_the_other_family(
    call: Call, tiny_cdc_weights: Path, tiny_cdc: CdcCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-m` chooses it when encoding; when decoding the file does."""
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(tiny_cdc_weights.parent))
    picture = save(tmp_path / "a.png")
    original = Image.open(picture)
    for rate, options in (
        (("-q", 60), {"quality": 60}),
        (("--bpp", 0.5), {"bpp": 0.5}),
        (("--target-size", 180), {"target_bytes": 180}),
    ):
        assert call("encode", "a.png", "-m", "tiny_cdc", *rate, "--steps", 3, "--force").exit_code == 0
        data = (tmp_path / "a.unq").read_bytes()
        assert data == tiny_cdc.encode(original, steps=3, **options)
    (row,) = rows(call("info", "a.unq", "--json"))
    assert (row["family"], row["model"], row["steps"]) == ("cdc", "tiny_cdc", 3)
    for arguments, options in (
        ((), {}),
        (("--realism", 1, "--steps", 4, "--seed", 9), {"realism": 1.0, "steps": 4, "seed": 9}),
        (("--preview",), {"preview": True}),
    ):
        assert call("decode", "a.unq", "b.png", *arguments, "--force").exit_code == 0
        assert np.array_equal(Image.open(tmp_path / "b.png"), tiny_cdc.decode(data, **options))
    result = call("decode", "a.unq", "c.png", "--steps", 0)
    assert result.exit_code == Code.USAGE
    assert result.stderr == "unquant: error: a.unq: steps must be a whole number in 1..256, got 0\n"
    assert ["tiny_cdc", "cdc"] in [line.split()[:2] for line in call("models").stdout.splitlines()]
    (tmp_path / "d.unq").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    damaged = call("decode", "d.unq")
    assert damaged.exit_code == Code.CORRUPT
    assert damaged.stderr.startswith("unquant: error: d.unq: ")


def test_help_says_what_the_options_of_the_reverse_path_are_for(spawn: Spawn) -> None:
    decode, encode = (spawn(command, "--help").stdout.decode() for command in ("decode", "encode"))
    assert "0: without the reverse network" in decode
    assert "excludes --realism" in decode
    assert "asks of its decoder" in encode
    for option in ("--realism", "--steps", "--seed"):
        assert option in decode
        assert option in encode


def test_pipes(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    data = save(tmp_path / "a.png").read_bytes()
    encoded = call("encode", "-", stdin=data)
    assert encoded.exit_code == 0
    assert encoded.stderr.startswith("standard input -> standard output: ")
    assert encoded.stdout_bytes[:4] == b"\x89UNQ"
    decoded = call("decode", "-", "-", "--format", "ppm", stdin=encoded.stdout_bytes)
    assert Image.open(io.BytesIO(decoded.stdout_bytes)).format == "PPM"
    assert call("decode", "-", "b.png", stdin=encoded.stdout_bytes).stdout == ""
    assert Image.open(tmp_path / "b.png").size == (64, 48)
    broken = call("encode", "-", "-o", "c.unq", stdin=b"no image")
    assert broken.exit_code == Code.INPUT
    assert broken.stderr.startswith("unquant: error: standard input: ")
    assert not (tmp_path / "c.unq").exists()


def test_existing_outputs_are_kept(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    precious = Container(HEADER, (Tile(b"precious", 0),)).to_bytes()
    (tmp_path / "a.unq").write_bytes(precious)
    result = call("encode", "a.png")
    assert result.exit_code == Code.INPUT
    assert result.stderr == "unquant: error: a.unq: exists already (--force overwrites)\n"
    assert codec.calls == []
    assert (tmp_path / "a.unq").read_bytes() == precious
    assert call("encode", "a.png", "--force").exit_code == 0
    assert (tmp_path / "a.unq").read_bytes() != precious


def test_unwritable_outputs(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "file").touch()
    for output, cause in (("none/a.unq", "its folder does not exist"), ("file/a.unq", "its folder does not exist")):
        result = call("encode", "a.png", output)
        assert result.exit_code == Code.INPUT
        assert result.stderr.startswith(f"unquant: error: {output}: ")
        assert cause in result.stderr
    assert call("encode", "a.png", "file/").exit_code == Code.INPUT
    assert call("encode", "a.png", "new/").exit_code == 0
    assert (tmp_path / "new" / "a.unq").is_file()


def test_failure_while_writing_leaves_nothing(
    call: Call, codec: FakeCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.png")
    precious = Container(HEADER, (Tile(b"precious", 0),)).to_bytes()
    (tmp_path / "a.unq").write_bytes(precious)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    result = call("encode", "a.png", "--force")
    assert result.exit_code == Code.INPUT
    assert "a.unq: cannot be written: No space left on device" in result.stderr
    assert files(tmp_path) == ["a.png", "a.unq"]
    assert (tmp_path / "a.unq").read_bytes() == precious


def test_interrupt_at_work(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    save(tmp_path / "a.png")
    codec.before = interrupt
    result = call("encode", "a.png")
    assert result.exit_code == Code.INTERRUPTED
    assert result.stderr == "unquant: error: interrupted\n"
    assert files(tmp_path) == ["a.png"]


def test_warnings_and_unreachable_rates(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    result = call("encode", "a.png", "--bpp", "30")
    assert result.exit_code == 0
    assert "unquant: warning: a.png: the rate is above the highest, which is used\n" in result.stderr
    assert call("encode", "a.png", "--bpp", "30", "--force", "--quiet").stderr == ""
    result = call("encode", "a.png", "--target-size", "50", "--force")
    assert result.exit_code == Code.USAGE
    assert result.stderr == "unquant: error: a.png: at least 100 bytes are needed\n"


def test_missing_models(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    save(tmp_path / "in/b.png")
    result = call("encode", "in/a.png", "-m", "other")
    assert result.exit_code == Code.MODEL
    assert "no model named 'other'" in result.stderr
    result = call("encode", "-r", "in", "out", "-m", "other")
    assert result.exit_code == Code.MODEL
    assert len(result.stderr.splitlines()) == 1
    foreign = Container(Header("ratevar", b"\1\2\3\4", 64, 48, 0), (Tile(b"", 0),)).to_bytes()
    (tmp_path / "f.unq").write_bytes(foreign)
    result = call("decode", "f.unq")
    assert result.exit_code == Code.MODEL
    assert result.stderr.startswith("unquant: error: f.unq: this file needs ratevar weights with stream id 01020304")


def test_damaged_files_and_memory(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    (tmp_path / "a.unq").write_bytes(Container(HEADER, (Tile(b"no picture", 0),)).to_bytes())
    assert call("decode", "a.unq").exit_code == Code.CORRUPT
    assert not (tmp_path / "a.png").exists()

    def exhaust() -> None:
        raise MemoryError

    codec.before = exhaust
    result = call("decode", "a.unq")
    assert result.exit_code == Code.LIMIT
    assert result.stderr == "unquant: error: a.unq: out of memory\n"


def test_traceback_on_demand(call: Call, codec: FakeCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNQUANT_DEBUG", "1")
    result = call("encode", "nowhere.png")
    assert result.exit_code == Code.INPUT
    assert "Traceback" in result.stderr
    assert "unquant: error: nowhere.png: " in result.stderr


def test_defects_are_not_hidden(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    def break_down() -> None:
        raise ZeroDivisionError("oops")

    save(tmp_path / "in/a.png")
    codec.before = break_down
    with pytest.raises(ZeroDivisionError):
        call("encode", "in/a.png")
    save(tmp_path / "in/b.png")
    result = call("encode", "-r", "in", "out")
    assert result.exit_code == Code.OTHER
    assert "in/a.png: internal error: ZeroDivisionError: oops (UNQUANT_DEBUG=1 shows where)" in result.stderr


# --- folders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_folder_with_a_broken_image(call: Call, codec: FakeCodec, tmp_path: Path, workers: int) -> None:
    for name in ("a.png", "deep/b.JPG", "deep/er/c.webp", ".hidden.png", ".git/d.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    result = call("encode", "-r", "in", "out", "-j", workers)
    assert result.exit_code == Code.PARTIAL
    assert files(tmp_path / "out") == ["a.unq", "deep/b.unq", "deep/er/c.unq"]
    lines = result.stderr.splitlines()
    assert len(lines) == 6
    assert lines[-2].startswith("unquant: note: 3 other files left out, which are no images: 1 ")
    (failure,) = [line for line in lines if line.startswith("unquant: error: in/broken.png: ")]
    assert "image" in failure
    assert lines[-1] == "unquant: error: 1 of 4 files failed"
    result = call("decode", "-r", "out", "back", "--format", "ppm", "-j", workers)
    assert result.exit_code == 0
    assert files(tmp_path / "back") == ["a.ppm", "deep/b.ppm", "deep/er/c.ppm"]


def test_several_inputs(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "one/c.png", "two/c.png"):
        save(tmp_path / name)
    assert call("encode", "a.png", "b.png", "-o", "out").exit_code == 0
    assert files(tmp_path / "out") == ["a.unq", "b.unq"]
    assert call("encode", "-r", "one", "a.png", "two", "-o", "more").exit_code == 0
    assert files(tmp_path / "more") == ["a.unq", "one/c.unq", "two/c.unq"]
    assert call("encode", "-r", "one").exit_code == 0
    assert files(tmp_path / "one") == ["c.png", "c.unq"]


def test_two_inputs_never_share_an_output(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", width=64)
    save(tmp_path / "in/a.ppm", width=32)
    result = call("encode", "-r", "in", "out", "--force")
    assert result.exit_code == Code.PARTIAL
    assert "in/a.ppm: its output out/a.unq is that of in/a.png as well" in result.stderr
    assert json.loads(call("info", "out/a.unq", "--json").stdout)["width"] == 64


def test_a_batch_that_fails_as_one(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert call("encode", "-r", "in", "out").exit_code == Code.INPUT
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(b"")
    assert call("encode", "-r", "in", "out").exit_code == Code.INPUT
    assert not (tmp_path / "out").exists()


def test_threads_share_one_codec(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    codec.before = lambda: time.sleep(0.02)
    for index in range(6):
        save(tmp_path / "in" / f"{index}.png")
    result = call("encode", "-r", "in", "out", "-j", "3", "--json")
    assert result.exit_code == 0
    assert len(codec.calls) == 6
    assert len(codec.threads) == 3
    assert {row["input"] for row in rows(result)} == {f"in/{index}.png" for index in range(6)}


def test_interrupted_batch(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    sent: list[int] = []

    def interrupt_once() -> None:
        if len(codec.calls) >= 3 and not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

    codec.before = interrupt_once
    for index in range(8):
        save(tmp_path / "in" / f"{index}.png")
    result = call("encode", "-r", "in", "out", "-j", "2")
    assert result.exit_code == Code.INTERRUPTED
    written = files(tmp_path / "out")
    assert len(written) < 8
    assert all(name.endswith(".unq") for name in written)
    time.sleep(0.3)  # the threads at work come to their end, and write nothing
    assert files(tmp_path / "out") == written


# --- JSON, info, models ------------------------------------------------------------------------------------------


def test_json_lines(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_bytes(b"broken")
    good, bad = sorted(rows(call("encode", "-r", "in", "out", "--json")), key=lambda row: row["input"])
    size = (tmp_path / "out/a.unq").stat().st_size
    assert good | {"seconds": 0} == {
        "input": "in/a.png",
        "output": "out/a.unq",
        "bytes": size,
        "bpp": round(8 * size / (64 * 48), 6),
        "width": 64,
        "height": 48,
        "q_index": 321,
        "model": "av1",
        "stream_id": "00c0ffee",
        "repacked": False,
        "seconds": 0,
    }
    assert bad["code"] == Code.INPUT
    assert bad["error"].startswith("in/b.png: ")
    (row,) = rows(call("decode", "out/a.unq", "a.png", "--json"))
    assert (row["output"], row["width"], row["height"]) == ("a.png", 64, 48)


def test_info(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    header = Header("ratevar", b"\1\2\3\4", 64, 48, 321, realism=50, seed=9)
    data = Container(header, (Tile(b"abc", 0),), icc=b"profile").to_bytes()
    (tmp_path / "a.unq").write_bytes(data)
    text = call("info", "a.unq").stdout
    assert f"64x48 pixels, {len(data)} bytes" in text
    assert "01020304 (no installed model)" in text
    assert "icc 7 bytes" in text
    (row,) = rows(call("info", "-", "--json", stdin=data))
    assert (row["file"], row["stream_id"], row["realism"], row["seed"]) == ("-", "01020304", 0.5, 9)
    result = call("info", "a.unq", "gone.unq", "--json")
    assert result.exit_code == Code.PARTIAL
    assert [row.get("code") for row in rows(result)] == [None, Code.INPUT]
    (tmp_path / "line\nbreak").write_bytes(b"")
    assert call("info", "line\nbreak").stderr.startswith("unquant: error: line\\nbreak: ")


def test_models(call: Call, codec: FakeCodec) -> None:
    head, line = call("models").stdout.splitlines()
    assert head.split() == ["name", "family", "parameters", "size", "stream", "id", "weights", "id"]
    assert line.split() == ["av1", "ratevar", "6.2", "M", "12.3", "MB", "00c0ffee", "00c0ffee-12345678"]
    (row,) = rows(call("models", "--json"))
    assert row["training"] == {"stage": 1}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OptionError("x"), Code.USAGE),
        (WeightsError("x"), Code.MODEL),
        (ImageTooLarge("x"), Code.LIMIT),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried\nmore"), Code.LIMIT),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), Code.LIMIT),
        (TrainingError("x"), Code.OTHER),
        (PermissionError(13, "Permission denied", "f"), Code.INPUT),
        (RuntimeError("x"), None),
    ],
)
def test_codes(error: Exception, code: Code | None) -> None:
    assert code_of(error) == code
    assert "\n" not in describe(error, "a.png")


# --- training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400.0), ("2h", 7200.0), ("1h30m", 5400.0), ("75s", 75.0), ("75", 75.0), ("1.5h", 5400.0)],
)
def test_train_stage1(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, seconds: float) -> None:
    from unquant.train import loop
    from unquant.train.recipe import Run

    runs: list[Any] = []

    def train(recipe: object, run: Any, echo: Callable[[str], None]) -> Path:
        echo("kind=train")
        runs.append(run)
        return run.out / "export"

    monkeypatch.setattr(loop, "train", train)
    (tmp_path / "r.toml").write_text("[loop]\nbatch = 2\n")
    arguments = ("train", "stage1", "--config", "r.toml", "--data", "d", "--out", "o", "--time-budget", text)
    result = call(
        *arguments, "--planned-total", "10h", "--resume", "--init", "random", "--device", "cpu", "--devices", 2
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("kind=train\n")
    expected = Run(Path("d"), Path("o"), seconds, 36_000.0, "random", True, None, "cpu", 2)
    assert runs == [expected]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The runs that are asked for; a recipe r.toml lies in the folder."""
    from unquant.train import loop

    asked: list[Any] = []

    def train(recipe: object, run: Any, echo: Callable[[str], None]) -> Path:
        asked.append(run)
        return run.out / "export"

    monkeypatch.setattr(loop, "train", train)
    (tmp_path / "r.toml").write_text("[model.reverse]\nwidth = 8\n")
    return asked


@pytest.mark.parametrize("stage", [2, 3])
def test_train_later_stages(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_weights: Path, runs: list[Any], stage: int
) -> None:
    from unquant.codecs import registry
    from unquant.train.recipe import Run

    arguments = ("train", f"stage{stage}", "--config", "r.toml", "--data", "d", "--out", "o", "--time-budget", "60")
    options = ("--planned-total", "10h", "--resume", "--metrics-dir", "m", "--device", "cpu", "--devices", 2)
    result = call(*arguments, *options, "--init", "runs/a/export")
    assert result.exit_code == 0, result.stderr
    assert runs == [Run(Path("d"), Path("o"), 60.0, 36_000.0, "runs/a/export", True, Path("m"), "cpu", 2, stage)]
    # without --init the package's weights
    monkeypatch.setattr(registry, "SHIPPED_FOLDER", tmp_path)
    monkeypatch.delenv(registry.FOLDER_VARIABLE, raising=False)
    assert call(*arguments).exit_code == Code.MODEL
    shutil.copy(tiny_weights, tmp_path / "ratevar.safetensors")
    assert call(*arguments).exit_code == 0
    assert runs[1:] == [Run(Path("d"), Path("o"), 60.0, init=str(tmp_path / "ratevar.safetensors"), stage=stage)]
    for init in ("klt", "random"):
        result = call(*arguments, "--init", init)
        assert result.exit_code == Code.USAGE
        assert f"stage {stage} goes on from weights" in result.stderr
    assert len(runs) == 2


@pytest.mark.parametrize("text", ["", "soon", "0", "5x", "1.2.3h", "-3"])
def test_train_refuses_a_bad_duration(call: Call, text: str) -> None:
    result = call("train", "stage1", "--config", "r", "--data", "d", "--out", "o", "--time-budget", text)
    assert result.exit_code == Code.USAGE


def test_train_takes_steps_in_place_of_time(call: Call, runs: list[Any]) -> None:
    from unquant.train.recipe import Run

    arguments = ("train", "stage1", "--config", "r.toml", "--data", "d", "--out", "o")
    assert call(*arguments, "--steps", 300).exit_code == 0
    assert runs == [Run(Path("d"), Path("o"), steps=300)]
    for wrong in (
        (),
        ("--steps", 300, "--time-budget", "1h"),
        ("--steps", 300, "--planned-total", "1h"),
        ("--steps", 0),
    ):
        result = call(*arguments, *wrong)
        assert result.exit_code == Code.USAGE
        assert "--steps" in result.stderr
    assert len(runs) == 1


def test_train_streams_folders_and_urls(call: Call, runs: list[Any]) -> None:
    from unquant.train.recipe import Run

    arguments = ("train", "stage1", "--config", "r.toml", "--out", "o", "--steps", 3, "--data")
    assert call(*arguments, "s3://bucket/shards", "--stream", "--buffer", 9).exit_code == 0
    assert call(*arguments, "d", "--stream").exit_code == 0
    assert runs == [Run(data, Path("o"), steps=3, stream=n) for data, n in (("s3://bucket/shards", 9), ("d", 4096))]
    refused = call(*arguments, "s3://bucket/shards")
    assert (refused.exit_code, "which --stream reads" in refused.stderr) == (Code.USAGE, True)


def test_train_takes_a_cooldown_over_steps_or_time(call: Call, runs: list[Any]) -> None:
    from unquant.train.recipe import Run

    arguments = ("train", "stage1", "--config", "r.toml", "--data", "d", "--out", "o", "--init", "e", "--cooldown")
    assert call(*arguments, "--steps", 300).exit_code == 0
    assert call(*arguments, "--time-budget", "5m").exit_code == 0
    assert runs == [
        Run(Path("d"), Path("o"), steps=300, init="e", cooldown=True),
        Run(Path("d"), Path("o"), 300.0, init="e", cooldown=True),
    ]
    for wrong in ((), ("--time-budget", "5m", "--planned-total", "1h")):
        assert call(*arguments, *wrong).exit_code == Code.USAGE
    assert len(runs) == 2


def test_train_export(call: Call, tmp_path: Path) -> None:
    result = call("train", "export", "run", "-o", "w.safetensors")
    assert result.exit_code == Code.MODEL
    assert "run/ema.json: no export here" in result.stderr
    (tmp_path / "w.safetensors").write_bytes(b"precious")
    assert call("train", "export", "run", "-o", "w.safetensors").exit_code == Code.INPUT
    assert (tmp_path / "w.safetensors").read_bytes() == b"precious"


# --- with the weights of the package -----------------------------------------------------------------------------


models_in_turn = pytest.mark.parametrize("model", ["av1", "ratevar"])


@pytest.mark.slow
@pytest.mark.usefixtures("requires_weights")
class TestShippedWeights:
    """The real codecs on small pictures."""

    @models_in_turn
    def test_round_trip(self, call: Call, tmp_path: Path, model: str) -> None:
        save(tmp_path / "a.png")
        (row,) = rows(call("encode", "a.png", "-m", model, "-q", "60", "--json"))
        assert (row["width"], row["height"], row["model"]) == (64, 48, model)
        assert row["bytes"] == (tmp_path / "a.unq").stat().st_size
        images: dict[str, np.ndarray[Any, Any]] = {}
        for name, options in {
            "plain": ("--realism", "0"),
            "preview": ("--preview",),
            "full": ("--realism", "1"),
            "again": ("--realism", "1"),
        }.items():
            assert call("decode", "a.unq", f"{name}.png", *options).exit_code == 0
            images[name] = np.asarray(Image.open(tmp_path / f"{name}.png")).astype(float)
        psnr = {
            name: 10 * np.log10(255**2 / np.mean((image - np.asarray(picture()).astype(float)) ** 2))
            for name, image in images.items()
        }
        assert psnr["plain"] > 24
        # a first look: of av1 AV1's own picture, of ratevar what the slice that is coded first holds
        assert 24 < psnr["preview"] < psnr["plain"]
        assert np.array_equal(images["full"], images["again"])

    def test_pipes(self, spawn: Spawn) -> None:
        png = io.BytesIO()
        picture().save(png, "PNG")
        encoded = spawn("encode", "-", "--bpp", "0.8", stdin=png.getvalue())
        assert encoded.returncode == 0, encoded.stderr
        assert 8 * len(encoded.stdout) / (64 * 48) <= 0.8
        assert unquant.info(encoded.stdout).model == "av1"  # the default
        decoded = spawn("decode", "-", "-", stdin=encoded.stdout)
        assert Image.open(io.BytesIO(decoded.stdout)).size == (64, 48)

    @models_in_turn
    def test_target_size(self, call: Call, tmp_path: Path, model: str) -> None:
        save(tmp_path / "a.png", width=128, height=96)
        for size in (400, 800):
            assert call("encode", "a.png", f"{size}.unq", "-m", model, "--target-size", size).exit_code == 0
            assert 0.8 * size <= (tmp_path / f"{size}.unq").stat().st_size <= size
        result = call("encode", "a.png", "no.unq", "-m", model, "--target-size", "10")
        assert result.exit_code == Code.USAGE
        assert not (tmp_path / "no.unq").exists()
        result = call("encode", "a.png", "big.unq", "-m", model, "--target-size", "5MB")
        assert result.exit_code == 0
        assert "unquant: warning: a.png: " in result.stderr

    @models_in_turn
    def test_folder_in_threads(self, call: Call, tmp_path: Path, model: str) -> None:
        for index in range(3):
            save(tmp_path / f"in/{index}.png", seed=index)
        (tmp_path / "in/broken.png").write_bytes(b"broken")
        assert call("encode", "-r", "in", "out", "-m", model, "-j", "2", "-q", "30").exit_code == Code.PARTIAL
        assert files(tmp_path / "out") == ["0.unq", "1.unq", "2.unq"]
        assert call("decode", "-r", "out", "back", "-j", "2").exit_code == 0
        assert files(tmp_path / "back") == ["0.png", "1.png", "2.png"]

    @models_in_turn
    def test_damage(self, call: Call, tmp_path: Path, model: str) -> None:
        save(tmp_path / "a.png")
        assert call("encode", "a.png", "-m", model).exit_code == 0
        data = bytearray((tmp_path / "a.unq").read_bytes())
        data[len(data) // 2] ^= 0x10
        (tmp_path / "b.unq").write_bytes(data)
        assert call("decode", "b.unq").exit_code == Code.CORRUPT
        assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_limit_on_pixels(call: Call, codec: FakeCodec, tmp_path: Path, workers: int) -> None:
    for name in ("in/a.png", "in/b.png"):
        save(tmp_path / name, width=64, height=48)
    for limit, code in ((64 * 48 - 1, Code.LIMIT), (64 * 48, 0)):
        result = call("encode", "-r", "in", "out", "-j", workers, "--max-pixels", limit)
        assert result.exit_code == code
        assert ("64x48 pixels: at most 3071 are accepted (--max-pixels" in result.stderr) == (code != 0)
    for limit, code in ((64 * 48 - 1, Code.LIMIT), (64 * 48, 0)):
        assert call("info", "out/a.unq", "--max-pixels", limit).exit_code == code
        assert call("decode", "-r", "out", "back", "-j", workers, "--max-pixels", limit).exit_code == code


def test_the_limit_on_memory(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    """Known before any work: no image is opened, nothing is coded."""
    save(tmp_path / "a.png", width=64, height=48)
    assert call("encode", "a.png", "whole.unq", "--max-memory", "4G").exit_code == 0
    calls = len(codec.calls)
    for command in (("encode", "a.png", "b.unq"), ("decode", "whole.unq", "b.png"), ("encode", "a.png", "--dry-run")):
        result = call(*command, "--max-memory", "50MB")
        assert result.exit_code == Code.LIMIT
        assert result.stderr.startswith(f"unquant: error: {command[1]}: 0.0 megapixels: about ")
        assert result.stderr.endswith("of which at most 0.05 GB are allowed (--max-memory, Limits.max_memory)\n")
    assert len(codec.calls) == calls
    assert not (tmp_path / "b.unq").exists()
    assert not (tmp_path / "b.png").exists()
    assert call("encode", "a.png", "b.unq", "--max-memory", "much").exit_code == Code.USAGE


def test_what_takes_long_is_said_before(
    call: Call, codec: FakeCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.png", width=64, height=48)
    assert "megapixels" not in call("encode", "a.png", "--force").stderr
    monkeypatch.setattr("unquant.cli.batch._LONG_SECONDS", 0)
    for command in (("encode", "a.png"), ("decode", "a.unq")):
        first = call(*command, "--force").stderr.splitlines()[0]
        assert first.startswith(f"unquant: note: {command[1]}: 0.0 megapixels: about ")
        assert "megapixels" not in call(*command, "--force", "--quiet").stderr


HELD = """
import ctypes
from unquant.cli.app import app
app(["models", "--json"], standalone_mode=False)
class Info(ctypes.Structure):  # struct mallinfo2; the fifth is of the bytes in maps of their own
    _fields_ = [(f"f{n}", ctypes.c_size_t) for n in range(10)]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info
bytearray(24 << 20)  # freed at once: glibc's own threshold would be 24 MiB from here on
before = mallinfo2().f4
held = bytearray(20 << 20)
print(mallinfo2().f4 - before >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
@pytest.mark.parametrize(("given", "mebibytes"), [("", 20), ("33000000", 0)])
def test_large_arrays_go_back_to_the_system(environment: dict[str, str], given: str, mebibytes: int) -> None:
    """Arrays of 16 MiB and more have maps of their own however many came before, unless the environment says otherwise."""
    environment = {name: value for name, value in environment.items() if name != "MALLOC_MMAP_THRESHOLD_"}
    environment |= {"MALLOC_MMAP_THRESHOLD_": given} if given else {}
    done = subprocess.run([sys.executable, "-c", HELD], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) == mebibytes
