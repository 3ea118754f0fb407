"""A part of a picture, or a small copy of it: which pixels are asked for, and what becomes of what travels beside them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from unquant.codecs.alpha import decode_alpha
from unquant.codecs.places import Window
from unquant.container import Container, parse, salvage
from unquant.errors import CorruptStream
from unquant.images import from_arrays, metadata_of_part

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Beside",
    "Damage",
    "beside_of",
    "fill_with_means",
    "open_container",
    "padded_part",
    "part_image",
    "pixels_of",
    "shrunk",
    "with_damage",
]

U8 = npt.NDArray[np.uint8]


@dataclass
class Damage:
    """What of a file is found not to be whole, where a decode is to do without it.

    lost: numbers of tiles that are not there at all. notes: what is said of everything but tiles. tiles: numbers of those
    that were needed and are damaged, each with its place in latent positions.
    """

    lost: Collection[int] = ()
    notes: list[str] = field(default_factory=list)
    tiles: list[tuple[int, Window]] = field(default_factory=list)

    def told(self, stride: int) -> tuple[str, ...]:
        """A line for each. stride: pixels per position."""
        places = ((number, place.times(stride)) for number, place in self.tiles)
        return *self.notes, *(
            f"tile {number} is damaged: {place.size[1]}x{place.size[0]} pixels at {place.left},{place.top}"
            for number, place in places
        )


def fill_with_means(plane: Tensor, holes: Sequence[Window], reach: int, otherwise: float) -> None:
    """Gives each hole of a plane (1, c, h, w) the mean, by channels, of what is no hole up to `reach` positions around it.

    otherwise: its value where all around it are holes.
    """
    import torch  # what else is here takes none

    whole = torch.ones(1, *plane.shape[-2:], dtype=torch.bool, device=plane.device)
    for hole in holes:
        hole.cut(whole).fill_(False)
    bounds = Window.whole((plane.shape[-2], plane.shape[-1]))
    for hole in holes:
        around = hole.grown(reach).within(bounds)
        known = around.cut(plane)[0][:, around.cut(whole)[0]].float()
        mean = known.mean(1) if known.numel() else torch.full((plane.shape[1],), otherwise, device=plane.device)
        hole.cut(plane).copy_(mean[None, :, None, None].expand_as(hole.cut(plane)))


class Beside(NamedTuple):
    """What a file holds beside its colours: alpha of the whole picture (h, w) uint8, and metadata."""

    alpha: U8 | None
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None


def open_container(data: bytes, *, allow_partial: bool) -> tuple[Container, Damage | None]:
    """A `.unq` file taken apart, and where it may be damaged what is known of that; else None. Raises what `parse` does."""
    if not allow_partial:
        return parse(data), None
    container, lost, notes = salvage(data)
    return container, Damage(lost, list(notes))


def beside_of(container: Container, damage: Damage | None = None) -> Beside:
    """What a file holds beside the picture. Raises CorruptStream for a damaged alpha plane, unless `damage` takes it."""
    header, alpha = container.header, None
    if container.alpha is not None:
        try:
            alpha = decode_alpha(container.alpha, header.height, header.width)
        except CorruptStream as error:
            if damage is None:
                raise
            damage.notes.append(str(error))
    return Beside(alpha, container.icc, container.exif, container.xmp)


def with_damage(image: PILImage.Image, damage: Damage | None, stride: int) -> PILImage.Image:
    """The image, with what is damaged in `.info["damage"]` where anything is. stride: as in `Damage.told`."""
    if damage is not None and (told := damage.told(stride)):
        image.info["damage"] = told
    return image


def pixels_of(out: Tensor, covered: Window, wanted: Window) -> U8:
    """The pixels `wanted`, (h, w, 3), of a plane (1, 3, h, w) uint8 that holds the pixels `covered` of the picture."""
    return wanted.seen_from(covered).cut(out)[0].permute(1, 2, 0).cpu().contiguous().numpy()


def padded_part(rgb: U8, part: Window, stride: int) -> U8:
    """A part of a picture (h, w, 3), in positions of `stride` pixels a side; beyond its edges these are repeated."""
    place = part.times(stride)
    found = rgb[place.top : place.bottom, place.left : place.right]
    more = [(0, asked - there) for asked, there in zip(place.size, found.shape[:2], strict=True)]
    return np.pad(found, (*more, (0, 0)), mode="edge")


def shrunk(plane: U8, reduction: int) -> U8:
    """The mean of each square of `reduction` × `reduction` pixels of (h, w[, 3]); at the edges, of what there is of it."""
    return plane if reduction == 1 else np.asarray(PILImage.fromarray(plane).reduce(reduction))


def part_image(rgb: U8, beside: Beside, size: tuple[int, int], window: Window, reduction: int) -> PILImage.Image:
    """The PIL image of a part of a picture of `size` (h, w).

    rgb: of the pixels `window`, reduced already; alpha is cut and reduced here, and EXIF and XMP are made true for it.
    """
    alpha, icc, exif, xmp = beside
    if rgb.shape[:2] == size:
        return from_arrays(rgb, alpha, icc, exif, xmp)
    if alpha is not None:
        part = np.ascontiguousarray(alpha[window.top : window.bottom, window.left : window.right])
        alpha = shrunk(part, reduction)
    exif, xmp = metadata_of_part(exif, xmp, width=rgb.shape[1], height=rgb.shape[0])
    return from_arrays(rgb, alpha, icc, exif, xmp)
