"""The network of `av1` as an ONNX graph draws what torch draws, and is made of nothing but the right weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from unquant.codecs.av1 import Av1Codec
from unquant.codecs.onnx_file import onnx_network
from unquant.errors import WeightsError
from unquant.networks.av1 import Coding, told
from unquant.networks.av1_onnx import av1_graph, halo_of

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

CODINGS = [Coding(200, 0.15, delta_q=True), Coding(120, 0.8, qmatrix=True, chroma="4:2:0"), Coding(0, 5.0)]


@pytest.mark.parametrize("name", ["tiny_av1_weights", "shipped_av1_weights"])
def test_it_draws_what_torch_draws(name: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    model = Av1Codec.from_file(path).model
    network = onnx_network(path)
    assert network.halo == model.f.halo
    assert network.default_realism == model.config.default_realism
    assert len(network.data) < 12e6
    onnx.checker.check_model(network.data, full_check=True)
    b, h, w = len(CODINGS), 80, 112
    generator = torch.Generator().manual_seed(0)
    x_q = torch.rand(b, 3, h, w, generator=generator)
    coarse, fine = (torch.randn(b, *s, generator=generator) for s in ((4, h // 8, w // 8), (1, h // 2, w // 2)))
    realism = torch.tensor([1.0, 0.0, 1.0]).view(b, 1, 1, 1)
    coding = told(CODINGS)
    with torch.inference_mode():
        residual = (model(x_q, coding, realism, coarse, fine).clamp(0, 1) - x_q).numpy()
    session = onnxruntime.InferenceSession(network.data, providers=["CPUExecutionProvider"])
    given = {"x_q": x_q, "coding": coding, "realism": realism, "coarse_noise": coarse, "fine_noise": fine}
    (x,) = session.run(None, {key: value.numpy() for key, value in given.items()})
    found = x - x_q.numpy()
    assert np.abs(residual[:2]).max() > 0.01  # there is something to agree on
    assert not found[2].any()  # where AV1 is lossless
    assert 10 * np.log10(1 / np.mean((found - residual) ** 2)) > 110


def broken(arrays: dict[str, Any], how: str) -> None:
    if how == "missing":
        del arrays["f.up.bias"]
    elif how == "more":
        arrays["f.other.bias"] = arrays["f.up.bias"]
    elif how == "shape":
        arrays["f.up.bias"] = arrays["f.up.bias"][:-1]
    elif how == "stem":
        arrays["f.stem.weight"] = arrays["f.stem.weight"][:, :190]
    elif how == "kernel":
        arrays["f.head.weight"] = arrays["f.head.weight"][..., :2]
    else:
        arrays["f.stem.weight"] = arrays["f.stem.weight"].astype(np.int8)  # without scales


@pytest.mark.parametrize("how", ["missing", "more", "shape", "stem", "kernel", "scales"])
def test_other_weights_are_refused(tiny_av1_weights: Path, how: str) -> None:
    arrays = load_file(tiny_av1_weights)
    assert halo_of(arrays) == 5
    broken(arrays, how)
    with pytest.raises(WeightsError):
        av1_graph(arrays, {})


def flip(data: bytearray) -> None:
    data[-7] ^= 1


def not_finite(data: bytearray) -> None:
    data[-2:] = b"\x00\x7c"  # fp16 infinity


def cut(data: bytearray) -> None:
    del data[-100:]


@pytest.mark.parametrize("damage", [flip, not_finite, cut])
def test_a_damaged_file_is_named(tiny_av1_weights: Path, tmp_path: Path, damage: Callable[[bytearray], None]) -> None:
    data = bytearray(tiny_av1_weights.read_bytes())
    damage(data)
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"bad\.safetensors"):
        onnx_network(path)
