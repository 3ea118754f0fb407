"""What a picture takes is foretold before the work, and limits on it hold for whatever a header claims."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import unquant
from unquant.codecs import forecast
from unquant.codecs.forecast import foretell_decode, foretell_encode
from unquant.codecs.interface import AnyCodec
from unquant.container import DECODE_MAX_PIXELS, Header, Limits, limits_within, parse_header
from unquant.errors import ImageTooLarge, OptionError
from unquant.families import FAMILIES

MP = 10**6


@pytest.mark.parametrize("family", FAMILIES)
def test_more_pixels_take_more(family: str) -> None:
    sizes = [MP // 10, MP, 3 * MP, 16 * MP, 70 * MP, 200 * MP]
    for foretell in (foretell_encode, foretell_decode):
        found = [foretell(family, pixels) for pixels in sizes]
        for less, more in pairwise(found):
            assert less.memory <= more.memory
            assert less.seconds < more.seconds
        assert found[0].memory > 10**8
    assert foretell_encode(family, MP, search=True).seconds > foretell_encode(family, MP).seconds
    assert foretell_decode(family, MP, realism=0.5).seconds > foretell_decode(family, MP, realism=1).seconds


def test_steps_of_cdc_take_time_and_more_than_one_takes_memory() -> None:
    one, four = (foretell_decode("cdc", 16 * MP, realism=0, steps=steps) for steps in (1, 4))
    between = foretell_decode("cdc", 16 * MP, realism=0.5, steps=4)
    assert one.seconds < four.seconds < between.seconds
    assert (four.memory - one.memory, between.memory - four.memory) == (16 * 16 * MP, 16 * 12 * MP)
    assert foretell_decode("ratevar", MP, steps=1) == foretell_decode("ratevar", MP, steps=4)


def test_figures_lie_between_those_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    costs: dict[str, Any] = {"start": 1, "encode": 2, "search": 6, "latent_bytes": 5}
    costs["peaks"] = {"encode": [[1, 100], [4, 400], [16, 1000]]}
    monkeypatch.setattr(forecast, "_costs", lambda family: costs)
    monkeypatch.setattr(forecast, "_MOST_CORES", 1)
    found = [foretell_encode("any", round(size * MP)) for size in (0.1, 1, 2, 10, 16, 18)]
    assert [each.memory // MP for each in found] == [100, 100, 200, 700, 1000, 1100]
    assert found[-1].seconds == 1 + 2 * 18
    assert str(found[-1]) == "18.0 megapixels: about 37 s and 1.10 GB of memory"
    searched = foretell_encode("any", 4 * MP, search=True)
    assert (searched.memory, searched.seconds) == (420 * MP, 25)


def test_limits_of_a_caller_reach_the_decoder(every: AnyCodec, photo: Image.Image) -> None:
    image = photo.crop((0, 0, 60, 40))
    data = every.encode(image, quality=20)
    enough = Limits(max_memory=4 * 10**9)
    assert every.decode(data, preview=True, limits=enough).size == image.size
    for limits, cause in (
        (Limits(max_memory=10**7), r"0\.0 megapixels: .* at most 0\.01 GB are allowed \(--max-memory, Limits\.max_mem"),
        (Limits(max_file=len(data) - 1), f"file of {len(data)} bytes: at most {len(data) - 1}"),
        (Limits(max_dimension=59), "at most 59 a side"),
        (Limits(max_pixels=2399), "at most 2399 pixels"),
    ):
        with pytest.raises(ImageTooLarge, match=cause):
            every.decode(data, preview=True, limits=limits)
    # max_pixels= is one of them
    assert every.decode(data, preview=True, limits=Limits(max_pixels=1), max_pixels=2400).size == image.size
    with limits_within(Limits(max_memory=10**7)), pytest.raises(ImageTooLarge, match="--max-memory"):
        every.encode(image, quality=20)
    with pytest.raises(OptionError, match="max_memory"):
        Limits(max_memory=0)


def test_what_is_drawn_has_a_lower_limit_than_what_is_read(tiny: AnyCodec) -> None:
    width = DECODE_MAX_PIXELS // 10_000 + 1
    data = Header("ratevar", tiny.stream_id, width, 10_000, 320).to_bytes() + bytes(40)
    assert parse_header(data)[0].width == width
    with pytest.raises(ImageTooLarge, match=rf"{width}x10000 pixels: at most {DECODE_MAX_PIXELS} .*--max-pixels"):
        tiny.decode(data)


HOSTILE = """
import json, resource, sys
from pathlib import Path
import torch
import unquant, unquant.cli.exits as exits
from unquant.container import Container, Header, Tile, parse, symbols_crc

def kilobytes(key):
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0])

codec = unquant.load(Path(sys.argv[1]))
side = 16 * codec.config.tile
log2_q = torch.full((1, 1, 1, 1), 4.0, dtype=torch.float64)
with torch.inference_mode():
    v = torch.randn(1, codec.config.latent, codec.config.tile, codec.config.tile, dtype=torch.float64)
    coded = codec.exact.encode(v, codec.model.entropy.hyper_analysis(v.float(), log2_q.float()), log2_q)

def file(columns, rows, whole, alpha=None):
    header = Header(codec.family, codec.stream_id, columns * side, rows * side, 256)
    tiles = [Tile(coded.stream, symbols_crc(header.to_bytes(), n, coded.symbols)) for n in range(whole)]
    return Container(header, (*tiles, *[Tile(b"x", 0)] * (columns * rows - whole)), alpha=alpha).to_bytes()

codec.decode(file(1, 1, 1))
resource.setrlimit(resource.RLIMIT_AS, (1024 * kilobytes("VmSize:") + 2**30,) * 2)
before = kilobytes("VmHWM:")
found = []
for columns, rows in ((78, 78), (511, 11)):  # 100 megapixels
    for whole in (0, 1):
        # of the planes of alpha as well nothing is there before a tile has proved the size
        try:
            codec.decode(file(columns, rows, whole, b"\\0x" if not whole else None), realism=1)
        except unquant.UnquantError as error:
            found.append(type(error).__name__)
print(json.dumps([found, kilobytes("VmHWM:") - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_claim_of_100_megapixels_takes_no_memory(either_weights: Path) -> None:
    """In a gigabyte of addresses, and hardly any memory: the first tile is not whole, or only that is."""
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE, str(either_weights)],
        env=os.environ | {"PYTHONPATH": str(Path(unquant.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, grown = json.loads(done.stdout)
    assert found == ["CorruptStream"] * 4
    assert grown < 100_000
