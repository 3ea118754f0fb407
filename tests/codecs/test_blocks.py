"""A picture drawn and coded block by block is that of one piece, in memory that does not grow with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import unquant
from unquant.codecs.latent import AnyLatentCodec
from unquant.codecs.windows import Window, blocks


def test_blocks_cover_a_part_along_its_shorter_side() -> None:
    part = Window(3, 13, 2, 9)
    found = blocks(part, 4)
    assert found[:3] == [Window(3, 7, 2, 6), Window(3, 7, 6, 9), Window(7, 11, 2, 6)]
    assert sum(block.size[0] * block.size[1] for block in found) == 70
    assert [block.size for block in blocks(part, 4, even=True)] == [(4, 4), (4, 3)] * 2 + [(2, 4), (2, 3)]
    assert [block.size for block in blocks(part, 9, even=True)] == [(5, 7), (5, 7)]
    wide = Window(0, 4, 0, 9)
    assert [block.left for block in blocks(wide, 3)] == [0, 0, 3, 3, 6, 6]
    assert [block.left for block in blocks(wide, 3, by_rows=True)] == [0, 3, 6, 0, 3, 6]


@pytest.mark.slow
def test_blocks_give_the_picture_of_one_piece(
    single: AnyLatentCodec, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = photo.crop((100, 60, 307, 215)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    options: list[dict[str, Any]] = [
        {"realism": 0},
        {"realism": 0.5, "seed": 2},
        {"realism": 1, "seed": 3},
        {"preview": True},
        {"scale": 1 / 4},
        {"realism": 1, "region": (50, 40, 137, 85)},
    ]
    if single.family == "cdc":
        options += [{"realism": 0.5, "steps": 3, "seed": 1}, {"realism": 1, "steps": 1, "seed": 1}]
    q_map = np.random.default_rng(0).integers(150, 345, (10, 13))
    data = single.encode(image, q_index=q_map)
    fixed, aimed = single.encode(image, q_index=200), single.encode(image, target_bytes=1000)
    whole = [np.asarray(single.decode(data, **each), int) for each in options]
    monkeypatch.setattr(type(single), "window", 4)
    for each, right in zip(options, whole, strict=True):
        found = np.asarray(single.decode(data, **each), int)
        assert found.shape == right.shape
        assert np.abs(found - right).max() <= 1, each
    # blocks of the encoder are whole tiles and whole windows: the files are those of the same windows in one piece
    of_blocks = single.encode(image, q_index=200)
    monkeypatch.setattr(type(single), "_latent_parts", lambda codec, plan: _in_one(codec, plan))
    assert single.encode(image, q_index=200) == of_blocks
    assert abs(len(of_blocks) - len(fixed)) <= 4
    assert len(aimed) <= 1000


def _in_one(codec: AnyLatentCodec, plan: Any) -> list[tuple[Window, torch.Tensor]]:
    return [(Window.whole(plan.size), codec.analyse(plan.picture.rgb))]


PEAKS = """
import json, pathlib, sys
import torch
from unquant.codecs.cdc import CdcCodec
from unquant.codecs.ratevar import RatevarCodec
from unquant.coding import gaussian_tables, scale_grid
from unquant.container import Container, Header, Tile, symbols_crc
from unquant.networks.cdc import Cdc, CdcConfig
from unquant.networks.config import EntropyConfig
from unquant.networks.ratevar import Ratevar, RatevarConfig
from unquant.networks.reverse import ReverseConfig
from unquant.nn.compressor import CompressorConfig
from unquant.nn.denoiser import DenoiserConfig
from unquant.weights_file import Weights

torch.manual_seed(0)
torch.set_num_threads(1)
entropy = EntropyConfig(hyper=8, width=8, context=8, hidden=8, cond=4)
if sys.argv[1] == "ratevar":
    sizes = {f"{part}_width{at}": 8 for part in ("analysis", "synthesis") for at in (8, 16)}
    reverse = ReverseConfig("mse", width=8, noise_channels=0, sampler="deterministic", steps=1)
    config = RatevarConfig(**sizes, synthesis_depth8=1, cond=4, entropy=entropy, reverse=reverse)
    codec, model, options = RatevarCodec, Ratevar, {"realism": 1}
else:
    compressor = CompressorConfig(widths=(8, 8, 8), depths=(1, 1, 1), maps=(48, 96, 160), map_depths=(1, 1, 1))
    denoiser = DenoiserConfig(widths=(8, 8, 8), depths=(1, 1, 1), up_widths=(8, 8), up_depths=(1, 1), cond=8)
    config = CdcConfig(compressor=compressor, denoiser=denoiser, entropy=entropy)
    codec, model, options = CdcCodec, Cdc, {"preview": True}
tensors = dict(model(config).state_dict())
grid = scale_grid(config.entropy.scale_low, config.entropy.scale_high, config.entropy.scales)
tensors |= {f"tables.{name}": torch.from_numpy(array.copy()) for name, array in gaussian_tables(grid).to_arrays().items()}
codec = codec(Weights(sys.argv[1], config.to_dict(), tensors, {"stream": "00" * 32}, {}))
with torch.inference_mode():
    log2_q = torch.full((1, 1, 1, 1), 4.0, dtype=torch.float64)
    v = torch.randn(1, config.latent, config.tile, config.tile, dtype=torch.float64)
    coded = codec.exact.encode(v, codec.model.entropy.hyper_analysis(v.float(), log2_q.float()), log2_q)
peaks = []
for height in (4096, 12288):
    header = Header(sys.argv[1], codec.stream_id, 1024, height, 256)
    count = 1024 * height // (16 * config.tile) ** 2
    crcs = [symbols_crc(header.to_bytes(), number, coded.symbols) for number in range(count)]
    data = Container(header, tuple(Tile(coded.stream, crc) for crc in crcs)).to_bytes()
    assert codec.decode(data, **options).size == (1024, height)
    peaks.append(1024 * int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]))
print(json.dumps(peaks))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory of a process is read from /proc")
@pytest.mark.parametrize("family", ["ratevar", "cdc"])
def test_memory_hardly_grows_with_the_picture(family: str) -> None:
    """By no more than the 8-bit picture and PIL's copy of it where it becomes three times as high (blocks run along the
    shorter side, and a row of them is full at either height), at full latents and tiny networks; the planes of all at once
    were 28 (ratevar, behind a reverse path) and above 100 bytes a pixel."""
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, family],
        # glibc's own threshold grows with what is freed: peaks of equal runs then differ by 5 bytes a pixel
        env=os.environ | {"PYTHONPATH": str(Path(unquant.__file__).parents[1]), "MALLOC_MMAP_THRESHOLD_": str(2**20)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    small, large = json.loads(done.stdout)
    assert (large - small) / (1024 * (12288 - 4096)) <= 10
