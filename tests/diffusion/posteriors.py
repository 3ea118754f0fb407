"""Gaussian latents y ~ N(0, 1) whose posterior means are known in closed form, for every noise that the samplers meet."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

TAU = 1 / math.sqrt(12)


def truncated_mean(mean: Tensor, std: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The mean of N(mean, std²) truncated to [low, high]: mean + std·(φ(a) − φ(b))/(Φ(b) − Φ(a)), in the lower tail."""
    a, b = (low - mean) / std, (high - mean) / std
    sign = torch.copysign(torch.ones_like(a), -a - b)
    a, b = torch.minimum(a * sign, b * sign), torch.maximum(a * sign, b * sign)
    mass = 0.5 * (torch.erfc(-b / math.sqrt(2)) - torch.erfc(-a / math.sqrt(2)))
    density = (torch.exp(-a * a / 2) - torch.exp(-b * b / 2)) / math.sqrt(2 * math.pi)
    offset = torch.where(mass > 1e-290, density / mass, b)  # far out: the nearer edge
    return (mean + std * sign * offset).clamp(low, high)


def given_uniform(y: Tensor, q: Tensor) -> Tensor:
    """E[y_0 | y = y_0 + q·u], u ~ U(−½, ½)."""
    return truncated_mean(torch.zeros_like(y), torch.ones_like(y), y - q / 2, y + q / 2)


def given_gaussian(y: Tensor, q: Tensor) -> Tensor:
    """E[y_0 | y = y_0 + q·n/sqrt(12)], n ~ N(0, 1)."""
    return y / (1 + (q * TAU) ** 2)


def on_the_path(start: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The posterior mean on the stochastic path that starts from y_0 + start·u.

    With w = (q/start)² the state is y_0 + w·start·u + q·τ·sqrt(1 − w)·n: x = y_0 + (the Gaussian part) given the state
    is a truncated Gaussian, and y_0 given x is linear in x.
    """

    def denoise(y: Tensor, q: Tensor) -> Tensor:
        w = (q / start) ** 2
        variance = 1 + (q * TAU) ** 2 * (1 - w)
        half = w * start / 2
        return truncated_mean(torch.zeros_like(y), variance.sqrt(), y - half, y + half) / variance

    return denoise


def in_the_cell(rounded: Tensor, start: float, tau: float = TAU) -> Callable[[Tensor, Tensor], Tensor]:
    """The posterior mean on the bridge from `rounded` = start·round(y_0/start), which the denoiser knows.

    State − w·rounded = (1 − w)·y_0 + q·τ·sqrt(1 − w)·n: a Gaussian, truncated to the cell; at q = start only the cell.
    """

    def denoise(y: Tensor, q: Tensor) -> Tensor:
        w = (q / start) ** 2
        precision = 1 + (1 - w) / (q * tau) ** 2
        mean = (y - w * rounded) / (q * tau) ** 2 / precision
        mean = torch.where(w == 1, torch.zeros_like(mean), mean)
        return truncated_mean(mean, precision**-0.5, rounded - start / 2, rounded + start / 2)

    return denoise


def latents(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """y ~ N(0, 1) and u ~ U(−½, ½), (1, 1, count/100, 100), float64."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(1, 1, count // 100, 100, generator=generator, dtype=torch.float64)
    return y, torch.rand(y.shape, generator=generator, dtype=torch.float64) - 0.5


def gaussian_noise(like: Tensor, seed: int) -> Callable[[int], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda step: torch.randn(like.shape, generator=generator).to(like)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
