"""The picture and the codec of the benchmarks' own tests."""

from __future__ import annotations

from stand_in import picture, stand_in

__all__ = ["picture", "stand_in"]
