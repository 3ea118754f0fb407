"""Which weights are installed. Reads only the files' JSON headers: no torch."""

from __future__ import annotations

import filecmp
import math
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from unquant.container import parse_header
from unquant.container.avif import is_avif
from unquant.errors import ModelMissing, OptionError, WeightsError, warn
from unquant.families import AVIF_FAMILY, FAMILIES
from unquant.weights_header import read_header, weights_id

__all__ = [
    "DEFAULT_MODEL",
    "FOLDER_VARIABLE",
    "SHIPPED_FOLDER",
    "ModelInfo",
    "find_decoder",
    "find_model",
    "find_stream",
    "models",
]

DEFAULT_MODEL = "av1"
"""The model where nobody names one: at equal bytes the best of those in the package (docs/av1.md)."""
FOLDER_VARIABLE = "UNQUANT_WEIGHTS"
"""Environment variable: a folder of further weights files, such as earlier versions that old files need."""
SHIPPED_FOLDER = Path(__file__).parent.parent / "weights"
"""The folder of the weights in the package."""
_told: set[str] = set()
"""What is wrong with weights files, as far as it was said."""
_BESIDE = re.compile(r"^tables\.|\.int8_scale$")
"""Names of tensors that are no parameters; see `unquant.weights_file`."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """An installed weights file. stream_id: hex, as in a file's header. parameters: of the networks alone."""

    name: str
    family: str
    path: Path
    bytes: int
    stream_id: str
    weights_id: str
    parameters: int
    training: dict[str, Any]

    @property
    def draws_avif(self) -> bool:
        """Whether it draws `.avif` files: any of them."""
        return self.family in FAMILIES and FAMILIES[self.family].draws_avif


def read_info(path: Path) -> ModelInfo:
    """Describe one weights file from its header. Raises ModelMissing or WeightsError."""
    state: tuple[int, ...] = ()
    with suppress(OSError, ValueError):  # reading it says what is wrong
        found = path.stat()
        state = found.st_ino, found.st_size, found.st_mtime_ns
    return _described(path, *state)


@lru_cache  # checking a header takes milliseconds, and every file that is written asks for its model
def _described(path: Path, *state: int) -> ModelInfo:
    """state: whatever changes when the file does."""
    header = read_header(path)
    return ModelInfo(
        name=path.stem,
        family=header.family,
        path=path,
        bytes=header.bytes,
        stream_id=header.hashes["stream"][:8],
        weights_id=weights_id(header.hashes),
        parameters=sum(math.prod(shape) for name, shape in header.shapes.items() if not _BESIDE.search(name)),
        training=header.training,
    )


def _folders() -> list[Path]:
    extra = os.environ.get(FOLDER_VARIABLE)
    return [SHIPPED_FOLDER, *([Path(extra)] if extra else [])]


def models() -> list[ModelInfo]:
    """The installed models, the package's first, then those of the folder that UNQUANT_WEIGHTS names.

    A damaged weights file is left out with a warning, once in a process: the others still serve.
    """
    found: list[ModelInfo] = []
    for path in (path for folder in _folders() for path in sorted(folder.glob("*.safetensors"))):
        try:
            found.append(read_info(path))
        except (WeightsError, ModelMissing) as e:  # missing: a link to nothing
            _tell(f"{e}; left out")
    return found


def _tell(message: str) -> None:
    """A warning, once in a process."""
    if message not in _told:
        _told.add(message)
        warn(message)


def find_model(model: str | os.PathLike[str]) -> ModelInfo:
    """A model by its name or by the path of its weights file. Raises ModelMissing naming what is installed."""
    if not isinstance(model, str) or model.endswith(".safetensors") or os.sep in model:
        return read_info(Path(model))
    entries = models()
    for entry in entries:
        if entry.name == model:
            return entry
    names = ", ".join(e.name for e in entries) or "none"
    raise ModelMissing(f"no model named {model!r} is installed (installed: {names}; looked in {_where()})")


def find_stream(family: str, stream_id: bytes) -> ModelInfo:
    """The installed model that decodes a stream id: the package's own comes before any of the folder that UNQUANT_WEIGHTS
    names, which is left out with a warning unless it is the same file. Raises ModelMissing naming the weights that the file
    needs."""
    entries = [entry for entry in models() if (entry.family, entry.stream_id) == (family, stream_id.hex())]
    if entries:
        first = entries[0]
        for other in entries[1:]:
            if first.path.parent == SHIPPED_FOLDER and not _same_bytes(first.path, other.path):
                _tell(
                    f"{other.path}: has the stream id of the package's {first.name}, which decodes; left out unless named"
                )
        return first
    raise ModelMissing(
        f"this file needs {family} weights with stream id {stream_id.hex()}, which are not installed (looked in {_where()};"
        f" put the weights file into a folder and name it in {FOLDER_VARIABLE})"
    )


def find_decoder(data: bytes, model: str | os.PathLike[str] | None = None) -> ModelInfo:
    """The installed model that decodes a file: one of the stream id that a `.unq` names, the first that draws any `.avif`.

    model: this one instead, by name or path. Raises BitstreamError for bytes that are neither, ModelMissing, and OptionError
    for a model that draws no `.avif`.
    """
    if not is_avif(data):
        if model is not None:
            return find_model(model)
        header, _ = parse_header(data)
        return find_stream(header.family, header.stream_id)
    if model is not None:
        entry = find_model(model)
        if not entry.draws_avif:
            raise OptionError(
                f"{model}: a model of the family {entry.family} draws no .avif, only those of {AVIF_FAMILY.name} do"
            )
        return entry
    for entry in models():
        if entry.draws_avif:
            return entry
    raise ModelMissing(
        f"an .avif is drawn by weights of the family {AVIF_FAMILY.name}, of which none are installed (looked in {_where()};"
        f" put the weights file into a folder and name it in {FOLDER_VARIABLE})"
    )


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:  # of a file that is not needed
        return False


def _where() -> str:
    return ", ".join(str(folder) for folder in _folders())
