"""The memory of the entropy stage of a large picture, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import unquant

SCRIPT = """
import json, pathlib, resource, sys
import torch
from unquant.codecs.cdc import CdcCodec
from unquant.coding import gaussian_tables, scale_grid
from unquant.container import Container, Header, Tile, symbols_crc
from unquant.networks.cdc import Cdc, CdcConfig
from unquant.networks.config import EntropyConfig
from unquant.settings import read_settings
from unquant.weights_file import Weights

def peak():
    # ru_maxrss of a child begins with that of the process that started it
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

torch.manual_seed(0)
config = CdcConfig(entropy=read_settings(EntropyConfig, json.loads(sys.argv[1]), "entropy"))
with torch.inference_mode():
    tensors = dict(Cdc(config).state_dict())
    grid = scale_grid(config.entropy.scale_low, config.entropy.scale_high, config.entropy.scales)
    tables = gaussian_tables(grid).to_arrays()
    tensors |= {f"tables.{name}": torch.from_numpy(array.copy()) for name, array in tables.items()}
    codec = CdcCodec(Weights("cdc", config.to_dict(), tensors, {"stream": "00" * 32}, {}))
    peaks = {}
    log2_q = torch.full((1, 1, 1, 1), 4.0, dtype=torch.float64)
    side = config.tile
    v = torch.randn(1, config.latent, side, side, dtype=torch.float64)
    # of the encoder one tile: another one meets the same memory again
    codec.model.quantise((v * 16).float(), log2_q.float(), noise=False)
    coded = codec.exact.encode(v, codec.model.entropy.hyper_analysis(v.float(), log2_q.float()), log2_q)
    for pixels in (2048, 4096):
        count = (pixels // 16 // side) ** 2
        header = Header("cdc", codec.stream_id, pixels, pixels, 256)
        crcs = [symbols_crc(header.to_bytes(), number, coded.symbols) for number in range(count)]
        found = codec.dequantise(Container(header, tuple(Tile(coded.stream, crc) for crc in crcs)))
        assert found.y_file.shape[-1] == pixels // 16 and torch.equal(found.y_file[..., -side:, -side:], 16 * coded.v_hat)
        del found
        peaks[str(pixels)] = peak()
print(json.dumps(peaks))
"""


@pytest.mark.slow
@pytest.mark.parametrize("entropy", [{"entroformer": {}}, {"slices": [0.06, 0.16, 0.28, 0.5]}], ids=str)
def test_the_entropy_stage_of_a_large_picture(entropy: dict[str, Any]) -> None:
    """Of 4096×4096 pixels at most 2 GB, with default sizes, the planes that it fills included; four times the pixels take
    little more than the difference of those, as no network sees more than a tile.
    """
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(entropy)],
        env=os.environ | {"PYTHONPATH": str(Path(unquant.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout)
    assert peaks["4096"] <= 2e9
    planes = {side: 3 * 256 * (side // 16) ** 2 * 4 for side in (2048, 4096)}
    assert peaks["4096"] - peaks["2048"] <= 1.5 * (planes[4096] - planes[2048])
