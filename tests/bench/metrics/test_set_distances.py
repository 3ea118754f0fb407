"""The distances of many settings from their originals: which pictures count, and what the results hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unquant.bench.metrics.sets.distances import Difference, Distance, Results, distances
from unquant.bench.metrics.sets.frechet import frechet_distance
from unquant.bench.metrics.sets.kernel import PatchFeatures, bootstrap, kid
from unquant.bench.metrics.sets.patches import patch_features
from unquant.errors import OptionError
from unquant.perceptual import load_vgg16


def pictures(generator: np.random.Generator, images: int, d: int = 16) -> dict[str, np.ndarray]:
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
    results = distances(originals, decoded)
    patches = sum(len(each) for each in originals.values())
    assert (results.images, results.patches) == (9, patches)
    kernel = [each for each in results.distances if each.kind == "KD-VGG16"]
    assert [each[1:3] for each in kernel] == [*decoded]
    reference = as_set(originals)
    for each, features in zip(kernel, decoded.values(), strict=True):
        assert each[3:5] == pytest.approx(bootstrap(reference, [as_set(features)]).estimate(0))
        assert each.images == 9
    assert [each[:4] for each in results.differences] == [("KD-VGG16", t, "near", "far") for t in ("1 bpp", "2 bpp")]
    expected = bootstrap(reference, [as_set(decoded["1 bpp", name]) for name in ("near", "far")]).compare(0, 1)
    assert results.differences[0][4:6] == pytest.approx(expected[2:])
    assert results.differences[0].difference < 0


def test_frechet_distances_need_enough_patches() -> None:
    generator = np.random.default_rng(31)
    originals = pictures(generator, 6)
    few = distances(originals, {("1 bpp", "a"): originals, ("1 bpp", "b"): originals})
    assert [(each.kind, each.value) for each in few.distances[1::2]] == [("FD-VGG16", None)] * 2
    assert few.notes == ["FD-VGG16: more than 16 patches are needed, there are 15"]
    originals = pictures(generator, 8)
    decoded = shifted(originals, 0.3, generator)
    enough = distances(originals, {("1 bpp", "a"): decoded})
    assert enough.distances[1].value == frechet_distance(as_set(originals).features, as_set(decoded).features)
    assert enough.distances[1].sigma is None
    assert enough.notes == []


def test_features_of_inception_give_kid_and_fid() -> None:
    generator = np.random.default_rng(32)
    originals = pictures(generator, 20)
    near, far = shifted(originals, 0.1, generator), shifted(originals, 0.4, generator)
    results = distances(originals, {("1 bpp", "near"): near, ("1 bpp", "far"): far}, "Inception")
    assert [each.kind for each in results.distances] == ["KID", "FID"] * 2
    values = [kid(as_set(originals).features, as_set(each).features) for each in (near, far)]
    assert [each.value for each in results.distances[::2]] == values
    assert results.differences[0].difference == values[0] - values[1]
    cross = distances(originals, {("1 bpp", "near"): near, ("1 bpp", "far"): far})
    assert results.differences[0].sigma == cross.differences[0].sigma > 0
    with pytest.raises(OptionError, match="known: VGG16, Inception"):
        distances(originals, {}, "resnet")


@pytest.mark.parametrize("extractor", ["VGG16", "Inception"])
def test_a_setting_is_compared_over_the_pictures_that_it_has(extractor: str) -> None:
    generator = np.random.default_rng(33)
    originals = pictures(generator, 10)
    decoded = shifted(originals, 0.3, generator)
    some = {image: shifted(originals, 0.1, generator)[image] for image in [*originals][3:]}
    other = {image: decoded[image] for image in [*originals][:8]}
    results = distances(originals, {("1 bpp", "some"): some, ("1 bpp", "other"): other}, extractor)
    assert [each.images for each in results.distances] == [7, 7, 8, 8]
    assert results.images == 10
    alone = distances({image: originals[image] for image in some}, {("1 bpp", "some"): some}, extractor)
    assert results.distances[0] == alone.distances[0]
    assert results.differences[0].images == 5
    common = [*originals][3:8]
    cut = {("1 bpp", name): {i: each[i] for i in common} for name, each in (("some", some), ("other", other))}
    expected = distances({image: originals[image] for image in common}, cut, extractor)
    assert results.differences[0][4:6] == pytest.approx(expected.differences[0][4:6])


def test_what_cannot_be_compared_is_left_out_or_refused() -> None:
    generator = np.random.default_rng(34)
    originals = pictures(generator, 4) | {"small": np.empty((0, 16), np.float32)}
    decoded = dict(originals)
    results = distances(originals, {("1 bpp", "all"): decoded, ("1 bpp", "one"): {"id0": decoded["id0"]}})
    assert results.images == 4
    assert {each.setting for each in results.distances} == {"all"}
    assert results.differences == []
    assert "one at 1 bpp has fewer than two pictures" in results.notes[-1]
    with pytest.raises(OptionError, match="id2: the picture has other patches"):
        distances(originals, {("1 bpp", "cut"): {k: v[:-1] if k == "id2" else v for k, v in decoded.items()}})
    assert distances(originals, {}).distances == []


def test_results_as_json() -> None:
    first = Results(
        3,
        9,
        [Distance("KD-VGG16", "1 bpp", "a", 0.0123456, 0.001, 3), Distance("FD-VGG16", "1 bpp", "a", None, None, 3)],
        [Difference("KD-VGG16", "1 bpp", "a", "b", -0.002, 0.0005, 3)],
        ["a note"],
    )
    second = Results(3, 9, [Distance("FID", "1 bpp", "a", 12.5, None, 3)], [], ["another"])
    joined = first.joined(second)
    assert joined.notes == ["a note", "another"]
    flat = json.loads(json.dumps(joined.flat()))
    assert [each["kind"] for each in flat["distances"]] == ["KD-VGG16", "FD-VGG16", "FID"]
    assert flat["differences"][0]["sigma"] == 0.0005


@pytest.mark.slow
def test_with_its_weights_it_orders_pictures_by_blur(photo: Image.Image) -> None:
    given = os.environ.get("UNQUANT_METRICS")
    folder = Path(given) if given else Path(__file__).resolve().parents[4] / "shared" / "metrics"
    if not (folder / "vgg16_lpips.safetensors").is_file():
        pytest.skip(f"no metric weights: UNQUANT_METRICS is not set to a folder with VGG16's, nor is there {folder}")
    vgg = load_vgg16(folder)
    parts = [photo.crop((left, top, left + 256, top + 256)) for left, top in ((0, 0), (150, 144), (344, 0))]

    def features(radius: float) -> dict[str, np.ndarray]:
        blur = ImageFilter.GaussianBlur(radius)
        return {str(number): patch_features(part.filter(blur), vgg) for number, part in enumerate(parts)}

    results = distances(features(0), {("", "little"): features(1), ("", "much"): features(3)})
    little, much = (each.value for each in results.distances if each.kind == "KD-VGG16")
    assert 0 < little < much
