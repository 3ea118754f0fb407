"""Settings: which of them decode alike, and decodes as the codec makes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from tuned_model import BUSY, INDEX, START

from unquant.bench.tuning.decoding import decode, log2_q_at
from unquant.bench.tuning.setting import Setting
from unquant.codecs.ratevar import RatevarCodec
from unquant.container import parse
from unquant.networks.ratevar import Ratevar

STILL = {"alpha_first": 0.0, "alpha_last": 0.0}

ALIKE = [
    ({"steps": 1}, {"steps": 1, "schedule_power": 2.0}),
    ({"steps": 1}, {"steps": 1, "alpha_last": 0.75}),
    (STILL, {**STILL, "tau": "coefficient"}),
    ({"steps": 1, "alpha_first": 0.0}, {"steps": 1, **STILL, "tau": "coefficient", "schedule_power": 0.5}),
    ({"sampler": "deterministic"}, {"sampler": "deterministic", "tau": "coefficient", "alpha_first": 1.0}),
    ({"sampler": "deterministic"}, {"sampler": "ancestral", **STILL}),
]
DIFFERENT = [
    {"steps": 3},
    {"schedule_power": 2.0},
    {"alpha_first": 1.0},
    {"alpha_last": 0.0},
    {"tau": "coefficient"},
    {"project": True},
    {"sampler": "ancestral"},
    {"sampler": "deterministic"},
    STILL,
]


@pytest.mark.parametrize(("first", "second"), ALIKE)
def test_settings_of_one_essence_decode_alike(
    model: Ratevar, tensors: list[Tensor], first: dict[str, Any], second: dict[str, Any]
) -> None:
    settings = [Setting(1.0, replace(BUSY, **options)) for options in (first, second)]
    assert settings[0] != settings[1]
    essences = {s.essence() for s in settings}
    assert len(essences) == 1
    assert settings[0].columns() == settings[1].columns()
    _, side = model.encode(tensors[0], log2_q_at(INDEX))
    a, b, c = (decode(model, side, s) for s in (*settings, *essences))
    assert torch.equal(a.picture, b.picture)
    assert torch.equal(a.picture, c.picture)
    assert torch.equal(a.y, b.y)


@pytest.mark.parametrize("options", DIFFERENT)
def test_settings_of_different_essences_decode_differently(
    model: Ratevar, tensors: list[Tensor], options: dict[str, Any]
) -> None:
    settings = [Setting(1.0, BUSY), Setting(1.0, replace(BUSY, **options))]
    assert settings[0].essence() != settings[1].essence()
    assert settings[0].columns() != settings[1].columns()
    _, side = model.encode(tensors[0], log2_q_at(INDEX))
    a, b = (decode(model, side, s) for s in settings)
    assert float((a.y - b.y).abs().max()) > 0.01


def test_decodes_are_those_of_the_codec(weights_file: Path, crops: list[Image.Image]) -> None:
    codec = RatevarCodec.from_file(weights_file)
    codec.precision = torch.float32
    data = codec.encode(crops[0], q_index=INDEX)
    picture = decode(codec.model, codec.dequantise(parse(data)), Setting(0.75, START)).picture
    ours = (picture.clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
    theirs, other = (np.asarray(codec.decode(data, realism=0.75, seed=seed)) for seed in (None, 1))
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - other).max() > 2
