from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from unquant import files
from unquant.errors import InputError
from unquant.files import check_target, remove_leftovers, whole_file, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes(tmp_path: Path) -> None:
    write_whole(tmp_path / "text", "σ\n")
    write_whole(str(tmp_path / "bytes"), b"\r\n")
    assert (tmp_path / "text").read_bytes() == "σ\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\r\n"
    assert names(tmp_path) == ["bytes", "text"]


def test_overwriting_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=r"x: exists already$"):
        write_whole(path, b"new")
    with pytest.raises(InputError, match=r"x: exists already \(--force overwrites\)$"):
        check_target(path, hint="--force overwrites")
    assert path.read_bytes() == b"old"
    assert check_target(path, force=True) == path
    write_whole(path, b"new", force=True)
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["x"]


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_file_is_refused(force: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = {tmp_path: "is a folder", tmp_path / "pipe": "not a regular file", Path("nul\0byte"): "cannot be written"}
    for path, cause in cases.items():
        with pytest.raises(InputError, match=cause):
            check_target(path, force=force)
        with pytest.raises(InputError, match=cause):
            write_whole(path, b"", force=force)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/x: cannot be written: .*/file is not a folder"):
        write_whole(tmp_path / "file" / "x", b"", force=force)
    assert names(tmp_path) == ["file", "pipe"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("any")])
@pytest.mark.parametrize("step", ["fsync", "replace", "the writing"])
def test_failure_leaves_the_old_file(
    step: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    def write() -> None:
        with whole_file(path, force=True) as temporary:
            temporary.write_bytes(b"half")
            if step == "the writing":
                fail()

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    path = tmp_path / "x"
    path.write_bytes(b"old")
    expected = InputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught:
        write()
    if expected is InputError:
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


def test_no_reader_sees_half_of_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        assert not path.exists()
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def write() -> None:
        with whole_file(path) as temporary:
            temporary.write_bytes(b"ours")
            path.write_bytes(b"theirs")

    with pytest.raises(InputError, match="exists already"):
        write()
    assert path.read_bytes() == b"theirs"
    assert names(tmp_path) == ["x"]


def test_links_are_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with pytest.raises(InputError, match="link: exists already"):
        write_whole(link, b"data")
    write_whole(link, b"data", force=True)
    assert link.is_symlink()
    assert target.read_bytes() == b"data"


@pytest.mark.parametrize("force", [False, True])
def test_links_to_nothing_are_not_written_through(tmp_path: Path, force: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "link").symlink_to(elsewhere)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in ("link", "link/x", "link/deep/x", "loop", "loop/x"):
        with pytest.raises(InputError, match=f"{path}: cannot be written: "):
            write_whole(tmp_path / path, b"data", force=force)
    assert names(tmp_path) == ["link", "loop"]
    assert not elsewhere.exists()


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_are_those_of_any_new_file(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "x", b"")
        with whole_file(tmp_path / "private") as temporary:  # as a library does that writes and renames on its own
            temporary.unlink()
            temporary.write_bytes(b"")
            temporary.chmod(0o600)
    finally:
        os.umask(before)
    for name in ("x", "private"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "x", b"data")
    assert (tmp_path / "a" / "b" / "x").read_bytes() == b"data"


def test_leftovers_of_a_process_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from unquant.files import whole_file\n"
        "with whole_file(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    source = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "x"], env=source).returncode < 0
    assert len(names(tmp_path)) == 1
    assert not (tmp_path / "x").exists()
    (tmp_path / "other").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["other"]
