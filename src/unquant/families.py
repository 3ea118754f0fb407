"""The codec families: each is described here and nowhere else.

A new family is a line of this table, an id in the container's own (which is part of the file format), and files of its own:
networks, codec, training. Classes are named, not imported: this table stands below everything that it names.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from unquant.errors import WeightsError

__all__ = ["AVIF_FAMILY", "FAMILIES", "Family", "Part", "family_of"]

Part = Literal["config", "model", "codec", "encoder", "training"]

_HASH_GROUPS: Final = (
    ("g_a.", "analysis"),
    ("entropy.analysis.", "analysis"),
    ("entropy.", "stream"),
    ("tables.", "stream"),
    ("f.", "reverse"),
    ("", "synthesis"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One codec family.

    name: in weights files, recipes and on the command line. id: in `.unq` files. config, model, codec, training:
    "module:name" of the configuration dataclass, of the network that takes it, of the codec, and of what `unquant train` does
    with it. encoder: of what encodes with no more of the weights than the header of their file, whose path it takes; empty
    where that cannot be. hash_groups: a prefix of tensor names and the group of tensors that begin with it and with none
    before it, see `weights_file`. draws_avif: whether its weights draw any `.avif` file. has_q_index: whether an encode takes
    a q index. always_steps: whether a decode takes steps at realism 0 too. trained_for: metrics of the benchmark that are a
    loss of its training (docs/model-card.md). look: colour and marker (matplotlib's) in figures.
    """

    name: str
    id: int
    config: str
    model: str
    codec: str
    training: str
    encoder: str = ""
    hash_groups: tuple[tuple[str, str], ...] = _HASH_GROUPS
    draws_avif: bool = False
    has_q_index: bool = True
    always_steps: bool = False
    trained_for: tuple[str, ...] = ()
    look: tuple[str, str] = ("#33569c", "X")

    def load(self, part: Part) -> Any:
        """The class or object that a part names; imports its module."""
        return pkgutil.resolve_name(getattr(self, part))

    def group_of(self, tensor: str) -> str:
        """The hash group of a tensor by its name."""
        return next(group for prefix, group in self.hash_groups if tensor.startswith(prefix))


FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family(
                name="ratevar",
                id=1,
                config="unquant.networks.ratevar:RatevarConfig",
                model="unquant.networks.ratevar:Ratevar",
                codec="unquant.codecs.ratevar:RatevarCodec",
                training="unquant.train.ratevar:TRAINING",
                trained_for=("lpips_alex", "lpips_alex_cut", "dists"),
                look=("#c8451b", "o"),
            ),
            Family(
                name="cdc",
                id=2,
                config="unquant.networks.cdc:CdcConfig",
                model="unquant.networks.cdc:Cdc",
                codec="unquant.codecs.cdc:CdcCodec",
                training="unquant.train.cdc:TRAINING",
                always_steps=True,
                trained_for=("lpips_alex", "lpips_alex_cut"),
                look=("#a3247a", "p"),
            ),
            Family(
                name="av1",
                id=3,
                config="unquant.networks.av1:Av1Config",
                model="unquant.networks.av1:Av1",
                codec="unquant.codecs.av1:Av1Codec",
                encoder="unquant.codecs.av1_encode:Av1FileEncoder",
                training="unquant.train.av1:TRAINING",
                draws_avif=True,
                has_q_index=False,
                trained_for=("lpips_alex", "lpips_alex_cut", "dists"),
                look=("#0b0b0b", "8"),
            ),
        )
    }
)
"""Every family by its name."""
AVIF_FAMILY: Final = next(family for family in FAMILIES.values() if family.draws_avif)
"""The one whose weights draw any `.avif` file."""


def family_of(name: str) -> Family:
    """A family by its name, as in weights files and in the headers of `.unq` files. Raises WeightsError for another name."""
    if name not in FAMILIES:
        raise WeightsError(f"no family is called {name!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]
