"""The report's pictures: crops at equal bytes as data URIs, always lossless."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from unquant.bench.analysis.study import Study, score
from unquant.bench.analysis.tables import number
from unquant.bench.metrics import METRICS
from unquant.bench.run.rows import Row
from unquant.errors import UnquantError

__all__ = ["BUDGET", "Chosen", "Panel", "View", "busiest", "choose", "data_uri", "views_of"]

CROP = 320
THUMBNAIL = 240
VIEWS = 6
BUDGET = 11_000_000
"""Characters of all pictures together. What does not fit is left out, and the report says so."""

Original = Callable[[str], Image.Image]
Picture = Callable[[Row], Image.Image]


@dataclass(frozen=True)
class Chosen:
    """An image to show, and why in words."""

    image_id: str
    why: str


@dataclass(frozen=True)
class Panel:
    """One crop of one decoded file. missing: why there is no picture."""

    name: str
    bytes: int
    bpp: float
    reached: bool
    scores: Sequence[tuple[str, str]]
    uri: str = ""
    missing: str = ""


@dataclass
class View:
    """One image: thumbnail with the place of the crop in percent, the original's crop, and panels by target."""

    image: str
    why: str
    size: tuple[int, int]
    crop: tuple[int, int]
    box: tuple[float, float, float, float]
    thumbnail: str
    original: str
    panels: dict[str, list[Panel]] = field(default_factory=dict[str, list[Panel]])

    @property
    def weight(self) -> int:
        """Characters of all its pictures."""
        crops = sum(len(panel.uri) for panels in self.panels.values() for panel in panels)
        return len(self.thumbnail) + len(self.original) + crops


def choose(study: Study, count: int = VIEWS) -> list[Chosen]:
    """The best and the worst image of the first model against the reference, the middle one, then others evenly.

    Without a comparison the images in the order of their names.
    """
    ranking = study.differences(study.models[0]) if study.models and study.ranked_by else []
    if not ranking or study.ranked_by is None:
        return [Chosen(image_id, "") for image_id in list(study.images)[:count]]
    last = len(ranking) - 1
    fractions = [0.0, 1.0, 0.5, 0.25, 0.75, *(step / 8 for step in (1, 7, 3, 5))]
    places = list(dict.fromkeys(round(last * fraction) for fraction in fractions))[:count]
    info = METRICS[study.ranked_by]

    def why(place: int) -> str:
        rank = {last: "worst", 0: "best"}.get(place, f"number {place + 1}")
        by = ranking[place].scores.get(study.ranked_by or "", math.nan)
        return f"{rank} of {last + 1}: {info.label} {by:+.{info.digits}f} to AVIF".replace("-0", "\N{MINUS SIGN}0")

    return [Chosen(ranking[place].image_id, why(place)) for place in places]


def views_of(study: Study, original: Original, picture: Picture, budget: int = BUDGET) -> tuple[list[View], list[str]]:
    """The chosen images that fit the budget, and a word for each that is left out."""
    chosen, targets = choose(study), study.equal_targets
    views: list[View] = []
    notes: list[str] = []
    side = _side(len(study.settings) * len(targets), len(chosen), budget)
    for entry in chosen if targets else ():
        name = study.images[entry.image_id]
        try:
            image = original(entry.image_id).convert("RGB")
        except UnquantError as error:
            notes.append(f"{name} is not shown: {error}")
            continue
        view = _view(study, entry, image, picture, side)
        if sum(each.weight for each in views) + view.weight > budget:
            notes.append(f"{name} is not shown, to keep this file small")
            continue
        views.append(view)
    return views, notes


def _side(panels: int, views: int, budget: int) -> int:
    """Pixels: so large that all views will probably fit. A pixel takes about a byte, as text a third more."""
    fits = math.sqrt(budget / 1.3 / max(1, views * (panels + 2)))
    return min(CROP, max(160, int(fits) // 16 * 16))


def _view(study: Study, entry: Chosen, image: Image.Image, picture: Picture, side: int) -> View:
    box = busiest(image, side)
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    width, height = image.size
    left, top, right, bottom = box
    percent = (left / width, top / height, (right - left) / width, (bottom - top) / height)
    view = View(
        image=study.images[entry.image_id],
        why=entry.why,
        size=image.size,
        crop=(right - left, bottom - top),
        box=(100 * percent[0], 100 * percent[1], 100 * percent[2], 100 * percent[3]),
        thumbnail=data_uri(small),
        original=data_uri(image.crop(box)),
    )
    for target in study.equal_targets:
        rows = [(setting, study.at(setting, target).get(entry.image_id)) for setting in study.settings]
        panels = [_panel(study, setting.name, row, picture, image.size, box) for setting, row in rows if row]
        view.panels[target] = panels
    return view


def _panel(
    study: Study, name: str, row: Row, picture: Picture, size: tuple[int, int], box: tuple[int, int, int, int]
) -> Panel:
    values = [(metric, score(row, metric)) for metric in study.metrics]
    scores = [
        (METRICS[metric].title, number(value, METRICS[metric].digits)) for metric, value in values if value is not None
    ]
    uri = missing = ""
    try:
        decoded = picture(row).convert("RGB")
        if decoded.size == size:
            uri = data_uri(decoded.crop(box))
        else:
            missing = f"the picture is {decoded.width}×{decoded.height}, not {size[0]}×{size[1]}"
    except UnquantError as error:
        missing = str(error)
    return Panel(name, row.bytes, row.bpp, row.reached, scores, uri, missing)


def busiest(image: Image.Image, side: int) -> tuple[int, int, int, int]:
    """The window of at most side×side with the most detail: where brightness changes most from pixel to pixel.

    Chosen from the original alone, so that it favours no codec.
    """
    grey = np.asarray(image.convert("L"), np.float64)
    detail = np.zeros_like(grey)
    detail[:, 1:] += np.abs(np.diff(grey, axis=1))
    detail[1:] += np.abs(np.diff(grey, axis=0))
    sums = np.pad(detail, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    height, width = (min(side, length) for length in grey.shape)
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(windows.argmax()), windows.shape)
    return int(left), int(top), int(left) + width, int(top) + height


def data_uri(image: Image.Image) -> str:
    """The picture as lossless WebP in a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=60, method=4, exact=True)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
