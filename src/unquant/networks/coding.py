"""What the network of the family `av1` is told of how a picture was coded; no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from unquant.container.obu import ac_q

__all__ = ["HALF_STRENGTH", "SCALARS", "STRIDE", "Coding"]

SCALARS: Final = 8
"""Numbers that f is told about a picture."""
STRIDE: Final = 16
"""Pixels per position of f's coarsest level; as `nn.redraw.REDRAW_STRIDE`."""
HALF_STRENGTH: Final = 160.0
"""ac_q at which f's output counts half."""


@dataclass(frozen=True, slots=True)
class Coding:
    """How a picture was coded, as far as f is told.

    base_q_idx: 0..255. bpp: bits of the coded picture's stream per pixel that is shown. qmatrix: quantisation matrices.
    delta_q: a step that differs by superblock. chroma: "4:0:0", "4:2:0", "4:2:2" or "4:4:4". half: coded at half size.
    """

    base_q_idx: int
    bpp: float
    qmatrix: bool = False
    delta_q: bool = False
    chroma: str = "4:4:4"
    half: bool = False

    @property
    def step(self) -> int:
        """ac_q, in eighths of a sample value."""
        return ac_q(self.base_q_idx)

    @property
    def numbers(self) -> tuple[float, ...]:
        """`SCALARS` numbers, each but the last roughly in [-1, 1]; the last is ac_q itself."""
        return (
            _log2(self.step) / 3 - 7 / 3,
            _log2(self.bpp) / 3 + 2 / 3,
            float(self.qmatrix),
            float(self.delta_q),
            float(self.chroma in ("4:2:0", "4:2:2")),
            float(self.chroma == "4:2:0"),
            float(self.half),
            float(self.step),
        )


def _log2(value: float) -> float:
    return math.log2(max(value, 2.0**-12))
