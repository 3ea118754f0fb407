"""One picture that shows several versions of a photograph side by side, with captions and a magnified detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Box", "Panel", "draw"]

MARGIN, GAP = 24, 16
HEADING, CAPTION, STRIP = 60, 58, 34
ZOOM = 3
PAPER, INK, FAINT, MARK = (250, 249, 246), (24, 24, 27), (104, 104, 112), (255, 214, 10)

Box = tuple[int, int, int, int]


class Panel(NamedTuple):
    """One version. title: its name; caption: what it costs and how good it is."""

    title: str
    caption: str
    image: Image.Image


def _write(
    canvas: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, int, int]
) -> None:
    canvas.text(at, text, fill=colour, font=ImageFont.load_default(size))


def _detail_box(image: Image.Image, centre: tuple[float, float], width: int, height: int) -> Box:
    """The box of this size around `centre` (fractions of the sides), moved inside the image."""
    left = round(min(max(centre[0] * image.width - width / 2, 0), image.width - width))
    top = round(min(max(centre[1] * image.height - height / 2, 0), image.height - height))
    return left, top, left + width, top + height


def draw(heading: str, panels: Sequence[Panel], centre: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """The panels in two columns, and below them the same detail of each, three times as large.

    panels: pictures of one size. centre: where the detail lies, as fractions of width and height.
    """
    width, height = panels[0].image.size
    inner = 2 * width + GAP
    lines = -(-len(panels) // 2)
    cell = (inner - (len(panels) - 1) * GAP) // len(panels)
    box = _detail_box(panels[0].image, centre, cell // ZOOM, min(cell * 3 // 4 // ZOOM, height))
    detail = ((box[2] - box[0]) * ZOOM, (box[3] - box[1]) * ZOOM)
    details_top = HEADING + lines * (height + CAPTION + GAP)
    sheet = Image.new("RGB", (inner + 2 * MARGIN, details_top + STRIP + detail[1] + MARGIN), PAPER)
    canvas = ImageDraw.Draw(sheet)
    _write(canvas, (MARGIN, 16), heading, 26, INK)
    for index, panel in enumerate(panels):
        left = MARGIN + (index % 2) * (width + GAP)
        top = HEADING + (index // 2) * (height + CAPTION + GAP)
        sheet.paste(panel.image, (left, top))
        _write(canvas, (left, top + height + 6), panel.title, 21, INK)
        _write(canvas, (left, top + height + 33), panel.caption, 17, FAINT)
        frame = (left + box[0] - 1, top + box[1] - 1, left + box[2], top + box[3])
        canvas.rectangle(frame, outline=MARK, width=1)
        place = MARGIN + index * (cell + GAP)
        _write(canvas, (place, details_top + 6), f"{panel.title}, detail {ZOOM}x", 17, FAINT)
        sheet.paste(panel.image.crop(box).resize(detail, Image.Resampling.NEAREST), (place, details_top + STRIP))
    return sheet
