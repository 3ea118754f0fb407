"""Weights with another entropy model than the recipe's: what a run of stage 1 takes from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reversing import with_reverse

from unquant.entropy.entroformer import EntroformerConfig
from unquant.errors import TrainingError
from unquant.networks.config import EntropyConfig
from unquant.networks.ratevar import Ratevar, RatevarConfig, ReverseConfig
from unquant.train.data import Photos
from unquant.train.ratevar.another import adapt, bits_of_channels, sort_channels
from unquant.train.ratevar.start import fill_codec
from unquant.train.recipe import Recipe
from unquant.weights_file import Weights, read_weights

SLICES = (0.125, 0.25, 0.625)


@pytest.fixture(scope="module")
def photos(pieces: Path) -> Photos:
    return Photos(pieces, torch.device("cpu"))


@pytest.fixture(scope="module")
def weights(tiny_weights: Path) -> Weights:
    return read_weights(tiny_weights)


def config_of(weights: Weights, **changes: Any) -> RatevarConfig:
    found = RatevarConfig.from_dict(weights.config)
    return replace(found, entropy=replace(found.entropy, slices=SLICES), **changes)


def codec_of(weights: Weights) -> Ratevar:
    model = Ratevar(RatevarConfig.from_dict(weights.config))
    fill_codec(model, weights)
    return model.eval()


def decode(model: Ratevar, x: torch.Tensor) -> torch.Tensor:
    log2_q = torch.full((len(x), 1, 1, 1), 2.0)
    return model.g_s(model.g_a(x), log2_q, log2_q, torch.zeros_like(log2_q))


def test_the_transforms_are_the_same_with_channels_sorted_by_their_bits(weights: Weights, photos: Photos) -> None:
    torch.manual_seed(0)
    new, old = Ratevar(config_of(weights)), codec_of(weights)
    adapted, note = adapt(new, weights, photos, 64)
    filled = fill_codec(new, adapted)
    assert filled.grown == 0
    assert note is not None
    bits = bits_of_channels(weights, photos, 64)
    order = bits.argsort(descending=True)
    assert not torch.equal(order, torch.arange(16))
    x = torch.rand(2, 3, 64, 48, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        y = old.g_a(x)
        torch.testing.assert_close(new.g_a(x), y[:, order], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(decode(new, x), decode(old, x), rtol=1e-5, atol=1e-5)
        # h_a too hears the channels where they are now, and h_s, the prior and the scales are the old ones
        log2_q = torch.full((2, 1, 1, 1), 2.0)
        z = old.entropy.hyper_analysis(y / 4, log2_q)
        torch.testing.assert_close(new.entropy.hyper_analysis(y[:, order] / 4, log2_q), z, rtol=1e-4, atol=1e-3)
        cond = old.entropy.condition_of(log2_q)
        assert torch.equal(new.entropy.hyper_synthesis(z, cond, (4, 3)), old.entropy.hyper_synthesis(z, cond, (4, 3)))
        assert torch.equal(new.entropy.hyper_prior(cond, (1, 1)).t, old.entropy.hyper_prior(cond, (1, 1)).t)
        assert torch.equal(new.entropy.log2_std, old.entropy.log2_std[order])


def test_the_bits_are_those_of_the_old_model(weights: Weights, photos: Photos) -> None:
    """A channel that is made louder moves to the front."""
    state = {name: tensor.clone() for name, tensor in weights.tensors.items()}
    state["g_a.linear"][11] *= 50
    bits = bits_of_channels(replace(weights, tensors=state), photos, 64)
    assert int(bits.argmax()) == 11
    assert int(bits_of_channels(weights, photos, 64).argmax()) != 11


def test_sorting_there_and_back_changes_nothing(weights: Weights) -> None:
    state = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith("tables.")}
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = sort_channels(state, order)
    assert not torch.equal(moved["g_a.linear"], state["g_a.linear"])
    again = sort_channels(moved, order.argsort())
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_weights_of_the_same_kind_stay_as_they_are(weights: Weights, photos: Photos, tiny_sliced_weights: Path) -> None:
    for same in (weights, read_weights(tiny_sliced_weights)):
        assert adapt(Ratevar(RatevarConfig.from_dict(same.config)), same, photos, 64) == (same, None)


def test_of_an_entroformer_only_the_scales_fit_and_f_is_new(weights: Weights, photos: Photos) -> None:
    config = RatevarConfig.from_dict(weights.config)
    reverse = ReverseConfig(width=16, depth=1)
    torch.manual_seed(0)
    entroformer = EntroformerConfig(hyper=8, width=16, heads=2, cond=6)
    stored_model = Ratevar(replace(config, reverse=reverse, entropy=EntropyConfig(entroformer=entroformer)))
    stored = replace(weights, config=stored_model.config.to_dict(), tensors=dict(stored_model.state_dict()))
    new = Ratevar(config_of(weights, reverse=reverse))
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    fill_codec(new, adapt(new, stored, photos, 64)[0])
    after = new.state_dict()
    for name, tensor in before.items():
        if name.startswith(("entropy.", "f.")) and name != "entropy.log2_std":
            assert torch.equal(after[name], tensor), name


def test_with_a_joint_f_the_recipe_needs_one_too(weights: Weights, photos: Photos) -> None:
    reverse = ReverseConfig("joint", 16, 1, 0, sampler="deterministic")
    stored = with_reverse(weights, reverse)
    new = Ratevar(config_of(weights, reverse=reverse))
    assert new.f is not None
    fill_codec(new, adapt(new, stored, photos, 64)[0])
    assert not new.f.net.head.weight.any()
    with pytest.raises(TrainingError, match="part of every decode"):
        adapt(Ratevar(config_of(weights)), stored, photos, 64)


def test_other_channels_are_refused(weights: Weights, photos: Photos) -> None:
    config = replace(config_of(weights), latent=24)
    with pytest.raises(TrainingError, match="latent: 16 in the weights, 24 in the recipe's model"):
        adapt(Ratevar(config), weights, photos, 64)


@pytest.mark.slow
def test_a_run_starts_from_them_and_learns(
    run_steps: Any, smoke_recipe: Recipe, weights: Weights, tiny_weights: Path, tmp_path: Path
) -> None:
    recipe = replace(smoke_recipe, model=config_of(weights))
    run = run_steps(recipe, tmp_path / "run", 12, init=str(tiny_weights))
    assert any("sorted by their bits" in note for note in run.trainer.notes)
    assert run.trainer.schedule.steps == 12
    assert float(run.trainer.model.entropy.passes[5].head.weight.detach().abs().max()) > 0
