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
from unquant.settings import read_settings, settings

__all__ = ["EntropyConfig", "entropy_model", "read_config"]

T = TypeVar("T")


@settings
class EntropyConfig:
    """Sizes of the entropy model and of its grid of scales.

    hyper, width, context, hidden, cond: of `TwoPassEntropy`. slices: shares of the channels for a `SlicedEntropy` in place of
    that, in coding order, of sum 1. entroformer: the sizes of an `Entroformer` in place of both, which has no use for those
    five. Raises OptionError for shares of another sum, and for slices of an Entroformer.
    """

    hyper: int = 96
    width: int = 224
    context: int = 224
    hidden: int = 448
    cond: int = 48
    scale_low: float = 0.12
    scale_high: float = 64.0
    scales: int = 64
    slices: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = None
    entroformer: EntroformerConfig | None = None
    passes: InitVar[Literal[2]] = 2
    """Written no longer: shipped weights are of a time when there was a choice of it."""

    def __post_init__(self, passes: int) -> None:
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
