"""KD-VGG16: the estimate and its standard error on synthetic features, patches, and the command's report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from unquant.bench import __main__ as command
from unquant.bench import distribution as kd
from unquant.bench.distribution import PatchFeatures
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

    mean = torch.zeros(1)

    def extract(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x[:, 0], (16, 32)).flatten(1)


@pytest.fixture(scope="module")
def noise() -> list[Image.Image]:
    generator = np.random.default_rng(12)
    shapes = [(256, 520, 3), (260, 256, 3), (256, 256, 3)]
    return [Image.fromarray(generator.integers(0, 256, shape, np.uint8)) for shape in shapes]


def test_features_of_patches_in_order(vgg: VGG16, noise: list[Image.Image]) -> None:
    found = kd.extract(noise, vgg)
    assert found.image.tolist() == [0, 0, 1, 2]
    assert found.features.shape == (4, 512)
    assert found.features.dtype == np.float64
    pixels = np.asarray(noise[0].crop((256, 0, 512, 256))) / 255
    normalised = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = vgg.features(torch.from_numpy(normalised).permute(2, 0, 1)[None].float()).mean((2, 3))
    assert found.features[1] == pytest.approx(expected[0].numpy(), rel=1e-3, abs=1e-6)
    assert kd.extract([], vgg).features.shape == (0, 512)


def test_the_collector_compares_settings_of_a_target(noise: list[Image.Image]) -> None:
    collector = kd.Collector(Blocks())
    for image in [*noise[1:], noise[0].crop((0, 0, 255, 256))]:
        collect = collector.against(image)
        for target in ("1 bpp", "2 bpp"):
            collect(target, "same", image)
            collect(target, "blurred", image.filter(ImageFilter.GaussianBlur(2)))
    results = collector.results()
    assert (results.images, results.patches) == (2, 2)
    assert [each[:2] for each in results.distances] == [
        (target, setting) for target in ("1 bpp", "2 bpp") for setting in ("same", "blurred")
    ]
    assert results.distances[0].value == pytest.approx(0, abs=1e-12)
    assert [each[:3] for each in results.differences] == [(target, "same", "blurred") for target in ("1 bpp", "2 bpp")]
    assert results.differences[0].difference == pytest.approx(-results.distances[1].value)
    assert collector.notes == ["KD-VGG16: left out where a side is below 256 pixels"]
    assert results.flat()["distances"][0].keys() == {"target", "setting", "value", "sigma"}
    text = kd.report(results).splitlines()
    assert "2 pictures, 2 patches" in text[0]
    assert sum(line.startswith(("| 1 bpp", "| 2 bpp")) for line in text) == 4 + 2


def test_the_collector_needs_two_pictures_of_the_right_size(noise: list[Image.Image]) -> None:
    collector = kd.Collector(Blocks())
    collect = collector.against(noise[2])
    with pytest.raises(OptionError, match="one size"):
        collect("1 bpp", "jpeg", noise[1])
    collect("1 bpp", "jpeg", noise[2])
    assert collector.results().distances == []
    assert "two pictures" in collector.notes[0]
    assert "1 pictures" in kd.report(collector.results())


@pytest.fixture
def folder(tmp_path: Path, noise: list[Image.Image]) -> Path:
    for number, image in enumerate(noise):
        image.save(tmp_path / f"{number}.png")
    return tmp_path


def test_the_command_adds_lines_and_json(
    folder: Path, tmp_path: Path, stand_in, monkeypatch, no_metric_weights: None
) -> None:
    monkeypatch.setattr(command, "load", lambda _: stand_in)
    monkeypatch.setattr(command, "load_vgg16", lambda _: Blocks())
    out = tmp_path / "rd.json"
    settings = ["--codecs", "ratevar,jpeg", "--bpp", "4", "--realism", "0,1", "--steps", "1,2"]
    arguments = ["rd", str(folder), *settings, "--kd", "--out", str(out)]
    result = CliRunner().invoke(command.app, arguments)
    assert result.exit_code == 0, result.output
    assert "KD-VGG16 ×1000 over 3 pictures, 4 patches" in result.stdout
    found = json.loads(out.read_text())["kd_vgg16"]
    names = ["ratevar, realism 0", "ratevar, realism 1, 1 steps", "ratevar, realism 1, 2 steps", "jpeg"]
    assert [each["setting"] for each in found["distances"]] == names
    assert len(found["differences"]) == 6


def test_the_command_refuses_kd_without_pictures_or_weights(
    folder: Path, stand_in, monkeypatch, no_metric_weights: None
) -> None:
    monkeypatch.setattr(command, "load", lambda _: stand_in)
    arguments = ["rd", str(folder), "--codecs", "jpeg", "--bpp", "4", "--kd"]
    assert CliRunner().invoke(command.app, [*arguments, "--sizes-only"]).exit_code == 2
    result = CliRunner().invoke(command.app, arguments)
    assert isinstance(result.exception, ModelMissing)
    assert "vgg16_lpips" in str(result.exception)


def test_with_its_weights_it_orders_pictures_by_blur(photo: Image.Image) -> None:
    given = os.environ.get("UNQUANT_METRICS")
    folder = Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "metrics"
    if not (folder / "vgg16_lpips.safetensors").is_file():
        pytest.skip(f"no metric weights: UNQUANT_METRICS is not set to a folder with VGG16's, nor is there {folder}")
    vgg = load_vgg16(folder)
    parts = [photo.crop((left, top, left + 256, top + 256)) for left, top in ((0, 0), (150, 144), (344, 0))]
    reference = kd.extract(parts, vgg)
    blurred = [kd.extract([each.filter(ImageFilter.GaussianBlur(r)) for each in parts], vgg) for r in (1, 3)]
    little, much = (kd.kernel_distance(reference, each) for each in blurred)
    assert 0 < little < much
