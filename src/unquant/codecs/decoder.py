"""What decides how a picture is drawn, whatever draws it: the caller, else the file, else the weights. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import numpy as np

from unquant.codecs.forecast import foretell_decode
from unquant.codecs.options import DEFAULT_SEED, DecodeOptions
from unquant.codecs.places import Window
from unquant.codecs.wishes import Wishes
from unquant.container import MAX_STEPS, Header
from unquant.errors import ModelMissing, OptionError

__all__ = ["Decoder", "Drawing", "Weighted"]


class Drawing(NamedTuple):
    """How a picture is to be drawn: realism ρ, steps, seed, and what of it, in pixels.

    reduction: pixels a side that become one; the window is made of such squares, but for what the picture's edges cut off.
    """

    realism: float
    steps: int
    seed: int
    window: Window
    reduction: int = 1


class Weighted(ABC):
    """What is done with one weights file.

    name: of the weights file. stream_id: the four bytes in the header of every `.unq` file of theirs.
    """

    family: ClassVar[str]
    name: str
    stream_id: bytes

    @property
    @abstractmethod
    def _default_realism(self) -> float:
        """ρ of a decode for which nobody asks otherwise."""

    def _check_steps(self, steps: int, lowest: int = 0, highest: int = MAX_STEPS) -> None:
        """Raises OptionError for a number of steps that these weights cannot be decoded with."""
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or not lowest <= steps <= highest:
            raise OptionError(f"steps must be a whole number in {lowest}..{highest}, got {steps!r}")


class Decoder(Weighted):
    """Weights that draw pictures."""

    def _check_memory(self, drawing: Drawing) -> None:
        """Raises ImageTooLarge for what takes more memory than the limits allow."""
        height, width = drawing.window.size
        foretell_decode(self.family, width * height, realism=drawing.realism, steps=drawing.steps).check()

    def _check_weights(self, header: Header) -> None:
        """Raises ModelMissing for a file that needs other weights."""
        if header.family != self.family or header.stream_id != self.stream_id:
            raise ModelMissing(
                f"this file needs {header.family} weights with stream id {header.stream_id.hex()}; loaded are"
                f" {self.name} weights with {self.stream_id.hex()}"
            )

    def _drawing(self, wishes: Wishes, height: int, width: int, options: DecodeOptions) -> Drawing:
        """What is drawn: what the caller asks for, else what the file does, else the weights' defaults."""
        realism, steps, seed, plain = options.realism, options.steps, options.seed, options.is_plain
        if plain:
            realism = 0.0
        elif realism is None:
            realism = self._default_realism if wishes.percent is None else wishes.percent / 100
        if seed is None:
            seed = DEFAULT_SEED if wishes.seed is None else wishes.seed
        if steps is None and not plain:
            steps = wishes.steps or None
        wanted = self._steps_of(steps, realism, preview=plain)
        x, y, across, down = options.part(width, height)
        window = Window(y, y + down, x, x + across)
        return Drawing(float(realism), wanted, int(seed), window, options.reduction)

    @abstractmethod
    def _steps_of(self, asked: int | None, realism: float, *, preview: bool) -> int:
        """Steps of a decode at a realism. asked: by the caller or else, but for a preview, by the file."""
