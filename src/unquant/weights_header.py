"""The header of a weights file, read without torch. Nothing in it is believed before it is checked.

Lists of models need no more of a file. What its configuration means, and whether the tensors fit it, is asked on loading.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from unquant.errors import ModelMissing, WeightsError

__all__ = ["FORMAT", "FORMAT_INT8", "INT8_SCALE", "WeightsHeader", "read_header", "weights_id"]

FORMAT: Final = "unquant-weights/1"
FORMAT_INT8: Final = "unquant-weights/2"
"""Of files with int8 weights: a reader that knows nothing of scales must not take them for weights."""
INT8_SCALE: Final = ".int8_scale"
"""Ends the name of the scales, (o) fp16, of a tensor that is stored as int8."""
_MAX_FILE: Final = 2**30
_MAX_HEADER: Final = 4 * 2**20
_MAX_DIMENSIONS: Final = 8
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """What a weights file says of itself. bytes: of the file. shapes: of the tensors by name, none larger than the file.

    hashes: SHA-256 in hex by group of tensors, `stream` among them; see `unquant.weights_file`.
    """

    bytes: int
    family: str
    config: dict[str, Any]
    hashes: dict[str, str]
    training: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def default_realism(self) -> float:
        """ρ of a decode that asks for none. Raises WeightsError."""
        realism: Any = self.config.get("default_realism", 1.0)
        if isinstance(realism, bool) or not isinstance(realism, int | float) or not 0 <= realism <= 1:
            raise WeightsError("default_realism: not in 0..1")
        return float(realism)


def weights_id(hashes: Mapping[str, str]) -> str:
    """A short name of what decodes: the starts of the hashes of stream, synthesis and reverse (if any), in hex."""
    return "-".join(hashes[group][:8] for group in ("stream", "synthesis", "reverse") if group in hashes)


def read_header(path: Path) -> WeightsHeader:
    """The header of a weights file. Raises ModelMissing where there is no file, WeightsError naming it for any other."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a FIFO would be waited for
            raise WeightsError("not a regular file")
        if found.st_size > _MAX_FILE:
            raise WeightsError(f"{found.st_size} bytes, where weights have {_MAX_FILE} at most")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_MAX_HEADER, found.st_size):
                raise WeightsError("not a safetensors file")
            header = _table(json.loads(file.read(length)), "the header")
        return _checked(header, found.st_size)
    except FileNotFoundError:
        raise ModelMissing(f"{path}: no such weights file") from None
    except WeightsError as e:
        raise WeightsError(f"{path}: damaged weights file: {e}") from None
    except OSError as e:
        raise WeightsError(f"{path}: weights file cannot be read: {e.strerror or e}") from e
    except (ValueError, RecursionError) as e:  # no JSON, no UTF-8, a path with a zero byte in it
        raise WeightsError(f"{path}: damaged weights file: {e}") from None


def _checked(header: dict[str, Any], size: int) -> WeightsHeader:
    metadata = _table(header.pop("__metadata__", {}), "its metadata")
    if metadata.get("format") not in (FORMAT, FORMAT_INT8):
        raise WeightsError(f"not an unquant weights file (format {str(metadata.get('format'))[:40]!r})")
    family = metadata.get("family")
    if not isinstance(family, str):
        raise WeightsError("no family")
    config, hashes, training = (_inner(metadata, key) for key in ("config", "hashes", "training"))
    if "stream" not in hashes or not all(isinstance(each, str) and _HASH.fullmatch(each) for each in hashes.values()):
        raise WeightsError("hashes: must be SHA-256 in hex by group, `stream` among them")
    shapes = {name: _shape(tensor, name, size) for name, tensor in header.items()}
    return WeightsHeader(size, family, config, hashes, training, shapes)


def _inner(metadata: dict[str, Any], key: str) -> dict[str, Any]:
    """A table that stands as JSON in the metadata."""
    text = metadata.get(key)
    if not isinstance(text, str):
        raise WeightsError(f"no {key}")
    return _table(json.loads(text), key)


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WeightsError(f"{name}: must be a table of keys and values, not {type(value).__name__}")
    return cast(dict[str, Any], value)


def _shape(tensor: Any, name: str, size: int) -> tuple[int, ...]:
    """The shape of a tensor, whose values have at least a byte each."""
    shape: Any = _table(tensor, name).get("shape")
    fits = isinstance(shape, list) and len(cast(list[Any], shape)) <= _MAX_DIMENSIONS
    if not fits or not all(type(n) is int and 0 <= n <= size for n in shape) or math.prod(shape) > size:
        raise WeightsError(f"{name}: no shape of a tensor in this file")
    return tuple(shape)
