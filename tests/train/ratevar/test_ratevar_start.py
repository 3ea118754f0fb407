"""What stage 1 takes over where the recipe's synthesis is another: fewer blocks, and the network of `av1` at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reversing import with_reverse
from torch import Tensor

from unquant.codecs.registry import SHIPPED_FOLDER
from unquant.errors import TrainingError
from unquant.networks.av1 import Av1, Av1Config
from unquant.networks.ratevar import Ratevar, RatevarConfig, ReverseConfig
from unquant.nn.redraw import RedrawSizes, fresh_noise
from unquant.train.growth import Filled, fill
from unquant.train.ratevar.stage2 import Stage2, Stage2Config
from unquant.train.ratevar.start import fill_codec, realism_config, reverse_config
from unquant.train.recipe import Recipe
from unquant.train.start import Start
from unquant.weights_file import Weights, read_weights, write_shards


@pytest.fixture(scope="module")
def weights(tiny_weights: Path) -> Weights:
    return read_weights(tiny_weights)


def made(weights: Weights, redraw: RedrawSizes | None, depth8: int | None = None) -> Ratevar:
    config = replace(RatevarConfig.from_dict(weights.config), reverse=None, redraw=redraw)
    model = Ratevar(config if depth8 is None else replace(config, synthesis_depth8=depth8)).eval()
    fill_codec(model, weights)
    return model


def scalar(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value)


def test_the_coder_s_tables_go_along(
    weights: Weights, tiny_weights: Path, smoke_recipe: Recipe, tmp_path: Path
) -> None:
    """Into what a stage begins from, and where a run goes on, from its export: computed anew they may differ."""
    tables = {name: tensor for name, tensor in weights.tensors.items() if name.startswith("tables.")}
    assert len(tables) == 3
    write_shards(tmp_path, "ratevar", weights.config, weights.tensors, {})
    begun = Start(smoke_recipe, 1, str(tiny_weights), going_on=False)
    again = Start(smoke_recipe, 1, str(tmp_path), going_on=True)
    for start in (begun, again):
        assert start.tables.keys() == tables.keys()
        assert all(torch.equal(start.tables[name], tables[name]) for name in tables)
    assert again.weights is None
    assert not Start(smoke_recipe, 1, "random", going_on=False).tables
    (tmp_path / "ema.json").write_text("{")  # the checkpoint holds everything that is needed
    assert not Start(smoke_recipe, 1, str(tmp_path), going_on=True).tables


def test_the_last_blocks_are_left_out(weights: Weights) -> None:
    whole, without = made(weights, None), made(weights, None, depth8=0)
    y = 10 * torch.randn(1, whole.config.latent, 3, 4, generator=torch.Generator().manual_seed(1))
    whole.g_s.blocks8 = torch.nn.ModuleList()
    given = (y, scalar(2.0), scalar(2.0), scalar(0.0))
    with torch.no_grad():
        assert torch.equal(without.g_s(*given), whole.g_s(*given))


def test_a_redraw_begins_as_that_of_av1(weights: Weights) -> None:
    """It draws what f of `av1` does, told AV1's numbers for the step."""
    model, plain = made(weights, RedrawSizes()), made(weights, None)
    shipped = read_weights(SHIPPED_FOLDER / "av1.safetensors")
    av1 = Av1(Av1Config.from_dict(shipped.config)).eval()
    fill(av1, shipped)
    y = 10 * torch.randn(1, model.config.latent, 2, 3, generator=torch.Generator().manual_seed(1))
    noise = fresh_noise(1, 2, 3, y.device)
    for log2_q, realism in ((1.5, 0.0), (4.0, 1.0)):
        given = (y, scalar(log2_q), scalar(log2_q), scalar(realism))
        told = [(log2_q + 5.3) / 3 - 7 / 3, (2.84 - 1.337 * log2_q) / 3 + 2 / 3, 1, 1, 0, 0, 0, 2 * realism - 1]
        strength = 2**log2_q / (2**log2_q + 6)
        with torch.no_grad():
            x_q = plain.g_s(*given)
            scaled = (realism * part for part in noise)
            expected = av1.f(x_q, torch.tensor(told).view(1, 8, 1, 1), scalar(strength), scalar(realism), *scaled)
            found = model.g_s(*given, noise)
        assert float((expected - x_q).abs().mean()) > 1e-3
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_a_redraw_of_other_sizes_begins_without_effect(weights: Weights) -> None:
    model = made(weights, RedrawSizes(width8=8, depth8=1, width16=12, depth16=1, width2=4, cond=8))
    y = torch.randn(1, model.config.latent, 2, 2)
    given = (y, scalar(2.0), scalar(2.0), scalar(1.0))
    with torch.no_grad():
        assert torch.equal(model.g_s(*given), made(weights, None).g_s(*given))


def test_a_redraw_of_the_weights_is_kept(weights: Weights) -> None:
    first = made(weights, RedrawSizes())
    with torch.no_grad():
        for parameter in first.g_s.parameters():
            parameter.add_(0.01)
    config = first.config.to_dict()
    again = Ratevar(first.config)
    fill_codec(again, replace(weights, config=config, tensors=dict(first.state_dict())))
    for mine, theirs in zip(again.state_dict().values(), first.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


# ---- a joint reverse network -----------------------------------------------------------------------------------------

JOINT = ReverseConfig("joint", 16, 1, 0, sampler="deterministic")


def filled(weights: Weights, reverse: ReverseConfig | None) -> tuple[Ratevar, Filled]:
    model = Ratevar(replace(RatevarConfig.from_dict(weights.config), reverse=reverse))
    return model, fill_codec(model, weights)


@pytest.mark.parametrize("before", [None, ReverseConfig("mse", 16, 1, 0), ReverseConfig(width=8)])
def test_a_joint_f_begins_without_effect(weights: Weights, before: ReverseConfig | None) -> None:
    """In the place of none, or of one that was trained alone."""
    given = weights if before is None else with_reverse(weights, before)
    model, done = filled(given, JOINT)
    assert model.f is not None
    assert done == Filled(len(model.f.state_dict()))
    assert not model.f.net.head.weight.any()
    assert not model.f.net.head.bias.any()
    assert model.f.net.stem.weight.any()


def test_a_joint_f_of_the_weights_is_kept(weights: Weights) -> None:
    """However it is driven; and no other may take its place, or leave it out."""
    given = with_reverse(weights, JOINT)
    model, done = filled(given, replace(JOINT, steps=3, project=False))
    assert done.grown == 0
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, given.tensors[name].float()), name
    for other in (None, replace(JOINT, width=24), replace(JOINT, training="bridge"), replace(JOINT, side=False)):
        with pytest.raises(TrainingError, match=r'training = "joint", width = 16, depth = 1, side = true'):
            filled(given, other)


def test_later_stages_keep_a_joint_f(weights: Weights) -> None:
    given = with_reverse(weights, JOINT)
    mine, other = (Recipe(model=RatevarConfig(reverse=reverse)) for reverse in (None, ReverseConfig()))
    for config in (reverse_config, realism_config):
        assert config(mine, given).reverse == JOINT
        with pytest.raises(TrainingError, match="reverse network"):
            config(other, given)
    with pytest.raises(TrainingError, match="trained by stage 1"):
        Stage2(Ratevar(reverse_config(mine, given)), Stage2Config())
