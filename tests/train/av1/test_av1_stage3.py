"""Stage 3 of `av1`: its loss by hand, realism 0 held, and what an adversary spoils undone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import features
from runs import changed, parameters
from torch import Tensor

from unquant.errors import OptionError, TrainingError
from unquant.networks.av1 import Av1, Av1Config, Coding, told
from unquant.perceptual import DISTS, LPIPS
from unquant.train import judges
from unquant.train.av1 import objective as av1_objective
from unquant.train.av1 import stage3
from unquant.train.av1.pairs import PairBatch, PairsConfig
from unquant.train.av1.stage3 import Realism, RealismConfig, RealismDraw
from unquant.train.journal import Journal
from unquant.train.loop import train
from unquant.train.objective import shifted
from unquant.train.recipe import Recipe, Run, load_recipe
from unquant.train.structure import (
    Structure,
    StructureTerms,
    coarse_dissimilarity,
    excess_grain,
    grid_energy,
    squared_of_chroma,
)
from unquant.train.trainer import Trainer
from unquant.weights_file import read_shards

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")

TINY = Av1Config(width8=8, depth8=1, width16=8, depth16=1, width2=4, cond=4)
START = {"dists": 0.9, "gain": 0.3}


class Pixels(DISTS):
    """Stands for DISTS: its only features are the pixels."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def extract(self, x: Tensor) -> list[Tensor]:
        return [x]

    def compare(self, x_features: Any, y_features: Any) -> Tensor:
        return (x_features[0] - y_features[0]).square().mean((1, 2, 3)).sqrt()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.compare([x], [y])


def stage(dists: DISTS | None = None, **options: Any) -> Realism:
    torch.manual_seed(0)
    given: dict[str, Any] = {"nets": "alex", "vgg_crop": 32, "dists_weight": 0.0, "discriminator_width": 4, **options}
    return Realism(Av1(TINY), RealismConfig(**given), PairsConfig(), {"alex": LPIPS("alex")}, dists)


@pytest.fixture
def draw() -> tuple[Tensor, RealismDraw]:
    """Five originals of which two have ρ = 0."""
    g = torch.Generator().manual_seed(1)
    x = torch.rand(5, 3, 64, 64, generator=g)
    x_q = (x + 0.05 * torch.randn(5, 3, 64, 64, generator=g)).clamp(0, 1)
    return x, RealismDraw(x_q, told([Coding(150, 0.2)] * 5), 2, torch.tensor([3, 10]), torch.tensor([7, 0]), True)


# ---- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_loss(draw: tuple[Tensor, RealismDraw], spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x, conditions = draw
    g = torch.Generator().manual_seed(2)
    noise = 0.03 * torch.randn(8, 3, 64, 64, generator=g)
    seen: list[Tensor] = []

    def f(model: Av1, x_q: Tensor, coding: Tensor, realism: Tensor) -> Tensor:
        assert realism.flatten().tolist() == [0] * 2 + [1] * 6
        assert torch.equal(x_q[2:5], x_q[5:])
        return x_q + noise

    def compare(
        self: Structure, first: Tensor, second: Tensor, target: Tensor, corner: Tensor, *, dists: bool
    ) -> StructureTerms:
        assert dists
        seen.extend((first, second, target, corner))
        return StructureTerms(torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 5, 6]), torch.tensor([7.0, 8, 9]))

    monkeypatch.setattr(stage3, "redrawn", f)
    monkeypatch.setattr(Structure, "forward", compare)
    weights = {
        "mean_weight": 3.0,
        "chroma_weight": 7.0,
        "grain_weight": 9.0,
        "coarse_weight": 11.0,
        "grid_weight": 13.0,
        "energy_weight": 10.0,
        "lpips_weight": 20.0,
        "dists_weight": 30.0,
    }
    terms = stage(Pixels(), spread=spread, **weights)(x, conditions)
    plain, first, second = (conditions.x_q[[0, 1, 2, 3, 4, 2, 3, 4]] + noise).split([2, 3, 3])

    def squared(a: Tensor, b: Tensor) -> Tensor:
        return 255**2 * ((a - b) ** 2).mean((1, 2, 3))

    w = 1 / (squared(conditions.x_q, x) + 4)
    # the squared error of the mean of two samples is that of each less a quarter of what they are apart; without bias a half
    mean = (squared(first, x[2:]) + squared(second, x[2:])) / 2 - (1 - spread) * squared(first, second) / 2
    structure = torch.tensor([10 * a + 20 * (a + 3) + 30 * (a + 6) for a in (1.0, 2, 3)])
    for sample in (first, second):
        structure = structure + (7 * squared_of_chroma(sample, x[2:]) + 9 * excess_grain(sample, x[2:])) / 2
        structure = structure + (11 * coarse_dissimilarity(sample, x[2:]) + 13 * grid_energy(sample, x[2:])) / 2
    expected = (3 * (w[:2] * squared(plain, x[:2])).sum() + (w[2:] * (mean + structure)).sum()) / 5
    torch.testing.assert_close(terms["loss"], expected)
    torch.testing.assert_close(terms["left"], (squared(plain, x[:2]) / squared(conditions.x_q, x)[:2]).mean())
    assert (float(terms["energy"]), float(terms["lpips"]), float(terms["dists"])) == (2, 5, 8)
    coarse = [coarse_dissimilarity(sample, x[2:]).mean() for sample in (first, second)]
    torch.testing.assert_close(terms["coarse"], (coarse[0] + coarse[1]) / 2)
    for found, picture in zip(seen, (first, second, x[2:]), strict=False):
        assert torch.equal(found, shifted(picture, conditions.shift))
    assert seen[3].tolist() == [7, 0]


@pytest.mark.parametrize("adversarial", [0.0, 5.0])
def test_what_the_gradient_reaches(draw: tuple[Tensor, RealismDraw], adversarial: float) -> None:
    """All of f, and D where there is one; the networks that compare stay as they are."""
    x, conditions = draw
    one = stage(Pixels(), dists_weight=10.0, adversarial_weight=adversarial)
    with torch.no_grad():
        for p in one.model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    terms = one(x, conditions)
    assert all(torch.isfinite(term) for term in terms.values())
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in one.model.parameters())
    assert not any(p.requires_grad for p in one.structure.parameters())
    assert (one.companion is not None) == (adversarial > 0) == ("discriminator" in terms) == one.guarded
    if one.companion is not None:
        assert any(p.grad is not None and p.grad.any() for p in one.companion.parameters())
    groups = one.parameter_groups()
    assert sum(len(group["params"]) for group in groups) == sum(
        len(list(m.parameters())) for m in (one.model, one.companion) if m is not None
    )


def test_the_two_samples_differ(draw: tuple[Tensor, RealismDraw]) -> None:
    x, conditions = draw
    one = stage()
    with torch.no_grad():
        for p in one.model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    seen: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            one.structure, "forward", lambda *a, dists: (seen.extend(a), StructureTerms(*[torch.zeros(3)] * 3))[1]
        )
        one(x, conditions)
    assert float((seen[0] - seen[1]).detach().abs().mean()) > 1e-4


def test_what_is_coarse_is_the_luma_of_four_by_four_pixels() -> None:
    """Constant pictures have SSIM's term of brightness alone; what cancels out over 4×4 pixels, and colour, cost nothing."""
    x = torch.full((2, 3, 64, 48), 0.5)
    expected = 1 - (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)
    torch.testing.assert_close(coarse_dissimilarity(x + 0.1, x), torch.full((2,), expected), rtol=1e-4, atol=1e-6)
    board = 0.2 * (torch.arange(64)[:, None] + torch.arange(48)).remainder(2).mul(2).sub(1)
    colour = torch.tensor([0.114, 0.0, -0.299]).view(3, 1, 1)  # of no luma
    for picture in (x + board, x + colour):
        assert coarse_dissimilarity(picture, x).abs().max() < 1e-5
    coarse = 0.1 * torch.randn(2, 1, 16, 12, generator=torch.Generator().manual_seed(0))
    coarse = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert coarse_dissimilarity(x + coarse, x + coarse + board).max() < 1e-5
    assert coarse_dissimilarity(x + coarse, x - coarse).min() > 1  # turned round
    drawn = (x + 0.5 * coarse).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = coarse_dissimilarity(drawn, x + coarse)
    torch.testing.assert_close(found, coarse_dissimilarity(drawn, x + coarse))
    found.sum().backward()
    assert drawn.grad is not None
    # towards the contrast that is missing
    assert float((drawn.grad * coarse).sum()) < 0


def test_what_repeats_on_the_grid_is_its_energy() -> None:
    """Of a texture of period 16 all of it, of 8 as well; of noise 1/16; constants and what turns round with every block cost
    nothing, and the gradient takes the texture away."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 128, 96, generator=generator)
    tile = torch.randn(2, 3, 16, 16, generator=generator) * 4 / 255
    energy = 255**2 * (tile - tile.mean((2, 3), keepdim=True)).square().mean((1, 2, 3))
    texture = tile.repeat(1, 1, 8, 6)
    torch.testing.assert_close(grid_energy(x + texture, x), energy, rtol=1e-3, atol=1e-3)
    half = tile[..., :8, :8].repeat(1, 1, 16, 12)
    assert grid_energy(x + half, x).min() > 10
    noise = torch.randn(2, 3, 128, 96, generator=generator) * 4 / 255
    torch.testing.assert_close(grid_energy(x + noise, x), torch.ones(2), rtol=0.2, atol=0)
    board = (torch.arange(8)[:, None] + torch.arange(6)).remainder(2).mul(2).sub(1)
    turned = texture * board.repeat_interleave(16, 0).repeat_interleave(16, 1)
    for picture in (x + 0.1, x + turned):
        assert grid_energy(picture, x).max() < 1e-3
    drawn = (x + texture).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = grid_energy(drawn, x)
    torch.testing.assert_close(found, grid_energy(drawn, x))
    found.sum().backward()
    assert drawn.grad is not None
    assert float((drawn.grad * texture).sum()) > 0


def test_one_sample_where_nothing_compares_two(
    draw: tuple[Tensor, RealismDraw], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is that of two equal samples; DISTS counts in its share of the batches as if all had it."""
    x, conditions = draw
    noise = 0.03 * torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    asked: list[int] = []

    def f(model: Av1, x_q: Tensor, coding: Tensor, realism: Tensor) -> Tensor:
        asked.append(len(x_q))
        return x_q + torch.cat([noise, noise[2:]])[: len(x_q)]

    monkeypatch.setattr(stage3, "redrawn", f)
    weights = {
        "chroma_weight": 7.0,
        "grain_weight": 9.0,
        "coarse_weight": 11.0,
        "grid_weight": 13.0,
        "lpips_weight": 20.0,
        "dists_weight": 30.0,
    }
    losses: list[Tensor] = []
    for energy, share in ((1e-9, 1.0), (0.0, 1.0), (0.0, 0.25)):
        one = stage(Pixels(), energy_weight=energy, dists_share=share, **weights)
        losses += [one(x, conditions._replace(dists=dists))["loss"] for dists in (True, False)]
    assert asked == [8, 8, 5, 5, 5, 5]
    torch.testing.assert_close(losses[2], losses[0])
    torch.testing.assert_close(losses[5], losses[3])
    torch.testing.assert_close(losses[4] - losses[5], 4 * (losses[2] - losses[3]))
    assert losses[2] > losses[3]


def test_a_share_of_the_batches_sees_dists(draw: tuple[Tensor, RealismDraw]) -> None:
    x, conditions = draw
    one, g = stage(Pixels(), dists_share=0.25), torch.Generator().manual_seed(3)
    pairs = PairBatch(x, conditions.x_q, conditions.coding)
    seen = sum(one.draw_of(pairs, g, torch.device("cpu")).dists for _ in range(400))
    assert 70 < seen < 130


@pytest.mark.parametrize("energy", [0.0, 10.0])
def test_the_adversary_judges_what_was_added(
    draw: tuple[Tensor, RealismDraw], energy: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Differences to x_q in units of the error that AV1 leaves at a step, with a weight in the same units."""
    x, conditions = draw
    coding = told([Coding(index, 0.2) for index in (90, 120, 150, 180, 210)])
    given: list[Tensor] = []

    def losses(companion: Any, real: Tensor, drawn: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        given.extend((real, drawn, known))
        return torch.arange(len(drawn)).float(), torch.tensor(0.5)

    samples = 2 if energy else 1
    noise = 0.03 * torch.randn(2 + 3 * samples, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    monkeypatch.setattr(stage3, "redrawn", lambda model, x_q, *_: x_q + noise)
    monkeypatch.setattr(stage3, "adversarial_losses", losses)
    options = {"energy_weight": energy, "lpips_weight": 20.0}
    plain = stage(**options)(x, conditions._replace(coding=coding))["loss"]
    found = stage(adversarial_weight=3.0, **options)(x, conditions._replace(coding=coding))["loss"]
    expected = 0.16 * coding[2:, -1]
    root = expected.sqrt().view(-1, 1, 1, 1) / 255
    torch.testing.assert_close(given[0], (x - conditions.x_q)[2:] / root)
    torch.testing.assert_close(given[1], noise[2:] / root.repeat(samples, 1, 1, 1))
    torch.testing.assert_close(given[2], 2 * conditions.x_q[2:] - 1)
    scores = torch.arange(3 * samples).float().view(samples, 3).mean(0)
    w = 1 / (255**2 * ((conditions.x_q - x) ** 2).mean((1, 2, 3))[2:] + 4)
    torch.testing.assert_close(found - plain, 0.5 + 3 * (w * expected * scores).sum() / 5)


def test_a_third_of_every_batch_has_realism_0() -> None:
    for batch in range(2, 20):
        zeros = RealismConfig(realism_zero=1 / 3).plain(batch)
        assert zeros == min(math.ceil(batch / 3), batch - 1)
    assert RealismConfig(realism_zero=1.0).plain(8) == 7
    with pytest.raises(OptionError, match=r"realism_zero: must be at least 0\.333"):
        RealismConfig(realism_zero=0.3)


@pytest.mark.parametrize(
    "wrong", [{"spread": 2.0}, {"spread": -1.0}, {"mean_weight": -1.0}, {"nets": "squeeze"}, {"dists_share": 0.0}]
)
def test_wrong_numbers_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        RealismConfig(**wrong)


# ---- the guard -------------------------------------------------------------------------------------------------------


def test_the_guard_judges_by_the_best_so_far() -> None:
    one = stage(Pixels(), adversarial_weight=8.0)
    assert one.worsened(dict(START)) is None
    assert one.worsened({"dists": 0.85, "gain": 0.29}) is None  # 0.01 dB is allowed
    assert one.worsened({"dists": 0.851, "gain": 0.285}) is None
    # not step by step: 0.3 dB is still the measure
    reason = one.worsened({"dists": 0.85, "gain": 0.275})
    assert reason is not None
    assert "PSNR at realism 0" in reason
    assert "0.275 dB and was 0.300" in reason
    assert one.adversarial_weight == 4
    reason = one.worsened({"dists": 0.86, "gain": 0.4})
    assert reason is not None
    assert "DISTS" in reason
    assert "the adversary's weight is 2" in reason
    assert one.worsened({"dists": math.nan, "gain": 0.4}) is not None
    assert one.adversarial_weight == 1
    assert one.worsened({"dists": 0.85, "gain": 0.3}) is None
    other = stage(Pixels(), adversarial_weight=8.0)
    other.remember(one.memory())
    assert (other.adversarial_weight, other.memory()) == (1, one.memory())
    assert other.worsened({"dists": 0.86, "gain": 0.3}) is not None


@pytest.fixture
def recipe(av1_recipe: Recipe) -> Recipe:
    """The smoke recipe with features of AlexNet and a loss of DISTS."""
    recipe = replace(av1_recipe, loop=replace(av1_recipe.loop, lr=1e-3))
    weights = {"energy_weight": 50.0, "lpips_weight": 50.0, "dists_weight": 50.0}
    return changed(recipe, RealismConfig, nets="alex", vgg_crop=32, discriminator_width=4, **weights)


@pytest.fixture
def start(shapes: Path, shapes_run: Any, feature_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trainer of stage 3 on what stage 1 made, with pixels for DISTS."""
    monkeypatch.setattr(judges, "load_dists", lambda directory: Pixels())
    made: list[Any] = []

    def make(recipe: Recipe, out: Path, **options: Any) -> Any:
        given: dict[str, Any] = {"data": shapes, "out": out, "time_budget": 10.0, "device": "cpu", "stage": 3}
        given |= {"init": str(shapes_run.out / "export"), "metrics": feature_weights}
        torch.manual_seed(0)
        made.append(Trainer(recipe, Run(**{**given, **options})))
        return made[-1]

    yield make
    for trainer in made:
        trainer.objective.close()


Start = Callable[..., Any]


class Log(Journal):
    """A journal that keeps its rows."""

    def __init__(self) -> None:
        super().__init__(None, print)
        self.rows: list[dict[str, Any]] = []

    def write(self, kind: str, values: dict[str, Any]) -> None:
        self.rows.append({"kind": kind, **values})

    def notes(self) -> list[str]:
        return [row["text"] for row in self.rows if row["kind"] == "note"]


@pytest.mark.slow
def test_what_worsens_is_undone(start: Start, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, average, optimiser and discriminator go back, in what is saved as well; the weight is halved, and told."""
    recipe = changed(recipe, RealismConfig, adversarial_weight=8.0)
    trainer, log, out = start(recipe, tmp_path), Log(), tmp_path / "checkpoint.ckpt"
    row = dict(START)
    monkeypatch.setattr(trainer.objective, "validate", lambda *_: {**row})
    monkeypatch.setattr(trainer.objective, "save_samples", lambda *_: None)
    assert trainer.unjudged()
    trainer.validate(log)
    assert not trainer.unjudged()
    trainer.step()
    row["dists"] = 0.8
    trainer.validate(log)
    networks = trainer.model, trainer.ema.module, trainer.objective.companion
    good = [parameters(network) for network in networks]
    moments = trainer.optimisers.adam.state_dict()["state"][0]["exp_avg"].clone()
    assert not log.notes()
    for lost in (4.0, 2.0):
        for _ in range(2):
            trainer.step()
        assert not any(torch.equal(a, parameters(b)) for a, b in zip(good, networks, strict=True))
        trainer.save()  # what the loop does before it validates
        row["gain"] = 0.2
        trainer.validate(log)
        assert all(torch.equal(a, parameters(b)) for a, b in zip(good, networks, strict=True))
        assert torch.equal(trainer.optimisers.adam.state_dict()["state"][0]["exp_avg"], moments)
        assert trainer.objective.adversarial_weight == lost
        assert f"the adversary's weight is {lost:g}" in log.notes()[-1]
    assert len(log.notes()) == 2
    assert log.notes()[0].startswith(
        "back to the last good weights: PSNR at realism 0 over AV1's is 0.200 dB and was 0.300"
    )
    # time goes on
    assert trainer.schedule.steps == 5
    saved = torch.load(out, weights_only=True)
    assert saved["steps"] == 5
    assert torch.equal(torch.cat([p.flatten() for p in saved["model"].values()]), good[0])
    exported = torch.cat([t.float().flatten() for t in read_shards(tmp_path / "export").tensors.values()])
    assert exported.shape == good[1].shape
    assert float(exported.abs().sum()) == pytest.approx(float(good[1].abs().sum()), rel=1e-3)
    # and a run that goes on knows what was best, how much of the adversary is left, and where to go back to
    again = start(recipe, tmp_path, resume=True)
    assert again.objective.adversarial_weight == 2
    assert not again.unjudged()
    monkeypatch.setattr(again.objective, "validate", lambda *_: {**row})
    monkeypatch.setattr(again.objective, "save_samples", lambda *_: None)
    again.step()
    again.validate(log)
    assert torch.equal(parameters(again.model), good[0])
    assert again.objective.adversarial_weight == 1


@pytest.mark.slow
def test_without_an_adversary_nothing_is_undone(
    start: Start, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, log = start(recipe, tmp_path), Log()
    rows = iter([START, {"dists": 1.5, "gain": -1.0}])
    monkeypatch.setattr(trainer.objective, "validate", lambda *_: dict(next(rows)))
    monkeypatch.setattr(trainer.objective, "save_samples", lambda *_: None)
    trainer.validate(log)
    trainer.step()
    after = parameters(trainer.model)
    trainer.validate(log)
    assert torch.equal(parameters(trainer.model), after)
    assert not log.notes()
    assert not trainer.unjudged()


@pytest.mark.slow
def test_an_adversary_that_cannot_be_watched_is_refused(
    start: Start, recipe: Recipe, tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes]
) -> None:
    recipe = changed(recipe, RealismConfig, adversarial_weight=8.0)
    shard(tmp_path / "data" / "a.tar", {"0.png": flat(96, 96)})
    with pytest.raises(TrainingError, match="no held-out image is as large as the crop, 64×64"):
        start(recipe, tmp_path, data=tmp_path / "data")


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_keeps_realism_0(
    shapes: Path,
    shapes_run: Any,
    recipe: Recipe,
    feature_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """40 steps at weights that pull: DISTS' stand-in falls at realism 1, the mean stays within 0.1 dB."""
    monkeypatch.setattr(judges, "load_dists", lambda directory: Pixels())
    monkeypatch.setattr(av1_objective, "VALIDATION_QUALITIES", (8,))
    init = str(shapes_run.out / "export")
    recipe = changed(recipe, RealismConfig, adversarial_weight=1.0)
    train(
        recipe,
        Run(shapes, tmp_path, steps=40, init=init, metrics=feature_weights, device="cpu", stage=3),
        lambda _: None,
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = [row for row in rows if row["kind"] == "validation"]
    assert (first["step"], last["step"]) == (0, 40)
    assert last["gain"] > first["gain"] - 0.1
    assert {"gain1_8", "lpips_8", "dists_8", "dists", "lpips"} <= last.keys()
    (trained, *_) = [row for row in rows if row["kind"] == "train"]
    assert {"left", "left_drawn", "energy", "lpips", "dists", "realness", "discriminator"} <= trained.keys()
    exported = read_shards(tmp_path / "export")
    assert exported.training["stage"] == 3
    assert exported.training["adversarial"] == 1.0
    assert not any("companion" in name for name in exported.tensors)
    # the model is that of the weights
    assert exported.config == read_shards(shapes_run.out / "export").config


def test_the_recipe_of_the_long_run(configs: Path) -> None:
    realism = load_recipe(configs / "av1-realism.toml").table(RealismConfig)
    stage1 = load_recipe(configs / "av1.toml")
    assert realism.adversarial_weight == 0
    assert realism.networks == ("alex",)  # VGG's LPIPS is in no loss
    assert realism.dists_weight > 0
    assert load_recipe(configs / "av1-realism.toml").loop.crop == stage1.loop.crop
