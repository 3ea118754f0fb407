"""The stage-1 loss and the conditions that it draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import difference
from PIL import Image
from runs import changed
from torch import Tensor

from unquant.codecs.ratevar import RatevarCodec
from unquant.errors import OptionError
from unquant.networks.common import log2_q_of
from unquant.networks.ratevar import Ratevar, RatevarConfig, RatevarOutput, ReverseConfig
from unquant.perceptual import LPIPS
from unquant.train.objective import shifted, shifted_side
from unquant.train.ratevar.stage1 import Draw, Stage1, Stage1Config, draw_conditions, stage1_loss
from unquant.train.ratevar.start import fill_codec
from unquant.train.recipe import Recipe
from unquant.train.validation import fixed_crops
from unquant.weights_file import join_shards, read_weights

CPU = torch.device("cpu")
MODEL = RatevarConfig()
SHIFT = torch.zeros(2, dtype=torch.long)


class BrightnessDistance(LPIPS):
    """Stands for LPIPS: the mean absolute difference of each image; remembers how many images it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.seen.append(x.shape[0])
        return (x - y).abs().mean((1, 2, 3))


def output(x: Tensor, errors: Tensor, bits_y: Tensor, bits_z: Tensor) -> RatevarOutput:
    """A pass whose image is x plus an error of one size per image or latent position (b, 1, h16, w16)."""
    error = errors.repeat_interleave(16, 2).repeat_interleave(16, 3)
    return RatevarOutput(x + error, bits_y, bits_y, bits_y, bits_z)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """x (2, 3, 32, 32), bits of y (2, 4, 2, 2) and of z (2, 3, 1, 1)."""
    g = torch.Generator().manual_seed(1)
    return (
        torch.rand(2, 3, 32, 32, generator=g),
        10 * torch.rand(2, 4, 2, 2, generator=g),
        5 * torch.rand(2, 3, 1, 1, generator=g),
    )


def test_loss_of_one_step_per_image(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, bits_y, bits_z = batch
    errors = torch.tensor([0.02, 0.05]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    log2_q = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    draw = Draw(log2_q, torch.zeros(2, 1, 1, 1), 2, SHIFT)
    terms = stage1_loss(x, output(x, errors, bits_y, bits_z), draw, Stage1Config(lambda0=0.12), None)
    expected = 0.0
    for i, (error, q) in enumerate([(0.02, 2.0), (0.05, 8.0)]):
        rate = (float(bits_y[i].sum()) + float(bits_z[i].sum())) / 1024
        lam = 0.12 / q**2
        expected += (rate + lam * 255**2 * error**2) / math.sqrt(lam) / 2
    assert float(terms.loss) == pytest.approx(expected, rel=1e-4)
    assert float(terms.bpp) == pytest.approx((float(bits_y.sum()) + float(bits_z.sum())) / 2048, rel=1e-5)
    assert float(terms.distortion) == pytest.approx(255**2 * (0.02**2 + 0.05**2) / 2, rel=1e-4)
    assert float(terms.lpips) == 0


def test_loss_of_a_q_map_weighs_every_position_by_its_own_step(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, bits_y, bits_z = (t[:1] for t in batch)
    errors = torch.tensor([[0.01, 0.02], [0.04, 0.08]]).view(1, 1, 2, 2)
    steps = torch.tensor([[1.0, 2.0], [4.0, 16.0]])
    draw = Draw(steps.log2().view(1, 1, 2, 2), torch.zeros(1, 1, 1, 1), 1, SHIFT)
    terms = stage1_loss(x, output(x, errors, bits_y, bits_z), draw, Stage1Config(lambda0=0.2), None)
    expected = 0.0
    for i in range(2):
        for j in range(2):
            lam = 0.2 / float(steps[i, j]) ** 2
            # bits per pixel of this position's 16×16 block, z spread over the image
            rate = float(bits_y[0, :, i, j].sum()) / 256 + float(bits_z.sum()) / 1024
            expected += (rate + lam * 255**2 * float(errors[0, 0, i, j]) ** 2) / math.sqrt(lam) / 4
    assert float(terms.loss) == pytest.approx(expected, rel=1e-4)


def test_lpips_counts_only_images_with_realism(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, bits_y, bits_z = batch
    errors = torch.tensor([0.02, 0.05]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    log2_q = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    draw = Draw(log2_q, torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), 1, SHIFT)
    config = Stage1Config(lambda0=0.12, lpips_weight=500.0)
    out, distance = output(x, errors, bits_y, bits_z), BrightnessDistance()
    without = stage1_loss(x, out, draw, config, None)
    terms = stage1_loss(x, out, draw, config, distance)
    assert distance.seen == [1]
    # the second image alone: w·LPIPS·λ/sqrt(λ), half of it as a mean over two
    expected = 500 * 0.05 * math.sqrt(0.12) / 8 / 2
    assert float(terms.loss - without.loss) == pytest.approx(expected, rel=1e-3)
    assert float(terms.lpips) == pytest.approx(0.05, rel=1e-4)


def test_the_mean_weighs_more_in_g_s_alone(tiny_weights: Path) -> None:
    """Gradients at ρ = 0: those of g_s grow by the weight, those of g_a and of the entropy model stay; at ρ = 1 all do."""
    weights = read_weights(tiny_weights)
    config = replace(RatevarConfig.from_dict(weights.config), reverse=None)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def gradients(weight: float, rho: float) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = Ratevar(config)
        fill_codec(model, weights)
        objective = Stage1(model, Stage1Config(mean_weight=weight), None)
        realism = torch.full((1, 1, 1, 1), rho)
        objective(x, Draw(torch.full((1, 1, 1, 1), 2.0), realism, 1, SHIFT))["loss"].backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    for rho, factor in ((0.0, 5.0), (1.0, 1.0)):
        once, weighed = gradients(1.0, rho), gradients(5.0, rho)
        assert any(bool(g.any()) for name, g in once.items() if name.startswith("g_a."))
        for name, gradient in once.items():
            expected = gradient * (factor if name.startswith("g_s.") else 1.0)
            torch.testing.assert_close(weighed[name], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


JOINT = ReverseConfig("joint", 16, 1, 0, sampler="deterministic", project=False)


@pytest.fixture
def joint(tiny_weights: Path) -> Ratevar:
    """The tiny model with a new joint f."""
    weights = read_weights(tiny_weights)
    torch.manual_seed(0)
    model = Ratevar(replace(RatevarConfig.from_dict(weights.config), reverse=JOINT))
    fill_codec(model, weights)
    return model


@pytest.fixture
def drawn() -> tuple[Tensor, Draw]:
    """Crops, every other one at ρ = 1."""
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    log2_q = torch.linspace(1, 5, 8).view(8, 1, 1, 1)
    return x, Draw(log2_q, torch.tensor([0.0, 1.0] * 4).view(8, 1, 1, 1), 8, SHIFT)


def reached(model: Ratevar) -> set[str]:
    """The networks that have a gradient."""
    return {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_a_joint_f_learns_with_all_else(joint: Ratevar, drawn: tuple[Tensor, Draw]) -> None:
    x, draw = drawn
    objective = Stage1(joint, Stage1Config(latent_weight=0.0), None)
    terms = objective(x, draw)
    assert terms["latent"].item() == 0
    terms["loss"].backward()
    assert reached(joint) == {"g_a", "g_s", "entropy", "f"}


def test_what_holds_the_latent(joint: Ratevar, drawn: tuple[Tensor, Draw]) -> None:
    """The error of f's estimates in steps, times 6·q, and that of the clean latent's picture as at the finest step; f learns
    from one, g_s from the other, and y, their target, from none.
    """
    x, draw = drawn
    config = Stage1Config(mean_weight=3.0)
    objective = Stage1(joint, config, None)
    out = joint(x, draw.log2_q, draw.realism, 1 / draw.weight(config))
    latent, clean = objective.held(x, out, draw)
    # f returns its input yet: the estimate is ŷ_T, and of the states further down, two of eight, less is left
    weight = torch.where(draw.realism == 0, 3.0, 1.0)
    each = (6 * weight * torch.exp2(-draw.log2_q) * (out.y_hat - out.y).detach().square()).mean((1, 2, 3))
    at_file, most = float(each.sum()) / 8, float(each[::4].sum()) / 8
    assert at_file < latent.item() < at_file + 2 * most
    low = log2_q_of(joint.config.q_index_min)
    finest = torch.full((1, 1, 1, 1), low)
    squared = (joint.g_s(out.y[:1], finest, finest, 0 * finest) - x[:1]).detach().square().mean() * 255**2
    assert clean.item() == pytest.approx(float(3 * math.sqrt(0.12) * 2**-low * squared / 8), rel=1e-4)
    latent.backward(retain_graph=True)
    assert reached(joint) == {"f"}
    joint.zero_grad()
    clean.backward()
    assert reached(joint) == {"g_s"}


@pytest.mark.slow
def test_a_trained_joint_f_is_in_the_pictures_of_its_export(
    run_steps: Callable[..., Any], smoke_recipe: Recipe, tiny_weights: Path, photo: Image.Image, tmp_path: Path
) -> None:
    """From weights without one: what validation sees at first is theirs; then f finds y, and draws in every decode of what is
    exported; the run goes on, and cools down.
    """
    model = replace(RatevarConfig.from_dict(read_weights(tiny_weights).config), reverse=JOINT)
    recipe = changed(replace(smoke_recipe, model=model), Stage1Config, latent_weight=60.0)
    out, other = tmp_path / "run", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    run = run_steps(recipe, out, 60, init=str(tiny_weights))
    plain = run_steps(replace(recipe, model=replace(model, reverse=None)), other, 0, init=str(tiny_weights))
    assert run.before == plain.before
    trained = run.trainer.ema.module
    x, log2_q = fixed_crops(run.trainer.photos, 16, 64, held_out=True), torch.full((16, 1, 1, 1), 4.0)
    with torch.no_grad():
        y, side = trained.encode(x, log2_q)
        errors = [float((z - y).square().mean()) for z in (trained.restored(side, 0 * log2_q), side.y_file)]
    assert errors[0] < 0.995 * errors[1]
    join_shards(out / "export", tmp_path / "joint.safetensors", int8=True)
    codec = RatevarCodec.from_file(tmp_path / "joint.safetensors")
    data = codec.encode(photo.crop((150, 100, 310, 228)), q_index=200)
    for realism in (0.0, 1.0):
        assert difference(codec.decode(data, realism=realism), codec.decode(data, realism=realism, steps=0)) > 0
    for cooldown, steps in ((False, 61), (True, 62)):
        again = run_steps(recipe, out, 1, init=str(tmp_path / "nowhere"), resume=True, cooldown=cooldown)
        assert again.trainer.schedule.steps == steps


def test_tints_are_weighed_apart(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """An even shift is all tint; a checkerboard of the same energy is none."""
    x, bits_y, bits_z = batch
    draw = Draw(torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), 2, SHIFT)
    height, width = x.shape[-2:]
    board = (torch.arange(height)[:, None] + torch.arange(width)) % 2 * 2 - 1.0

    def added(error: Tensor) -> float:
        out = output(x, torch.zeros(2, 1, 2, 2), bits_y, bits_z)._replace(x_hat=x + error)
        with_it, without = (stage1_loss(x, out, draw, Stage1Config(tint_weight=w), None) for w in (3.0, 0.0))
        assert float(with_it.distortion) == float(without.distortion)
        return float(with_it.loss - without.loss)

    assert added(0.02 * torch.ones(height, width)) == pytest.approx(
        3 * (0.02 * 255) ** 2 * math.sqrt(0.12) / 2, rel=1e-3
    )
    assert added(0.02 * board) == pytest.approx(0, abs=1e-3)


def test_lpips_sees_the_image_at_the_shift_drawn() -> None:
    """Of 64 pixels 49, from where the shift says, in both images."""
    x = torch.zeros(1, 3, 64, 64)
    error = torch.zeros(1, 1, 64, 64)
    error[..., 10:59, 3:52] = 0.5
    out = RatevarOutput(x + error, *(torch.zeros(1, 1, 4, 4) for _ in range(4)))
    for shift, expected in (((10, 3), 0.5), ((11, 3), 0.5 * 48 / 49), ((10, 0), 0.5 * 46 / 49)):
        draw = Draw(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1), 0, torch.tensor(shift))
        terms = stage1_loss(x, out, draw, Stage1Config(), BrightnessDistance())
        assert float(terms.lpips) == pytest.approx(expected)


@pytest.mark.parametrize(("side", "left"), [(16, 16), (32, 32), (40, 32), (47, 32), (64, 49), (256, 241)])
def test_what_a_shift_leaves(side: int, left: int) -> None:
    x = torch.arange(side * 48.0).view(1, 1, side, 48).expand(1, 3, side, 48)
    shift = torch.tensor([side - left, 2])
    assert torch.equal(shifted(x, shift), x[..., side - left :, 2:35])
    assert shifted_side(side) == left


def test_lpips_is_not_run_when_all_images_are_plain(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, bits_y, bits_z = batch
    distance = BrightnessDistance()
    draw = Draw(torch.ones(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), 2, SHIFT)
    out = output(x, torch.zeros(2, 1, 2, 2), bits_y, bits_z)
    terms = stage1_loss(x, out, draw, Stage1Config(), distance)
    assert distance.seen == []
    assert float(terms.lpips) == 0


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_steps_are_stratified_over_the_range(batch_size: int) -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        draw = draw_conditions(batch_size, 16, MODEL, Stage1Config(q_map=0.0), g, CPU)
        assert draw.log2_q.shape == draw.realism.shape == (batch_size, 1, 1, 1)
        strata = (draw.log2_q.flatten() - log2_q_of(16)) / log2_q_of(344 - 16) * batch_size
        assert sorted(strata.floor().int().tolist()) == list(range(batch_size))


def test_maps_have_two_values_in_range_and_a_rectangle() -> None:
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        log2_q = draw_conditions(6, 8, MODEL, Stage1Config(q_map=1.0), g, CPU).log2_q
        assert log2_q.shape == (6, 1, 8, 8)
        assert log2_q_of(16) <= float(log2_q.min()) <= float(log2_q.max()) <= log2_q_of(344)
        for image in log2_q[:, 0]:
            assert len(image.unique()) == 2
            inside = image == image[0, 0]
            assert torch.equal(inside, inside[:, :1] & inside[:1, :])


def test_maps_come_as_often_as_asked() -> None:
    g = torch.Generator().manual_seed(0)
    draws = [draw_conditions(2, 8, MODEL, Stage1Config(q_map=0.25), g, CPU) for _ in range(400)]
    assert 70 < sum(d.log2_q.shape[-1] > 1 for d in draws) < 130


def test_realism_is_zero_first_then_one() -> None:
    g = torch.Generator().manual_seed(0)
    draw = draw_conditions(16, 8, MODEL, Stage1Config(realism_zero=0.75), g, CPU)
    assert draw.zeros == 12
    assert draw.realism.flatten().tolist() == [0] * 12 + [1] * 4
    plain = draw_conditions(16, 8, MODEL, Stage1Config(lpips_weight=0.0), g, CPU)
    assert plain.zeros == 16
    assert plain.realism.eq(0).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lambda0", 0.0),
        ("lpips_weight", -1.0),
        ("lpips_net", "squeeze"),
        ("tint_weight", -1.0),
        ("q_map", 1.5),
        ("realism_zero", 1.6),
    ],
)
def test_values_out_of_range_are_named(key: str, value: object) -> None:
    with pytest.raises(OptionError, match=key):
        Stage1Config(**{key: value})  # pyright: ignore[reportArgumentType]
