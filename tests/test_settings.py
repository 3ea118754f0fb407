"""Settings: what their annotations say is held, whoever makes them, and a refusal names place, range and value."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import FrozenInstanceError, asdict, field, replace
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, PositiveInt

from unquant.errors import OptionError
from unquant.settings import Share, read_settings, settings


@settings
class Inner:
    share: Share = 0.5
    sizes: tuple[PositiveInt, ...] = (1, 2)


@settings
class Outer:
    size: Annotated[int, Field(ge=32, multiple_of=16)] = 64
    rate: float = 1.0
    kind: Literal["a", "b"] = "a"
    on: bool = False
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None

    def __post_init__(self) -> None:
        if self.rate > self.size:
            raise OptionError(f"rate: at most size ({self.size}), not {self.rate}")


@settings
class Heir(Inner):
    share: Annotated[float, Field(ge=0.25, le=1)] = 0.25


def test_what_a_file_says() -> None:
    read = read_settings(Outer, {"rate": 2, "maybe": {"sizes": [3]}}, "t")
    assert read == Outer(rate=2.0, maybe=Inner(sizes=(3,)))
    assert type(read.rate) is float
    assert read_settings(Outer, asdict(read), "t") == read
    assert read_settings(Outer, {}, "t") == Outer()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": 100}, "t.size: must be at least 32 and a multiple of 16, not 100"),
        ({"size": 64.0}, "t.size: must be a valid integer, not 64.0"),
        ({"size": True}, "t.size: must be a valid integer, not True"),
        ({"rate": True}, "t.rate: must be a valid number, not True"),
        ({"rate": "1"}, "t.rate: must be a valid number, not '1'"),
        ({"on": 1}, "t.on: must be a valid boolean, not 1"),
        ({"kind": "c"}, "t.kind: must be 'a' or 'b', not 'c'"),
        ({"inner": 3}, "t.inner: must be a table of keys and values, not 3"),
        ({"inner": {"shares": 1}}, "t.inner.shares: unknown key"),
        ({"inner": {"share": 1.5}}, "t.inner.share: must be at least 0 and at most 1, not 1.5"),
        ({"maybe": {"share": math.nan}}, "t.maybe.share: must be at least 0 and at most 1, not nan"),
        ({"inner": {"sizes": [1, 0]}}, "t.inner.sizes.1: must be greater than 0, not 0"),
        ({"rate": 65}, "t.rate: at most size (64), not 65.0"),
        ({"on": 1, "kind": 2}, "t.kind: must be 'a' or 'b', not 2; t.on: must be a valid boolean, not 1"),
        ([], "t: must be a table of keys and values, not []"),
        ({"kind": "\ud800"}, "t: cannot be read: "),
    ],
)
def test_a_file_is_told_where_it_is_wrong(values: Any, words: str) -> None:
    with pytest.raises(OptionError) as error:
        read_settings(Outer, values, "t")
    assert str(error.value).startswith(words)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": 100}, "size: must be at least 32 and a multiple of 16, not 100"),
        ({"rate": math.inf}, "rate: at most size (64), not inf"),
        ({"sizes": 3}, "sizes: unknown key"),
    ],
)
def test_a_call_is_checked_as_well(values: Any, words: str) -> None:
    with pytest.raises(OptionError) as error:
        Outer(**values)
    assert str(error.value) == words
    with pytest.raises(OptionError):
        replace(Outer(), **values)


def test_an_heir_may_be_narrower() -> None:
    assert Heir(0.3).sizes == Inner().sizes
    with pytest.raises(OptionError, match=r"share: must be at least 0\.25 and at most 1, not 0"):
        Heir(share=0)


def test_they_are_frozen_dataclasses() -> None:
    made = Outer(maybe=Inner(share=1))
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == made
    assert len({made, replace(made), replace(made, on=True)}) == 2
    assert not hasattr(made, "__dict__")
    with pytest.raises(FrozenInstanceError):
        made.on = True  # pyright: ignore[reportAttributeAccessIssue]
