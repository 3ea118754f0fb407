"""Settings: frozen dataclasses whose annotations say what each field may be. pydantic checks them, here it is set up.

Types are strict, except that a whole number will do for a fraction. What one annotation cannot say, such as what two fields
must be together, a class checks in its `__post_init__`, by an OptionError that begins with the field's name.
"""

from __future__ import annotations

from dataclasses import field, is_dataclass
from functools import wraps
from reprlib import Repr
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, to_json

from unquant.errors import OptionError

__all__ = [
    "Blocks",
    "Depth",
    "Depths",
    "Kernel",
    "QIndex",
    "Share",
    "Steps",
    "TileSide",
    "Width",
    "Widths",
    "read_settings",
    "settings",
]

T = TypeVar("T")

Share = Annotated[float, Field(ge=0, le=1)]

# what a configuration may ask of a network: many times the largest of ours, and made and refused within a moment
Width = Annotated[int, Field(ge=1, le=4096)]
"""Channels."""
Depth = Annotated[int, Field(ge=0, le=32)]
"""Blocks one after another."""
Blocks = Annotated[int, Field(ge=1, le=32)]
"""`Depth` where there is a block at least."""
Widths = Annotated[tuple[Width, ...], Field(max_length=8)]
Depths = Annotated[tuple[Blocks, ...], Field(max_length=8)]
Kernel = Literal[1, 3, 5, 7, 9, 11]
"""Side of a convolution."""
QIndex = Annotated[int, Field(ge=0, le=1023)]
"""As in the header of a file."""
TileSide = Annotated[int, Field(ge=4, le=256, multiple_of=4)]
"""In latent positions; a hyper-latent has 4 of them each way."""
Steps = Annotated[int, Field(ge=1, le=256)]
"""As in the header of a file."""

_MOST_ERRORS = 5
_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most", "multiple_of": "a multiple of"}


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def settings(cls: type[T]) -> type[T]:
    """A frozen dataclass with slots, checked when it is made. Raises OptionError naming every field that is wrong."""
    made: Any = dataclass(frozen=True, slots=True, config=ConfigDict(strict=True, extra="forbid"))(cls)
    check = made.__init__

    @wraps(check)
    def init(self: T, *args: Any, **kwargs: Any) -> None:
        try:
            check(self, *args, **kwargs)
        except ValidationError as e:
            raise _refusal(made, e) from None

    made.__init__ = init
    return made


def read_settings(cls: type[T], values: Any, name: str) -> T:
    """Settings from what a JSON or TOML file says: a table of keys and values, with lists for tuples.

    A missing key takes its default. name: what errors call the whole, `name.field` for a part. Raises OptionError for an
    unknown key, for a value of another type than the field's, and for what the class itself refuses.
    """
    try:
        return TypeAdapter(cls).validate_json(to_json(values))  # of JSON, strictness takes a table and a list
    except ValidationError as e:
        raise _refusal(cls, e, name) from None
    except ValueError as e:
        raise OptionError(f"{name}: cannot be read: {e}") from None


def _refusal(cls: Any, error: ValidationError, *name: str) -> OptionError:
    errors = error.errors(include_url=False)
    words = [_words(cls, each, name) for each in errors[:_MOST_ERRORS]]
    return OptionError("; ".join(words + ["and others"] * (len(errors) > _MOST_ERRORS)))


def _words(cls: Any, error: ErrorDetails, name: tuple[str, ...]) -> str:
    """One error: what is wrong where, what it may be, and what it is."""
    where = ".".join((*name, *map(str, error["loc"])))
    match error:
        case {"type": "value_error", "ctx": {"error": OptionError() as cause}}:  # of __post_init__
            return f"{where}.{cause}" if where else str(cause)
        case {"type": "unexpected_keyword_argument"}:
            return f"{where}: unknown key"
        case {"type": "dataclass_type"}:
            expected = "a table of keys and values"
        case _:
            expected = " and ".join(_limits(cls, error)) or error["msg"].removeprefix("Input should be ")
    return f"{where}: must be {expected}, not {_short.repr(error['input'])}"


def _limits(cls: Any, error: ErrorDetails) -> list[str]:
    """All bounds of a number that broke one, where the annotation of a field has them."""
    if not error.get("ctx", {}).keys() & _BOUNDS.keys():
        return []
    *path, name = error["loc"]
    for key in path:
        kind = cls.__pydantic_fields__[key].annotation
        cls = next(filter(is_dataclass, (kind, *get_args(kind))), None)
    known = cls.__pydantic_fields__[name].metadata if cls else ()  # a number of a list has no field
    return [f"{word} {getattr(part, key):g}" for part in known for key, word in _BOUNDS.items() if hasattr(part, key)]
