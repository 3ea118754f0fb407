"""How far a picture is from its original, by many metrics, on 8-bit RGB at full resolution.

    original ──►┤features, once├──┐
    picture ───►┤features├────────┴──►┤compare├──► a score for each metric, None where it cannot be measured

What is missing (a library, weights, pixels enough for five scales) is noted, and the other scores go on. Importing this
module loads neither torch nor a network; a `Meter` does.

Not here: BRISQUE and NIQE. The packages that have them need torchvision or download weights when they run, or score by a
model of their own behind OpenCV and a libsvm to compile (`brisque` 0.2), with values that no paper's can be held against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from PIL import Image

from unquant.bench.metrics.base import Metric, Score, to_tensor
from unquant.bench.metrics.pixels import gradient_energy, ms_ssim, psnr, ssim
from unquant.errors import ModelMissing, OptionError

__all__ = [
    "DEFAULT",
    "FAST",
    "METRICS",
    "Meter",
    "MetricInfo",
    "gradient_energy",
    "ms_ssim",
    "psnr",
    "ssim",
    "to_tensor",
]


@dataclass(frozen=True)
class MetricInfo:
    """What reports say of a metric.

    name: its key in rows of results. title: for axes and the heads of tables. better: which values are; "one" where 1 is
    best and both sides are worse. digits: decimals in tables.
    """

    name: str
    title: str
    better: Literal["higher", "lower", "one"]
    digits: int


METRICS: dict[str, MetricInfo] = {
    info.name: info
    for info in (
        MetricInfo("psnr", "PSNR, dB", "higher", 2),
        MetricInfo("ssim", "SSIM", "higher", 4),
        MetricInfo("ms_ssim", "MS-SSIM", "higher", 4),
        MetricInfo("lpips_alex", "LPIPS (AlexNet)", "lower", 3),
        MetricInfo("lpips_alex_cut", "Cut LPIPS (AlexNet)", "lower", 3),
        MetricInfo("lpips_vgg", "LPIPS (VGG16)", "lower", 3),
        MetricInfo("dists", "DISTS", "lower", 3),
        MetricInfo("ssimulacra2", "SSIMULACRA 2", "higher", 2),
        MetricInfo("flip", "FLIP", "lower", 4),
        MetricInfo("gradient", "Gradient energy", "one", 3),
        MetricInfo("clip_iqa", "CLIP-IQA", "higher", 3),
    )
}
LIBRARIES = {"ssimulacra2": "ssimulacra2", "flip": "flip_evaluator", "clip_iqa": "transformers"}

DEFAULT: tuple[str, ...] = tuple(name for name in METRICS if name not in LIBRARIES or find_spec(LIBRARIES[name]))
"""All whose libraries are installed."""
FAST = ("psnr", "ms_ssim", "lpips_alex")


def _load(name: str, directory: Path | None) -> Metric:
    """Raises ImportError for a library and ModelMissing for weights that are not installed; WeightsError."""
    # the files of networks import torch, so only those that are asked for
    match name:
        case "psnr" | "ssim" | "ms_ssim" | "gradient":
            from unquant.bench.metrics import pixels

            return getattr(pixels, f"load_{name}")()
        case "lpips_alex" | "lpips_alex_cut" | "lpips_vgg":
            from unquant.bench.metrics.networks import CUT, lpips

            return lpips("vgg" if name == "lpips_vgg" else "alex", directory, CUT if name == "lpips_alex_cut" else 0)
        case "dists":
            from unquant.bench.metrics.networks import dists

            return dists(directory)
        case "ssimulacra2":
            from unquant.bench.metrics import ssimulacra

            return ssimulacra.load()
        case "flip":
            from unquant.bench.metrics import flip

            return flip.load()
        case "clip_iqa":
            from unquant.bench.metrics.noreference import clip_iqa

            return clip_iqa(directory)
        case _:
            raise AssertionError(name)


class Meter:
    """Loads what the metrics need once, and compares many pictures.

    names: of `METRICS`; an unknown one raises OptionError. directory: the folder of metric weights, see
    `unquant.perceptual`; None takes `UNQUANT_METRICS`. Damaged weights raise WeightsError.
    notes: what could not be measured and why, each once; grows as pictures are compared.
    versions: for each metric that can be measured, the version of its library or the hash of its weights.
    """

    notes: list[str]
    versions: dict[str, str]

    def __init__(self, names: Sequence[str] = DEFAULT, directory: Path | None = None) -> None:
        unknown = [name for name in names if name not in METRICS]
        if unknown:
            raise OptionError(f"unknown metric {', '.join(unknown)}; known: {', '.join(METRICS)}")
        self.notes = []
        self._metrics: dict[str, Metric | None] = {name: self._try_to_load(name, directory) for name in names}
        self.versions = {name: metric.version for name, metric in self._metrics.items() if metric is not None}

    def against(self, reference: Image.Image) -> Callable[[Image.Image], dict[str, float | None]]:
        """A function that scores pictures against `reference`, whose features are computed once, at the first picture.

        It gives every metric asked for, in their order, None where it cannot be measured; PSNR and gradient energy can
        be inf. It raises OptionError for a picture of another size.
        """
        original = reference.convert("RGB")
        scores: dict[str, Score] = {}

        def measure(name: str, image: Image.Image) -> float | None:
            metric = self._metrics[name]
            if metric is None:
                return None
            if min(original.size) < metric.smallest:
                self._note(f"{METRICS[name].title}: left out where a side is below {metric.smallest} pixels")
                return None
            if name not in scores:
                scores[name] = metric.against(original)
            return scores[name](image)

        def score(image: Image.Image) -> dict[str, float | None]:
            if image.size != original.size:
                raise OptionError(f"pictures of one size expected, got {original.size} and {image.size}")
            picture = image.convert("RGB")
            return {name: measure(name, picture) for name in self._metrics}

        return score

    def _try_to_load(self, name: str, directory: Path | None) -> Metric | None:
        try:
            return _load(name, directory)
        except (ModelMissing, ImportError) as error:
            self._note(f"{METRICS[name].title}: {error}")
            return None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
