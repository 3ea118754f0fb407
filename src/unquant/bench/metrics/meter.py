"""Scores pictures by many metrics, leaving out what is not installed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from unquant.bench.metrics.base import Metric, Score
from unquant.bench.metrics.table import DEFAULT, METRICS
from unquant.errors import ModelMissing, OptionError

__all__ = ["Meter"]


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
                self._note(f"{METRICS[name].label}: left out where a side is below {metric.smallest} pixels")
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
            return METRICS[name].load(directory)
        except (ModelMissing, ImportError) as error:
            self._note(f"{METRICS[name].label}: {error}")
            return None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
