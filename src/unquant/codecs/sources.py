"""Compressed files as bytes, wherever they come from."""

from __future__ import annotations

import os
from typing import Any, cast

from unquant.codecs.options import Source
from unquant.container import DEFAULT_LIMITS
from unquant.errors import InputError, OptionTypeError

__all__ = ["file_bytes"]


def file_bytes(source: Source) -> bytes:
    """The bytes of a compressed file, given as bytes, a path or a binary stream; one beyond the limit of the format at most.

    Raises InputError, naming it, for what cannot be read, and OptionTypeError for anything else than those.
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    most = DEFAULT_LIMITS.now.max_file + 1
    try:
        if isinstance(source, str | os.PathLike):
            with open(source, "rb") as file:
                return file.read(most)
        if hasattr(source, "read"):
            data = cast(Any, source.read(most))
            if isinstance(data, bytes | bytearray):
                return bytes(data)
    except (OSError, ValueError) as e:  # a closed stream, or a path with a zero byte in it
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", "stream")
        raise InputError(f"{name}: cannot be read: {getattr(e, 'strerror', None) or e}") from e
    raise OptionTypeError(f"a file: its bytes, its path or a binary stream of it, not {type(source).__name__}")
