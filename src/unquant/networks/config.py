"""What a weights file says of a configuration; that of the entropy model."""

from __future__ import annotations

from dataclasses import InitVar
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from unquant.entropy.base import EntropyModel
from unquant.entropy.entroformer import Entroformer, EntroformerConfig
from unquant.entropy.gaussian import ScaleGrid
from unquant.entropy.sliced import SlicedEntropy, slices_of
from unquant.entropy.two_pass import TwoPassEntropy
from unquant.errors import OptionError, WeightsError
from unquant.settings import Width, read_settings, settings

__all__ = ["EntropyConfig", "entropy_model", "read_config"]

T = TypeVar("T")

_Scale = Annotated[float, Field(ge=1e-3, le=256)]
"""In steps; the coder has tables up to 256 (`unquant.coding.MAX_SCALE`)."""


@settings
class EntropyConfig:
    """Sizes of the entropy model and of its grid of scales.

    hyper, width, context, hidden, cond: of `TwoPassEntropy`. slices: shares of the channels for a `SlicedEntropy` in place of
    that, in coding order, of sum 1. entroformer: the sizes of an `Entroformer` in place of both, which has no use for those
    five. Raises OptionError for a field out of range, for shares of another sum, and for slices of an Entroformer.
    """

    hyper: Width = 96
    width: Width = 224
    context: Width = 224
    hidden: Width = 448
    cond: Width = 48
    scale_low: _Scale = 0.12
    scale_high: _Scale = 64.0
    scales: Annotated[int, Field(ge=2, le=1024)] = 64
    slices: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(max_length=64)] | None = None
    entroformer: EntroformerConfig | None = None
    passes: InitVar[Literal[2]] = 2
    """Written no longer: shipped weights are of a time when there was a choice of it."""

    def __post_init__(self, passes: int) -> None:
        if self.scale_low >= self.scale_high:
            raise OptionError(f"scale_high: above scale_low ({self.scale_low:g}), not {self.scale_high:g}")
        if self.slices is None:
            return
        if self.entroformer is not None:
            raise OptionError("slices: an Entroformer has none")
        if abs(sum(self.slices) - 1) > 1e-6:
            raise OptionError(f"slices: shares of sum 1, not {list(self.slices)}")

    def check(self, latent: int) -> None:
        """Raises OptionError where so many channels are too few for the slices."""
        try:
            slices_of(latent, self.slices or (1.0,))
        except OptionError as e:
            raise OptionError(f"entropy.{e}") from None


def entropy_model(latent: int, config: EntropyConfig) -> EntropyModel:
    """The entropy model of a configuration, with first weights, for `latent` channels. Raises OptionError where they are too
    few for the slices.
    """
    c = config
    grid = ScaleGrid(c.scale_low, c.scale_high, c.scales)
    if c.entroformer is not None:
        return Entroformer(latent, c.entroformer, grid)
    if c.slices is not None:
        return SlicedEntropy(latent, c.slices, c.hyper, c.width, c.context, c.hidden, c.cond, grid)
    return TwoPassEntropy(latent, c.hyper, c.width, c.context, c.hidden, c.cond, grid)


def read_config(cls: type[T], values: Any, name: str) -> T:
    """`read_settings`, of what a weights file says. Raises WeightsError."""
    try:
        return read_settings(cls, values, name)
    except OptionError as e:
        raise WeightsError(f"bad configuration: {e}") from None
