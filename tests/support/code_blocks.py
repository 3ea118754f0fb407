"""The code blocks of the pages, run as readers would: Python in one namespace a page, commands in one folder a page.

What a block needs and what cannot run in a test is said by comments right before its fence, which readers do not see:

    <!-- given: photo.unq, photos/ -->          files that are there already, made by their suffix
    <!-- not run: all; hours of training -->    or the beginnings of the commands that are not: `pip, unquant bench; …`

What is not run is still held to what there is: options to the commands' parsers, targets to the Makefile, extras to
pyproject.toml, paths to the repository.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from sybil import Document, Example, Region
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer
from typer.models import ParameterInfo
from typer.testing import CliRunner

import unquant
from unquant.cli.app import app

__all__ = ["blocks_of"]

ROOT = Path(__file__).parents[2]
APPS = {"unquant": "unquant.cli.app", "tools": "tools.__main__", "unquant.bench": "unquant.bench.__main__"}
# layouts, and bytes, which tests/container reads; of any other language a comment says what proves it
UNRUN_LANGUAGES = ("text", "hexdump")
_FENCE = RawFencedCodeBlockLexer(re.compile(r"[ \t]*(?P<language>[^\s{]*)[^\n]*\n"))
_REMARK = re.compile(r"<!-- (given|not run): ([^\n]*?) -->\s*\Z")
_OUR_FOLDERS = ("configs/", "docs/", "src/", "tests/", "tools/")


def blocks_of(page: Path, folder: Path) -> list[Example]:
    """The blocks of a page, to be evaluated one after another with `folder`, which has photo.jpg, as the current one.

    Python finds the pictures image, a, b and c. Evaluating raises AssertionError, or what Python raises.
    """
    document = Document.parse(str(page), _regions)
    picture = photograph()
    names = {"image": picture, **{name: picture.resize((96, 64)) for name in "abc"}}
    document.namespace.update(names, __name__=page.stem, folder=folder)
    give(folder, "photo.jpg")
    return list(document)


def _regions(document: Document) -> Iterable[Region]:
    for region in _FENCE(document):
        region.parsed = region.lexemes["source"]
        region.evaluator = evaluate
        yield region


def evaluate(example: Example) -> None:
    """Runs one block of any language."""
    language = example.region.lexemes["language"]
    given, unrun = _remarks(example)
    for name in given:
        give(example.namespace["folder"], name)
    where = f"{Path(example.path).name}:{example.line}"
    if language == "python":
        assert not unrun, f"{where}: Python is run"
        PythonEvaluator()(example)
    elif language == "sh":
        for line in _lines(example.parsed):
            try:
                if any(start == "all" or line.startswith(start) for start in unrun):
                    check(line)
                else:
                    run(line, example.namespace["folder"])
            except AssertionError as error:
                raise AssertionError(f"{where}: {line}\n{error}") from None
    else:
        told = language in UNRUN_LANGUAGES or (language and "all" in unrun)
        assert told, f"{where}: a block in {language or 'no language'}: what runs it?"


def _remarks(example: Example) -> tuple[list[str], list[str]]:
    """What is given, and the beginnings of lines that are not run."""
    found: dict[str, list[str]] = {"given": [], "not run": []}
    before = example.document.text[: example.region.start]
    while (remark := _REMARK.search(before)) is not None:
        kind, words = remark.groups()
        names, _, reason = words.partition("; ")
        assert kind == "given" or reason, f"{remark[0]}: why not?"
        found[kind] += names.split(", ")
        before = before[: remark.start()]
    return found["given"], found["not run"]


def _lines(source: str) -> list[str]:
    """Commands, one a line, without comments."""
    lines = (line.strip() for line in re.sub(r"\\\n\s*", "", source).splitlines())
    return [re.sub(r"\s+# .*", "", line) for line in lines if line and not line.startswith("#")]


@cache
def photograph() -> Image.Image:
    """The photograph of the demo, RGB, 600×400."""
    with Image.open(ROOT / "src" / "unquant" / "demo" / "coffee.png") as image:
        return image.convert("RGB")


@cache
def _encoded() -> bytes:
    return unquant.encode(photograph(), quality=40)


def give(folder: Path, name: str) -> None:
    """Makes a file by its suffix: a picture, a `.unq`, tiny weights; by the / at its end a folder with two small pictures."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith("/"):
        for each in "ab":
            path.mkdir(exist_ok=True)
            photograph().resize((96, 64)).save(path / f"{each}.jpg")
    elif path.suffix == ".unq":
        path.write_bytes(_encoded())
    elif path.suffix == ".safetensors":
        shutil.copy(ROOT / "tests" / "golden" / "tiny.safetensors", path)
    else:
        photograph().save(path)


def run(line: str, folder: Path) -> None:
    """Runs a command: those of `unquant` in this process, with a shell's signs in a shell, anything else not at all."""
    words = shlex.split(line)
    signs = set(shlex.shlex(line, posix=True, punctuation_chars=True)) & {"|", ">", ">>", "<", "&&", ";"}
    if signs:
        command = folder / ".bin" / "unquant"
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m unquant "$@"\n', "utf-8")
        command.chmod(0o755)
        path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
        shell = ["bash", "-eo", "pipefail", "-c", line]
        done = subprocess.run(shell, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return
    environment = _assignments(words)
    assert words[0] == "unquant", "no command of ours, and not marked as not run"
    threads = torch.get_num_threads()
    try:
        result = CliRunner().invoke(app, words[1:], env=environment)
    finally:
        torch.set_num_threads(threads)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def check(line: str) -> None:
    """What can be said of a command without running it."""
    words = shlex.split(line)
    _assignments(words)
    for word in words:
        assert not word.startswith(_OUR_FOLDERS) or (ROOT / word).exists(), f"no {word} in the repository"
    if words[0] == "unquant":
        parse("unquant", words[1:])
    elif words[:2] == ["python", "-m"]:
        parse(words[2], words[3:])
    elif words[0] in ("torchrun", "srun"):  # their own options are theirs
        parse("unquant", words[words.index("unquant") + 1 :])
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets), "no such target"
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        for named in re.findall(r"(?:unquant|\.)\[([\w,]+)\]", line):
            assert set(named.split(",")) <= set(extras), f"no extra {named}"
    else:
        assert words[0].startswith(".venv/bin/") or words[0] in ("cat",), "nothing is known of this command"


def parse(name: str, words: list[str]) -> None:
    """Reads the arguments of `unquant` or of `python -m NAME` without doing what they ask; files need not exist."""
    said = io.StringIO()
    made = ParameterInfo.__init__

    def for_any_file(self: ParameterInfo, **options: Any) -> None:
        made(self, **{**options, "exists": False})

    with pytest.MonkeyPatch.context() as patch:
        # annotations are strings: they are evaluated when the command is made of them
        patch.setattr(ParameterInfo, "__init__", for_any_file)
        command: Any = typer.main.get_command(import_module(APPS[name]).app)
        _silence(command)
        with contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
            command.main(words, prog_name=name)
    assert not ended.value.code, said.getvalue()


def _silence(command: Any) -> None:
    command.callback = lambda **_: None
    for each in getattr(command, "commands", {}).values():
        _silence(each)


def _assignments(words: list[str]) -> dict[str, str]:
    """Takes variables off the front of a command."""
    found: dict[str, str] = {}
    while (match := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])) is not None:
        found[match[1]] = match[2]
        del words[0]
    return found
