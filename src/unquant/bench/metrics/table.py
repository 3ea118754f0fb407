"""The metrics of one picture against its original: each is an entry here and a loader in a file of its own."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from unquant.bench.metrics.base import Metric

__all__ = ["DEFAULT", "FAST", "METRICS", "SETS", "MetricInfo"]


@dataclass(frozen=True)
class MetricInfo:
    """What a metric takes, and what reports say of it.

    name: its key in rows of results and on the command line. loader: "file:function" in this package, see `load`. title,
    unit: for readers. better: which values are; "one" where 1 is best and both sides are worse. digits: decimals in tables.
    library: what it imports beside the extra `bench`'s torchmetrics; where that is missing it is not in `DEFAULT`. is_fast:
    a fraction of a second a megapixel, so in `FAST`. is_perceptual: a distance of network features; images are ranked by the
    first of these.
    """

    name: str
    loader: str
    title: str
    better: Literal["higher", "lower", "one"]
    digits: int
    unit: str = ""
    library: str = ""
    is_fast: bool = False
    is_perceptual: bool = False

    @property
    def label(self) -> str:
        """For axes and the heads of tables: the title with the unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    @property
    def head(self) -> str:
        """The label with an arrow to the better values."""
        return self.label + {"higher": " ↑", "lower": " ↓", "one": ""}[self.better]

    @property
    def direction(self) -> str:
        """Which values are better, in words."""
        return {"higher": "higher is better", "lower": "lower is better", "one": "1 is best"}[self.better]

    def badness(self, value: float) -> float:
        """Ascends from the best value to the worst."""
        return {"higher": -value, "lower": value, "one": abs(value - 1)}[self.better]

    def load(self, directory: Path | None = None) -> Metric:
        """The metric, ready to be used. directory: of weights, see `unquant.perceptual`; None takes `UNQUANT_METRICS`.

        Raises ImportError for a library and ModelMissing for weights that are not installed; WeightsError.
        """
        # the files of networks import torch, so only those that are asked for
        return pkgutil.resolve_name(f"{__package__}.{self.loader}")(directory)


METRICS: Final[Mapping[str, MetricInfo]] = MappingProxyType(
    {
        info.name: info
        for info in (
            MetricInfo("psnr", "pixels:load_psnr", "PSNR", "higher", 2, unit="dB", is_fast=True),
            MetricInfo("ssim", "pixels:load_ssim", "SSIM", "higher", 4),
            MetricInfo("ms_ssim", "pixels:load_ms_ssim", "MS-SSIM", "higher", 4, is_fast=True),
            MetricInfo(
                "lpips_alex", "networks:lpips_alex", "LPIPS (AlexNet)", "lower", 3, is_fast=True, is_perceptual=True
            ),
            MetricInfo("lpips_alex_cut", "networks:lpips_alex_cut", "Cut LPIPS (AlexNet)", "lower", 3),
            MetricInfo("lpips_vgg", "networks:lpips_vgg", "LPIPS (VGG16)", "lower", 3, is_perceptual=True),
            MetricInfo("dists", "networks:dists", "DISTS", "lower", 3, is_perceptual=True),
            MetricInfo("ssimulacra2", "ssimulacra:load", "SSIMULACRA 2", "higher", 2, library="ssimulacra2"),
            MetricInfo("flip", "flip:load", "FLIP", "lower", 4, library="flip_evaluator"),
            MetricInfo("gradient", "pixels:load_gradient", "Gradient energy", "one", 3),
            MetricInfo("clip_iqa", "clip_iqa:load", "CLIP-IQA", "higher", 3, library="transformers"),
        )
    }
)
"""Every metric by its name."""

DEFAULT: Final = tuple(name for name, info in METRICS.items() if not info.library or find_spec(info.library))
"""All whose libraries are installed."""
FAST: Final = tuple(name for name, info in METRICS.items() if info.is_fast)
SETS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"fast": FAST, "default": DEFAULT, "all": tuple(METRICS), "none": ()}
)
"""What can be asked for by one word."""
