"""Between machines: the same symbols everywhere, pictures within a level, and equal bytes where that is asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unquant
from unquant.codecs.interface import AnyCodec
from unquant.errors import OptionError, UnquantError
from unquant.selftest import FOLDER, INSTRUCTION_SETS, check, check_elsewhere, entries

SOURCE = str(Path(unquant.__file__).parents[1])
FAMILIES = ("ratevar", "cdc", "av1")
TOLERANCE = 1
"""Levels of 255 between numbers of threads and instruction sets, in float32."""
OTHERS = 2e-4
"""Of the values of a picture, those that may differ by so much."""
BF16_PSNR = 50.0

DRAW = """
import io, sys, numpy, torch, unquant
threads, precision, picture, *files, out = sys.argv[1:]
torch.set_num_threads(int(threads))
drawn = {}
for file in files:
    family = file.rpartition("/")[2].partition("-")[0]
    codec = unquant.load(family)
    if precision == "deterministic":
        codec.make_deterministic()
        drawn[family + " file"] = numpy.frombuffer(codec.encode(picture, quality=40), numpy.uint8)
    else:
        codec.precision = getattr(torch, precision)
    for realism in (0, 1):
        drawn[f"{family} {realism}"] = numpy.asarray(codec.decode(file, realism=realism))
numpy.savez(out, **drawn)
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, photo: Image.Image) -> Path:
    """A folder with a part of a photograph, and with a file of it by each shipped model."""
    folder = tmp_path_factory.mktemp("conformance")
    photo.crop((100, 60, 260, 172)).save(folder / "part.png")
    for family in FAMILIES:
        (folder / f"{family}-part.unq").write_bytes(unquant.encode(folder / "part.png", model=family, quality=40))
    return folder


def drawn(work: Path, name: str, threads: int, precision: str, instructions: str = "as it is") -> dict[str, np.ndarray]:
    """The pictures of all files at realism 0 and 1, drawn by a process of its own."""
    out = work / f"{name}.npz"
    files = [str(work / f"{family}-part.unq") for family in FAMILIES]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment |= INSTRUCTION_SETS[instructions] | {"PYTHONPATH": SOURCE, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-c", DRAW, str(threads), precision, str(work / "part.png"), *files, str(out)]
    subprocess.run(command, env=environment, check=True)
    with np.load(out) as arrays:
        return {key: arrays[key].astype(int) for key in arrays}


@pytest.fixture(scope="module")
def reference(work: Path) -> dict[str, np.ndarray]:
    return drawn(work, "reference", 1, "float32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threads", "instructions"), [(2, "as it is"), (1, "onednn avx2"), (2, "onednn sse41"), (1, "aten default")]
)
def test_pictures_agree_within_a_level(
    work: Path, reference: dict[str, np.ndarray], threads: int, instructions: str
) -> None:
    others = drawn(work, f"{threads} {instructions}", threads, "float32", instructions)
    for key, picture in reference.items():
        difference = np.abs(others[key] - picture)
        assert difference.max() <= TOLERANCE, key
        assert (difference > 0).mean() <= OTHERS, key


@pytest.mark.slow
def test_bfloat16_is_near(work: Path, reference: dict[str, np.ndarray]) -> None:
    others = drawn(work, "bfloat16", 1, "bfloat16")
    for key, picture in reference.items():
        error = np.square(others[key] - picture).mean()
        assert error > 0, key
        assert 10 * np.log10(255**2 / error) > BF16_PSNR, key


@pytest.mark.slow
def test_deterministic_is_equal_bytes(work: Path) -> None:
    """Files and pictures, whatever the number of threads."""
    one, two = (drawn(work, f"deterministic {threads}", threads, "deterministic") for threads in (1, 2))
    assert one.keys() == two.keys()
    assert len(one) == 3 * len(FAMILIES)
    for key, array in one.items():
        assert np.array_equal(array, two[key]), key


def test_deterministic_leaves_the_threads_as_they_were(every_weights: Path, photo: Image.Image) -> None:
    codec = unquant.load(every_weights, deterministic=True)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        codec.decode(codec.encode(photo.crop((0, 0, 64, 48))))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_deterministic_is_for_the_cpu(tiny: AnyCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "device", torch.device("cuda:1"))
    with pytest.raises(OptionError, match="deterministic: for the CPU alone, not cuda:1"):
        tiny.make_deterministic()


# --- selftest -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_selftest(shipped_weights: Path, shipped_cdc_weights: Path, shipped_av1_weights: Path) -> None:
    """As a user runs it: every shipped stream, with every set of instructions."""
    command = [sys.executable, "-m", "unquant", "selftest"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": SOURCE}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"ok: 0 of {len(INSTRUCTION_SETS) * len(entries())} decodes differ from the record")
    assert done.stdout.count("\n") == 1


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Golden files of which one of each kind is not what is recorded."""
    folder = tmp_path / "golden"
    shutil.copytree(FOLDER, folder)
    record = entries(folder)
    by_name = {entry["file"]: entry for entry in record}
    by_name["ratevar-point.unq"]["sha256"] = "0" * 64
    by_name["ratevar-fine.unq"]["stream_id"] = "00000000"
    by_name["av1-grey.avif"]["picture"] = "av1-plain.png"
    data = bytearray((folder / "cdc-fine.unq").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "cdc-fine.unq").write_bytes(data)
    grey = Image.open(folder / "av1-chroma.png")
    grey.point(lambda level: min(level + 9, 255)).save(folder / "av1-chroma.png")
    (folder / "golden.json").write_text(json.dumps(record))
    return folder


@pytest.mark.slow
def test_selftest_finds_what_differs(
    damaged: Path, shipped_weights: Path, shipped_cdc_weights: Path, shipped_av1_weights: Path
) -> None:
    wrong = dict(line.split(": ", 1) for line in check(damaged).wrong)
    assert wrong.keys() == {
        "ratevar-point.unq",
        "ratevar-fine.unq",
        "av1-grey.avif",
        "cdc-fine.unq",
        "av1-chroma.avif",
    }
    assert wrong["ratevar-point.unq"] == "other symbols than those recorded"
    assert wrong["ratevar-fine.unq"].startswith("of the stream 00000000; the package's is ")
    assert "levels off" in wrong["av1-chroma.avif"]


def test_a_check_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnquantError, match=r"the check with as it is: .*golden\.json"):
        check_elsewhere("as it is", tmp_path)
