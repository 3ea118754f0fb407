"""The steps at which pictures meet rates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unquant.bench.tuning.decoding import log2_q_at, rate_indices
from unquant.errors import OptionError
from unquant.networks.ratevar import Ratevar


def test_rate_indices_are_the_finest_within_the_rates(model: Ratevar, tensors: list[Tensor]) -> None:
    low, high = model.config.q_index_min, model.config.q_index_max
    pixels = sum(x.shape[-2] * x.shape[-1] for x in tensors)

    def bpp(index: int) -> float:
        bits = 0.0
        for x in tensors:
            coded = model.quantise(model.g_a(x), log2_q_at(index), noise=False)
            bits += float(coded.bits_y.sum() + coded.bits_z.sum())
        return bits / pixels

    highest, lowest = bpp(low), bpp(high)
    targets = [1.1 * highest, 0.5 * (highest + lowest), 1.2 * lowest, lowest]
    found = rate_indices(model, tensors, targets)
    assert found[0] == low < found[1] < found[2] < found[3]
    for index, target in list(zip(found, targets, strict=True))[1:]:
        assert bpp(index) <= target < bpp(index - 1)
    with pytest.raises(OptionError, match="out of reach"):
        rate_indices(model, tensors, [targets[1], 0.9 * lowest])


def test_rate_indices_agree_with_a_scan_where_the_rate_is_monotone(
    model: Ratevar, tensors: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def quantise(y: Tensor, log2_q: Tensor, *, noise: bool) -> Any:
        index = round(float(log2_q) * 64)
        asked.append(index)
        return type("Coded", (), {"bits_y": torch.tensor(64 * 48 * 100.0 / index), "bits_z": torch.tensor(0.0)})()

    monkeypatch.setattr(model, "quantise", quantise)
    low, high = model.config.q_index_min, model.config.q_index_max
    targets = [100 / low, 100 / high + 1e-6, *np.linspace(0.3, 6, 40).tolist()]
    scan = [next(i for i in range(low, high + 1) if 100 / i <= target + 1e-9) for target in targets]
    assert rate_indices(model, tensors[:1], targets) == scan
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("bpps", [[], [0.0], [0.2, -1.0], [float("nan")], [float("inf")]])
def test_rates_that_are_none(model: Ratevar, tensors: list[Tensor], bpps: list[float]) -> None:
    with pytest.raises(OptionError, match="bpp"):
        rate_indices(model, tensors, bpps)
