"""The codec families: what configures them and what they are made of.

All of them name their parts alike: g_a (image to latent), entropy, g_s (latent to image or context), f (what draws the
detail), so that `unquant.weights` sorts their tensors by one rule. `av1` has f alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from unquant.errors import WeightsError
from unquant.models.av1 import Av1, Av1Config
from unquant.models.cdc import Cdc, CdcConfig
from unquant.models.ratevar import Ratevar, RatevarConfig

__all__ = ["Config", "Family", "Model", "family_of"]

Config: TypeAlias = RatevarConfig | CdcConfig | Av1Config
Model: TypeAlias = Ratevar | Cdc | Av1


class Family(NamedTuple):
    """A family's configuration and network; the network takes the configuration alone."""

    config: type[Config]
    model: type[Any]


_FAMILIES = {"ratevar": Family(RatevarConfig, Ratevar), "cdc": Family(CdcConfig, Cdc), "av1": Family(Av1Config, Av1)}


def family_of(name: str) -> Family:
    """A family by its name, as in weights files and in the headers of `.unq` files. Raises WeightsError for another name."""
    if name not in _FAMILIES:
        raise WeightsError(f"no family is called {name!r}; there are {', '.join(_FAMILIES)}")
    return _FAMILIES[name]
