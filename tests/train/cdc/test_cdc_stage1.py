"""The training of `cdc`: its loss against sums by hand, and the smoke recipe in the loop, up to a codec."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import changed
from torch import Tensor

import unquant
from unquant.errors import OptionError, TrainingError
from unquant.networks.cdc import Cdc, CdcConfig, CdcOutput
from unquant.networks.config import EntropyConfig
from unquant.nn.compressor import CompressorConfig
from unquant.nn.denoiser import DenoiserConfig
from unquant.perceptual import LPIPS
from unquant.train.cdc.stage1 import (
    Diffusion,
    DiffusionConfig,
    LevelDraw,
    diffusion_loss,
    draw_levels,
    rate_share,
)
from unquant.train.recipe import Recipe, Run, load_recipe
from unquant.train.trainer import Trainer
from unquant.weights_file import join_shards

MODEL = CdcConfig(
    train_steps=1000,
    compressor=CompressorConfig(24, 4, (8, 12, 12), (1, 1, 1), (8, 12, 12), (1, 1, 1)),
    denoiser=DenoiserConfig((12, 16, 16), (1, 1, 1), (16, 16), (1, 1), 16, 2),
    entropy=EntropyConfig(hyper=8, width=16, context=16, hidden=24, cond=8),
)
CONFIG = DiffusionConfig(lpips_weight=0.0)


def output(x: Tensor, seed: int = 1) -> CdcOutput:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    b, _, h, w = x.shape
    return CdcOutput(uniform(b), uniform(*x.shape), None, uniform(b, 24, h // 16, w // 16), uniform(b, 8, 1, 1))


def conditions(log2_q: Tensor, realism: list[float], level: list[int]) -> LevelDraw:
    rho = torch.tensor(realism).view(-1, 1, 1, 1)
    return LevelDraw(log2_q, rho, int((rho == 0).sum()), torch.tensor(level), torch.tensor([9, 1]))


def test_the_loss_is_the_sum_by_hand() -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    out = output(x)
    draw = conditions(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), [0.0, 0.0], [999, 400])
    terms = diffusion_loss(x, out, draw, MODEL, CONFIG, None, share=0.5)
    expected = 0.0
    for i, q in enumerate((2.0, 8.0)):
        root = math.sqrt(0.12) / q
        rate = float(out.bits_y[i].sum() + out.bits_z[i].sum()) / 32**2
        # at the noisiest level the error of the estimate, elsewhere the network's, weighed by at most 1
        error = float((out.denoised[i] - x[i]).square().mean()) if i == 0 else float(out.error[i]) / 20
        expected += 0.5 * (0.5 * rate / root + root * 255**2 * error)
    assert float(terms.loss) == pytest.approx(expected, rel=1e-5)
    assert float(terms.bpp) == pytest.approx(float(out.bits_y.sum() + out.bits_z.sum()) / (2 * 32**2), rel=1e-5)


def test_a_constant_map_is_the_scalar() -> None:
    x = torch.rand(2, 3, 32, 32)
    out, steps = output(x), torch.tensor([1.5, 4.0]).view(2, 1, 1, 1)
    losses = [
        diffusion_loss(x, out, conditions(log2_q, [0.0, 0.0], [10, 999]), MODEL, CONFIG, None).loss
        for log2_q in (steps, steps.expand(2, 1, 2, 2))
    ]
    torch.testing.assert_close(losses[0], losses[1])


def test_realism_trades_error_for_lpips() -> None:
    config = replace(CONFIG, lpips_weight=500.0)
    x = torch.rand(2, 3, 64, 64)
    out, lpips = output(x), LPIPS("alex")
    log2_q = torch.full((2, 1, 1, 1), 2.0)
    both = diffusion_loss(x, out, conditions(log2_q, [0.0, 1.0], [5, 5]), MODEL, config, lpips)
    none = diffusion_loss(x, out, conditions(log2_q, [0.0, 0.0], [5, 5]), MODEL, config, lpips)
    root, distance = math.sqrt(0.12) / 4, lpips(out.denoised[1:, :, 9:58, 1:50], x[1:, :, 9:58, 1:50])
    torch.testing.assert_close(both.lpips, distance.mean())
    assert not none.lpips
    expected = 0.5 * root * 0.9 * (500 * float(distance) - 255**2 * float(out.error[1]) / 20)
    assert float(both.loss - none.loss) == pytest.approx(expected, rel=1e-3)


def test_epsilon_has_a_weight_of_its_own_and_no_start() -> None:
    model = replace(MODEL, parameterisation="epsilon", schedule="linear")
    config = replace(CONFIG, error_weight=0.01, at_start=1.0)
    x = torch.rand(1, 3, 32, 32)
    out, draw = output(x), conditions(torch.zeros(1, 1, 1, 1), [0.0], [999])
    terms = diffusion_loss(x, out, draw, model, config, None, share=0.0)
    assert float(terms.loss) == pytest.approx(math.sqrt(0.12) * 255**2 * 0.01 * float(out.error), rel=1e-5)
    drawn = draw_levels(64, 4, model, config, torch.Generator().manual_seed(1), torch.device("cpu"))
    assert len(set(drawn.level.tolist())) > 32


def test_draws() -> None:
    generator = torch.Generator().manual_seed(3)
    config = DiffusionConfig(at_start=0.5, realism_zero=0.25)
    draw = draw_levels(400, 4, MODEL, config, generator, torch.device("cpu"))
    assert draw.zeros == 100
    assert draw.realism.flatten().tolist() == [0.0] * 100 + [1.0] * 300
    assert 0 <= int(draw.level.min()) <= int(draw.level.max()) == 999
    for part in (draw.level[:100], draw.level[100:]):
        assert 0.3 < float((part == 999).float().mean()) < 0.7
    # LPIPS is not seen on one grid alone, where the crop has room for it
    shifts = [draw_levels(1, 4, MODEL, config, generator, torch.device("cpu")).shift.tolist() for _ in range(300)]
    assert all({shift[axis] for shift in shifts} == set(range(16)) for axis in (0, 1))
    assert not draw_levels(1, 2, MODEL, config, generator, torch.device("cpu")).shift.any()
    # without LPIPS there is nothing to train realism with
    assert draw_levels(8, 4, MODEL, CONFIG, generator, torch.device("cpu")).zeros == 8


def test_bits_cost_little_at_first() -> None:
    config = DiffusionConfig(rate_warmup=0.2)
    assert rate_share(0.0, config) == pytest.approx(1e-3)
    assert rate_share(0.1, config) == pytest.approx(10**-1.5)
    assert rate_share(0.2, config) == rate_share(0.9, config) == 1.0
    assert rate_share(0.0, DiffusionConfig(rate_warmup=0.0)) == 1.0


@pytest.mark.parametrize("values", [{"lambda0": 0.0}, {"lpips_net": "vgg19"}, {"realism": 1.1}, {"lpips_weight": -1.0}])
def test_bad_values_are_named(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(values))):
        DiffusionConfig(**values)


@pytest.mark.slow
def test_a_small_model_learns(photo: Image.Image) -> None:
    """At one rate and to a fixed picture: bits and the error of one-step decodes fall together."""
    torch.manual_seed(0)
    box = photo.crop((200, 100, 264, 164))
    x = torch.frombuffer(bytearray(box.tobytes()), dtype=torch.uint8).view(1, 64, 64, 3).permute(0, 3, 1, 2) / 255
    model = Cdc(MODEL)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    log2_q = torch.full((1, 1, 1, 1), 3.0)
    draw = conditions(log2_q, [0.0], [999])
    found: list[tuple[float, float, float]] = []
    for _ in range(60):
        out = model(x, log2_q, draw.realism, draw.level, torch.randn(x.shape))
        terms = diffusion_loss(x, out, draw, MODEL, CONFIG, None)
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
        found.append((terms.loss.item(), terms.bpp.item(), terms.distortion.item()))
    assert found[-1][0] < 0.7 * found[0][0]
    assert found[-1][1] < found[0][1]
    assert found[-1][2] < found[0][2]


# --- in the loop ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(run_steps: Callable[..., Any], smoke: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """60 steps of the smoke recipe; tests must leave it as it is."""
    out = tmp_path_factory.mktemp("cdc") / "run"
    out.mkdir()
    return run_steps(smoke, out, 60)


@pytest.fixture(scope="module")
def smoke(configs: Path) -> Recipe:
    recipe = load_recipe(configs / "cdc-smoke.toml")
    # warm-up and pretraining are over after a few of the 100 s that a run of the tests plans for
    return changed(recipe, DiffusionConfig, rate_warmup=0.0, mask_pretraining=0.0)


@pytest.mark.slow
def test_held_out_loss_falls(trained: Any) -> None:
    assert trained.after["loss"] < trained.before["loss"]
    keys = {f"{name}_{q}" for name in ("bpp", "psnr") for q in (111, 204, 297)}
    assert keys | {"loss", "gap"} == set(trained.before) == set(trained.after)
    assert trained.after["bpp_111"] > trained.after["bpp_204"] > trained.after["bpp_297"]


@pytest.mark.slow
def test_the_export_is_a_codec(trained: Any, tmp_path: Path, photo: Image.Image) -> None:
    weights = join_shards(trained.out / "export", tmp_path / "smoke.safetensors")
    assert weights.family == "cdc"
    assert weights.training["parameterisation"] == "x"
    codec = unquant.load(str(tmp_path / "smoke.safetensors"))
    photo = photo.crop((100, 80, 260, 192))
    data = codec.encode(photo, q_index=150)
    decoded = codec.decode(data)
    assert decoded.size == photo.size
    error = (np.asarray(photo, float) - np.asarray(decoded, float)) / 255
    assert -10 * math.log10(np.square(error).mean()) > 20


@pytest.mark.slow
def test_a_run_goes_on(trained: Any, smoke: Recipe, pieces: Path, tmp_path: Path) -> None:
    """From the checkpoint with everything, without it from the averaged weights and their place on the schedule."""
    out = tmp_path / "run"
    shutil.copytree(trained.out, out)
    run = Run(data=pieces, out=out, time_budget=10.0, resume=True, device="cpu")
    again = Trainer(smoke, run)
    assert (again.schedule.steps, again.schedule.crops) == (60, 480)
    for a, b in zip(again.model.parameters(), trained.trainer.model.parameters(), strict=True):
        assert torch.equal(a, b)
    (out / "checkpoint.ckpt").unlink()
    from_export = Trainer(smoke, run)
    assert (from_export.schedule.steps, from_export.schedule.seconds) == (60, again.schedule.seconds)
    assert any("checkpoint" in note for note in from_export.notes)


@pytest.mark.slow
def test_what_does_not_go_together(
    trained: Any, smoke: Recipe, smoke_recipe: Recipe, tiny_weights: Path, pieces: Path, tmp_path: Path
) -> None:
    def start(recipe: Recipe, **options: Any) -> None:
        Trainer(recipe, Run(**{"data": pieces, "out": tmp_path, "time_budget": 1.0, "device": "cpu", **options}))

    with pytest.raises(TrainingError, match="weights of ratevar, the recipe is of cdc"):
        start(smoke, init=str(tiny_weights))
    with pytest.raises(TrainingError, match="weights of cdc, the recipe is of ratevar"):
        start(smoke_recipe, init=str(trained.out / "export"))
    with pytest.raises(TrainingError, match="cdc has no stage 2: it is trained by `unquant train stage1`"):
        start(smoke, stage=2, init=str(trained.out / "export"))
    with pytest.raises(TrainingError, match="do not fit"):
        start(replace(smoke, model=MODEL), init=str(trained.out / "export"))


def test_pretraining_and_warm_up_follow_the_schedule(smoke: Recipe) -> None:
    assert isinstance(smoke.model, CdcConfig)
    stage = Diffusion(Cdc(smoke.model), DiffusionConfig(lpips_weight=0.0, rate_warmup=0.2, mask_pretraining=0.5), None)
    generator, found = torch.Generator().manual_seed(0), list[tuple[float, int | None]]()
    for stage.progress in (0.0, 0.1, 0.4, 0.5, 1.0):
        draw = stage.draw(4, 4, generator, torch.device("cpu"))
        found.append((float(draw.share), None if draw.hidden is None else len(draw.hidden)))
    assert found == [(pytest.approx(1e-3), 8), (pytest.approx(10**-1.5), 8), (1.0, 8), (1.0, None), (1.0, None)]
    # the two-pass convolutions know no masks
    assert Diffusion(Cdc(MODEL), DiffusionConfig(), None).draw(4, 4, generator, torch.device("cpu")).hidden is None


def test_masks_train_the_context(smoke: Recipe) -> None:
    """A pass with hidden positions gives every weight of the Entroformer's context a gradient."""
    assert isinstance(smoke.model, CdcConfig)
    torch.manual_seed(0)
    stage = Diffusion(Cdc(smoke.model), DiffusionConfig(lpips_weight=0.0), None)
    x = torch.rand(2, 3, 64, 64)
    for _ in range(2):  # the heads are zero at first
        terms = stage(x, stage.draw(2, 4, torch.Generator().manual_seed(1), torch.device("cpu")))
        stage.zero_grad()
        terms["loss"].backward()
        with torch.no_grad():
            for parameter in stage.parameters():
                parameter -= 0 if parameter.grad is None else 1e-3 * parameter.grad
    for name, parameter in stage.model.entropy.named_parameters():
        assert parameter.grad is not None, name
        assert "context" not in name or bool(parameter.grad.any()), name


@pytest.mark.slow
def test_samples_are_a_picture(trained: Any, tmp_path: Path) -> None:
    trained.trainer.objective.save_samples(
        trained.trainer.ema.module, trained.trainer.photos, 64, tmp_path / "s" / "a.png"
    )
    with Image.open(tmp_path / "s" / "a.png") as picture:
        assert picture.size == (4 * 64, 7 * 64)
