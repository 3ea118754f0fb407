"""Seeded noise: the bit stream against an independent Philox, windows against the whole, and that it is white and normal."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unquant.diffusion import seeded_noise
from unquant.errors import OptionError

MASK = 2**64 - 1
words = st.integers(0, MASK)


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox-4x64 with 10 rounds (Salmon et al. 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = c0 * 0xD2E7470EE14C6C93, c2 * 0xCA5A826395121157
        c0, c1, c2, c3 = (b >> 64) ^ c1 ^ k0, b & MASK, (a >> 64) ^ c3 ^ k1, a & MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return c0, c1, c2, c3


def expected(seed: int, stream: int, step: int, channels: int, channel: int, row: int, column: int) -> float:
    block, word = divmod(column * channels + channel, 4)
    bits = philox((block + 1, row, step, stream), (seed, 0))[word]
    return NormalDist().inv_cdf(((bits >> 12) + 0.5) / 2**52)


def test_reference_philox() -> None:
    """Known answers of the authors' own test vectors."""
    assert philox((0, 0, 0, 0), (0, 0)) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )
    assert philox((MASK,) * 4, (MASK,) * 2) == (
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    )


@settings(max_examples=50, deadline=None)
@given(words, words, words, st.integers(1, 7), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_against_the_reference(seed: int, stream: int, step: int, channels: int, top: int, left: int) -> None:
    noise = seeded_noise(seed, step, channels, 2, 3, stream=stream, top=top, left=left)
    for channel in range(channels):
        for row in range(2):
            for column in range(3):
                value = expected(seed, stream, step, channels, channel, top + row, left + column)
                assert noise[0, channel, row, column].item() == pytest.approx(value, rel=2e-7, abs=1e-9)


def test_golden() -> None:
    """Values that files rely on: a change here changes what every stored seed draws."""
    assert seeded_noise(0, 0, 2, 2, 2).flatten().tolist() == pytest.approx(
        [-2.271884203, -1.218980193, -0.799985707, 0.693172932, -0.70132792, 0.162171558, -0.787325025, 0.084080003],
        rel=1e-6,
    )
    far = seeded_noise(MASK, 3, 3, 1, 2, stream=1, top=1000, left=77)
    assert far.flatten().tolist() == pytest.approx(
        [0.306627482, 1.111058116, -0.864062548, 0.371253878, 2.001231909, 0.57699573], rel=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(st.data(), words, st.integers(0, 99), st.integers(1, 9), st.integers(1, 8), st.integers(1, 8))
def test_a_window_is_that_part_of_the_whole(
    data: st.DataObject, seed: int, step: int, channels: int, height: int, width: int
) -> None:
    whole = seeded_noise(seed, step, channels, height, width, top=5, left=3)
    top = data.draw(st.integers(0, height - 1))
    left = data.draw(st.integers(0, width - 1))
    rows = data.draw(st.integers(1, height - top))
    columns = data.draw(st.integers(1, width - left))
    window = seeded_noise(seed, step, channels, rows, columns, top=5 + top, left=3 + left)
    assert torch.equal(window, whole[..., top : top + rows, left : left + columns])


@pytest.fixture(scope="module")
def plane() -> Tensor:
    """320 channels of 64×96 positions, as for an image of 1536×1024."""
    return seeded_noise(7, 0, 320, 64, 96)


def test_it_is_float32_on_the_cpu(plane: Tensor) -> None:
    assert plane.shape == (1, 320, 64, 96)
    assert plane.dtype == torch.float32
    assert plane.device.type == "cpu"
    assert plane.is_contiguous()


def test_moments(plane: Tensor) -> None:
    """Mean, variance, skewness and kurtosis of 2 M values, each within 4 standard errors of a normal's."""
    x, n = plane.double().flatten(), plane.numel()
    assert abs(x.mean().item()) < 4 / math.sqrt(n)
    assert abs(x.var().item() - 1) < 4 * math.sqrt(2 / n)
    assert abs(x.pow(3).mean().item()) < 4 * math.sqrt(15 / n)
    assert abs(x.pow(4).mean().item() - 3) < 4 * math.sqrt(96 / n)
    assert 4.5 < x.abs().max().item() < 6.5


def test_distribution(plane: Tensor) -> None:
    """Kolmogorov–Smirnov: the largest distance of the distribution functions, at the 1 in 1000 level."""
    x = plane.double().flatten().sort().values
    n = len(x)
    uniform = torch.special.ndtr(x)
    rank = torch.arange(n + 1, dtype=torch.float64) / n
    distance = torch.maximum((rank[1:] - uniform).max(), (uniform - rank[:-1]).max()).item()
    assert distance < 1.95 / math.sqrt(n)


def correlation(a: Tensor, b: Tensor) -> float:
    """In standard errors."""
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1].item() * math.sqrt(a.numel())


def test_it_is_white(plane: Tensor) -> None:
    """No correlation of neighbours along any axis, nor of the squares."""
    for x in (plane[0], plane[0] ** 2):
        for lag in (1, 2, 3, 4, 8):
            assert abs(correlation(x[lag:], x[:-lag])) < 4
            assert abs(correlation(x[:, lag:], x[:, :-lag])) < 4
            assert abs(correlation(x[..., lag:], x[..., :-lag])) < 4


@pytest.mark.parametrize(
    ("seed", "step", "stream", "top", "left"),
    [(8, 0, 0, 0, 0), (7, 1, 0, 0, 0), (7, 0, 1, 0, 0), (7, 0, 0, 64, 0), (7, 0, 0, 0, 96), (7 + 2**63, 0, 0, 0, 0)],
)
def test_another_seed_step_stream_or_place_is_independent(
    plane: Tensor, seed: int, step: int, stream: int, top: int, left: int
) -> None:
    other = seeded_noise(seed, step, 320, 16, 96, stream=stream, top=top, left=left)
    assert not bool((other == plane[..., :16, :]).float().mean() > 1e-5)
    assert abs(correlation(other, plane[..., :16, :])) < 4


def test_no_value_is_infinite() -> None:
    """The outermost words still give finite values: the largest uniform is 1 − 2^−53, exactly."""
    for bits in (0, MASK):
        uniform = torch.tensor(((bits >> 12) + 0.5) * 2.0**-52, dtype=torch.float64)
        assert 0 < uniform.item() < 1
        assert 8 < abs(torch.special.ndtri(uniform).item()) < 9


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("seed", 2**64), ("top", 2**32), ("left", 2**32)])
def test_arguments_out_of_range_are_refused(name: str, value: int) -> None:
    options = {"seed": 0, "step": 0, "channels": 1, "height": 1, "width": 1} | {name: value}
    with pytest.raises(OptionError, match=name):
        seeded_noise(**options)


@pytest.mark.parametrize("name", ["step", "stream", "top", "left", "channels", "height", "width"])
def test_negative_arguments_are_refused(name: str) -> None:
    options = {"step": 0, "channels": 1, "height": 1, "width": 1} | {name: -1}
    with pytest.raises(OptionError, match=name):
        seeded_noise(0, **options)
