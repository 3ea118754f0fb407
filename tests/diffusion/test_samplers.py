"""Samplers, exactly: what equals what, at which shapes and dtypes, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from posteriors import TAU, gaussian_noise, given_gaussian, given_uniform, latents, scalar
from torch import Tensor

from unquant.diffusion import geometric, randomness, sample_ancestral, sample_bridge, sample_deterministic
from unquant.errors import OptionError

Sampler = Callable[..., Tensor]
STOCHASTIC = [sample_ancestral, sample_bridge]


def no_noise(step: int) -> Tensor:
    raise AssertionError(f"noise was asked for at step {step}")


def run(sampler: Sampler, denoise: Callable[[Tensor, Tensor], Tensor], y: Tensor, qs: Tensor, seed: int = 5) -> Tensor:
    """Any sampler on any schedule, the stochastic ones at full randomness."""
    if sampler is sample_deterministic:
        return sampler(denoise, y, qs)
    return sampler(denoise, y, qs, randomness(1, 1, len(qs) - 1), gaussian_noise(y, seed))


@pytest.fixture(scope="module")
def start() -> Tensor:
    y, u = latents(2_000, 1)
    return y + 2 * u


def test_deterministic_is_the_formula(start: Tensor) -> None:
    qs = scalar(0) + torch.tensor([2.0, 0.7, 0.1])
    y = start
    for q, q_next in ((2.0, 0.7), (0.7, 0.1)):
        f = given_uniform(y, scalar(q))
        y = f + q_next / q * (y - f)
    torch.testing.assert_close(sample_deterministic(given_uniform, start, qs), y)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("tau", [TAU, 0.1])
def test_ancestral_is_the_formula(start: Tensor, alpha: float, tau: float) -> None:
    q, q_next = 2.0, 0.7
    n = gaussian_noise(start, 3)(0)
    f = given_uniform(start, scalar(q))
    sigma, sigma_next = tau * q, tau * q_next
    s = math.sqrt(alpha**2 * sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2)
    expected = f + math.sqrt(sigma_next**2 - s**2) / sigma * (start - f) + s * n
    qs, alphas = torch.tensor([q, q_next], dtype=torch.float64), torch.tensor([alpha], dtype=torch.float64)
    torch.testing.assert_close(
        sample_ancestral(given_uniform, start, qs, alphas, lambda step: n, tau=tau), expected, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_bridge_is_the_formula(start: Tensor, alpha: float) -> None:
    q, q_next, tau = 2.0, 0.7, 0.2
    n = gaussian_noise(start, 3)(0)
    r = (q_next / q) ** 2
    f = given_uniform(start, scalar(q))
    expected = r * start + (1 - r) * f + alpha * q_next * tau * math.sqrt(1 - r) * n
    qs, alphas = torch.tensor([q, q_next], dtype=torch.float64), torch.tensor([alpha], dtype=torch.float64)
    torch.testing.assert_close(
        sample_bridge(given_uniform, start, qs, alphas, lambda step: n, tau=tau), expected, rtol=1e-12, atol=1e-12
    )


def test_ancestral_without_randomness_is_deterministic(start: Tensor) -> None:
    qs = geometric(scalar(2), scalar(0.05), 7, 1.3)
    plain = sample_deterministic(given_uniform, start, qs)
    assert torch.equal(sample_ancestral(given_uniform, start, qs, randomness(0, 0, 7), no_noise), plain)


def test_bridge_without_randomness_needs_no_noise(start: Tensor) -> None:
    qs = geometric(scalar(2), scalar(0.05), 3)
    sample_bridge(given_uniform, start, qs, randomness(0, 0, 3), no_noise)


def test_noise_is_asked_for_where_it_is_used(start: Tensor) -> None:
    qs = geometric(scalar(2), scalar(0.05), 4)
    for sampler in STOCHASTIC:
        asked: list[int] = []

        def noise(step: int, asked: list[int] = asked) -> Tensor:
            asked.append(step)
            return torch.zeros_like(start)

        sampler(given_uniform, start, qs, torch.tensor([0.0, 0.5, 0.0, 1.0]), noise)
        assert asked == [1, 3]


@pytest.mark.parametrize("tau", [TAU, 0.1])
def test_ancestral_at_full_randomness_is_the_bridge(start: Tensor, tau: float) -> None:
    qs, alphas = geometric(scalar(2), scalar(0.05), 6), randomness(1, 1, 6)
    ends = [s(given_uniform, start, qs, alphas, gaussian_noise(start, 2), tau=tau) for s in STOCHASTIC]
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(
        *(s(given_uniform, start, qs, 0.5 * alphas, gaussian_noise(start, 2), tau=tau) for s in STOCHASTIC)
    )


def test_the_noise_level_is_kept_at_every_randomness() -> None:
    """With a perfect denoiser of y_0 = 0 the state stays noise of standard deviation τq in the ancestral sampler."""
    n = torch.randn(1, 1, 400, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    qs = geometric(scalar(4), scalar(0.5), 5)
    for alpha in (0.0, 0.4, 1.0):
        noise = gaussian_noise(n, 1)
        y = sample_ancestral(lambda y, q: torch.zeros_like(y), 4 * TAU * n, qs, randomness(alpha, alpha, 5), noise)
        assert (y.std() / (0.5 * TAU)).item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("sampler", [sample_deterministic, *STOCHASTIC])
@pytest.mark.parametrize("denoise", [given_uniform, given_gaussian])
def test_any_schedule_goes_with_any_sampler(sampler: Sampler, denoise: Callable[..., Tensor], start: Tensor) -> None:
    """Schedules of one value, of one per image and of one per position give the same end where their values agree."""
    schedules = [
        geometric(scalar(2), scalar(0.05), 5, 1.5),
        geometric(torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64), scalar(0.05), 5, 1.5),
        geometric(torch.full((1, 1, *start.shape[-2:]), 2.0, dtype=torch.float64), scalar(0.05), 5, 1.5),
        torch.tensor([2, 1.9, 1.9, 0.3, 0.05], dtype=torch.float64),
    ]
    ends = [run(sampler, denoise, start, qs) for qs in schedules]
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ends[0], ends[2], rtol=1e-10, atol=1e-12)
    assert ends[3].shape == start.shape
    assert bool(ends[3].isfinite().all())


@pytest.mark.parametrize("sampler", [sample_deterministic, *STOCHASTIC])
def test_a_map_of_steps_is_that_of_its_values(sampler: Sampler, start: Tensor) -> None:
    first = torch.tensor([2.0, 3.0], dtype=torch.float64).repeat_interleave(start.shape[-1] // 2).expand(start.shape)
    last = torch.full(start.shape, 0.05, dtype=torch.float64)
    last[..., 7:, :] = 0.1
    by_map = run(sampler, given_uniform, start, geometric(first, last, 4))
    for a in (2.0, 3.0):
        for b in (0.05, 0.1):
            by_value = run(sampler, given_uniform, start, geometric(scalar(a), scalar(b), 4))
            here = (first == a) & (last == b)
            assert bool(here.any())
            torch.testing.assert_close(by_map[here], by_value[here], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_tau_per_coefficient(sampler: Sampler, start: Tensor) -> None:
    qs, alphas = geometric(scalar(2), scalar(0.05), 4), randomness(1, 0.5, 4)
    tau = torch.tensor([0.1, 0.25], dtype=torch.float64).repeat(start.shape[-1] // 2)
    by_map = sampler(given_uniform, start, qs, alphas, gaussian_noise(start, 2), tau=tau)
    for parity, value in enumerate((0.1, 0.25)):
        by_value = sampler(given_uniform, start, qs, alphas, gaussian_noise(start, 2), tau=value)
        torch.testing.assert_close(by_map[..., parity::2], by_value[..., parity::2], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sampler", [sample_deterministic, *STOCHASTIC])
def test_one_image_of_a_batch_is_that_image_alone(sampler: Sampler) -> None:
    y = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    n = torch.randn(5, *y.shape, generator=torch.Generator().manual_seed(1))
    qs = geometric(torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1), torch.tensor(0.1), 5)

    def end(part: slice) -> Tensor:
        if sampler is sample_deterministic:
            return sampler(given_gaussian, y[part], qs[:, part])
        return sampler(given_gaussian, y[part], qs[:, part], randomness(0.2, 1, 5), lambda step: n[step, part])

    torch.testing.assert_close(end(slice(0, 3))[1:2], end(slice(1, 2)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sampler", [sample_deterministic, *STOCHASTIC])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_everything_is_in_the_dtype_of_y(sampler: Sampler, dtype: torch.dtype) -> None:
    y = torch.ones(1, 2, 3, 4, dtype=dtype)
    seen: set[torch.dtype] = set()

    def denoise(y: Tensor, q: Tensor) -> Tensor:
        seen.update((y.dtype, q.dtype))
        return y.float() / 2

    qs = geometric(scalar(2), scalar(0.5), 3)
    if sampler is sample_deterministic:
        end = sampler(denoise, y, qs)
    else:
        tau = torch.tensor(0.3, dtype=torch.float64)
        end = sampler(denoise, y, qs, randomness(1, 0, 3), lambda step: torch.ones(1, 2, 3, 4), tau=tau)
    assert end.dtype == dtype
    assert seen == {dtype}


@pytest.mark.parametrize("sampler", [sample_deterministic, *STOCHASTIC])
def test_the_callback_sees_every_state(sampler: Sampler, start: Tensor) -> None:
    qs, seen = geometric(scalar(2), scalar(0.05), 3), list[tuple[int, Tensor, Tensor]]()
    extra = () if sampler is sample_deterministic else (randomness(1, 1, 3), gaussian_noise(start, 2))
    before = start.clone()
    end = sampler(given_uniform, start, qs, *extra, callback=lambda *args: seen.append(args))
    assert torch.equal(start, before)
    assert [step for step, _, _ in seen] == [0, 1, 2]
    assert torch.equal(seen[0][1], start)
    for step, y, denoised in seen:
        assert torch.equal(denoised, given_uniform(y, qs[step]))
    assert torch.equal(end, run(sampler, given_uniform, start, qs, 2))


@pytest.mark.parametrize("sampler", [sample_deterministic, *STOCHASTIC])
def test_down_to_nothing_is_the_denoised(sampler: Sampler, start: Tensor) -> None:
    end = run(sampler, given_uniform, start, torch.tensor([2.0, 0.0], dtype=torch.float64))
    assert torch.equal(end, given_uniform(start, scalar(2)))


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_no_noise_level_is_no_special_case(sampler: Sampler, start: Tensor) -> None:
    qs, alphas = geometric(scalar(2), scalar(0.05), 3), randomness(1, 1, 3)
    end = sampler(given_uniform, start, qs, alphas, gaussian_noise(start, 2), tau=0.0)
    assert bool(end.isfinite().all())


@pytest.mark.parametrize("sampler", [sample_deterministic, *STOCHASTIC])
def test_gradients_pass(sampler: Sampler, start: Tensor) -> None:
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    run(sampler, lambda y, q: scale * y, start, geometric(scalar(2), scalar(0.5), 2)).square().sum().backward()
    assert scale.grad is not None
    assert scale.grad.item() != 0
    assert bool(scale.grad.isfinite())


@pytest.mark.parametrize("sampler", [sample_deterministic, *STOCHASTIC])
@pytest.mark.parametrize(
    "qs",
    [
        torch.tensor([2.0]),
        torch.tensor([1.0, 2.0]),
        torch.tensor([2.0, -1.0]),
        torch.tensor([2.0, 0.0, 0.0]),
        torch.tensor([2.0, float("nan")]),
        torch.tensor([float("inf"), 1.0]),
        torch.tensor([[2.0] * 7, [1.0] * 7]),
        torch.full((2, 2, 1, 1, 1), 2.0),
    ],
)
def test_schedules_that_are_refused(sampler: Sampler, qs: Tensor, start: Tensor) -> None:
    extra = () if sampler is sample_deterministic else (torch.ones(len(qs) - 1), no_noise)
    with pytest.raises(OptionError, match=r"schedule|quantisation steps"):
        sampler(given_uniform, start, qs, *extra)


@pytest.mark.parametrize("sampler", STOCHASTIC)
@pytest.mark.parametrize("alphas", [[1.0], [1.0, 1.0, 1.0], [1.0, 1.1], [-0.1, 1.0], [float("nan"), 1.0]])
def test_randomness_that_is_refused(sampler: Sampler, alphas: list[float], start: Tensor) -> None:
    with pytest.raises(OptionError, match="randomness"):
        sampler(given_uniform, start, geometric(scalar(2), scalar(1), 2), torch.tensor(alphas), no_noise)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_noise_of_another_shape_is_refused(sampler: Sampler, start: Tensor) -> None:
    with pytest.raises(OptionError, match="noise"):
        sampler(given_uniform, start, torch.tensor([2.0, 1.0]), torch.ones(1), lambda step: torch.zeros(1, 1, 1, 1))
