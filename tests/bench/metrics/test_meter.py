"""What a `Meter` makes of the metrics: their order by quality, their versions, what is missing left out."""

from __future__ import annotations

import io
import json
import math
import os
import pkgutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from unquant.bench.metrics import DEFAULT, FAST, METRICS, Meter
from unquant.bench.metrics.base import to_tensor
from unquant.bench.metrics.pixels import ms_ssim, ssim
from unquant.errors import OptionError, WeightsError
from unquant.perceptual import DISTS, LPIPS, load_dists, load_lpips

OFFLINE = tuple(name for name in METRICS if name != "clip_iqa")


def grey(level: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def one(name: str, reference: Image.Image, image: Image.Image) -> float | None:
    return Meter([name]).against(reference)(image)[name]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weight files of the right layout with random content."""
    folder = tmp_path_factory.mktemp("metrics")
    torch.manual_seed(0)
    for name, net in (("alexnet", LPIPS("alex")), ("vgg16", LPIPS("vgg"))):
        state = net.state_dict()
        heads = {f"lpips.lin{index}.weight": state.pop(f"heads.{index}") for index in range(5)}
        save_file(state | heads, folder / f"{name}_lpips.safetensors")
    save_file(
        {name: value for name, value in DISTS().state_dict().items() if "feat" not in name},
        folder / "dists.safetensors",
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssim", "ssimulacra2", "flip"])
def test_better_jpegs_score_better(photo: Image.Image, name: str) -> None:
    score = Meter([name]).against(photo)
    values = [score(jpeg(photo, quality))[name] for quality in (10, 30, 60, 90)] + [score(photo)[name]]
    assert values == sorted(values, reverse=METRICS[name].better == "lower")
    assert len(set(values)) == 5
    assert values[-1] == pytest.approx({"ssim": 1, "ssimulacra2": 100, "flip": 0}[name], abs=1e-6)


@pytest.mark.slow
def test_equal_pictures_are_perfect(picture: Image.Image, random_weights: Path) -> None:
    scores = Meter(OFFLINE, random_weights).against(picture)(picture)
    best = {"psnr": math.inf, "ssim": 1, "ms_ssim": 1, "ssimulacra2": 100, "gradient": 1}
    assert scores == pytest.approx({name: best.get(name, 0) for name in OFFLINE}, abs=1e-5)
    assert all(scores[name] >= 0 for name in ("lpips_alex", "lpips_vgg", "dists"))


@pytest.mark.slow
def test_worse_pictures_score_worse(picture: Image.Image, random_weights: Path) -> None:
    pixels = np.asarray(picture).astype(int)
    noise = np.random.default_rng(1).normal(0, 1, pixels.shape)
    near, far = (Image.fromarray(np.clip(pixels + level * noise, 0, 255).astype(np.uint8)) for level in (5, 40))
    score = Meter(OFFLINE, random_weights).against(picture)
    better, worse = score(near), score(far)
    for name in OFFLINE:
        sign = 1 if METRICS[name].better == "higher" else -1  # "one": noise adds detail
        assert sign * better[name] > sign * worse[name], name


@pytest.mark.slow
def test_the_meter_agrees_with_the_modules(picture: Image.Image, random_weights: Path) -> None:
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scores = Meter(OFFLINE, random_weights).against(picture)(other)
    pair = to_tensor(picture), to_tensor(other)
    assert scores["lpips_alex"] == pytest.approx(load_lpips("alex", random_weights)(*pair).item(), rel=1e-5)
    inner = tuple(to_tensor(each.crop((6, 6, *each.size))) for each in (picture, other))
    assert scores["lpips_alex_cut"] == pytest.approx(load_lpips("alex", random_weights)(*inner).item(), rel=1e-5)
    assert scores["lpips_vgg"] == pytest.approx(load_lpips("vgg", random_weights)(*pair).item(), rel=1e-5)
    assert scores["dists"] == pytest.approx(load_dists(random_weights)(*pair).item(), rel=1e-4)
    assert scores["ms_ssim"] == ms_ssim(picture, other)
    assert scores["ssim"] == ssim(picture, other)


def test_the_meter_gives_the_authors_values() -> None:
    given = os.environ.get("UNQUANT_METRICS")
    folder = Path(given) if given else Path(__file__).resolve().parents[4] / "shared" / "metrics"
    if not (folder / "reference" / "reference.json").is_file():
        pytest.skip(f"no metric weights: UNQUANT_METRICS is not set to a folder with reference/, nor is there {folder}")
    expected = json.loads((folder / "reference" / "reference.json").read_text())
    original, *distorted = (Image.open(folder / "reference" / f"ex_{name}.png") for name in ("ref", "p0", "p1"))
    score = Meter(["lpips_alex", "lpips_vgg", "dists"], folder).against(original)
    for number, image in enumerate(distorted):
        assert score(image) == pytest.approx({name: expected[name][number] for name in score(image)}, abs=1e-4)


def test_features_of_the_reference_are_computed_once(
    picture: Image.Image, random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract, calls = LPIPS.extract, []
    monkeypatch.setattr(LPIPS, "extract", lambda self, x: calls.append(1) or extract(self, x))
    score = Meter(["lpips_alex"], random_weights).against(picture)
    assert len(calls) == 0
    for _ in range(3):
        score(picture)
    assert len(calls) == 4


def test_names_are_known_and_kept_in_order(picture: Image.Image) -> None:
    assert [*Meter(["gradient", "psnr"]).against(picture)(picture)] == ["gradient", "psnr"]
    with pytest.raises(OptionError, match="unknown metric vmaf; known: psnr, ssim"):
        Meter(["psnr", "vmaf"])


def test_the_catalogue_is_whole() -> None:
    assert all(callable(pkgutil.resolve_name(f"unquant.bench.metrics.{info.loader}")) for info in METRICS.values())
    assert set(FAST) <= set(DEFAULT) <= set(METRICS)
    assert {"ssimulacra2", "flip"} <= set(DEFAULT)


def test_the_catalogue_needs_no_networks() -> None:
    code = (
        "import sys, unquant.bench.metrics; print([n for n in ('torch', 'scipy', 'transformers') if n in sys.modules])"
    )
    path = os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH")]))
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_missing_weights_leave_the_rest(picture: Image.Image, no_metric_weights: None) -> None:
    meter = Meter(OFFLINE)
    scores = meter.against(picture)(picture)
    missing = {"lpips_alex", "lpips_alex_cut", "lpips_vgg", "dists"}
    assert {name for name, value in scores.items() if value is None} == missing
    assert [note.split(":")[0] for note in meter.notes] == [METRICS[name].label for name in OFFLINE if name in missing]
    assert "alexnet_lpips.safetensors" in meter.notes[0]
    assert "UNQUANT_METRICS" in meter.notes[0]
    assert meter.versions.keys() == set(OFFLINE) - missing


def test_missing_libraries_leave_the_rest(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    meter = Meter(["psnr", "ssim", "ssimulacra2", "flip", "clip_iqa"])
    assert meter.against(picture)(picture) == {"psnr": math.inf} | dict.fromkeys(
        ("ssim", "ssimulacra2", "flip", "clip_iqa")
    )
    assert len(meter.notes) == 4
    assert all("is not installed; install" in note for note in meter.notes)


def test_damaged_weights_are_not_missing_weights(tmp_path: Path) -> None:
    (tmp_path / "alexnet_lpips.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match="alexnet_lpips"):
        Meter(FAST, tmp_path)


@pytest.mark.slow
def test_versions_are_those_of_libraries_and_weights(random_weights: Path, tmp_path: Path) -> None:
    versions = Meter(OFFLINE, random_weights).versions
    assert versions == Meter(OFFLINE, random_weights).versions
    assert versions["ssim"] == f"torchmetrics {metadata.version('torchmetrics')}"
    assert metadata.version("flip-evaluator") in versions["flip"]
    assert metadata.version("ssimulacra2") in versions["ssimulacra2"]
    for file in random_weights.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert Meter(OFFLINE, tmp_path).versions == versions
    state = DISTS().state_dict()
    save_file({"alpha": state["alpha"], "beta": state["beta"]}, tmp_path / "dists.safetensors")
    assert {name for name, version in Meter(OFFLINE, tmp_path).versions.items() if version != versions[name]} == {
        "dists"
    }


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (20, 20), (300, 100)])
def test_small_pictures_are_scored_as_far_as_possible(size: tuple[int, int], random_weights: Path) -> None:
    meter = Meter(OFFLINE, random_weights)
    score = meter.against(grey(50, size))
    scores = score(grey(60, size))
    assert score(grey(60, size)) == scores
    assert scores["psnr"] == pytest.approx(20 * math.log10(25.5))
    least = {
        "ssim": 11,
        "ms_ssim": 176,
        "lpips_alex": 31,
        "lpips_alex_cut": 37,
        "lpips_vgg": 16,
        "dists": 16,
        "ssimulacra2": 8,
    }
    missing = [name for name in OFFLINE if min(size) < least.get(name, 1)]
    assert [name for name in OFFLINE if scores[name] is None] == missing
    assert [note.split(":")[0] for note in meter.notes] == [METRICS[name].label for name in missing]


@pytest.mark.slow
def test_other_sizes_and_modes(picture: Image.Image, random_weights: Path) -> None:
    score = Meter(OFFLINE, random_weights).against(picture.convert("RGBA"))
    with pytest.raises(OptionError, match="one size"):
        score(picture.resize((100, 100)))
    assert score(picture.convert("RGBA")) == score(picture)
    assert score(picture)["psnr"] == math.inf
