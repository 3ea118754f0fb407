"""Distances of sets: the estimates and their standard errors on synthetic features, patches, loaders, the results."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from unquant.bench.metrics import sets as kd
from unquant.bench.metrics.sets import Difference, Distance, PatchFeatures
from unquant.errors import ModelMissing, OptionError
from unquant.perceptual import VGG16, load_vgg16

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
    assert kd.kernel_distance(a, b) == pytest.approx(double_loop(a, b), rel=1e-9)
    assert kd.bootstrap(a, [b]).estimate(0).value == pytest.approx(double_loop(a, b), rel=1e-9)
    ragged = np.array([4, 0, 0, 9, 2, 2, 2, 0])
    c, d = (PatchFeatures(generator.normal(0, 1, (8, D)), ragged) for _ in range(2))
    assert kd.kernel_distance(c, d) == pytest.approx(double_loop(c, d), rel=1e-9)
    assert kd.bootstrap(c, [d]).values[0] == pytest.approx(double_loop(c, d), rel=1e-9)
    assert kd.kernel_distance(a, c) == pytest.approx(double_loop(a, c), rel=1e-9)


def test_one_patch_a_picture_of_unrelated_sets_is_the_textbook_estimate() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(0, 1, (20, D)), generator.normal(0.1, 1, (30, D))
    xx, yy, xy = (np.power(u @ v.T / D + 1, 3) for u, v in ((x, x), (y, y), (x, y)))
    expected = (xx.sum() - xx.trace()) / (20 * 19) + (yy.sum() - yy.trace()) / (30 * 29) - 2 * xy.mean()
    sets = PatchFeatures(x, np.arange(20)), PatchFeatures(y, np.arange(20, 50))
    assert kd.kernel_distance(*sets) == pytest.approx(expected, rel=1e-9)


def test_the_kernel_in_parts_is_the_kernel_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair(np.random.default_rng(2), 9, 0.2)
    whole = kd.kernel_distance(a, b)
    monkeypatch.setattr(kd, "ROWS", 4)
    assert kd.kernel_distance(a, b) == pytest.approx(whole, rel=1e-9)


def test_equal_sets_are_at_0_on_average() -> None:
    generator = np.random.default_rng(3)
    halves = []
    for _ in range(200):
        image = numbers(40)
        features = drawn(generator, image)
        first = image < 20
        halves.append(kd.kernel_distance(*(PatchFeatures(features[part], image[part]) for part in (first, ~first))))
    assert abs(np.mean(halves)) < 3 * np.std(halves) / np.sqrt(200)
    assert min(halves) < 0 < max(halves)


def test_a_set_is_at_0_from_itself() -> None:
    a, _ = pair(np.random.default_rng(4), 10, 0)
    assert kd.kernel_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert kd.bootstrap(a, [a]).estimate(0) == pytest.approx((0, 0), abs=1e-9)


def test_the_distance_grows_with_the_shift() -> None:
    distances = [kd.kernel_distance(*pair(np.random.default_rng(5), 60, shift)) for shift in (0.2, 0.5, 1)]
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize(("images", "shift"), [(24, 0.4), (60, 0.2)])
def test_sigma_is_the_spread_of_independent_draws(images: int, shift: float) -> None:
    generator = np.random.default_rng(6)
    found = [kd.bootstrap(*split(pair(generator, images, shift)), resamples=200).estimate(0) for _ in range(200)]
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
        found.append(kd.compare(reference, first, second, resamples=200))
    spread = np.std([each.difference for each in found], ddof=1)
    assert 1 / 1.5 < np.sqrt(np.mean([each.sigma**2 for each in found])) / spread < 1.5


def test_a_paired_difference_is_sharper_than_an_unpaired_one() -> None:
    generator = np.random.default_rng(8)
    reference, first = pair(generator, 30, 0.4)
    second = first._replace(features=first.features + generator.normal(0.05, 0.1, first.features.shape))
    paired = kd.compare(reference, first, second)
    one, other = (kd.bootstrap(reference, [each], seed=seed).estimate(0) for seed, each in ((1, first), (2, second)))
    assert (paired.first, paired.second) == (one.value, other.value)
    assert paired.difference == paired.first - paired.second < 0
    assert paired.sigma < 0.5 * np.hypot(one.sigma, other.sigma)
    assert kd.compare(reference, first, first)[2:] == (0, 0)


def test_the_seed_fixes_the_draws() -> None:
    reference, decoded = pair(np.random.default_rng(9), 12, 0.3)
    one, same, other = (kd.bootstrap(reference, [decoded], 50, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.draws, same.draws)
    assert not np.array_equal(one.draws, other.draws)
    assert one.draws.shape == (1, 50)


def test_draws_of_one_picture_alone_are_left_out() -> None:
    reference, decoded = pair(np.random.default_rng(10), 2, 0.3)
    draws = kd.bootstrap(reference, [decoded], 100).draws
    assert 0 < draws.shape[1] < 100
    assert draws == pytest.approx(kd.kernel_distance(reference, decoded))


def test_sets_that_cannot_be_compared_are_refused() -> None:
    reference, decoded = pair(np.random.default_rng(11), 3, 0.3)
    with pytest.raises(OptionError, match="same pictures"):
        kd.bootstrap(reference, [decoded._replace(image=decoded.image[::-1])])
    single = PatchFeatures(np.ones((4, D)), np.zeros(4, np.int64))
    for call in (lambda: kd.kernel_distance(single, single), lambda: kd.bootstrap(single, [single])):
        with pytest.raises(OptionError, match="two pictures"):
            call()


@pytest.mark.parametrize(
    ("size", "count"), [((768, 512), 6 + 2), ((512, 512), 4 + 1), ((256, 256), 1), ((383, 600), 2)]
)
def test_patches_are_two_grids(size: tuple[int, int], count: int) -> None:
    crops = kd.patches(Image.new("RGB", size))
    assert len(crops) == count
    assert {crop.size for crop in crops} == {(256, 256)}


def test_patches_lie_where_they_should() -> None:
    ramp = Image.fromarray((np.arange(48)[:, None] * 4 + np.arange(32)).astype(np.uint8))
    corners = [crop.getpixel((0, 0)) for crop in kd.patches(ramp, 16)]
    assert corners == [0, 16, 64, 80, 128, 144, 32 + 8, 96 + 8]


def test_small_images_hold_no_patch() -> None:
    with pytest.raises(OptionError, match="256×256 expected, got 255×900"):
        kd.patches(Image.new("RGB", (255, 900)))


@pytest.fixture(scope="module")
def vgg() -> VGG16:
    """VGG16 with random weights."""
    torch.manual_seed(0)
    return VGG16()


class Blocks:
    """In place of VGG16 where its time is not worth it: 512 block means of red."""

    name, dimensions = "VGG16", 512

    def extract(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x[:, 0], (16, 32)).flatten(1)


@pytest.fixture(scope="module")
def noise() -> list[Image.Image]:
    generator = np.random.default_rng(12)
    shapes = [(256, 520, 3), (260, 256, 3), (256, 256, 3)]
    return [Image.fromarray(generator.integers(0, 256, shape, np.uint8)) for shape in shapes]


def test_features_of_patches_in_order(vgg: VGG16, noise: list[Image.Image]) -> None:
    found = kd.patch_features(noise[0], vgg)
    assert found.shape == (2, 512)
    assert found.dtype == np.float32
    pixels = np.asarray(noise[0].crop((256, 0, 512, 256))) / 255
    normalised = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = vgg.features(torch.from_numpy(normalised).permute(2, 0, 1)[None].float()).mean((2, 3))
    assert found[1] == pytest.approx(expected[0].numpy(), rel=1e-3, abs=1e-6)


def test_patches_go_through_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(13).integers(0, 256, (512, 768, 3), np.uint8))
    whole = kd.patch_features(image, Blocks())
    monkeypatch.setattr(kd, "BATCH", 3)
    assert np.array_equal(kd.patch_features(image, Blocks()), whole)
    assert whole.shape == (8, 512)


def test_pictures_without_patches_have_no_features() -> None:
    assert kd.patch_features(Image.new("RGB", (255, 900)), Blocks()).shape == (0, 512)


def gaussians(generator: np.random.Generator, d: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Means and covariances of two Gaussians."""
    means = [generator.normal(0, 1, d) for _ in range(2)]
    roots = [generator.normal(0, 1, (d, d)) for _ in range(2)]
    return means, [root @ root.T for root in roots]


def square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eig(matrix)
    return (vectors * np.sqrt(values)) @ np.linalg.inv(vectors)


def exact_sample(generator: np.random.Generator, mean: np.ndarray, covariance: np.ndarray, n: int) -> np.ndarray:
    """A sample with exactly this mean and this covariance."""
    x = generator.normal(0, 1, (n, len(mean)))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def test_the_frechet_distance_of_gaussians_is_the_formula() -> None:
    generator = np.random.default_rng(20)
    means, covariances = gaussians(generator)
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(
        covariances[0] + covariances[1] - 2 * square_root(covariances[0] @ covariances[1]).real
    )
    a, b = (exact_sample(generator, m, c, n) for m, c, n in zip(means, covariances, (40, 50), strict=True))
    assert kd.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert kd.frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    assert kd.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert kd.frechet_distance(a, a + 0.5) == pytest.approx(6 * 0.25)
    assert kd.frechet_distance(a, 3 * (a - means[0]) + means[0]) == pytest.approx(4 * np.trace(covariances[0]))


def test_the_frechet_distance_is_that_of_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Same(torch.nn.Module):
        num_features = 6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    generator = np.random.default_rng(21)
    a, b = generator.gamma(2, 1, (60, 6)), generator.gamma(3, 1, (70, 6))
    fid = FrechetInceptionDistance(Same())
    fid.update(torch.from_numpy(a), real=True)
    fid.update(torch.from_numpy(b), real=False)
    assert kd.frechet_distance(a, b) == pytest.approx(float(fid.compute()), rel=1e-6)


def test_a_frechet_distance_needs_more_patches_than_dimensions() -> None:
    features = np.random.default_rng(22).normal(0, 1, (7, 6))
    assert kd.frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    with pytest.raises(OptionError, match="more than 6 patches"):
        kd.frechet_distance(features[:6], features)


def test_kid_is_the_textbook_estimate() -> None:
    generator = np.random.default_rng(23)
    x, y = generator.normal(0, 1, (30, D)), generator.normal(0.3, 1, (30, D))
    xx, yy, xy = (np.power(u @ v.T / D + 1, 3) for u, v in ((x, x), (y, y), (x, y)))
    expected = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (30 * 29) - 2 * xy.mean()
    assert kd.kid(x, y) == pytest.approx(expected, rel=1e-9)


def test_kid_of_gaussians_is_what_their_moments_give(monkeypatch: pytest.MonkeyPatch) -> None:
    """For independent x ~ N(0, s²), y ~ N(0, t²) in d dimensions E(x·y/d + 1)³ = 1 + 3·s²·t²/d."""
    generator = np.random.default_rng(24)
    monkeypatch.setattr(kd, "SUBSET", 200)
    same = [kd.kid(generator.normal(0, 1, (400, 4)), generator.normal(0, 1, (300, 4))) for _ in range(20)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(20)
    # so MMD² = 3·(s² - t²)²/d
    wide = [kd.kid(generator.normal(0, 1, (400, 4)), generator.normal(0, 1.5, (300, 4))) for _ in range(20)]
    assert np.mean(wide) == pytest.approx(3 * (1 - 1.5**2) ** 2 / 4, abs=3 * np.std(wide) / np.sqrt(20))


def test_kid_draws_subsets_by_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(25)
    x, y = generator.normal(0, 1, (60, D)), generator.normal(0.3, 1, (50, D))
    monkeypatch.setattr(kd, "SUBSET", 20)
    values = [kd.kid(x, y, seed) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    monkeypatch.setattr(kd, "SUBSET", 1000)
    assert values[0] == pytest.approx(kd.kid(x, y), rel=0.5)
    with pytest.raises(OptionError, match="two patches"):
        kd.kid(x[:1], y)


def pictures(generator: np.random.Generator, images: int, d: int = D) -> dict[str, np.ndarray]:
    """Features of so many pictures with two or three patches each."""
    return {
        f"id{number}": generator.normal(generator.normal(0.3, 1, d), 0.5, (2 + number % 2, d)).astype(np.float32)
        for number in range(images)
    }


def shifted(features: dict[str, np.ndarray], by: float, generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {k: (v + by + 0.1 * generator.normal(0, 1, v.shape)).astype(np.float32) for k, v in features.items()}


def as_set(features: dict[str, np.ndarray]) -> PatchFeatures:
    numbers = np.repeat(np.arange(len(features)), [len(each) for each in features.values()])
    return PatchFeatures(np.concatenate([*features.values()]).astype(np.float64), numbers)


def test_distances_are_those_of_the_bootstrap() -> None:
    generator = np.random.default_rng(30)
    originals = pictures(generator, 9)
    decoded = {
        (target, name): shifted(originals, by, generator)
        for target in ("1 bpp", "2 bpp")
        for name, by in (("near", 0.1), ("far", 0.5))
    }
    results = kd.distances(originals, decoded)
    patches = sum(len(each) for each in originals.values())
    assert (results.images, results.patches) == (9, patches)
    kernel = [each for each in results.distances if each.kind == "KD-VGG16"]
    assert [each[1:3] for each in kernel] == [*decoded]
    reference = as_set(originals)
    for each, features in zip(kernel, decoded.values(), strict=True):
        assert each[3:5] == pytest.approx(kd.bootstrap(reference, [as_set(features)]).estimate(0))
        assert each.images == 9
    assert [each[:4] for each in results.differences] == [("KD-VGG16", t, "near", "far") for t in ("1 bpp", "2 bpp")]
    expected = kd.compare(reference, *(as_set(decoded["1 bpp", name]) for name in ("near", "far")))
    assert results.differences[0][4:6] == pytest.approx(expected[2:])
    assert results.differences[0].difference < 0


def test_frechet_distances_need_enough_patches() -> None:
    generator = np.random.default_rng(31)
    originals = pictures(generator, 6)
    few = kd.distances(originals, {("1 bpp", "a"): originals, ("1 bpp", "b"): originals})
    assert [(each.kind, each.value) for each in few.distances[1::2]] == [("FD-VGG16", None)] * 2
    assert few.notes == ["FD-VGG16: more than 16 patches are needed, there are 15"]
    originals = pictures(generator, 8)
    decoded = shifted(originals, 0.3, generator)
    enough = kd.distances(originals, {("1 bpp", "a"): decoded})
    assert enough.distances[1].value == kd.frechet_distance(as_set(originals).features, as_set(decoded).features)
    assert enough.distances[1].sigma is None
    assert enough.notes == []


def test_features_of_inception_give_kid_and_fid() -> None:
    generator = np.random.default_rng(32)
    originals = pictures(generator, 20)
    near, far = shifted(originals, 0.1, generator), shifted(originals, 0.4, generator)
    results = kd.distances(originals, {("1 bpp", "near"): near, ("1 bpp", "far"): far}, "Inception")
    assert [each.kind for each in results.distances] == ["KID", "FID"] * 2
    values = [kd.kid(as_set(originals).features, as_set(each).features) for each in (near, far)]
    assert [each.value for each in results.distances[::2]] == values
    assert results.differences[0].difference == values[0] - values[1]
    cross = kd.distances(originals, {("1 bpp", "near"): near, ("1 bpp", "far"): far})
    assert results.differences[0].sigma == cross.differences[0].sigma > 0
    with pytest.raises(OptionError, match="known: VGG16, Inception"):
        kd.distances(originals, {}, "resnet")


@pytest.mark.parametrize("extractor", ["VGG16", "Inception"])
def test_a_setting_is_compared_over_the_pictures_that_it_has(extractor: str) -> None:
    generator = np.random.default_rng(33)
    originals = pictures(generator, 10)
    decoded = shifted(originals, 0.3, generator)
    some = {image: shifted(originals, 0.1, generator)[image] for image in [*originals][3:]}
    other = {image: decoded[image] for image in [*originals][:8]}
    results = kd.distances(originals, {("1 bpp", "some"): some, ("1 bpp", "other"): other}, extractor)
    assert [each.images for each in results.distances] == [7, 7, 8, 8]
    assert results.images == 10
    alone = kd.distances({image: originals[image] for image in some}, {("1 bpp", "some"): some}, extractor)
    assert results.distances[0] == alone.distances[0]
    assert results.differences[0].images == 5
    common = [*originals][3:8]
    cut = {("1 bpp", name): {i: each[i] for i in common} for name, each in (("some", some), ("other", other))}
    expected = kd.distances({image: originals[image] for image in common}, cut, extractor)
    assert results.differences[0][4:6] == pytest.approx(expected.differences[0][4:6])


def test_what_cannot_be_compared_is_left_out_or_refused() -> None:
    generator = np.random.default_rng(34)
    originals = pictures(generator, 4) | {"small": np.empty((0, D), np.float32)}
    decoded = dict(originals)
    results = kd.distances(originals, {("1 bpp", "all"): decoded, ("1 bpp", "one"): {"id0": decoded["id0"]}})
    assert results.images == 4
    assert {each.setting for each in results.distances} == {"all"}
    assert results.differences == []
    assert "one at 1 bpp has fewer than two pictures" in results.notes[-1]
    with pytest.raises(OptionError, match="id2: the picture has other patches"):
        kd.distances(originals, {("1 bpp", "cut"): {k: v[:-1] if k == "id2" else v for k, v in decoded.items()}})
    assert kd.distances(originals, {}).distances == []


def test_results_as_json_and_as_text() -> None:
    first = kd.Results(
        3,
        9,
        [Distance("KD-VGG16", "1 bpp", "a", 0.0123456, 0.001, 3), Distance("FD-VGG16", "1 bpp", "a", None, None, 3)],
        [Difference("KD-VGG16", "1 bpp", "a", "b", -0.002, 0.0005, 3)],
        ["a note"],
    )
    second = kd.Results(3, 9, [Distance("FID", "1 bpp", "a", 12.5, None, 3)], [], ["another"])
    joined = first.joined(second)
    assert joined.notes == ["a note", "another"]
    flat = json.loads(json.dumps(joined.flat()))
    assert [each["kind"] for each in flat["distances"]] == ["KD-VGG16", "FD-VGG16", "FID"]
    assert flat["differences"][0]["sigma"] == 0.0005
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in kd.report(joined).splitlines()]
    assert ["KD-VGG16", "1 bpp", "a", "12.346", "1.000", "3"] in lines
    assert ["FD-VGG16", "1 bpp", "a", "–", "–", "3"] in lines
    assert ["FID", "1 bpp", "a", "12.500", "–", "3"] in lines
    assert ["KD-VGG16", "1 bpp", "a", "b", "-2.000", "0.500"] in lines


def test_extractors_have_versions_where_their_weights_are(tmp_path: Path, no_metric_weights: None) -> None:
    versions, notes = kd.extractor_versions()
    assert versions == {}
    assert [note.split(":")[0] for note in notes] == ["KD-VGG16 and FD-VGG16", "KID and FID"]
    assert "inception-2015-12-05.pt" in notes[1]
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"one")
    versions, notes = kd.extractor_versions(tmp_path)
    assert versions.keys() == {"Inception"}
    assert str(tmp_path / "vgg16_lpips.safetensors") in notes[0]
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"two")
    assert kd.extractor_versions(tmp_path)[0]["Inception"] != versions["Inception"]
    with pytest.raises(OptionError, match="known: VGG16, Inception"):
        kd.load_extractor("resnet")
    with pytest.raises(ModelMissing, match="vgg16_lpips"):
        kd.load_extractor("VGG16", tmp_path)


def test_with_its_weights_it_orders_pictures_by_blur(photo: Image.Image) -> None:
    given = os.environ.get("UNQUANT_METRICS")
    folder = Path(given) if given else Path(__file__).resolve().parents[4] / "shared" / "metrics"
    if not (folder / "vgg16_lpips.safetensors").is_file():
        pytest.skip(f"no metric weights: UNQUANT_METRICS is not set to a folder with VGG16's, nor is there {folder}")
    vgg = load_vgg16(folder)
    parts = [photo.crop((left, top, left + 256, top + 256)) for left, top in ((0, 0), (150, 144), (344, 0))]

    def features(radius: float) -> dict[str, np.ndarray]:
        blur = ImageFilter.GaussianBlur(radius)
        return {str(number): kd.patch_features(part.filter(blur), vgg) for number, part in enumerate(parts)}

    results = kd.distances(features(0), {("", "little"): features(1), ("", "much"): features(3)})
    little, much = (each.value for each in results.distances if each.kind == "KD-VGG16")
    assert 0 < little < much
