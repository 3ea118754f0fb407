"""What a place is known by."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import AvifImagePlugin

from unquant.bench.run import environment as places


def test_the_environment_names_versions_machine_and_weights() -> None:
    place = places.environment({"ratevar": "abcd"}, ["jpeg", "jpeg2000"], processes=2)
    assert place["weights"] == {"ratevar": "abcd"}
    assert {"torch", "pillow", "jpeg", "jpeg2000"} <= place["versions"].keys()
    assert "avif" not in place["versions"]
    assert place["cpu"]
    assert place["threads"] >= 1
    assert place["processes"] == 2


def test_the_commit_is_that_of_the_checkout_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    subprocess.run([*git, "init", "-q"], check=True)
    assert places.commit(package) is None  # it lies below a checkout, and is not in it
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "a"], check=True)
    clean = places.commit(package)
    assert clean is not None
    assert len(clean) == 40
    (package / "__init__.py").write_text("changed = True")
    assert places.commit(package) == f"{clean}-dirty"
    monkeypatch.setenv("PATH", "")
    assert places.commit(package) is None


def test_the_code_has_an_id_that_follows_the_source_of_the_codec(tmp_path: Path) -> None:
    assert len(places.code_id()) == 8
    for folder in ("codecs", "bench"):
        (tmp_path / folder).mkdir()
    before = places.code_id(tmp_path)
    (tmp_path / "codecs" / "new.py").write_text("a = 1")
    after = places.code_id(tmp_path)
    assert before != after
    (tmp_path / "codecs" / "notes.txt").write_text("no source")
    (tmp_path / "bench" / "new.py").write_text("b = 1")
    assert places.code_id(tmp_path) == after


def test_threads_are_limited_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads(), AvifImagePlugin.DEFAULT_MAX_THREADS
    with places.limited_threads(1):
        assert (torch.get_num_threads(), AvifImagePlugin.DEFAULT_MAX_THREADS) == (1, 1)
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert (torch.get_num_threads(), AvifImagePlugin.DEFAULT_MAX_THREADS) == before
    assert "OMP_NUM_THREADS" not in os.environ
