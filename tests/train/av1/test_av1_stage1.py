"""Stage 1 of `av1`: the loss by hand, what is learnt in seconds, what validation says, and a run by the commands."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features
from torch import Tensor
from typer.testing import CliRunner

from unquant.cli.training import app
from unquant.codecs.av1 import Av1Codec
from unquant.errors import OptionError, TrainingError
from unquant.networks.av1 import Av1, Av1Config, Coding, told
from unquant.perceptual import DISTS, LPIPS
from unquant.train.av1 import objective as av1_objective
from unquant.train.av1 import stage1
from unquant.train.av1.pairs import PairBatch, PairsConfig
from unquant.train.av1.stage1 import RedrawConfig, RedrawDraw, RedrawStage
from unquant.train.loop import train
from unquant.train.objective import shifted
from unquant.train.recipe import Recipe, Run
from unquant.train.structure import excess_grain, squared_of_chroma
from unquant.weights_file import write_weights

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")

TINY = Av1Config(width8=8, depth8=1, width16=8, depth16=1, width2=4, cond=4)


class Brightness(LPIPS):
    """Stands for LPIPS: the mean absolute difference of each image; remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.seen.append((x, y))
        return (x - y).abs().mean((1, 2, 3))


class Contrast(DISTS):
    """Stands for DISTS: the difference of the standard deviations of each image."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.seen.append((x, y))
        return (x.flatten(1).std(1) - y.flatten(1).std(1)).abs()


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, RedrawDraw, Tensor]:
    """Originals, a draw of four images of which two have ρ = 0, and what f shall have made of it."""
    g = torch.Generator().manual_seed(1)
    x = torch.rand(4, 3, 64, 64, generator=g)
    x_q = x + torch.tensor([0.01, 0.03, 0.02, 0.05]).view(4, 1, 1, 1) * torch.randn(4, 3, 64, 64, generator=g)
    x_hat = (x_q + 0.01 * torch.randn(4, 3, 64, 64, generator=g)).requires_grad_()
    realism = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(4, 1, 1, 1)
    draw = RedrawDraw(x_q, told([Coding(150, 0.2)] * 4), realism, 2, torch.tensor([3, 10]), False)
    monkeypatch.setattr(stage1, "redrawn", lambda *_: x_hat)
    return x, draw, x_hat


def by_hand(x: Tensor, draw: RedrawDraw, x_hat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """255²·MSE of f and of AV1, and the weight of each image."""
    error, base = (255**2 * ((picture - x) ** 2).mean((1, 2, 3)) for picture in (x_hat, draw.x_q))
    return error, base, 1 / (base + 4)


def test_loss(made_up: tuple[Tensor, RedrawDraw, Tensor]) -> None:
    x, draw, x_hat = made_up
    lpips = Brightness()
    terms = RedrawStage(Av1(TINY), RedrawConfig(mean_weight=3.0, lpips_weight=50.0), PairsConfig(), lpips, None)(
        x, draw
    )
    error, base, weight = by_hand(x, draw, x_hat)
    seen = [shifted(p[2:], draw.shift) for p in (x_hat, x)]
    distance = (seen[0] - seen[1]).abs().mean((1, 2, 3))
    mean, drawn = (weight * error).split(2)
    expected = (3 * mean.sum() + drawn.sum() + 50 * (weight[2:] * distance).sum()) / 4
    torch.testing.assert_close(terms["loss"], expected)
    torch.testing.assert_close(terms["left"], error[:2].sum() / base[:2].sum())
    torch.testing.assert_close(terms["lpips"], distance.mean())
    # one pass, of the images with ρ = 1, at the shift drawn
    ((one, other),) = lpips.seen
    assert torch.equal(one, seen[0])
    assert torch.equal(other, seen[1])
    assert one.shape[-1] == 49


def test_chroma_counts_at_realism_one(made_up: tuple[Tensor, RedrawDraw, Tensor]) -> None:
    """Cb and Cr as Pillow computes them, to the rounding of its 8 bits; grey differences are none."""
    x, draw, x_hat = made_up
    # errors that 8 bits can tell, and no clipping
    x[:] = 0.25 + 0.5 * x
    x_hat.data = x + 0.2 * (torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) - 0.5)
    without, loss = (
        RedrawStage(Av1(TINY), RedrawConfig(lpips_weight=0.0, chroma_weight=w), PairsConfig(), Brightness(), None)(
            x, draw
        )["loss"]
        for w in (0.0, 7.0)
    )
    weight = by_hand(x, draw, x_hat)[2]
    pictures = [(255 * p.detach()).round().byte().permute(0, 2, 3, 1).numpy() for p in (x_hat, x)]
    ycc = [torch.stack([torch.from_numpy(np.array(Image.fromarray(a).convert("YCbCr"))) for a in p]) for p in pictures]
    chroma = (ycc[0][..., 1:].double() - ycc[1][..., 1:].double()).square().mean((1, 2, 3))
    expected = 7 * (weight * chroma)[2:].sum() / 4
    assert (loss - without).item() == pytest.approx(float(expected), rel=0.02)
    grey = torch.full_like(x, 0.1)
    assert squared_of_chroma(x + grey, x).max() < 1e-6


def test_grain_counts_at_realism_one(made_up: tuple[Tensor, RedrawDraw, Tensor]) -> None:
    x, draw, x_hat = made_up
    without, loss = (
        RedrawStage(Av1(TINY), RedrawConfig(lpips_weight=0.0, grain_weight=w), PairsConfig(), Brightness(), None)(
            x, draw
        )["loss"]
        for w in (0.0, 70.0)
    )
    grain, weight = excess_grain(x_hat, x)[2:], by_hand(x, draw, x_hat)[2][2:]
    assert grain.min() > 0
    assert (loss - without).item() == pytest.approx(float(70 * (weight * grain).detach().sum() / 4), rel=1e-3)


def test_grain_is_the_squared_octaves_of_what_is_too_much() -> None:
    """White noise has its variance in every band, at half size a quarter of it: 1 + 4·σ² times what is added to either."""
    flat, noise = (
        torch.full((3, 3, 512, 512), 0.5),
        torch.randn(3, 1, 512, 512, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1),
    )
    for deviation in (0.5, 3.0):
        found = excess_grain(flat + deviation / 255 * noise, flat)
        assert found.tolist() == pytest.approx([math.log2(1 + 4 * deviation**2) ** 2] * 3, rel=0.05)
    rough = flat + 3 / 255 * noise
    assert excess_grain(flat, rough).max() == 0  # what is missing costs nothing
    assert excess_grain(rough + 0.2, rough).max() < 1e-4
    colour = torch.tensor([0.114, 0.0, -0.299]).view(3, 1, 1)  # of no luma
    assert excess_grain(flat + colour * noise / 9, flat).max() < 1e-4
    drawn = flat.clone().requires_grad_()
    excess_grain(drawn, flat).sum().backward()
    assert drawn.grad is not None
    assert torch.isfinite(drawn.grad).all()


def test_dists_of_a_few_batches_counts_for_all(made_up: tuple[Tensor, RedrawDraw, Tensor]) -> None:
    """On average over batches, and whichever crops are taken, the weight is as given."""
    x, draw, x_hat = made_up
    x, x_q = torch.cat([x, x[3:]]), torch.cat([draw.x_q, draw.x_q[3:]])  # two of the three with ρ = 1 are looked at
    draw = draw._replace(
        x_q=x_q, coding=draw.coding[:1].expand(5, -1), realism=torch.cat([draw.realism, torch.ones(1, 1, 1, 1)])
    )
    stage1.redrawn = lambda *_: torch.cat([x_hat, x_hat[3:]])  # restored by the fixture
    config = RedrawConfig(lpips_weight=0.0, dists_weight=70.0, dists_share=0.25, dists_crops=2, dists_size=32)
    dists = Contrast()
    stage = RedrawStage(Av1(TINY), config, PairsConfig(), Brightness(), dists)
    without, with_dists = (stage(x, draw._replace(dists=seen))["loss"] for seen in (False, True))
    ((one, other),) = dists.seen
    assert one.shape == (2, 3, 32, 32)
    _, _, weight = by_hand(x[:4], draw._replace(x_q=x_q[:4]), x_hat)
    distance = (one.flatten(1).std(1) - other.flatten(1).std(1)).abs()
    mean = (weight[2:] * distance).mean()
    torch.testing.assert_close(0.25 * (with_dists - without), 70 * mean * 3 / 5, rtol=1e-3, atol=1e-5)
    draws = [stage_draw(stage, 400 + i).dists for i in range(80)]
    assert 8 <= sum(draws) <= 35


def stage_draw(stage: RedrawStage, seed: int) -> RedrawDraw:
    """A draw without a pool."""
    crops = PairBatch(torch.rand(4, 3, 64, 64), torch.rand(4, 3, 64, 64), told([Coding(9, 1.0)] * 4))
    return stage.draw_of(crops, torch.Generator().manual_seed(seed), torch.device("cpu"))


@pytest.mark.parametrize(("share", "zeros"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_realism_of_a_batch(share: float, zeros: int) -> None:
    """Whatever share has ρ = 0 the terms are finite, even where AV1 lost nothing."""
    stage = RedrawStage(Av1(TINY), RedrawConfig(realism_zero=share), PairsConfig(), Brightness(), None)
    draw = stage_draw(stage, 1)
    assert (draw.zeros, draw.realism.flatten().tolist()) == (zeros, [0.0] * zeros + [1.0] * (4 - zeros))
    terms = stage(draw.x_q.clone(), draw)
    assert all(torch.isfinite(term) for term in terms.values())
    assert ("left" in terms, "lpips" in terms) == (zeros > 0, zeros < 4)
    # without LPIPS there is nothing to train at ρ = 1
    alone = RedrawStage(Av1(TINY), RedrawConfig(realism_zero=share), PairsConfig(), None, None)
    assert stage_draw(alone, 1).zeros == 4


@pytest.mark.parametrize(
    "wrong",
    [{"lpips_weight": -1.0}, {"dists_share": 2.0}, {"lpips_net": "squeeze"}, {"dists_crops": 0}, {"dists_size": 16}],
)
def test_wrong_numbers_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        RedrawConfig(**wrong)


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_learns(shapes_run: Any) -> None:
    """100 steps on pictures of discs: some of AV1's error is explained, on those kept back as well."""
    before, after = shapes_run.before, shapes_run.after
    assert before["gain"] == 0
    assert before["loss"] == pytest.approx(1)
    assert after["gain"] > 0.1
    assert after["gain_8"] == after["gain"]
    assert after["loss"] < 0.98
    assert abs(after["gap"]) < 0.5
    assert 0.1 < after["bpp_8"] < 1


@pytest.mark.slow
def test_validation_beside_av1(shapes_run: Any, made_up: Any) -> None:
    """f that is the identity: no gain and a ratio of 1; f that is nearly the original: a gain of 20 dB."""
    trainer = shapes_run.trainer
    stage = RedrawStage(trainer.model, RedrawConfig(), PairsConfig(pool=1), Brightness(), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(av1_objective, "VALIDATION_QUALITIES", (8, 20))
        patch.setattr(av1_objective, "redrawn", lambda model, x_q, coding, rho: x_q)
        row = stage.validate(trainer.model, trainer.photos, 64, 3)
        assert (row["gain"], row["gain1_20"], row["lpips"], row["loss"], row["gap"]) == (0, 0, 1, 2, 0)
        seen = [(quality, held_out) for quality in (8, 20) for held_out in (True, False)]
        fixed = [stage.fixed_pair(trainer.photos, 64, 3, quality, held_out=held_out) for quality, held_out in seen]

        def nearly(model: Av1, x_q: Tensor, coding: Tensor, rho: Tensor) -> Tensor:
            (x,) = (pair.x for pair in fixed if torch.equal(pair.x_q, x_q))
            return x + 0.1 * (x_q - x)

        patch.setattr(av1_objective, "redrawn", nearly)
        row = stage.validate(trainer.model, trainer.photos, 64, 3)
    assert row["gain"] == pytest.approx(20, abs=0.01)
    assert row["lpips"] == pytest.approx(0.1, abs=0.001)
    assert row["loss"] == pytest.approx(0.01 + 0.1, abs=0.001)
    assert row["gain"] == (row["gain_8"] + row["gain_20"]) / 2


@pytest.mark.slow
def test_a_checkpoint_of_today_goes_on(shapes_run: Any, av1_recipe: Recipe, shapes: Path) -> None:
    from unquant.train.trainer import Trainer

    run = Run(shapes, shapes_run.out, 10.0, resume=True, device="cpu")
    again = Trainer(av1_recipe, run)
    assert again.schedule.steps == 100
    for a, b in zip(again.model.parameters(), shapes_run.trainer.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_threads_end_with_the_run(shapes: Path, av1_recipe: Recipe, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    train(av1_recipe, Run(shapes, tmp_path / "run", steps=2, device="cpu"), lambda _: None)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread.name


def test_a_run_that_fails_names_the_picture(
    shapes: Path, av1_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> bytes:
        raise ValueError("no memory")

    monkeypatch.setattr(av1_objective.PairsObjective, "validate", lambda *_: {"loss": 0.0})
    monkeypatch.setattr(av1_objective.PairsObjective, "save_samples", lambda *_: None)
    monkeypatch.setattr("unquant.train.av1.versions.encode_avif", failing)
    with pytest.raises(TrainingError, match=r"a\d+\.png: no pair can be made \(ValueError: no memory\)"):
        train(av1_recipe, Run(shapes, tmp_path / "run", steps=2, device="cpu"), lambda _: None)


def test_stages_that_av1_has(shapes: Path, av1_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"av1 has no stage 2: it is trained by `unquant train stage1` and `.*stage3`"
    ):
        train(av1_recipe, Run(shapes, tmp_path, steps=1, stage=2, device="cpu"), lambda _: None)


@pytest.mark.slow
def test_from_a_recipe_to_a_picture_by_commands(
    shapes: Path, configs: Path, feature_weights: Path, tmp_path: Path, photo: Image.Image
) -> None:
    """The smoke recipe, stage 3 on its export, a weights file, an image through it."""

    def call(*arguments: str | Path) -> None:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output

    text = (configs / "av1-smoke.toml").read_text().replace("pool = 32", "pool = 8")
    (tmp_path / "one.toml").write_text(text.replace("validation_crops = 16", "validation_crops = 2"))
    common = ("--data", shapes, "--steps", "3", "--device", "cpu")
    call("stage1", "--config", tmp_path / "one.toml", "--out", tmp_path / "one", *common)
    head = text[: text.index("[redraw]")].replace("validation_crops = 16", "validation_crops = 2")
    (tmp_path / "three.toml").write_text(f'{head}[realism]\nnets = "alex"\ndists_weight = 0\n[pairs]\npool = 8\n')
    start = ("--init", tmp_path / "one" / "export", "--metrics-dir", feature_weights)
    call("stage3", "--config", tmp_path / "three.toml", "--out", tmp_path / "three", *start, *common)
    rows = [json.loads(line) for line in (tmp_path / "three" / "metrics.jsonl").read_text().splitlines()]
    assert (rows[0]["stage"], rows[0]["init"]) == (3, str(tmp_path / "one" / "export"))
    assert rows[-1]["kind"] == "validation"
    assert rows[-1]["lpips"] == pytest.approx(1, abs=0.2)
    with Image.open(sorted((tmp_path / "three" / "samples").glob("*.png"))[-1]) as picture:
        assert picture.width == min(4, rows[0]["held_out"]) * 64
        assert picture.height == 10 * 64
    call("export", tmp_path / "three", "-o", tmp_path / "tiny.safetensors")
    codec = Av1Codec.from_file(tmp_path / "tiny.safetensors")
    crop = photo.crop((200, 100, 296, 170))
    assert codec.decode(codec.encode(crop, quality=30)).size == crop.size


def test_stage_3_starts_from_the_family_s_own_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, configs: Path
) -> None:
    from unquant.train import loop

    model = Av1(TINY)
    write_weights(tmp_path / "av1.safetensors", "av1", TINY.to_dict(), model.state_dict(), {})
    runs: list[Run] = []
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(loop, "train", lambda recipe, run, echo: runs.append(run) or run.out)
    arguments = ["stage3", "--config", str(configs / "av1-realism.toml"), "--data", "d", "--out", "o", "--steps", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert Path(runs[0].init).name == "av1.safetensors"  # of the package, where it is installed
