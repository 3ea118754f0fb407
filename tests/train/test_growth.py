"""Larger networks that begin with what a smaller one has learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unquant.errors import TrainingError
from unquant.models.ratevar import EntropyConfig, Ratevar, RatevarConfig
from unquant.train.growth import grow
from unquant.weights import read_shards, read_weights

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
FOUR = replace(SMALL, entropy=EntropyConfig(passes=4))
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


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 6)])
def test_two_passes_go_on_as_four(size: tuple[int, int]) -> None:
    small, large = random_model(SMALL, 1), Ratevar(FOUR)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    assert grow(large, small.state_dict(), ()) == 22
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
    generator = torch.Generator().manual_seed(3)
    y = torch.randn(2, SMALL.latent, *size, generator=generator) * 10
    for log2_q in (torch.tensor([1.0, 4.0]).view(2, 1, 1, 1), torch.rand(2, 1, *size, generator=generator) * 4):
        for mine, theirs in zip(*(m.quantise(y, log2_q, noise=False) for m in (large, small)), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_the_passes_that_are_new_learn() -> None:
    large = Ratevar(FOUR)
    grow(large, random_model(SMALL, 1).state_dict(), ())
    y = torch.randn(2, SMALL.latent, 6, 6, generator=torch.Generator().manual_seed(3)) * 10
    large.quantise(y, torch.full((2, 1, 1, 1), 1.0), noise=True).bits_y.mean().backward()
    net = large.entropy
    # a row for each pass after the first: edges and corners that it sees; never the centre
    corners, edges = torch.tensor([1, 0, 1, 0, 0, 0, 1, 0, 1]).bool(), torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0]).bool()
    assert bool(net.passes[1].first.weight.grad[:, -FOUR.entropy.context :].any())
    for context, seen in zip(net.contexts[1:], (edges, corners | edges), strict=True):
        assert torch.equal(context.weight.grad.flatten(2).any(dim=0).any(dim=0), seen)


def test_four_passes_do_not_go_on_as_two() -> None:
    with pytest.raises(TrainingError, match=r"entropy\.context\.weight: missing in the weights"):
        grow(Ratevar(SMALL), random_model(FOUR, 1).state_dict(), GROWING)


def test_a_run_starts_from_the_weights_of_a_smaller_model(
    run_steps: Any, smoke_recipe: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    small = RatevarConfig.from_dict(read_weights(tiny_weights).config)
    recipe = replace(smoke_recipe, model=replace(small, reverse=None, synthesis_depth8=small.synthesis_depth8 + 1))
    run = run_steps(recipe, tmp_path / "run", 0, init=str(tiny_weights))
    assert any("begin without effect" in note for note in run.trainer.notes)


def test_a_run_with_four_passes_starts_from_weights_with_two(
    run_steps: Any, smoke_recipe: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    config = RatevarConfig.from_dict(read_weights(tiny_weights).config)
    model = replace(config, reverse=None, entropy=replace(config.entropy, passes=4))
    run_steps(replace(smoke_recipe, model=model), tmp_path / "run", 1, init=str(tiny_weights))
    exported = read_shards(tmp_path / "run" / "export")
    assert exported.config["entropy"]["passes"] == 4
    Ratevar(model).load_state_dict(exported.tensors)
