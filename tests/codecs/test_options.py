"""Options of an encode and a decode: what is in range, what excludes what, and the size that is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unquant.codecs.options import DecodeOptions, EncodeOptions
from unquant.errors import OptionError


def test_what_is_in_range() -> None:
    for options in (
        {"quality": 0},
        {"quality": 100},
        {"bpp": 1e-9},
        {"target_bytes": 1},
        {"q_index": np.zeros((2, 3), np.uint16)},
        {"effort": 9, "container": "avif", "realism": 1, "steps": 3, "seed": 2**64 - 1},
        {"seed": np.int64(3)},
    ):
        EncodeOptions(**options)
    assert DecodeOptions(seed=0, realism=0.5) == DecodeOptions(realism=0.5, seed=0)
    DecodeOptions(preview=True, realism=0)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"quality": 101}, "quality must lie in 0..100, got 101"),
        ({"quality": 10, "bpp": 1, "q_index": 3}, "quality and bpp and q_index exclude each other"),
        ({"bpp": 0}, "bpp must be positive, got 0"),
        ({"target_bytes": 1.0}, "target_bytes must be a positive whole number, got 1.0"),
        ({"target_bytes": True}, "target_bytes must be a positive whole number, got True"),
        ({"effort": 0}, "effort must be a whole number in 1..9, got 0"),
        ({"container": "webp"}, "container: unq or avif, not 'webp'"),
        ({"realism": 1.1}, "realism must lie in 0..1, got 1.1"),
        ({"realism": "high"}, "realism must lie in 0..1, got 'high'"),
        ({"seed": -1}, r"seed must be a whole number in 0..2\^64-1, got -1"),
        ({"seed": 1.5}, r"seed must be a whole number in 0..2\^64-1, got 1.5"),
    ],
)
def test_what_is_not(options: dict[str, Any], cause: str) -> None:
    with pytest.raises(OptionError, match=f"^{cause}$"):
        EncodeOptions(**options)
    if options.keys() <= {"realism", "seed"}:
        with pytest.raises(OptionError, match=f"^{cause}$"):
            DecodeOptions(**options)


def test_a_preview_excludes_realism() -> None:
    with pytest.raises(OptionError, match="excludes a realism"):
        DecodeOptions(preview=True, realism=0.5)


def test_the_size_that_is_asked_for() -> None:
    assert EncodeOptions(quality=3).target(1000) is None
    assert EncodeOptions(target_bytes=77).target(1000) == 77
    assert EncodeOptions(bpp=0.5).target(1001) == 62
