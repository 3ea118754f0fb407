"""Larger networks that begin with what a smaller one has learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unquant.errors import TrainingError
from unquant.networks.ratevar import Ratevar, RatevarConfig
from unquant.train.growth import grow
from unquant.weights_file import read_weights

SMALL = RatevarConfig(
    latent=32,
    analysis_width8=16,
    analysis_depth8=1,
    analysis_width16=24,
    analysis_depth16=1,
    synthesis_width16=24,
    synthesis_depth16=1,
    synthesis_width8=16,
    synthesis_depth8=1,
    cond=8,
)
LARGE = replace(
    SMALL,
    analysis_width8=20,
    analysis_depth8=2,
    analysis_width16=32,
    synthesis_width16=40,
    synthesis_depth16=2,
    synthesis_width8=24,
    synthesis_depth8=3,
)
GROWING = ("g_a.", "g_s.")


def random_model(config: RatevarConfig, seed: int) -> Ratevar:
    """A model none of whose weights are zero."""
    torch.manual_seed(seed)
    model = Ratevar(config)
    for p in model.parameters():
        nn.init.normal_(p, std=0.05)
    return model


def outputs(model: Ratevar) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(2, 3, 64, 64, generator=generator)
    log2_q = torch.tensor([1.0, 4.0]).view(2, 1, 1, 1)
    with torch.no_grad():
        y = model.g_a(x)
        return [y, model.g_s(y, log2_q, log2_q, torch.ones_like(log2_q))]


def test_a_grown_model_computes_the_same_and_every_new_weight_can_learn() -> None:
    small, large = random_model(SMALL, 1), Ratevar(LARGE)
    assert grow(large, small.state_dict(), GROWING) > 20
    for mine, theirs in zip(outputs(large), outputs(small), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    optimizer = torch.optim.Adam(large.parameters(), 1e-3)  # its first steps do not know the gradient's size
    x = torch.rand(2, 3, 64, 64)
    log2_q = torch.full((2, 1, 1, 1), 2.0)
    before = {name: p.detach().clone() for name, p in large.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        out = large(x, log2_q, torch.ones_like(log2_q))
        (out.x_hat.square().mean() + 1e-3 * out.bits_y.mean()).backward()
        optimizer.step()
    moved = {n: p.detach() != before[n] for n, p in large.named_parameters() if n.startswith(GROWING)}
    assert moved["g_s.blocks8.2.conv1.weight"].all()
    assert moved["g_s.blocks8.0.conv2.weight"].all()
    assert moved["g_a.blocks8.1.conv1.weight"].all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"synthesis_width8": 12}, "is larger than"),
        ({"synthesis_depth8": 0}, "not in the recipe's model"),
        ({"latent": 48}, "entropy.log2_std: 32 in the weights, 48 in the recipe's model"),
    ],
)
def test_nothing_shrinks_and_the_latent_stays(change: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        grow(Ratevar(replace(SMALL, **change)), random_model(SMALL, 1).state_dict(), GROWING)


def test_a_run_starts_from_the_weights_of_a_smaller_model(
    run_steps: Any, smoke_recipe: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    small = RatevarConfig.from_dict(read_weights(tiny_weights).config)
    recipe = replace(smoke_recipe, model=replace(small, reverse=None, synthesis_depth8=small.synthesis_depth8 + 1))
    run = run_steps(recipe, tmp_path / "run", 0, init=str(tiny_weights))
    assert any("begin without effect" in note for note in run.trainer.notes)
