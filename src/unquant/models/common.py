"""What the networks of all families have in common."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from torch import nn

__all__ = ["Config", "Model"]


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
