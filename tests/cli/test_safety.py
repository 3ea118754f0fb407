"""Nothing is lost or overwritten without a word: what folders hold, what --force replaces, frames, names of outputs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_codec import FakeCodec, picture
from PIL import Image
from typer.testing import Result

from unquant.cli.exits import Code
from unquant.container import parse
from unquant.images import names_picture, readable_suffixes

Call = Callable[..., Result]
Spawn = Callable[..., "subprocess.CompletedProcess[bytes]"]

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


def save(path: Path, kind: str | None = None, **size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(**size).save(path, kind)
    return path


def write(path: Path, data: bytes = b"something") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def animation(path: Path, count: int = 3, kind: str | None = None) -> Path:
    first, *others = [Image.new("RGB", (32, 24), (80 * n, 40, 255 - 80 * n)) for n in range(count)]
    first.save(path, kind, save_all=True, append_images=others)
    return path


# --- folders -----------------------------------------------------------------------------------------------------


def test_images_that_cannot_be_read_are_named(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    for name in ("a.jpg", "deep/b.ico", "c.tga"):
        save(tmp_path / "in" / name)
    save(tmp_path / "in/IMG_0001", "JPEG")
    save(tmp_path / "in/d.MPO", "JPEG")
    for name in ("e.CR3", "deep/f.xcf", "g.NEF", "h.svg", "i.eps"):
        write(tmp_path / "in" / name, HEIC)
    for name in ("a.xmp", "notes.txt", ".hidden.jpg", "deep/f.xmp", "Makefile", "clip.mpg"):
        write(tmp_path / "in" / name)
    result = call("encode", "-r", "in", "out")
    assert result.exit_code == Code.PARTIAL
    assert set(contents(tmp_path / "out")) == {"a.unq", "deep/b.unq", "c.unq", "IMG_0001.unq", "d.unq"}
    lines = result.stderr.splitlines()
    for name, suffix in (
        ("e.CR3", ".CR3"),
        ("deep/f.xcf", ".xcf"),
        ("g.NEF", ".NEF"),
        ("h.svg", ".svg"),
        ("i.eps", ".eps"),
    ):
        assert f"unquant: error: in/{name}: an image of a kind ({suffix}) that cannot be read" in lines
    (note,) = [line for line in lines if line.startswith("unquant: note: ")]
    assert note.startswith("unquant: note: 6 other files left out, which are no images: 2 .xmp, ")
    assert "1 hidden" in note
    assert "1 without suffix" in note
    assert lines[-1] == "unquant: error: 5 of 10 files failed"


@pytest.mark.parametrize(("name", "package"), [("a.heic", "pillow-heif"), ("b.jxl", "pillow-jxl-plugin")])
def test_images_that_need_a_package_say_which(
    call: Call, codec: FakeCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    from unquant.images import formats, kinds

    monkeypatch.setattr(formats, "_register", lambda plugin: False)
    monkeypatch.setattr(kinds, "readable_suffixes", lambda: frozenset([".png"]))
    monkeypatch.setattr("unquant.images.readable_suffixes", lambda: frozenset([".png"]))
    monkeypatch.setattr("unquant.cli.paths.IMAGES.suffixes", frozenset([".png"]))
    write(tmp_path / "in" / name, HEIC if name.endswith("heic") else b"\xff\x0a" + bytes(20))
    result = call("encode", "-r", "in", "out")
    assert result.exit_code == Code.PARTIAL  # though nothing else is there
    assert f"unquant: error: in/{name}: is " in result.stderr
    assert f"which needs {package}: pip install 'unquant[formats]'" in result.stderr


def test_other_files_alone_are_no_failure(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    write(tmp_path / "in/a.xmp")
    (tmp_path / "in/more").symlink_to(tmp_path)
    assert call("encode", "-r", "in").exit_code == 0
    result = call("encode", "-r", "in", "--force")  # the output of the first is none of the others
    assert result.exit_code == 0
    assert "unquant: note: 2 other files left out, which are no images: 1 links to folders, 1 .xmp\n" in result.stderr
    assert "note" not in call("encode", "-r", "in", "--force", "--quiet").stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_named_and_not_waited_for(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "in/a.png")
    os.mkfifo(tmp_path / "in/pipe.png")
    (tmp_path / "in/gone.png").symlink_to(tmp_path / "nowhere")
    result = call("encode", "-r", "in", "out")
    assert result.exit_code == Code.PARTIAL
    for name in ("pipe", "gone"):
        assert f"unquant: error: in/{name}.png: is not a regular file, or a link to nothing\n" in result.stderr


def test_suffixes_are_the_library_s() -> None:
    Image.init()
    readable = readable_suffixes()
    assert {".png", ".jpg", ".psd", ".ico", ".gif", ".tga", ".avif", ".qoi", ".mpo"} <= readable
    assert readable.isdisjoint({".pdf", ".mpg", ".h5", ".wmf", ".eps", ".palm", ".txt"})
    known = Image.registered_extensions()
    assert all(suffix == ".mpo" or known[suffix] in Image.OPEN for suffix in readable)
    assert all(names_picture(Path(f"x{suffix}")) for suffix in (*readable, ".heic", ".DNG", ".jxl", ".svg"))
    assert not any(names_picture(Path(name)) for name in ("x.xmp", "x.mov", "x", "x.unq", ".jpg"))


# --- --force -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["photo.xmp", "keep.nef", "photo.unq", "photo.jpg.aae", "b"])
def test_force_replaces_earlier_outputs_alone(call: Call, codec: FakeCodec, tmp_path: Path, name: str) -> None:
    save(tmp_path / "photo.jpg")
    write(tmp_path / name, HEIC)
    result = call("encode", "photo.jpg", "-o", name, "--force")
    assert result.exit_code == Code.INPUT
    assert result.stderr == (
        f"unquant: error: {name}: exists, and is no .unq file: --force overwrites earlier outputs alone\n"
    )
    assert codec.calls == []
    assert (tmp_path / name).read_bytes() == HEIC
    for earlier in (b"", b"\x89UNQ and so on"):
        write(tmp_path / name, earlier)
        assert call("encode", "photo.jpg", "-o", name, "--force").exit_code == 0
        assert parse((tmp_path / name).read_bytes()).header.width == 64


def test_force_when_decoding(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    assert call("encode", "a.png", "--keep-suffix").exit_code == 0
    for name, data in (("b.png", HEIC), ("b.jpg", (tmp_path / "a.png").read_bytes()), ("b.tif", b"text")):
        write(tmp_path / name, data)
        result = call("decode", "a.png.unq", name, "--force")
        assert result.exit_code == Code.INPUT
        assert "--force overwrites earlier outputs alone" in result.stderr
        assert (tmp_path / name).read_bytes() == data
    save(tmp_path / "c.png", width=8)
    assert call("decode", "a.png.unq", "c.png", "--force").exit_code == 0
    assert Image.open(tmp_path / "c.png").size == (64, 48)


def test_force_in_a_folder(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        save(tmp_path / "in" / name)
    write(tmp_path / "out/a.unq", b"a note of somebody's")
    (tmp_path / "out/b.unq").symlink_to(tmp_path / "elsewhere")
    result = call("encode", "-r", "in", "out", "--force")
    assert result.exit_code == Code.PARTIAL
    assert "out/a.unq: exists, and is no .unq file" in result.stderr
    assert "out/b.unq: cannot be written: out/b.unq is a link to nothing" in result.stderr
    assert (tmp_path / "out/a.unq").read_bytes() == b"a note of somebody's"
    assert (tmp_path / "out/c.unq").is_file()
    assert not (tmp_path / "elsewhere").exists()


def test_inputs_are_not_overwritten_by_another_name(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    """A link of either kind in the place of an output leads to an input of the same command, which is a .unq file by its
    bytes alone."""
    save(tmp_path / "in/a.png")
    save(tmp_path / "in/b.png")
    before = contents(tmp_path / "in")
    (tmp_path / "out").mkdir()
    os.link(tmp_path / "in/b.png", tmp_path / "out/a.unq")
    (tmp_path / "out/b.unq").symlink_to(tmp_path / "in/a.png")
    result = call("encode", "-r", "in", "out", "--force")
    assert result.exit_code == Code.USAGE
    assert result.stderr.count("would be written over an input") == 2
    assert contents(tmp_path / "in") == before


@pytest.mark.slow
def test_force_in_a_process_of_its_own(spawn: Spawn, tmp_path: Path) -> None:
    save(tmp_path / "photo.jpg")
    write(tmp_path / "photo.xmp")
    write(tmp_path / "keep.heic", HEIC)
    before = contents(tmp_path)
    for name in ("photo.xmp", "keep.heic"):
        done = spawn("encode", "photo.jpg", name, "--force")
        # where HEIC is read, its name is that of an input
        assert done.returncode in (Code.INPUT, Code.USAGE), done.stderr
    assert contents(tmp_path) == before


# --- names and times ---------------------------------------------------------------------------------------------


def test_keep_suffix(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "in/foo.png")
    save(tmp_path / "in/foo.jpg")
    clash = call("encode", "-r", "in", "out")
    assert clash.exit_code == Code.PARTIAL
    assert "is that of in/foo.jpg as well (--keep-suffix tells them apart)" in clash.stderr
    assert call("encode", "-r", "in", "both", "--keep-suffix").exit_code == 0
    assert set(contents(tmp_path / "both")) == {"foo.jpg.unq", "foo.png.unq"}
    assert call("encode", "in/foo.png", "--keep-suffix").exit_code == 0
    assert (tmp_path / "in/foo.png.unq").is_file()
    assert call("decode", "in/foo.png.unq", "--keep-suffix", "--format", "ppm").exit_code == 0
    assert (tmp_path / "in/foo.png.unq.ppm").is_file()


def test_preserve_times(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    os.utime(save(tmp_path / "a.png"), ns=(10**18, 10**18 + 5))
    assert call("encode", "a.png", "--preserve-times").exit_code == 0
    assert (tmp_path / "a.unq").stat().st_mtime_ns == 10**18 + 5
    assert call("decode", "a.unq", "b.png", "--preserve-times").exit_code == 0
    assert (tmp_path / "b.png").stat().st_mtime_ns == 10**18 + 5
    assert call("encode", "a.png", "c.unq").exit_code == 0
    assert (tmp_path / "c.unq").stat().st_mtime_ns > 10**18 + 5


# --- going on ----------------------------------------------------------------------------------------------------


def test_resume_leaves_out_what_is_done(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        os.utime(save(tmp_path / f"in/{name}.png"), ns=(10**18, 10**18))
    assert call("encode", "in/a.png", "in/b.png", "in/c.png", "out/", "--preserve-times").exit_code == 0
    os.utime(tmp_path / "in/b.png", ns=(10**18, 10**18 + 1))  # changed since
    (tmp_path / "out/d.unq").write_bytes(b"something else")
    before = contents(tmp_path / "out")
    calls = len(codec.calls)
    result = call("encode", "-r", "in", "out", "--resume", "-j", "2", "--json")
    assert result.exit_code == Code.PARTIAL
    found = {row["input"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert [name for name in sorted(found) if found[name].get("skipped")] == ["in/a.png", "in/c.png"]
    assert [name for name in sorted(found) if "error" in found[name]] == ["in/b.png", "in/d.png"]
    assert len(codec.calls) == calls + 1
    assert "unquant: note: 2 of 5 files were done before\n" in result.stderr
    assert contents(tmp_path / "out").items() > before.items()
    result = call("encode", "-r", "in", "out", "--resume", "--force")
    assert result.exit_code == Code.PARTIAL  # d.unq is no earlier output
    assert len(codec.calls) == calls + 2  # b.png
    assert "exists, and is no .unq file" in result.stderr
    (tmp_path / "out/d.unq").unlink()
    assert call("encode", "-r", "in", "out", "--resume", "--quiet").exit_code == 0
    assert len(codec.calls) == calls + 3
    result = call("encode", "-r", "in", "out", "--resume")
    assert (result.exit_code, result.stderr) == (0, "unquant: note: 5 of 5 files were done before\n")
    assert len(codec.calls) == calls + 3


def test_resume_of_decodes(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    assert call("encode", "a.png", "a.unq").exit_code == 0
    for name, skipped in (("b.png", False), ("b.png", True)):
        (row,) = map(json.loads, call("decode", "a.unq", name, "--resume", "--json").stdout.splitlines())
        assert ("skipped" in row) is skipped
    assert call("encode", "-", "-", "--resume", stdin=(tmp_path / "a.png").read_bytes()).exit_code == 0


# --- frames ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif", "a.avif"])
def test_frames(call: Call, codec: FakeCodec, tmp_path: Path, name: str) -> None:
    animation(tmp_path / name)
    result = call("encode", name)
    assert result.exit_code == 0
    assert f"unquant: warning: {name}: has 3 frames or pages, of which the first is read\n" in result.stderr
    assert "warning" not in call("encode", name, "b.unq", "--frame", 1).stderr
    result = call("encode", name, "-o", "all/", "--all-frames")
    assert result.exit_code == 0
    assert "warning" not in result.stderr
    files = contents(tmp_path / "all")
    assert list(files) == ["a-0000.unq", "a-0001.unq", "a-0002.unq"]
    assert files["a-0000.unq"] == (tmp_path / "a.unq").read_bytes()
    assert files["a-0001.unq"] == (tmp_path / "b.unq").read_bytes()
    for number, file in enumerate(files):
        assert call("decode", f"all/{file}", f"{number}.png").exit_code == 0
        colour = np.asarray(Image.open(tmp_path / f"{number}.png"), int)
        assert np.abs(colour - (80 * number, 40, 255 - 80 * number)).max() <= 12


def test_options_of_frames(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    save(tmp_path / "in/b.png")
    animation(tmp_path / "in/a.gif")
    write(tmp_path / "in/c.gif", b"broken")
    save(tmp_path / "in/a-0001.png")
    for arguments, cause in (
        (("in/a.gif", "--frame", 3), "has no frame 3, of 3"),
        (("in/a.gif", "--frame", 0, "--all-frames"), "--frame and --all-frames exclude each other"),
        (("in/a.gif", "-o", "-", "--all-frames"), "its 3 frames cannot all go to the standard output"),
        (("-", "a.unq", "--all-frames"), "--all-frames: for files, not for the standard input"),
    ):
        result = call("encode", *arguments)
        assert result.exit_code == Code.USAGE
        assert cause in result.stderr
    result = call("encode", "-r", "in", "out", "--all-frames")
    assert result.exit_code == Code.PARTIAL
    assert set(contents(tmp_path / "out")) == {"a-0000.unq", "a-0001.unq", "a-0002.unq", "b.unq"}
    assert "in/c.gif: " in result.stderr
    assert "in/a.gif: its output out/a-0001.unq is that of in/a-0001.png as well" in result.stderr
