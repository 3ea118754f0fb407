"""What the networks of all families have in common."""

from __future__ import annotations

from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from unquant.shapes import Latent, QMap

__all__ = ["Q_INDEX_OCTAVE", "Config", "Model", "SideInfo", "log2_q_of"]

Q_INDEX_OCTAVE: Final = 64
"""q indices per octave of the quantisation step q."""

N = TypeVar("N", float, Tensor)


def log2_q_of(index: N) -> N:
    """log2 of the quantisation step of a q index, q = 2^(index/64), which is exact in binary floating point."""
    return index / Q_INDEX_OCTAVE


class SideInfo(NamedTuple):
    """What a decoder knows of one file.

    y_file: ŷ_T in latent units, (b, c, h16, w16). log2_q_file: log2 q_T, (b, 1, 1, 1) or (b, 1, h16, w16). mu: means in
    steps. t: scales as grid coordinates, below −½ where nothing was coded.
    """

    y_file: Latent
    log2_q_file: QMap
    mu: Latent
    t: Latent


@runtime_checkable
class Config(Protocol):
    """A family's configuration: a frozen dataclass that JSON can hold; its class has `from_dict`, the inverse."""

    @property
    def default_realism(self) -> float:
        """ρ of a decode that asks for none."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready values."""
        ...


C = TypeVar("C", bound=Config)


class Model(nn.Module, Generic[C]):
    """A family's network, which its configuration makes.

    Families name their parts alike: g_a (image to latent), entropy, g_s (latent to image or context), f (what draws the
    detail), so that one rule sorts the tensors in weights files.
    """

    config: C

    def __init__(self, config: C) -> None:
        super().__init__()
        self.config = config
