"""What a user of a terminal meets: bars, hints, completion, noise of libraries, signals."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from fake_codec import FakeCodec, picture
from typer.testing import Result

from unquant.cli.exits import Code
from unquant.cli.noise import caught_noise
from unquant.cli.progress import Bar, stop_bars
from unquant.codecs.progress import counted, tell

Call = Callable[..., Result]
Spawn = Callable[..., subprocess.CompletedProcess[bytes]]


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 100 columns, for `redirect_stderr` (pytest puts its own stream in place as a test begins)."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


# --- bars -----------------------------------------------------------------------------------------------------------


def test_a_bar_for_files(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        bar = Bar(3, shown=True)
        with bar.of_files():
            with bar.of_picture(10**7):
                tell("windows", 1, 2)  # not shown: files are counted
            for pixels in (2_000_000, 0, 1_000_000):
                bar.advance(pixels)
    said = terminal.getvalue()
    assert "files" in said
    assert "3/3" in said
    assert "MP/s" in said
    assert "windows" not in said


def test_a_bar_for_one_large_picture(terminal: Terminal) -> None:
    with redirect_stderr(terminal), (bar := Bar(1, shown=True)).of_files(), bar.of_picture(5_000_000):
        assert list(counted(range(4), "tiles", 4)) == [0, 1, 2, 3]
        assert list(counted(range(6), "windows", 6)) == [0, 1, 2, 3, 4, 5]
        bar.advance(5_000_000)
    said = terminal.getvalue()
    assert "6/6" in said
    assert "MP/s" in said
    assert "windows" in said


def test_no_bar(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with redirect_stderr(terminal):
        for bar, pixels in ((Bar(1, shown=True), 1000), (Bar(1, shown=False), 10**7), (Bar(4, shown=False), 10**7)):
            with bar.of_files(), bar.of_picture(pixels):
                tell("windows", 1, 2)
                bar.advance(pixels)
        monkeypatch.setattr(terminal, "isatty", lambda: False)
        with Bar(4, shown=True).of_files():
            pass
    assert terminal.getvalue() == ""


def test_bars_are_taken_off(terminal: Terminal) -> None:
    with redirect_stderr(terminal), Bar(2, shown=True).of_files():
        stop_bars()
        assert terminal.getvalue().count("\x1b[?25h") == 1  # the cursor is back
    stop_bars()


def test_a_batch_on_a_terminal(call: Call, codec: FakeCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    monkeypatch.setattr(Bar, "advance", lambda _, pixels: shown.append(pixels))
    picture(40, 30).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert call("encode", "a.png", "b.png", "-o", ".").exit_code == Code.PARTIAL
    assert shown == [1200, 0]


# --- names like options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["-lead.png", "-q.png", "--lead.png"])
def test_a_name_like_an_option(call: Call, codec: FakeCodec, tmp_path: Path, name: str) -> None:
    picture().save(tmp_path / name)
    result = call("encode", name)
    assert result.exit_code == Code.USAGE
    assert "goes behind --" in " ".join(result.stderr.split())
    assert call("encode", "--", name).exit_code == 0
    assert (tmp_path / name).with_suffix(".unq").is_file()
    assert "goes behind" not in call("info", "-o", "x.unq").stderr  # there is no such file


def test_a_name_that_options_swallow(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    for name in ("-main.png", "b.png"):
        picture().save(tmp_path / name)
    result = call("encode", "-main.png", "b.png")
    assert result.exit_code == Code.MODEL  # as -m ain.png
    assert "unquant: note: -main.png: a file whose name begins with - goes behind --" in result.stderr
    assert "note" not in call("encode", "-o", "-main.png", "b.png", "--force").stderr


def test_version_and_completion(spawn: Spawn, tmp_path: Path, environment: dict[str, str]) -> None:
    assert spawn("-V").stdout == spawn("--version").stdout != b""
    for words, expected in (("unquant en", "encode"), ("unquant encode --targ", "--target-size")):
        completing = {"_UNQUANT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        done = subprocess.run(
            [sys.executable, "-c", "import sys; sys.argv[0] = 'unquant'; from unquant.cli import main; main()"],
            env=environment | completing,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == [expected], done.stderr


# --- noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_what_libraries_print_becomes_warnings(
    call: Call, codec: FakeCodec, tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    for name in ("a.png", "b.png"):
        picture().save(tmp_path / name)
    codec.before = lambda: os.write(2, b"TIFFFetch: \x1b[31munknown tag\nTIFFFetch: \x1b[31munknown tag\n\n") and None
    result = call("encode", "a.png", "b.png", "-o", ".", "-j", workers)
    assert result.exit_code == 0
    said = [line for line in result.stderr.splitlines() if "unknown tag" in line]
    name = "a.png: " if workers == 1 else ""
    assert said[0] == f"unquant: warning: {name}TIFFFetch: \\x1b[31munknown tag"
    assert len(said) == 2 if workers == 1 else said
    assert "unknown tag" not in call("encode", "a.png", "-o", "c.unq", "--quiet").stderr
    assert "unknown tag" not in capfd.readouterr().err
    os.write(2, b"as before")
    assert capfd.readouterr().err == "as before"


def test_much_noise_is_cut(capfd: pytest.CaptureFixture[str]) -> None:
    with caught_noise() as noise:
        assert noise() == []
        os.write(2, "".join(f"line {n % 9}\n" for n in range(90)).encode())
        assert noise() == ["line 0", "line 1", "line 2", "and 6 lines more"]
        assert noise() == []
        os.write(2, b"one more\xff")
        assert noise() == ["one more�"]
    assert capfd.readouterr().err == ""


NOISE = """
import os, sys
from unquant.cli.noise import caught_noise
with caught_noise() as noise:
    os.write(2, b"caught")
    print("said", file=sys.stderr)
    heard = noise()
print(heard)
os.write(2, b"after")
"""


def test_our_own_words_are_not_caught(environment: dict[str, str]) -> None:
    for debugging, out, err in (("0", "['caught']\n", "said\nafter"), ("1", "[]\n", "caughtsaid\nafter")):
        done = subprocess.run(
            [sys.executable, "-c", NOISE],
            env=environment | {"UNQUANT_DEBUG": debugging},
            capture_output=True,
            text=True,
            check=True,
        )
        assert (done.stdout, done.stderr) == (out, err)
    closed = subprocess.run(
        [
            "sh",
            "-c",
            f"exec '{sys.executable}' -c 'from unquant.cli.noise import caught_noise as c\nwith c() as n: print(n())' 2>&-",
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert closed.stdout == "[]\n"


# --- SIGTERM --------------------------------------------------------------------------------------------------------


AT_WORK = """
import hashlib
import sys
from unquant.cli import app
from unquant.files import whole_file

def work():
    with whole_file("a.unq") as path:
        path.write_bytes(b"half")
        print("begun", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # no Python runs in this thread for many minutes

app.app.command("work")(app.guarded(work))
sys.argv[1:] = ["work"]
app.main()
"""


def test_sigterm_while_a_library_is_at_work(tmp_path: Path, environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", AT_WORK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.terminate()
        assert process.wait(timeout=30) == Code.TERMINATED
        assert process.stderr.read() == "unquant: error: stopped by SIGTERM\n"
    assert list(tmp_path.iterdir()) == []
