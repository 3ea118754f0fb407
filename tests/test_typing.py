"""What type checkers say of a script that uses the package as installed: right calls pass, misspelt ones do not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

import unquant

USED = ("PIL", "numpy", "torch", "typing_extensions")
"""What the script and the package's public signatures import."""

SCRIPT = """\
from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

import unquant

image = Image.open("a.png")
data: bytes = unquant.encode(image, quality=40)
data = unquant.encode("a.png", bpp=0.15, realism=0.5)
data = unquant.encode(Path("a.png"), target_bytes=20_000, model="av1")
data = unquant.encode(np.zeros((4, 4, 3), np.uint8), q_index=np.zeros((1, 1), np.int64))
with open("a.png", "rb") as stream, zipfile.ZipFile(stream) as archive, archive.open("b.png") as member:
    data = unquant.encode(stream)
    data = unquant.encode(member)
back: Image.Image = unquant.decode(data, realism=1, seed=3)
back = unquant.decode("a.unq", preview=True)
width: int = unquant.info(Path("a.unq")).width
codec = unquant.load("av1")
names: list[str] = [model.name for model in unquant.models()]
many: list[bytes] = codec.encode([image, image], quality=40)
one: bytes = codec.encode(image, quality=40)
images: list[Image.Image] = codec.decode([data, data])
unquant.register_opener(realism=0.5)
try:
    unquant.encode(image, target_bytes=1)
except unquant.RateUnreachable as error:
    smallest: int = error.smallest
unquant.encode(image, qualty=40)  # wrong
unquant.encode(image, realism="full")  # wrong
unquant.decode(data, realism="full")  # wrong
unquant.decode(data, qulity=3)  # wrong
unquant.decode(30_000_000)  # wrong
unquant.info(None)  # wrong
codec.encode(image, realism="full")  # wrong
codec.encode(image, qualty=40)  # wrong
codec.decode(data, previw=True)  # wrong
unquant.load(3)  # wrong
unquant.models()[0].nam  # wrong
unquant.register_opener(realsm=1)  # wrong
unquant.encode(image, container="jpeg")  # wrong
width = unquant.info(data).widht  # wrong
data = unquant.decode(data)  # wrong
"""

WRONG = {number for number, line in enumerate(SCRIPT.splitlines(), 1) if line.endswith("# wrong")}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which the package is installed: found there as any other, by its py.typed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "unquant").symlink_to(Path(unquant.__file__).parent)
    for name in USED:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        found = origin.parent if origin.stem == "__init__" else origin
        (packages / found.name).symlink_to(found)
    return folder / "bin" / "python"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def run(*command: object, folder: Path) -> str:
    """What a checker prints. It is run outside the checkout, whose settings are not the user's."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_mypy(python: Path, script: Path) -> None:
    pytest.importorskip("mypy")
    said = run("mypy", "--strict", "--python-executable", python, script.name, folder=script.parent)
    assert {int(number) for number in re.findall(r"^script\.py:(\d+): error: ", said, re.MULTILINE)} == WRONG, said


@pytest.mark.slow
def test_pyright(python: Path, script: Path) -> None:
    (script.parent / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "include": ["script.py"]}')
    said = run("pyright", "--outputjson", "--pythonpath", python, folder=script.parent)
    errors = [found for found in json.loads(said)["generalDiagnostics"] if found["severity"] == "error"]
    assert {found["range"]["start"]["line"] + 1 for found in errors} == WRONG, said
