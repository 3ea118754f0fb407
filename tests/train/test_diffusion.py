"""The loss of `cdc`: against sums by hand, and that it trains a small model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import unquant
from unquant.errors import OptionError
from unquant.models.cdc import Cdc, CdcConfig, CdcOutput
from unquant.models.config import EntropyConfig
from unquant.nn.compressor import CompressorConfig
from unquant.nn.denoiser import DenoiserConfig
from unquant.perceptual import LPIPS
from unquant.train.diffusion import (
    DiffusionConfig,
    LevelDraw,
    diffusion_loss,
    draw_levels,
    rate_share,
)

PHOTO = Path(unquant.__file__).with_name("demo") / "coffee.png"
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
    return LevelDraw(log2_q, rho, int((rho == 0).sum()), torch.tensor(level))


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
    root, distance = math.sqrt(0.12) / 4, lpips(out.denoised[1:], x[1:])
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


def test_a_small_model_learns() -> None:
    """At one rate and to a fixed picture: bits and the error of one-step decodes fall together."""
    torch.manual_seed(0)
    with Image.open(PHOTO) as image:
        box = image.convert("RGB").crop((200, 100, 264, 164))
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
        found.append((float(terms.loss), float(terms.bpp), float(terms.distortion)))
    assert found[-1][0] < 0.7 * found[0][0]
    assert found[-1][1] < found[0][1]
    assert found[-1][2] < found[0][2]
