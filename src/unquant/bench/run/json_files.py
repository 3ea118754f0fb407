"""JSON of results: whole files, and nothing in them that other readers of JSON would refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from unquant.files import write_whole

__all__ = ["read_json", "write_json"]


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None  # pyright: ignore[reportUnknownVariableType]


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write JSON in one step; what is not finite becomes null. Raises InputError where it cannot be written."""
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, text, force=True)


def _plain(value: object) -> object:
    """The value in what JSON knows: infinite and undefined numbers become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast(Mapping[object, object], value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast(Sequence[object], value)]
    return value
