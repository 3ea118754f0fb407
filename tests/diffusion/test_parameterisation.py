"""What a raw output means: conversions that undo each other, targets, weights and losses, and the ends of the levels."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unquant.diffusion import Parameterisation, cosine_alphas, diffuse, linear_alphas
from unquant.errors import OptionError

X, EPSILON = Parameterisation.X, Parameterisation.EPSILON
BOTH = [X, EPSILON]
levels = st.floats(1e-6, 1 - 1e-6)
seeds = st.integers(0, 2**32 - 1)


def level(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def example(seed: int = 0, batch: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """An image in [−1, 1] and noise, (batch, 3, 4, 5)."""
    generator = torch.Generator().manual_seed(seed)
    x0 = 2 * torch.rand(batch, 3, 4, 5, generator=generator, dtype=torch.float64) - 1
    return x0.to(dtype), torch.randn(x0.shape, generator=generator, dtype=torch.float64).to(dtype)


def noise_in(x_t: Tensor, x0: Tensor, alpha: float) -> Tensor:
    """The noise that x_t holds beside x0."""
    return (x_t - math.sqrt(alpha) * x0) / math.sqrt(1 - alpha)


def unchecked(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Without the annotations' checks, which the tests alone have."""
    return getattr(function, "__wrapped__", function)


def test_names() -> None:
    assert [Parameterisation(name) for name in ("x", "epsilon")] == BOTH
    assert (X.clamps, EPSILON.clamps) == (True, False)
    with pytest.raises(OptionError, match="x, epsilon"):
        Parameterisation("v")


@settings(deadline=None)
@given(seeds, levels)
def test_the_forward_process_is_the_formula(seed: int, alpha: float) -> None:
    x0, epsilon = example(seed)
    expected = math.sqrt(alpha) * x0 + math.sqrt(1 - alpha) * epsilon
    torch.testing.assert_close(diffuse(x0, epsilon, level(alpha)), expected, rtol=1e-12, atol=1e-12)


@settings(deadline=None)
@given(seeds, levels, st.floats(0.01, 2))
def test_a_gaussian_is_answered_by_its_posterior(seed: int, alpha: float, std: float) -> None:
    """N(mean, std²) times the likelihood of x_t, completed to a square by hand: in x, and the same in epsilon."""
    mean, x_t = example(seed)
    precision = 1 / std**2 + alpha / (1 - alpha)
    expected = (mean / std**2 + math.sqrt(alpha) / (1 - alpha) * x_t) / precision
    a = level(alpha)
    torch.testing.assert_close(X.of_gaussian(mean, std, x_t, a), expected, rtol=1e-9, atol=1e-9)
    noise = EPSILON.of_gaussian(mean, std, x_t, a)
    torch.testing.assert_close(noise, noise_in(x_t, expected, alpha), rtol=1e-7, atol=1e-7)


def test_a_gaussian_at_the_ends() -> None:
    mean, x_t = example(1)
    assert torch.equal(X.of_gaussian(mean, 0.0, x_t, level(0.3)), mean)
    for alpha in (0.0, 1.0):
        assert all(
            bool(kind.of_gaussian(mean, std, x_t, level(alpha)).isfinite().all()) for kind in BOTH for std in (0, 1)
        )
    torch.testing.assert_close(X.of_gaussian(mean, 0.5, x_t, level(1.0)), x_t)
    torch.testing.assert_close(EPSILON.of_gaussian(mean, 0.5, x_t, level(0.0)), x_t)
    with pytest.raises(OptionError, match="noise level"):
        unchecked(X.of_gaussian)(X, mean, 0.5, x_t, torch.ones(2))


@settings(deadline=None)
@given(seeds, levels)
def test_the_image_is_what_the_noise_leaves(seed: int, alpha: float) -> None:
    """At any x_t, made of the two or not; and the output itself where that is the image."""
    output, x_t = example(seed)
    a = level(alpha)
    torch.testing.assert_close(EPSILON.to_x(noise_in(x_t, output, alpha), x_t, a), output, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(noise_in(x_t, EPSILON.to_x(output, x_t, a), alpha), output, rtol=1e-9, atol=1e-9)
    assert torch.equal(X.to_x(output, x_t, a), output)


@settings(deadline=None)
@given(seeds, levels)
def test_the_target_is_the_perfect_output(seed: int, alpha: float) -> None:
    """A network that outputs its target has no loss and says what x_t was made of, under either parameterisation."""
    x0, epsilon = example(seed)
    a = level(alpha)
    x_t = diffuse(x0, epsilon, a)
    for parameterisation in BOTH:
        output = parameterisation.target(x0, epsilon)
        torch.testing.assert_close(parameterisation.to_x(output, x_t, a), x0, rtol=1e-9, atol=1e-9)
        assert parameterisation.loss(output, x0, epsilon, a).tolist() == [0, 0]


def test_targets() -> None:
    x0, epsilon = example()
    assert X.target(x0, epsilon) is x0
    assert EPSILON.target(x0, epsilon) is epsilon


@pytest.mark.parametrize(
    ("snr", "expected"), [(0, 0), (0.01, 0.01), (1, 1), (4.99, 4.99), (5, 5), (5.01, 5), (1e9, 5), (math.inf, 5)]
)
def test_weights(snr: float, expected: float) -> None:
    alpha = level(1.0 if snr == math.inf else snr / (1 + snr))
    assert X.weight(alpha).item() == pytest.approx(expected, rel=1e-6)
    assert EPSILON.weight(alpha).item() == 1
    assert X.weight(alpha.expand(3, 1, 1, 1)).shape == EPSILON.weight(alpha.expand(3, 1, 1, 1)).shape == (3, 1, 1, 1)


def test_losses_are_per_image() -> None:
    """Image i of SNR i + 3 (so weights 3, 4, 5, 5) and error i + 1 everywhere."""
    x0, epsilon = example(batch=4)
    size = torch.arange(1, 5, dtype=torch.float64).reshape(4, 1, 1, 1)
    snr = size + 2
    sign = torch.where(epsilon > 0, 1.0, -1.0)
    alpha = snr / (1 + snr)
    assert X.loss(x0 + sign * size, x0, epsilon, alpha).tolist() == pytest.approx([3, 4 * 4, 5 * 9, 5 * 16])
    assert EPSILON.loss(epsilon + sign * size, x0, epsilon, alpha).tolist() == pytest.approx([1, 2, 3, 4])
    one = X.loss(x0[:1] + sign[:1], x0[:1], epsilon[:1], level(0.75))
    assert one.tolist() == pytest.approx([3])


@pytest.mark.parametrize("parameterisation", BOTH)
@pytest.mark.parametrize("schedule", [cosine_alphas(8193), linear_alphas(20000)])
def test_float32_at_every_level_of_the_schedules(parameterisation: Parameterisation, schedule: Tensor) -> None:
    """All finite, from a start of zero too; what x_t is made of comes back to within float32 over the amplitude asked."""
    for alpha in (schedule[0], schedule[len(schedule) // 2], schedule[-2], schedule[-1]):
        x0, epsilon = example(dtype=torch.float32)
        signal = alpha.sqrt().item()
        for x_t in (torch.zeros_like(x0), diffuse(x0, epsilon, alpha)):
            output = parameterisation.target(x0, epsilon)
            found = parameterisation.to_x(output, x_t, alpha)
            assert bool(found.isfinite().all())
            assert found.dtype == torch.float32
            if x_t.any():
                torch.testing.assert_close(found, x0, rtol=1e-6, atol=1e-6 / signal)


@pytest.mark.parametrize("parameterisation", BOTH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_ends_are_finite(parameterisation: Parameterisation, dtype: torch.dtype) -> None:
    """At ᾱ = 0 and 1 too: where the answer is in x_t it is right, elsewhere it is a number."""
    x0, epsilon = example(dtype=dtype)
    output = parameterisation.target(x0, epsilon)
    for alpha, x_t in ((0.0, epsilon), (1.0, x0), (0.0, torch.zeros_like(x0))):
        a = level(alpha)
        found = parameterisation.to_x(output, x_t, a)
        assert bool(found.isfinite().all())
        assert found.dtype == dtype
        assert parameterisation.loss(output, x0, epsilon, a).tolist() == [0, 0]
    assert torch.equal(EPSILON.to_x(epsilon, x0, level(1)), x0)


def test_one_level_per_image_is_that_image_alone() -> None:
    x0, epsilon = example(batch=3, dtype=torch.float32)
    alpha = torch.tensor([1e-9, 0.4, 0.999], dtype=torch.float64).reshape(3, 1, 1, 1)
    x_t = diffuse(x0, epsilon, alpha)
    assert x_t.dtype == torch.float32
    for i in range(3):
        one, a = slice(i, i + 1), alpha[i, 0, 0, 0]
        assert torch.equal(x_t[one], diffuse(x0[one], epsilon[one], a))
        for p in BOTH:
            assert torch.equal(p.to_x(epsilon, x_t, alpha)[one], p.to_x(epsilon[one], x_t[one], a))


@pytest.mark.parametrize("parameterisation", BOTH)
def test_gradients_pass(parameterisation: Parameterisation) -> None:
    x0, epsilon = example()
    a = level(0.3)
    output = epsilon.clone().requires_grad_()
    parameterisation.to_x(output, x0, a).square().sum().backward()
    assert output.grad is not None
    assert bool((output.grad != 0).all())
    output = torch.zeros_like(x0, dtype=torch.bfloat16).requires_grad_()
    loss = parameterisation.loss(output, x0, epsilon, a)
    assert loss.dtype == x0.dtype
    loss.sum().backward()
    assert output.grad is not None
    assert bool(output.grad.isfinite().all())


@pytest.mark.parametrize("alpha", [torch.tensor([0.1, 0.2]), torch.full((2, 1), 0.1)])
def test_levels_that_would_broadcast_wrongly_are_refused(alpha: Tensor) -> None:
    x0, epsilon = example()
    for call in (
        lambda: unchecked(diffuse)(x0, epsilon, alpha),
        lambda: unchecked(Parameterisation.to_x)(X, x0, epsilon, alpha),
        lambda: unchecked(Parameterisation.weight)(EPSILON, alpha),
    ):
        with pytest.raises(OptionError, match="noise level"):
            call()
