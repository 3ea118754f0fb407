"""What is done with each image, in a process that keeps its codec: bytes in, bytes out, a row of the manifest."""

from __future__ import annotations

import errno
import hashlib
import io
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import Any, Final

from unquant.bulk.sources import Item
from unquant.codecs.registry import find_model
from unquant.errors import InputError, UnquantError
from unquant.families import family_of
from unquant.places import Place

__all__ = ["ROW", "Task", "Worker", "empty_row"]

ROW: Final = {
    "source": "string",
    "output": "string",
    "bytes": "int64",
    "bpp": "float64",
    "width": "int32",
    "height": "int32",
    "seconds": "float64",
    "model": "string",
    "stream_id": "string",
    "source_bytes": "int64",
    "output_bytes": "int64",
    "source_sha256": "string",
    "output_sha256": "string",
    "error": "string",
    "kind": "string",
}
"""The columns of a manifest and their types. bytes: of the compressed file, whichever of the two it is. seconds: of the
codec. kind: the error's class; both null where all went well."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def empty_row(item: Item, output: str) -> dict[str, Any]:
    """A row that says nothing yet but what it is of."""
    return dict.fromkeys(ROW) | {"source": item.source, "output": output}


@dataclass(frozen=True)
class Task:
    """What a run does. decoding: `.unq` and `.avif` files to PNG; else images to files. model: its name or path. options:
    of `Codec.encode` or `decode`. output: the folder; None for beside the sources. column: of a Parquet source. max_pixels:
    of a picture."""

    decoding: bool
    model: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    output: Place | None = None
    column: str = "bytes"
    max_pixels: int | None = None

    @property
    def suffix(self) -> str:
        """Of the outputs."""
        return ".png" if self.decoding else f".{self.options.get('container', 'unq')}"

    def target(self, item: Item) -> Place:
        """Where an item's output goes."""
        stem = posixpath.splitext(item.relative)[0] + self.suffix
        if self.output is not None:
            return self.output.child(stem)
        source = Place(item.source)
        head, query = source.address()
        return Place(posixpath.splitext(head)[0] + self.suffix + query)

    def pixels(self, item: Item) -> int | None:
        """Width times height by the headers; None where they do not tell: whoever reads all of it will say why."""
        from unquant.codecs.info import info
        from unquant.images import pixel_count

        try:
            if item.group >= 0:
                data = item.read(self.column)
                return info(data).width * info(data).height if self.decoding else pixel_count(io.BytesIO(data))
            with Place(item.source).stream() as file:
                if not self.decoding:
                    return pixel_count(file, name=item.source)
                found = info(file)
                return found.width * found.height
        except (UnquantError, OSError, ValueError):
            return None


class Worker:
    """Keeps a codec and takes blocks of items. Raises ModelMissing or WeightsError."""

    def __init__(self, task: Task) -> None:
        self.task = task
        if task.decoding or not family_of(find_model(task.model).family).encoder:
            import torch

            torch.set_num_threads(1)

    @cached_property
    def encoder(self) -> Any:
        """A decode finds the codec of each file."""
        from unquant.codecs import loaded_encoder

        return loaded_encoder(self.task.model)

    def rows(self, items: list[Item]) -> list[dict[str, Any]]:
        """A row for each item. An image that cannot be done is a row with an error; a full disk is an error of the run:
        InputError."""
        return [self.row(item) for item in items]

    def row(self, item: Item) -> dict[str, Any]:
        """One item done, or why not."""
        target = self.task.target(item)
        row = empty_row(item, target.uri)
        try:
            source = item.read(self.task.column)
            row |= {"source_bytes": len(source), "source_sha256": hashlib.sha256(source).hexdigest()}
            start = perf_counter()
            output, described = self._decoded(source) if self.task.decoding else self._encoded(source, item.source)
            row |= {"seconds": perf_counter() - start, **described}
            target.write(output)
            row |= {"output_bytes": len(output), "output_sha256": hashlib.sha256(output).hexdigest()}
        except (UnquantError, MemoryError, OSError, ValueError) as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL:
                raise InputError(f"{error}") from error
            row |= {"error": str(error) or "out of memory", "kind": type(error).__name__}
        return row

    def _encoded(self, source: bytes, name: str) -> tuple[bytes, dict[str, Any]]:
        from unquant.codecs.info import info
        from unquant.images import open_image

        image = open_image(io.BytesIO(source), name=name, max_pixels=self.task.max_pixels)
        data = self.encoder.encode(image, max_pixels=self.task.max_pixels, **self.task.options)
        return data, _described(info(data))

    def _decoded(self, source: bytes) -> tuple[bytes, dict[str, Any]]:
        import unquant
        from unquant.codecs.info import info

        image = unquant.decode(source, max_pixels=self.task.max_pixels, **self.task.options)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue(), _described(info(source))


def _described(info: Any) -> dict[str, Any]:
    return {
        "bytes": info.bytes,
        "bpp": info.bpp,
        "width": info.width,
        "height": info.height,
        "model": info.model,
        "stream_id": info.stream_id,
    }
