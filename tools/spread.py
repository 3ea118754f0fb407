"""What the map of uncertainty is worth: whether it is large where the picture is wrong, in rows, a table and a figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy import stats

from unquant.bench.analysis.tables import markdown_table
from unquant.errors import InputError

if TYPE_CHECKING:
    from unquant.codecs.interface import AnyCodec

__all__ = ["Spread", "block_rms", "lines_of", "measure", "picture", "read_rows", "table"]

_BLOCK: Final = 8
_MAP_GAIN: Final = 8
"""Values of grey for a level, as in the file of `unquant decode --uncertainty`."""


@dataclass(frozen=True)
class Spread:
    """One picture by one codec. spread: root mean square of its map, in levels of 255. error_0, error_1: those of the decodes
    at realism 0 and 1. spearman_0, spearman_1: of the map with these errors, all as root mean squares of 8×8 pixels."""

    image: str
    codec: str
    version: str
    bpp: float
    spread: float
    error_0: float
    error_1: float
    spearman_0: float
    spearman_1: float


def measure(codec: AnyCodec, name: str, image: Image.Image, label: str, bpp: float) -> Spread:
    """Of a file of at most `bpp` bits per pixel. label: of the image."""
    data = codec.encode(image, bpp=bpp)
    spread: Float[np.ndarray, "h w"] = codec.uncertainty(data)
    places = block_rms(spread).ravel()

    def against(realism: float) -> tuple[float, float]:
        error = _distance(codec.decode(data, realism=realism), image)
        found: Any = stats.spearmanr(places, block_rms(error).ravel())
        return _rms(error), float(found.statistic)

    (error_0, spearman_0), (error_1, spearman_1) = against(0), against(1)
    size = 8 * len(data) / (image.width * image.height)
    return Spread(label, name, codec.weights_id, size, _rms(spread), error_0, error_1, spearman_0, spearman_1)


def block_rms(plane: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h8 w8"]:
    """The root mean square of each whole block of 8×8 pixels."""
    height, width = (side // _BLOCK * _BLOCK for side in plane.shape)
    blocks = plane[:height, :width].reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    return np.sqrt((blocks**2).mean((1, 3)))


def picture(codec: AnyCodec, image: Image.Image, bpp: float) -> Image.Image:
    """Side by side: the decode at realism 1, the map, and its error, both as grey of 8 values a level."""
    data = codec.encode(image, bpp=bpp)
    drawn = codec.decode(data, realism=1).convert("RGB")
    planes = [codec.uncertainty(data), _distance(drawn, image)]
    greys = [np.rint(np.minimum(_MAP_GAIN * plane, 255)).astype(np.uint8) for plane in planes]
    parts = [np.asarray(drawn), *(np.repeat(grey[:, :, None], 3, 2) for grey in greys)]
    return Image.fromarray(np.concatenate(parts, 1))


def table(rows: Sequence[Spread]) -> str:
    """Of each codec the mean over its pictures, and the range of the correlations."""

    def line(chosen: Sequence[Spread]) -> list[str]:
        found = [row.spearman_1 for row in chosen], [row.spearman_0 for row in chosen]
        ranges = [f"{mean(values):.2f} ({min(values):.2f} … {max(values):.2f})" for values in found]
        levels = [row.spread for row in chosen], [row.error_1 for row in chosen]
        return [
            chosen[0].codec,
            f"{mean(row.bpp for row in chosen):.3f}",
            str(len(chosen)),
            *ranges,
            *(f"{mean(values):.1f}" for values in levels),
        ]

    names = dict.fromkeys(row.codec for row in rows)
    head = [
        "codec",
        "bpp",
        "images",
        "Spearman, error at realism 1",
        "at realism 0",
        "map, levels",
        "error at realism 1",
    ]
    return markdown_table(head, [line([row for row in rows if row.codec == name]) for name in names])


def read_rows(path: Path) -> list[Spread]:
    """Rows as `lines_of` writes them. Raises InputError, naming the file."""
    try:
        return [Spread(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError) as e:
        raise InputError(f"{path}: no rows of `python -m tools uncertainty`: {e}") from e


def lines_of(rows: Iterable[Spread]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(asdict(row)) + "\n" for row in rows)


def _distance(found: Image.Image, original: Image.Image) -> Float[np.ndarray, "h w"]:
    """Root mean square over the colours, in levels of 255."""
    away = np.asarray(found.convert("RGB"), np.float64) - np.asarray(original.convert("RGB"), np.float64)
    return np.sqrt((away**2).mean(2))


def _rms(plane: Float[np.ndarray, "h w"]) -> float:
    return float(np.sqrt((plane.astype(np.float64) ** 2).mean()))
