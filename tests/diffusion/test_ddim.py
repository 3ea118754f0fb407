"""DDIM and its noise levels: exact schedules, perfect denoisers, and Gaussian images, whose path is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unquant.diffusion import (
    Parameterisation,
    cosine_alphas,
    diffuse,
    linear_alphas,
    sample_ddim,
    subsequence,
    time_of,
)
from unquant.errors import OptionError

COSINE, LINEAR = cosine_alphas(8193), linear_alphas(20000)
SCHEDULES = {"cosine": COSINE, "linear": LINEAR}
X, EPSILON = Parameterisation.X, Parameterisation.EPSILON


def noise_in(x_t: Tensor, x0: Tensor, alpha: Tensor) -> Tensor:
    """The noise that x_t holds beside x0, ᾱ below 1."""
    return (x_t - alpha.sqrt() * x0) / (1 - alpha).sqrt()


def image(dtype: torch.dtype = torch.float64) -> Tensor:
    """(2, 3, 4, 5), the values from −1 to 1."""
    return torch.linspace(-1, 1, 120, dtype=torch.float64).reshape(2, 3, 4, 5).to(dtype)


def noise_like(x: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(x)


def halve(x: Tensor, alpha: Tensor) -> Tensor:
    return x / 2


# schedules


@pytest.mark.parametrize(("make", "count"), [(cosine_alphas, 8193), (linear_alphas, 20000), (cosine_alphas, 1)])
def test_schedules_fall_from_one_towards_zero(make: Callable[[int], Tensor], count: int) -> None:
    alphas = make(count)
    assert alphas.shape == (count,)
    assert alphas.dtype == torch.float64
    assert bool((alphas.diff() < 0).all())
    assert 0 < alphas[-1] < 1e-3 + 1e-9
    if count > 1:
        assert 1 - 2e-5 < alphas[0] < 1


@pytest.mark.parametrize("t", [1, 2, 100, 4097, 8000, 8192])
def test_cosine_is_the_formula(t: int) -> None:
    """Nichol & Dhariwal, eq. 17, by cos² = (1 + cos 2·)/2."""

    def f(t: int) -> float:
        return (1 + math.cos((t / 8193 + 0.008) / 1.008 * math.pi)) / 2

    assert COSINE[t - 1].item() == pytest.approx(f(t) / f(0), rel=1e-8)  # 1 + cos cancels at the noisy end


def test_cosine_ends_at_the_bound_on_beta() -> None:
    assert COSINE[-1].item() == pytest.approx(COSINE[-2].item() / 1000, rel=1e-12)
    assert COSINE[-1].item() == pytest.approx(3.6183e-11, rel=1e-4)
    beta = 1 - COSINE[1:] / COSINE[:-1]
    assert beta[-2] < 0.76  # no other comes near
    assert cosine_alphas(1).tolist() == pytest.approx([0.001])


@pytest.mark.parametrize("t", [1, 2, 7, 300])
def test_linear_is_the_formula(t: int) -> None:
    """Ho et al.'s βs, 10^−4 … 0.02 over 1000 steps, times 1000/20000; the product in exact arithmetic."""
    product = Fraction(1)
    for s in range(t):
        product *= 1 - (Fraction(1, 10_000) + s * (Fraction(2, 100) - Fraction(1, 10_000)) / 19_999) / 20
    assert LINEAR[t - 1].item() == pytest.approx(float(product), rel=1e-13)


def test_linear_ends_where_any_number_of_steps_does() -> None:
    assert LINEAR[-1].item() == pytest.approx(4.3041e-5, rel=1e-4)
    assert math.log(LINEAR[9_999].item()) == pytest.approx(-(0.05 + 10.05 / 2) / 2, rel=3e-3)
    for count in (1000, 5000):
        assert linear_alphas(count)[-1].item() == pytest.approx(4.2e-5, rel=0.05)
    assert 0 < linear_alphas(21)[-1] < linear_alphas(21)[-2]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 4, 8, 17, 65, 200])
def test_subsequences(name: str, steps: int) -> None:
    alphas = SCHEDULES[name]
    visited = subsequence(alphas, steps)
    assert visited.shape == (steps + 1,)
    assert visited[0] == alphas[-1]
    assert visited[-1] == 1
    assert bool((visited.diff() > 0).all())
    if steps > 1:
        assert visited[-2] == alphas[0]
        index = torch.linspace(0, len(alphas) - 1, steps).long()  # as the public code of the paper has it
        assert torch.equal(visited[:-1], alphas[index].flip(0))


def test_a_subsequence_of_all() -> None:
    alphas = cosine_alphas(9)
    assert subsequence(alphas, 9).tolist() == [*alphas.flip(0).tolist(), 1]


@settings(deadline=None)
@given(st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
def test_time_is_where_the_level_lies(count: int, a: float, b: float) -> None:
    alphas = cosine_alphas(count)
    t = torch.arange(1, count + 1, dtype=torch.float64) / count
    torch.testing.assert_close(time_of(alphas, alphas), t, rtol=0, atol=1e-15)
    ends = time_of(torch.tensor([[1.0], [0.0]]), alphas)
    assert ends.tolist() == [[0], [1]]
    first, second = time_of(torch.tensor([max(a, b), min(a, b)], dtype=torch.float64), alphas).tolist()
    assert 0 <= first <= second <= 1
    middle = (1 + alphas[0]) / 2
    assert time_of(middle, alphas).item() == pytest.approx(0.5 / count)


@pytest.mark.parametrize(
    "call",
    [
        lambda: cosine_alphas(0),
        lambda: linear_alphas(20),
        lambda: subsequence(COSINE, 0),
        lambda: subsequence(COSINE, 8194),
    ],
)
def test_steps_that_are_refused(call: Callable[[], Tensor]) -> None:
    with pytest.raises(OptionError, match="steps"):
        call()


# the sampler, exactly


def test_it_is_the_formula() -> None:
    alphas = [0.01, 0.3, 0.3, 0.9]
    x = noise_like(image())
    expected = x
    for a, b in pairwise(alphas):
        f = expected / 2
        epsilon = (expected - math.sqrt(a) * f) / math.sqrt(1 - a)
        expected = math.sqrt(b) * f + math.sqrt(1 - b) * epsilon
    found = sample_ddim(halve, x, torch.tensor(alphas, dtype=torch.float64), clamp=False)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("parameterisation", [X, EPSILON])
def test_a_perfect_network_gives_the_image(name: str, parameterisation: Parameterisation) -> None:
    """At every number of steps, from noise, from less of it and from zero; the one that says the noise up to rounding."""
    x0 = image()
    for steps in range(1, 66):
        for gamma in (1.0, 0.8, 0.0):
            alphas = subsequence(SCHEDULES[name], steps)

            def denoise(x_t: Tensor, alpha: Tensor) -> Tensor:
                output = x0 if parameterisation is X else noise_in(x_t, x0, alpha)
                return parameterisation.to_x(output, x_t, alpha)

            end = sample_ddim(denoise, gamma * noise_like(x0), alphas, clamp=parameterisation.clamps)
            if parameterisation is X:
                assert torch.equal(end, x0)
            else:
                torch.testing.assert_close(end, x0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("parameterisation", [X, EPSILON])
def test_a_perfect_network_in_float32(parameterisation: Parameterisation) -> None:
    """That says what it was trained to say. With "epsilon" the first estimate, off by rounding over sqrt(ᾱ), is kept.

    So it wants a schedule that ends well above rounding: the linear one, and then 3e-5 is lost; 0.02 with the cosine one.
    """
    levels = subsequence({X: COSINE, EPSILON: LINEAR}[parameterisation], 17)
    x0 = image(torch.float32)
    epsilon = noise_like(x0)

    def denoise(x_t: Tensor, alpha: Tensor) -> Tensor:
        return parameterisation.to_x(parameterisation.target(x0, epsilon), x_t, alpha)

    end = sample_ddim(denoise, diffuse(x0, epsilon, levels[0]), levels)
    torch.testing.assert_close(end, x0, rtol=0, atol=5e-5)


@settings(deadline=None)
@given(st.integers(1, 20), st.sampled_from(["cosine", "linear"]))
def test_a_state_on_the_path_stays_on_it(steps: int, name: str) -> None:
    """With the true x0 every state is the image with the noise of the start, at its own level."""
    x0 = image()
    epsilon, levels = noise_like(x0), subsequence(SCHEDULES[name], steps)
    states: list[Tensor] = []
    start = diffuse(x0, epsilon, levels[0])
    sample_ddim(lambda x, a: x0, start, levels, callback=lambda step, x, f: states.append(x))
    assert len(states) == steps
    for state, alpha in zip(states, levels, strict=False):
        torch.testing.assert_close(state, diffuse(x0, epsilon, alpha), rtol=1e-9, atol=1e-9)


def test_from_zero_and_from_no_signal_all_is_finite() -> None:
    """ᾱ = 0 exactly is a start like any other, and zero a state like any other."""
    levels = torch.tensor([0.0, 0.0, 0.5, 1.0])
    for start in (torch.zeros(1, 3, 4, 5), noise_like(torch.zeros(1, 3, 4, 5))):
        for denoise in (halve, lambda x, a: torch.tanh(x + 0.3)):
            assert bool(sample_ddim(denoise, start, levels).isfinite().all())


def test_clamping() -> None:
    """What is clamped is the estimate, also as the callback sees it and in the noise that the state is taken to hold."""
    x, levels = noise_like(image()), torch.tensor([0.2, 0.6, 1.0], dtype=torch.float64)
    seen: list[Tensor] = []
    end = sample_ddim(lambda x, a: 3 * x, x, levels, callback=lambda step, x, f: seen.append(f))
    first = (3 * x).clamp(-1, 1)
    assert torch.equal(seen[0], first)
    state = diffuse(first, noise_in(x, first, levels[0]), levels[1])
    torch.testing.assert_close(end, (3 * state).clamp(-1, 1), rtol=1e-12, atol=1e-12)
    assert end.abs().max() == 1
    assert sample_ddim(lambda x, a: 3 * x, x, levels, clamp=False).abs().max() > 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_everything_is_in_the_dtype_of_x_but_the_level(dtype: torch.dtype) -> None:
    seen: set[tuple[torch.dtype, torch.dtype, tuple[int, ...]]] = set()

    def denoise(x: Tensor, alpha: Tensor) -> Tensor:
        seen.add((x.dtype, alpha.dtype, tuple(alpha.shape)))
        return x.float() / 2

    end = sample_ddim(denoise, noise_like(image(dtype)), torch.tensor([0.1, 0.5, 1.0]))
    assert end.dtype == dtype
    assert seen == {(dtype, torch.float64, ())}


def test_the_callback_and_the_start() -> None:
    x, levels, seen = noise_like(image()), subsequence(COSINE, 3), list[tuple[int, Tensor, Tensor]]()
    before = x.clone()
    end = sample_ddim(halve, x, levels, callback=lambda *args: seen.append(args))
    assert torch.equal(x, before)
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert torch.equal(seen[0][1], x)
    assert torch.equal(end, seen[-1][2])


def test_one_image_of_a_batch_is_that_image_alone() -> None:
    x, levels = noise_like(image(torch.float32)), subsequence(COSINE, 5)
    assert torch.equal(sample_ddim(halve, x, levels)[1:], sample_ddim(halve, x[1:], levels))


def test_gradients_pass() -> None:
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x = noise_like(image()).requires_grad_()
    sample_ddim(lambda x, a: scale * x, x, subsequence(LINEAR, 3)).square().sum().backward()
    for grad in (scale.grad, x.grad):
        assert grad is not None
        assert bool(grad.isfinite().all())
        assert bool(grad.any())


@pytest.mark.slow
def test_it_compiles_to_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks, which the tests alone have, do not
    levels = subsequence(COSINE, 3)

    def end(x: Tensor) -> Tensor:
        return sample_ddim(lambda x, alpha: EPSILON.to_x(halve(x, alpha), x, alpha), x, levels)

    x = noise_like(image(torch.float32))
    torch.testing.assert_close(torch.compile(end, backend="eager", fullgraph=True)(x), end(x))


@pytest.mark.parametrize(
    "levels",
    [
        torch.tensor([0.5]),
        torch.tensor(0.5),
        torch.tensor([[0.1], [1.0]]),
        torch.tensor([0.5, 0.4]),
        torch.tensor([-0.1, 1.0]),
        torch.tensor([0.1, 1.0, 1.0]),
        torch.tensor([0.1, 1.1]),
        torch.tensor([0.1, float("nan")]),
        torch.tensor([float("nan"), 1.0]),
    ],
)
def test_schedules_that_are_refused(levels: Tensor) -> None:
    """By the sampler itself: without the annotations' checks, which the tests alone have."""
    sampler = getattr(sample_ddim, "__wrapped__", sample_ddim)
    with pytest.raises(OptionError, match="noise levels"):
        sampler(halve, image(), levels)


# distributions: images N(m, s²) per value, whose posterior mean and whose path are known


def posterior(m: float, s: float) -> Callable[[Tensor, Tensor], Tensor]:
    def denoise(x: Tensor, alpha: Tensor) -> Tensor:
        return m + s * s * alpha.sqrt() / (alpha * s * s + 1 - alpha) * (x - alpha.sqrt() * m)

    return denoise


def path(x: Tensor, a: Tensor, b: Tensor, m: float, s: float) -> Tensor:
    """Where the probability flow takes x from ᾱ = a to ᾱ = b: the same number of standard deviations from the mean."""
    score = (x - a.sqrt() * m) / (a * s * s + 1 - a).sqrt()
    return b.sqrt() * m + (b * s * s + 1 - b).sqrt() * score


GAUSSIANS = [(0.3, 0.5), (-0.2, 0.3), (0.5, 2.0)]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("m", "s"), GAUSSIANS)
def test_the_order_is_one(name: str, m: float, s: float) -> None:
    """Root mean square error at the end against the closed form, over 32 … 512 steps.

    Narrow images need more steps before the order shows: at s = 0.1 it is 0.90 (cosine) over 8 … 256.
    """
    x = torch.linspace(-2.5, 2.5, 400, dtype=torch.float64).reshape(1, 1, 20, 20)
    counts, errors = [32, 64, 128, 256, 512], list[float]()
    for steps in counts:
        levels = subsequence(SCHEDULES[name], steps)
        exact = path(x, levels[0], levels[-1], m, s)
        end = sample_ddim(posterior(m, s), x, levels, clamp=False)
        errors.append((end - exact).square().mean().sqrt().item())
    points = torch.tensor([counts, errors], dtype=torch.float64).log()
    centred = points - points.mean(1, keepdim=True)
    order = -((centred[0] * centred[1]).sum() / centred[0].square().sum()).item()
    assert order == pytest.approx(1, abs=0.05)
    assert errors[-1] < 0.01 * max(1, s)


@pytest.mark.parametrize(("name", "within"), [("cosine", 0.02), ("linear", 0.03)])
@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_the_distribution_at_200_steps(name: str, within: float, gamma: float) -> None:
    """Mean and variance of the images N(0.3, 0.5²); a start of γ·noise gives γ² of the variance, the mean as it is.

    The variance falls short by 1.6% with the cosine schedule and by 2.9% with the linear one.
    """
    m, s = 0.3, 0.5
    x = gamma * noise_like(torch.empty(1, 1, 200, 250, dtype=torch.float64), 3)
    end = sample_ddim(posterior(m, s), x, subsequence(SCHEDULES[name], 200), clamp=False)
    assert (end.var() / (s * s * x.var())).item() == pytest.approx(1, abs=within)
    assert end.mean().item() == pytest.approx(m + s * x.mean().item(), abs=0.005)


def test_from_zero_comes_the_mean() -> None:
    """The deterministic start is all but the mean of the state there, and is carried to that of the images."""
    end = sample_ddim(posterior(0.3, 0.5), torch.zeros(1, 1, 2, 2, dtype=torch.float64), subsequence(COSINE, 17))
    torch.testing.assert_close(end, torch.full_like(end, 0.3), rtol=0, atol=1e-4)


def test_few_steps_from_a_level_of_its_own() -> None:
    """Any increasing levels do, also ones that were never trained and an end before the clean image."""
    x = noise_like(image())
    levels = torch.linspace(0.4, 0.8, 2001, dtype=torch.float64)
    end = sample_ddim(posterior(0.1, 0.4), x, levels, clamp=False)
    torch.testing.assert_close(end, path(x, levels[0], levels[-1], 0.1, 0.4), rtol=0, atol=2e-3)
