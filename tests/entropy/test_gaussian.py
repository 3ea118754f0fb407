"""The rate terms against math.erf and math.erfc, in the middle, in the tails, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unquant.coding import gaussian_tables, scale_grid
from unquant.entropy.gaussian import ScaleGrid, gaussian_bits, round_ste


def analytic_bits(offset: float, sigma: float) -> float:
    """−log2 of the mass of [|offset| − ½, |offset| + ½], by whichever of erf and erfc does not cancel."""
    a, b = ((abs(offset) + side) / (sigma * math.sqrt(2)) for side in (-0.5, 0.5))
    mass = 0.5 * (math.erfc(a) - math.erfc(b)) if a > 0.5 else 0.5 * (math.erf(b) - math.erf(a))
    return -math.log2(mass)


@pytest.mark.parametrize("sigma", [0.02, 0.12, 0.5, 1.0, 3.7, 64.0])
@pytest.mark.parametrize("relative", [0.0, 0.3, 1.0, 3.0, 8.0, 25.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_bits(sigma: float, relative: float, sign: int) -> None:
    offset = sign * relative * max(sigma, 0.3)
    if (abs(offset) - 0.5) / sigma > 37:  # beyond what erfc holds in float64; see the next test
        pytest.skip("no analytic value in float64")
    args = torch.tensor(offset, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)
    expected = analytic_bits(offset, sigma)
    assert gaussian_bits(*args).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)
    single = gaussian_bits(args[0].float(), args[1].float()).item()
    assert single == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("offset", "sigma"), [(40.0, 0.12), (-40.0, 0.3), (-60.0, 1.0), (2.0, 0.01)])
def test_extreme_tails(offset: float, sigma: float, dtype: torch.dtype) -> None:
    """Far out only the nearer edge of the bin counts: bits → (a²/2 + ln a + ln √2π)/ln 2, and so does the gradient."""
    args = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (offset, sigma)]
    bits = gaussian_bits(*args)
    a = (abs(offset) - 0.5) / sigma
    asymptotic = (a * a / 2 + math.log(a) + 0.5 * math.log(2 * math.pi)) / math.log(2)
    assert bits.item() == pytest.approx(asymptotic, rel=1e-3)
    bits.backward()
    slope = a / sigma / math.log(2)
    gradients = [arg.grad.item() for arg in args if arg.grad is not None]
    assert gradients == pytest.approx([math.copysign(slope, offset), -slope * a], rel=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_everywhere(dtype: torch.dtype) -> None:
    """Over all that training can meet: latents reach ±220, scales go down to half that of the lowest table."""
    offset, sigma = np.meshgrid(
        np.concatenate([-np.geomspace(2000, 1e-8, 60), [0.0], np.geomspace(1e-8, 2000, 60)]),
        np.geomspace(0.06, 300, 40),
    )
    args = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (offset, sigma)]
    bits = gaussian_bits(*args)
    bits.sum().backward()
    assert bool((bits > -1e-6).all())
    for value in (bits, args[0].grad, args[1].grad):
        assert value is not None
        assert bool(torch.isfinite(value).all())


def test_bits_sum_to_one_symbol() -> None:
    k = torch.arange(-400, 401, dtype=torch.float64)
    for sigma in (0.12, 0.9, 20.0):
        mass = torch.exp2(-gaussian_bits(k, torch.full_like(k, sigma))).sum().item()
        assert mass == pytest.approx(1, abs=1e-9)


def test_bits_agree_with_the_integer_tables() -> None:
    scales = scale_grid()
    tables = gaussian_tables(scales)
    for index in (0, 20, 40, 63):
        k = np.arange(-3, 4) * max(1, int(scales[index]))
        k = k[np.abs(k) <= min(tables.half_width(index), 4 * scales[index])]
        bits = gaussian_bits(torch.from_numpy(k).double(), torch.full(k.shape, scales[index], dtype=torch.float64))
        np.testing.assert_allclose(tables.bits(np.full(k.shape, index), k), bits.numpy(), rtol=0.02)


def test_scale_grid_is_that_of_the_tables() -> None:
    for low, high, count in ((0.12, 64.0, 64), (0.12, 32.0, 32)):
        t = torch.arange(count, dtype=torch.float64)
        np.testing.assert_allclose(
            ScaleGrid(low, high, count).sigma(t).numpy(), scale_grid(low, high, count), rtol=1e-12
        )


def test_round_ste() -> None:
    v = torch.tensor([-1.6, -0.4, 0.4, 2.7], requires_grad=True)
    rounded = round_ste(v)
    assert rounded.tolist() == [-2, 0, 0, 3]
    (rounded * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert v.grad is not None
    assert v.grad.tolist() == [1, 2, 3, 4]
