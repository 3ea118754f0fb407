"""What stage 1 takes over where the recipe's synthesis is another: fewer blocks, and the network of `av1` at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unquant.codecs.registry import SHIPPED_FOLDER
from unquant.networks.av1 import Av1, Av1Config
from unquant.networks.ratevar import Ratevar, RatevarConfig
from unquant.nn.redraw import RedrawSizes, fresh_noise
from unquant.train.growth import fill
from unquant.train.ratevar.start import fill_codec
from unquant.weights_file import Weights, read_weights


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
