"""The family `av1` as one module: its budget, what it is told, and what leaves the picture as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import kilo_macs, parameter_count
from unquant.errors import WeightsError
from unquant.networks.av1 import SCALARS, Av1, Av1Config, Coding, told

TINY = Av1Config(width8=6, depth8=1, width16=7, depth16=1, width2=4, cond=5)
CHROMA = ("4:0:0", "4:2:0", "4:2:2", "4:4:4")


def random_model(config: Av1Config = TINY, seed: int = 1) -> Av1:
    """A model none of whose weights are zero."""
    torch.manual_seed(seed)
    model = Av1(config)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model.requires_grad_(False)


def run(model: Av1, codings: list[Coding], realism: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A picture for each coding, all alike, and what is drawn of it."""
    generator = torch.Generator().manual_seed(2)
    x_q = torch.rand(1, 3, 32, 48, generator=generator).expand(len(codings), -1, -1, -1)
    generator = torch.Generator().manual_seed(seed)
    coarse, fine = (torch.randn(1, *s, generator=generator) for s in ((4, 4, 6), (1, 16, 24)))
    n = len(codings)
    rho = torch.full((n, 1, 1, 1), realism)
    return x_q, model(x_q, told(codings), rho, coarse.expand(n, -1, -1, -1), fine.expand(n, -1, -1, -1))


def test_budget() -> None:
    with torch.device("meta"):
        model = Av1(Av1Config())
        x = torch.empty(1, 3, 512, 768)
        coding, rho = torch.empty(1, SCALARS), torch.empty(1, 1, 1, 1)
        noise = torch.empty(1, 4, 64, 96), torch.empty(1, 1, 256, 384)
        _, macs = kilo_macs(lambda: model(x, coding, rho, *noise), 512 * 768)
    assert 50 < macs <= 100
    assert 3e6 <= parameter_count(model) <= 5e6


@pytest.mark.parametrize("realism", [0.0, 1.0])
def test_untrained_it_gives_the_picture_back(realism: float) -> None:
    torch.manual_seed(0)
    x_q, x = run(Av1(TINY), [Coding(255, 0.1), Coding(1, 3.0)], realism)
    assert torch.equal(x, x_q)


def test_where_av1_is_lossless_it_gives_the_picture_back() -> None:
    x_q, x = run(random_model(), [Coding(0, 20.0), Coding(1, 10.0)])
    assert torch.equal(x[0], x_q[0])
    assert not torch.equal(x[1], x_q[1])


def test_as_the_step_falls_it_tends_to_the_identity() -> None:
    """With all else that it is told the same, no more than in proportion to the step."""
    model = random_model()
    codings = [Coding(index, 1.0) for index in (255, 170, 90, 30, 5, 1)]
    generator = torch.Generator().manual_seed(2)
    x_q = torch.rand(1, 3, 32, 48, generator=generator)
    table = told(codings)
    table[:, :-1] = table[:1, :-1]
    noise = torch.zeros(1, 4, 4, 6), torch.zeros(1, 1, 16, 24)
    rho = torch.ones(1, 1, 1, 1)
    away = [float((model(x_q, row[None], rho, *noise) - x_q).abs().mean()) for row in table]
    assert away == sorted(away, reverse=True)
    for one, coding in zip(away, codings, strict=True):
        assert one <= away[0] * 1.1 * coding.step * (1828 + 160) / 1828 / 160
    assert away[-1] < away[0] / 15


def test_noise_counts_at_realism_1_alone() -> None:
    model = random_model()
    pictures = {(rho, seed): run(model, [Coding(150, 0.5)], rho, seed)[1] for rho, seed in product((0.0, 1.0), (0, 1))}
    assert torch.equal(pictures[0.0, 0], pictures[0.0, 1])
    assert not torch.allclose(pictures[1.0, 0], pictures[1.0, 1], atol=1e-3)
    assert not torch.allclose(pictures[0.0, 0], pictures[1.0, 0], atol=1e-3)


def test_what_it_is_told_is_in_range() -> None:
    codings = [
        Coding(index, bpp, qmatrix, delta_q, chroma, half)
        for index, bpp, qmatrix, delta_q, chroma, half in product(
            (1, 80, 255), (0.03, 0.3, 4.0), (False, True), (False, True), CHROMA, (False, True)
        )
    ]
    table = told(codings)
    assert table.shape == (len(codings), SCALARS)
    assert table.dtype == torch.float32
    assert float(table[:, :-1].abs().max()) <= 1.4
    assert table[:, -1].tolist() == [float(coding.step) for coding in codings]
    # no two of them alike but for monochrome pictures, which are known by their looks
    assert len({tuple(row) for row in table.tolist()}) == len(codings) * 3 // 4


@pytest.mark.parametrize("bpp", [0.0, 1e-9, 24.0, 1e6])
def test_what_it_is_told_of_odd_files_is_finite(bpp: float) -> None:
    assert bool(torch.isfinite(told([Coding(0, bpp), Coding(255, bpp)])).all())


@pytest.mark.parametrize(
    "change",
    [
        {"base_q_idx": 100},
        {"bpp": 0.6},
        {"qmatrix": True},
        {"delta_q": True},
        {"chroma": "4:2:0"},
        {"chroma": "4:2:2"},
        {"half": True},
    ],
    ids=str,
)
def test_all_that_it_is_told_counts(change: dict[str, Any]) -> None:
    coding = Coding(150, 0.3)
    _, x = run(random_model(), [coding, replace(coding, **change)])
    assert float((x[0] - x[1]).abs().max()) > 1e-3


def test_config_round_trip() -> None:
    for config in (Av1Config(), TINY, Av1Config(default_realism=0.25)):
        assert Av1Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert Av1Config.from_dict({}) == Av1Config()


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"width": 3}, "width"),
        ({"width8": "3"}, r"av1\.width8"),
        ({"depth8": 1.5}, "depth8"),
        ({"default_realism": -0.1}, "default_realism"),
        ({"entropy": {}}, "entropy"),
    ],
)
def test_unknown_keys_and_values_are_refused(values: dict[str, Any], cause: str) -> None:
    with pytest.raises(WeightsError, match=cause):
        Av1Config.from_dict(values)
