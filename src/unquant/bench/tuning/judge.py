"""Figures of pictures that are decoded in many ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from PIL import Image

from unquant.bench.analysis.tables import markdown_table, number
from unquant.bench.metrics import Meter
from unquant.bench.metrics.base import to_tensor
from unquant.bench.subjects.images import find_images, read_image
from unquant.bench.tuning.decoding import decode, log2_q_at
from unquant.bench.tuning.setting import COLUMNS, Setting
from unquant.errors import InputError, ModelMissing, OptionError
from unquant.networks.common import SideInfo
from unquant.networks.ratevar import Ratevar
from unquant.nn.transforms import LATENT_STRIDE
from unquant.shapes import Latent

__all__ = ["Figures", "Judge", "Table", "load_pictures", "markdown"]

_SMALLEST = 2 * LATENT_STRIDE
"""AlexNet takes no smaller picture."""
_KEPT_PIXELS = 2**22
"""Of the originals whose features are kept, about 2 GB; those of further pictures are extracted again for every setting."""

Score = Callable[[Image.Image], dict[str, float | None]]


class Figures(NamedTuple):
    """Of decoded pictures against the originals: psnr in dB; lpips (AlexNet) and dists, None where the weights are missing;
    gradient: gradient energy over the original's, 1 for as much detail. Of the latent at the end of the path, y': explained:
    1 − ‖y' − y‖²/‖ŷ_T − y‖²; variance: ‖y' − ŷ_T‖²/‖y − ŷ_T‖², 1 for a sample of the right energy.
    """

    psnr: float
    lpips: float | None
    dists: float | None
    gradient: float
    explained: float
    variance: float


Table = dict[tuple[int, Setting], Figures]
"""Means over the pictures, by q index and by the essence of a setting, in the order of their computation."""


def markdown(table: Table) -> str:
    """The table as Markdown, a row for each q index and setting, by q index."""
    rows: list[list[str]] = []
    for (index, setting), f in sorted(table.items(), key=lambda item: item[0][0]):
        distances = [number(value, 4) for value in (f.lpips, f.dists)]
        shares = [number(value, 3) for value in (f.gradient, f.explained, f.variance)]
        rows.append([str(index), *setting.columns().values(), number(f.psnr, 2), *distances, *shares])
    return markdown_table(["q index", *COLUMNS, "PSNR", "LPIPS", "DISTS", "gradient", "explained", "variance"], rows)


def load_pictures(folder: Path, crop: int | None = None, count: int | None = None) -> list[Image.Image]:
    """The images of a folder by name, 8-bit RGB.

    Of each the middle, cut to multiples of 16 pixels and to at most crop×crop; images of less than 32 pixels a side are left
    out. count: so many at most. Raises InputError for a folder without such images and, naming it, for an image that
    cannot be read; ImageTooLarge; OptionError for a crop below 32 or a count below 1.
    """
    if crop is not None and crop < _SMALLEST:
        raise OptionError(f"crop: at least {_SMALLEST} pixels, not {crop}")
    if count is not None and count < 1:
        raise OptionError(f"count: at least 1, not {count}")
    pictures: list[Image.Image] = []
    for path in find_images(folder):
        if len(pictures) == count:
            break
        image = read_image(path)
        width, height = (min(n, crop or n) // LATENT_STRIDE * LATENT_STRIDE for n in image.size)
        if min(width, height) >= _SMALLEST:
            left, top = (image.width - width) // 2, (image.height - height) // 2
            pictures.append(image.crop((left, top, left + width, top + height)))
    if not pictures:
        raise InputError(f"{folder}: no images of at least {_SMALLEST}×{_SMALLEST} pixels in this folder")
    return pictures


class Judge:
    """Decodes pictures in many ways and keeps the mean figures of each.

    Settings of one essence are decoded once, a picture is encoded once a q index, and the features of the first originals
    are kept. On the CPU.

    metrics: folder of the LPIPS and DISTS weights, None for what UNQUANT_METRICS names. notes: a line for each of the two
    whose weights are missing. Raises ModelMissing if both are.
    """

    def __init__(self, model: Ratevar, pictures: Sequence[Image.Image], metrics: Path | None = None) -> None:
        self.model, self.pictures = model, pictures
        self._meter = Meter(("psnr", "lpips_alex", "dists", "gradient"), metrics)
        self.notes = self._meter.notes
        self._scored_by = next((name for name in ("dists", "lpips_alex") if name in self._meter.versions), None)
        if self._scored_by is None:
            raise ModelMissing(self.notes[-1])
        self.table: Table = {}
        self._encoded: dict[tuple[int, int], tuple[Latent, SideInfo]] = {}
        self._scores: dict[int, Score] = {}
        self._kept = 0

    def figures(self, q_index: int, setting: Setting) -> Figures:
        """The mean figures of all pictures at one q index, computed where the table has none."""
        key = q_index, setting.essence()
        if key not in self.table:
            columns = zip(*(self._figures(number, *key) for number in range(len(self.pictures))), strict=True)
            self.table[key] = Figures(*map(_mean, columns))  # pyright: ignore[reportArgumentType]
        return self.table[key]

    def score(self, q_indices: Sequence[int], setting: Setting) -> float:
        """The mean of DISTS over the q indices, of LPIPS where there is no DISTS; lower is better."""
        found = [self.figures(i, setting) for i in q_indices]
        return fmean(value for f in found if (value := f.lpips if f.dists is None else f.dists) is not None)

    @torch.no_grad()
    def _figures(self, number: int, q_index: int, setting: Setting) -> Figures:
        if (number, q_index) not in self._encoded:
            self._encoded[number, q_index] = self.model.encode(to_tensor(self.pictures[number]), log2_q_at(q_index))
        y, side = self._encoded[number, q_index]
        end, picture = decode(self.model, side, setting)
        pixels = (picture[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        scores = self._score(number)(Image.fromarray(pixels))
        lost = (y - side.y_file).square().sum()
        return Figures(
            scores["psnr"] or 0.0,
            scores["lpips_alex"],
            scores["dists"],
            scores["gradient"] or 0.0,
            float(1 - (end - y).square().sum() / lost),
            float((end - side.y_file).square().sum() / lost),
        )

    def _score(self, number: int) -> Score:
        """What compares with a picture."""
        if number in self._scores:
            return self._scores[number]
        picture = self.pictures[number]
        score, pixels = self._meter.against(picture), picture.width * picture.height
        if self._kept + pixels <= _KEPT_PIXELS:
            self._scores[number] = score
            self._kept += pixels
        return score


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, None where a value is missing."""
    known = [v for v in values if v is not None]
    return fmean(known) if len(known) == len(values) else None
