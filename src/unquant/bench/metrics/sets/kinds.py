"""The distances between sets: their names, the network whose features they compare, and how tables show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from unquant.errors import OptionError

__all__ = ["KINDS", "SetDistance", "kinds_of"]


@dataclass(frozen=True)
class SetDistance:
    """One distance between sets of pictures; the lower, the nearer.

    name: in results. network: which describes the patches. statistic: what is computed of its features. scale: what tables
    multiply it by.
    """

    name: str
    network: str
    statistic: Literal["kernel over pictures", "kernel over patches", "frechet"]
    scale: float = 1

    @property
    def title(self) -> str:
        """For the heads of tables, whose values are `scale` times the distance."""
        return self.name if self.scale == 1 else f"{self.name} ×{self.scale:g}"


KINDS: Final[Mapping[str, SetDistance]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            SetDistance("KD-VGG16", "VGG16", "kernel over pictures", scale=1000),
            SetDistance("FD-VGG16", "VGG16", "frechet"),
            SetDistance("KID", "Inception", "kernel over patches", scale=1000),
            SetDistance("FID", "Inception", "frechet"),
        )
    }
)
"""Every distance by its name."""


def kinds_of(network: str) -> list[SetDistance]:
    """The distances that a network's features give. Raises OptionError for an unknown network."""
    found = [kind for kind in KINDS.values() if kind.network == network]
    if not found:
        known = dict.fromkeys(kind.network for kind in KINDS.values())
        raise OptionError(f"unknown extractor {network}; known: {', '.join(known)}")
    return found
