"""Configuration dataclasses from what JSON and TOML files say, every key and type checked; that of the entropy model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, TypeVar, cast, get_args, get_origin, get_type_hints

from unquant.entropy.base import EntropyModel
from unquant.entropy.entroformer import Entroformer, EntroformerConfig
from unquant.entropy.gaussian import ScaleGrid
from unquant.entropy.two_pass import TwoPassEntropy
from unquant.errors import OptionError, WeightsError

__all__ = ["EntropyConfig", "entropy_model", "filled", "read_config"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EntropyConfig:
    """Sizes of the entropy model and of its grid of scales.

    hyper, width, context, hidden, cond: of `TwoPassEntropy`. entroformer: the sizes of an `Entroformer` in place of that,
    which has no use for those five.
    """

    hyper: int = 96
    width: int = 224
    context: int = 224
    hidden: int = 448
    cond: int = 48
    scale_low: float = 0.12
    scale_high: float = 64.0
    scales: int = 64
    entroformer: EntroformerConfig | None = None

    retired: ClassVar[Mapping[str, Any]] = {"passes": 2}
    """Keys of before and the only value that they may have: shipped weights were written when there was a choice of it."""


def entropy_model(latent: int, config: EntropyConfig) -> EntropyModel:
    """The entropy model of a configuration, with first weights, for `latent` channels."""
    c = config
    grid = ScaleGrid(c.scale_low, c.scale_high, c.scales)
    if c.entroformer is not None:
        return Entroformer(latent, c.entroformer, grid)
    return TwoPassEntropy(latent, c.hyper, c.width, c.context, c.hidden, c.cond, grid)


def filled(cls: type[T], values: Any, name: str) -> T:
    """An instance of a dataclass whose fields all have defaults; a missing key takes its default.

    values: a mapping of field names to numbers, strings and booleans, nested where a field is a dataclass; a list of whole
    numbers where it is a tuple of such; a field that may be None takes None. name: what errors call the whole, `name.field`
    for a part. A key that the class has `retired` is passed over. Raises OptionError for an unknown key, for a value of
    another type than the field's (a whole number will do for a fraction), and for what the class itself refuses.
    """
    if not isinstance(values, dict):
        raise OptionError(f"{name}: must be a table of keys and values, not {values!r}")
    retired = getattr(cls, "retired", {}).items()
    values = {key: value for key, value in values.items() if (key, value) not in retired}
    kinds = get_type_hints(cls)
    if unknown := sorted(set(values) - {f.name for f in fields(cls)}):  # pyright: ignore[reportArgumentType]
        raise OptionError(f"{name}: unknown key: {', '.join(unknown)}")
    found: dict[str, Any] = {}
    for key, value in values.items():
        if get_origin(kinds[key]) is tuple:
            if not isinstance(value, list | tuple) or any(type(each) is not int for each in cast(list[Any], value)):
                raise OptionError(f"{name}.{key}: must be a list of whole numbers, not {value!r}")
            found[key] = tuple(cast(list[int], value))
            continue
        kind, *others = get_args(kinds[key]) or (kinds[key],)
        if value is None and type(None) in others:
            found[key] = None
        elif is_dataclass(kind):
            found[key] = filled(cast(type[Any], kind), value, f"{name}.{key}")
        elif type(value) is kind:
            found[key] = value
        elif kind is float and type(value) is int:
            found[key] = float(value)
        else:
            raise OptionError(f"{name}.{key}: must be of type {kind.__name__}, not {value!r}")
    try:
        return cls(**found)
    except OptionError as e:
        raise OptionError(f"{name}.{e}") from None


def read_config(cls: type[T], values: Any, name: str) -> T:
    """`filled`, of what a weights file says. Raises WeightsError."""
    try:
        return filled(cls, values, name)
    except OptionError as e:
        raise WeightsError(f"bad configuration: {e}") from None
