"""Files that hold an AV1 picture, decoded by whatever runs the network of the family `av1`. No torch."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from unquant.codecs.av1_open import open_avif, open_unq
from unquant.codecs.avif import require_avif
from unquant.codecs.decoder import Decoder, Drawing, Weighted
from unquant.codecs.options import DecodeOptions
from unquant.codecs.parts import Beside, open_container, part_image, shrunk, with_damage
from unquant.codecs.wishes import Wishes
from unquant.container.avif import is_avif, parse_avif
from unquant.networks.coding import STRIDE, Coding

__all__ = ["Av1Decoder", "Av1Weights"]


class Av1Weights(Weighted):
    """Weights of the family. steps of a decode: 1, or 0 for AV1's own picture, which is also the preview."""

    family = "av1"

    def _check_steps(self, steps: int, lowest: int = 0, highest: int = 1) -> None:
        super()._check_steps(steps, lowest, highest)


class Av1Decoder(Av1Weights, Decoder):
    """A decoder of the family."""

    window = 96
    """Side of the windows that f runs in, in positions of 16 pixels."""

    def _steps_of(self, asked: int | None, realism: float, *, preview: bool) -> int:
        # a file may ask for the steps of later weights
        return min(1, (0 if preview else 1) if asked is None else asked)

    @abstractmethod
    def _guarded(self) -> AbstractContextManager[None]:
        """Within it, running out of memory is ImageTooLarge."""

    @abstractmethod
    def _draw(self, rgb: npt.NDArray[np.uint8], coding: Coding, drawing: Drawing) -> npt.NDArray[np.uint8]:
        """(1−ρ)·x̂_0 + ρ·x̂_1, the pixels that are wanted as (h, w, 3) uint8, from AV1's whole picture.

        That was not lossless, and there is a step.
        """

    def _decode(self, data: bytes, options: DecodeOptions) -> PILImage.Image:
        require_avif()
        with self._guarded():
            damage = None
            if is_avif(data):
                file = parse_avif(data)
                drawing = self._drawing(Wishes.from_payload(file.uuid_payload), file.height, file.width, options)
                self._check_memory(drawing)
                opened = open_avif(data)
            else:
                container, damage = open_container(data, allow_partial=options.allow_partial)
                header = container.header
                self._check_weights(header)
                drawing = self._drawing(Wishes.of(header), header.height, header.width, options)
                self._check_memory(drawing)
                opened = open_unq(container, damage)
            height, width = opened.rgb.shape[:2]
            if drawing.steps == 0 or opened.coding.base_q_idx == 0:
                top, bottom, left, right = drawing.window
                drawn = np.ascontiguousarray(opened.rgb[top:bottom, left:right])
            else:
                drawn = self._draw(opened.rgb, opened.coding, drawing)
            beside = Beside(opened.alpha, opened.icc, opened.exif, opened.xmp)
            rgb = shrunk(drawn, drawing.reduction)
            image = part_image(rgb, beside, (height, width), drawing.window, drawing.reduction)
            image = with_damage(image, damage, STRIDE)
            if not opened.grey:
                return image
            grey = image.convert("LA").convert("RGBA") if opened.alpha is not None else image.convert("L")
            grey.info.update(image.info)
            return grey
