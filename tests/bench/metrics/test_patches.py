"""Patches of pictures, what a network says of them, and the networks that are installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unquant.bench.metrics.sets import patches
from unquant.errors import ModelMissing, OptionError
from unquant.perceptual import VGG16


@pytest.mark.parametrize(
    ("size", "count"), [((768, 512), 6 + 2), ((512, 512), 4 + 1), ((256, 256), 1), ((383, 600), 2)]
)
def test_patches_are_two_grids(size: tuple[int, int], count: int) -> None:
    crops = patches.patches(Image.new("RGB", size))
    assert len(crops) == count
    assert {crop.size for crop in crops} == {(256, 256)}


def test_patches_lie_where_they_should() -> None:
    ramp = Image.fromarray((np.arange(48)[:, None] * 4 + np.arange(32)).astype(np.uint8))
    corners = [crop.getpixel((0, 0)) for crop in patches.patches(ramp, 16)]
    assert corners == [0, 16, 64, 80, 128, 144, 32 + 8, 96 + 8]


def test_small_images_hold_no_patch() -> None:
    with pytest.raises(OptionError, match="256×256 expected, got 255×900"):
        patches.patches(Image.new("RGB", (255, 900)))


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


@pytest.mark.slow
def test_features_of_patches_in_order(vgg: VGG16, noise: list[Image.Image]) -> None:
    found = patches.patch_features(noise[0], vgg)
    assert found.shape == (2, 512)
    assert found.dtype == np.float32
    pixels = np.asarray(noise[0].crop((256, 0, 512, 256))) / 255
    normalised = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = vgg.features(torch.from_numpy(normalised).permute(2, 0, 1)[None].float()).mean((2, 3))
    assert found[1] == pytest.approx(expected[0].numpy(), rel=1e-3, abs=1e-6)


def test_patches_go_through_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(13).integers(0, 256, (512, 768, 3), np.uint8))
    whole = patches.patch_features(image, Blocks())
    monkeypatch.setattr(patches, "BATCH", 3)
    assert np.array_equal(patches.patch_features(image, Blocks()), whole)
    assert whole.shape == (8, 512)


def test_pictures_without_patches_have_no_features() -> None:
    assert patches.patch_features(Image.new("RGB", (255, 900)), Blocks()).shape == (0, 512)


def test_extractors_have_versions_where_their_weights_are(tmp_path: Path, no_metric_weights: None) -> None:
    versions, notes = patches.extractor_versions()
    assert versions == {}
    assert [note.split(":")[0] for note in notes] == ["KD-VGG16 and FD-VGG16", "KID and FID"]
    assert "inception-2015-12-05.pt" in notes[1]
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"one")
    versions, notes = patches.extractor_versions(tmp_path)
    assert versions.keys() == {"Inception"}
    assert str(tmp_path / "vgg16_lpips.safetensors") in notes[0]
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"two")
    assert patches.extractor_versions(tmp_path)[0]["Inception"] != versions["Inception"]
    with pytest.raises(OptionError, match="known: VGG16, Inception"):
        patches.load_extractor("resnet")
    with pytest.raises(ModelMissing, match="vgg16_lpips"):
        patches.load_extractor("VGG16", tmp_path)
