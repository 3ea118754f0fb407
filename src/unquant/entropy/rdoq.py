"""Rate-distortion optimised quantisation: a choice of the encoder alone, which a decoder neither sees nor needs.

Files (`unquant.entropy.exact`) and the search for a rate (`unquant.entropy.quantise`) make it with the same rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Rdoq"]


@runtime_checkable
class _Tables(Protocol):
    """`unquant.coding.Tables`, which a training machine need not have."""

    def bits(self, table: npt.NDArray[Any], symbol: npt.NDArray[Any], /) -> npt.NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True)
class Rdoq:
    """Takes a symbol one step towards 0 where that lowers J = bits + Λ·(error in steps)², each symbol by itself.

    After Karczewicz, Ye & Chong 2008 (ITU-T VCEG-AH21). tables: those that the symbols are coded with. weight: Λ ≥ 0, the
    bits that a squared step is worth; infinite, it leaves all as it is.
    """

    tables: _Tables
    weight: float

    def __call__(
        self, offset: Float[Tensor, "*s"], k: Float[Tensor, "*s"], index: Int[Tensor, "*s"]
    ) -> Float[Tensor, "*s"]:
        """The symbols to code, of k = round(offset) within 32 bits. offset: y/q − μ in steps. index: tables, −1 uncoded."""
        chosen = k.clone()
        where = ((k != 0) & (index >= 0)).nonzero(as_tuple=True)
        rounded, value = k[where], offset[where]
        less = rounded - rounded.sign()
        table = index[where].cpu().numpy()
        more, fewer = (self.tables.bits(table, side.cpu().numpy().astype(np.int32)) for side in (rounded, less))
        saved = torch.from_numpy(more - fewer).to(k)
        lost = (value - less).square() - (value - rounded).square()
        chosen[where] = torch.where(saved > self.weight * lost, less, rounded)
        return chosen
