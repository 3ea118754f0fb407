"""Errors and warnings: they cross processes, and a warning points at who called the package."""

from __future__ import annotations

import pickle
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from unquant import errors
from unquant.errors import RateUnreachable, UnquantError, UnquantWarning, warn


def every_error() -> list[type[UnquantError]]:
    """UnquantError and all classes derived from it."""
    found = [UnquantError]
    for kind in found:
        found += kind.__subclasses__()
    return found


def test_every_error_is_listed() -> None:
    names = {kind.__name__ for kind in every_error() if kind.__module__ == errors.__name__}
    assert names == set(errors.__all__) - {"UnquantWarning", "warn"}
    assert all(name in (errors.__doc__ or "") for name in errors.__all__ if name != "warn")


@pytest.mark.parametrize("kind", every_error())
def test_errors_survive_pickling(kind: type[UnquantError]) -> None:
    extra = {"smallest": 321} if kind is RateUnreachable else {}
    error = kind("photo.png: what is wrong with it", **extra)
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert {name: getattr(again, name) for name in extra} == extra


def test_warnings_point_at_the_caller() -> None:
    with pytest.warns(UnquantWarning, match="left out") as caught:
        warn("left out")
    assert Path(caught[0].filename) == Path(__file__)
    # from deep within the package
    metadata = import_module("unquant.images.metadata")
    with pytest.warns(UnquantWarning, match="EXIF") as caught:
        metadata.parsed_exif(b"Exif\0\0broken", "a.jpg")
    assert Path(caught[0].filename) == Path(__file__)
    assert issubclass(UnquantWarning, UserWarning)


def test_warnings_can_be_told_apart() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", UnquantWarning)
        warn("left out")
        np.float32(1) / np.float32(0)
    assert [w.category for w in caught] == [RuntimeWarning]
