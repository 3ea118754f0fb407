"""Kernel distances on synthetic features: the estimates, and that their standard errors are the spread of draws."""

from __future__ import annotations

import numpy as np
import pytest

from unquant.bench.metrics.sets import kernel
from unquant.bench.metrics.sets.kernel import PatchFeatures
from unquant.errors import OptionError

D = 16


def numbers(images: int, patches: int = 3) -> np.ndarray:
    return np.repeat(np.arange(images), patches)


def drawn(generator: np.random.Generator, image: np.ndarray, spread: float = 0.5) -> np.ndarray:
    """Features whose pictures differ, and whose patches differ a little within a picture."""
    pictures = generator.normal(0.3, 1, (image.max() + 1, D))
    return pictures[image] + spread * generator.normal(0, 1, (len(image), D))


def pair(generator: np.random.Generator, images: int, shift: float) -> tuple[PatchFeatures, PatchFeatures]:
    """Originals, and decodes that resemble them but are shifted."""
    image = numbers(images)
    original = drawn(generator, image)
    decoded = original + shift + 0.3 * generator.normal(0, 1, original.shape)
    return PatchFeatures(original, image), PatchFeatures(decoded, image)


def double_loop(a: PatchFeatures, b: PatchFeatures) -> float:
    def mean(one: PatchFeatures, other: PatchFeatures) -> float:
        values = [
            (x @ y / D + 1) ** 3
            for x, i in zip(one.features, one.image, strict=True)
            for y, j in zip(other.features, other.image, strict=True)
            if i != j
        ]
        return sum(values) / len(values)

    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


def test_the_distance_is_the_double_loop_over_different_pictures() -> None:
    generator = np.random.default_rng(0)
    a, b = pair(generator, 7, 0.2)
    assert kernel.kernel_distance(a, b) == pytest.approx(double_loop(a, b), rel=1e-9)
    assert kernel.bootstrap(a, [b]).estimate(0).value == pytest.approx(double_loop(a, b), rel=1e-9)
    ragged = np.array([4, 0, 0, 9, 2, 2, 2, 0])
    c, d = (PatchFeatures(generator.normal(0, 1, (8, D)), ragged) for _ in range(2))
    assert kernel.kernel_distance(c, d) == pytest.approx(double_loop(c, d), rel=1e-9)
    assert kernel.bootstrap(c, [d]).values[0] == pytest.approx(double_loop(c, d), rel=1e-9)
    assert kernel.kernel_distance(a, c) == pytest.approx(double_loop(a, c), rel=1e-9)


def test_one_patch_a_picture_of_unrelated_sets_is_the_textbook_estimate() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(0, 1, (20, D)), generator.normal(0.1, 1, (30, D))
    xx, yy, xy = (np.power(u @ v.T / D + 1, 3) for u, v in ((x, x), (y, y), (x, y)))
    expected = (xx.sum() - xx.trace()) / (20 * 19) + (yy.sum() - yy.trace()) / (30 * 29) - 2 * xy.mean()
    sets = PatchFeatures(x, np.arange(20)), PatchFeatures(y, np.arange(20, 50))
    assert kernel.kernel_distance(*sets) == pytest.approx(expected, rel=1e-9)


def test_the_kernel_in_parts_is_the_kernel_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair(np.random.default_rng(2), 9, 0.2)
    whole = kernel.kernel_distance(a, b)
    monkeypatch.setattr(kernel, "ROWS", 4)
    assert kernel.kernel_distance(a, b) == pytest.approx(whole, rel=1e-9)


def test_equal_sets_are_at_0_on_average() -> None:
    generator = np.random.default_rng(3)
    halves = []
    for _ in range(200):
        image = numbers(40)
        features = drawn(generator, image)
        first = image < 20
        halves.append(kernel.kernel_distance(*(PatchFeatures(features[part], image[part]) for part in (first, ~first))))
    assert abs(np.mean(halves)) < 3 * np.std(halves) / np.sqrt(200)
    assert min(halves) < 0 < max(halves)


def test_a_set_is_at_0_from_itself() -> None:
    a, _ = pair(np.random.default_rng(4), 10, 0)
    assert kernel.kernel_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert kernel.bootstrap(a, [a]).estimate(0) == pytest.approx((0, 0), abs=1e-9)


def test_the_distance_grows_with_the_shift() -> None:
    distances = [kernel.kernel_distance(*pair(np.random.default_rng(5), 60, shift)) for shift in (0.2, 0.5, 1)]
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize(("images", "shift"), [(24, 0.4), (60, 0.2)])
def test_sigma_is_the_spread_of_independent_draws(images: int, shift: float) -> None:
    generator = np.random.default_rng(6)
    found = [kernel.bootstrap(*split(pair(generator, images, shift)), resamples=200).estimate(0) for _ in range(200)]
    spread = np.std([value for value, _ in found], ddof=1)
    assert 1 / 1.5 < np.sqrt(np.mean([sigma**2 for _, sigma in found])) / spread < 1.5


def split(sets: tuple[PatchFeatures, PatchFeatures]) -> tuple[PatchFeatures, list[PatchFeatures]]:
    return sets[0], [sets[1]]


def test_sigma_of_a_difference_is_the_spread_of_independent_draws() -> None:
    generator = np.random.default_rng(7)
    found = []
    for _ in range(200):
        reference, first = pair(generator, 30, 0.4)
        second = first._replace(features=first.features + generator.normal(0.05, 0.3, first.features.shape))
        found.append(kernel.bootstrap(reference, [first, second], resamples=200).compare(0, 1))
    spread = np.std([each.difference for each in found], ddof=1)
    assert 1 / 1.5 < np.sqrt(np.mean([each.sigma**2 for each in found])) / spread < 1.5


def test_a_paired_difference_is_sharper_than_an_unpaired_one() -> None:
    generator = np.random.default_rng(8)
    reference, first = pair(generator, 30, 0.4)
    second = first._replace(features=first.features + generator.normal(0.05, 0.1, first.features.shape))
    paired = kernel.bootstrap(reference, [first, second]).compare(0, 1)
    one, other = (
        kernel.bootstrap(reference, [each], seed=seed).estimate(0) for seed, each in ((1, first), (2, second))
    )
    assert (paired.first, paired.second) == (one.value, other.value)
    assert paired.difference == paired.first - paired.second < 0
    assert paired.sigma < 0.5 * np.hypot(one.sigma, other.sigma)
    assert kernel.bootstrap(reference, [first, first]).compare(0, 1)[2:] == (0, 0)


def test_the_seed_fixes_the_draws() -> None:
    reference, decoded = pair(np.random.default_rng(9), 12, 0.3)
    one, same, other = (kernel.bootstrap(reference, [decoded], 50, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.draws, same.draws)
    assert not np.array_equal(one.draws, other.draws)
    assert one.draws.shape == (1, 50)


def test_draws_of_one_picture_alone_are_left_out() -> None:
    reference, decoded = pair(np.random.default_rng(10), 2, 0.3)
    draws = kernel.bootstrap(reference, [decoded], 100).draws
    assert 0 < draws.shape[1] < 100
    assert draws == pytest.approx(kernel.kernel_distance(reference, decoded))


def test_sets_that_cannot_be_compared_are_refused() -> None:
    reference, decoded = pair(np.random.default_rng(11), 3, 0.3)
    with pytest.raises(OptionError, match="same pictures"):
        kernel.bootstrap(reference, [decoded._replace(image=decoded.image[::-1])])
    single = PatchFeatures(np.ones((4, D)), np.zeros(4, np.int64))
    for call in (lambda: kernel.kernel_distance(single, single), lambda: kernel.bootstrap(single, [single])):
        with pytest.raises(OptionError, match="two pictures"):
            call()


def test_kid_is_the_textbook_estimate() -> None:
    generator = np.random.default_rng(23)
    x, y = generator.normal(0, 1, (30, D)), generator.normal(0.3, 1, (30, D))
    xx, yy, xy = (np.power(u @ v.T / D + 1, 3) for u, v in ((x, x), (y, y), (x, y)))
    expected = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (30 * 29) - 2 * xy.mean()
    assert kernel.kid(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_kid_of_gaussians_is_what_their_moments_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """For independent x ~ N(0, s²), y ~ N(0, t²) in d dimensions E(x·y/d + 1)³ = 1 + 3·s²·t²/d."""
    generator = np.random.default_rng(24)
    monkeypatch.setattr(kernel, "SUBSET", 200)
    same = [kernel.kid(generator.normal(0, 1, (400, 4)), generator.normal(0, 1, (300, 4))) for _ in range(20)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(20)
    # so MMD² = 3·(s² - t²)²/d
    wide = [kernel.kid(generator.normal(0, 1, (400, 4)), generator.normal(0, 1.5, (300, 4))) for _ in range(20)]
    assert np.mean(wide) == pytest.approx(3 * (1 - 1.5**2) ** 2 / 4, abs=3 * np.std(wide) / np.sqrt(20))


def test_kid_draws_subsets_by_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(25)
    x, y = generator.normal(0, 1, (60, D)), generator.normal(0.3, 1, (50, D))
    monkeypatch.setattr(kernel, "SUBSET", 20)
    values = [kernel.kid(x, y, seed) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    monkeypatch.setattr(kernel, "SUBSET", 1000)
    assert values[0] == pytest.approx(kernel.kid(x, y), rel=0.5)
    with pytest.raises(OptionError, match="two patches"):
        kernel.kid(x[:1], y)
