"""Configuration dataclasses from what JSON and TOML files say, every key and type checked."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast, get_args, get_type_hints

from unquant.errors import OptionError

__all__ = ["filled"]

T = TypeVar("T")


def filled(cls: type[T], values: Any, name: str) -> T:
    """An instance of a dataclass whose fields all have defaults; a missing key takes its default.

    values: a mapping of field names to numbers, strings and booleans, nested where a field is a dataclass; a field that may
    be None takes None. name: what errors call the whole, `name.field` for a part. Raises OptionError for an unknown key, for
    a value of another type than the field's (a whole number will do for a fraction), and for what the class itself refuses.
    """
    if not isinstance(values, dict):
        raise OptionError(f"{name}: must be a table of keys and values, not {values!r}")
    kinds = get_type_hints(cls)
    if unknown := sorted(set(values) - {f.name for f in fields(cls)}):  # pyright: ignore[reportArgumentType]
        raise OptionError(f"{name}: unknown key: {', '.join(unknown)}")
    found: dict[str, Any] = {}
    for key, value in values.items():
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
