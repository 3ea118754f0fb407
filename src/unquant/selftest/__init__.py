"""Whether this machine finds in the package's golden files what others found: every symbol, and AV1's pictures.

What an instruction set changes in the entropy models' arithmetic must not reach a symbol (docs/design.md): it is checked
as the machine is, and with fewer instructions in processes of their own, as a process cannot change its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NotRequired, TypedDict

from unquant.codecs import load
from unquant.codecs.registry import SHIPPED_FOLDER
from unquant.errors import BitstreamError, UnquantError

if TYPE_CHECKING:
    from unquant.codecs.interface import AnyCodec
    from unquant.codecs.latent import AnyLatentCodec

__all__ = [
    "FOLDER",
    "INSTRUCTION_SETS",
    "TOLERANCE",
    "Entry",
    "Outcome",
    "check",
    "check_elsewhere",
    "entries",
    "symbols_of",
]

FOLDER: Final = Path(__file__).parent / "golden"
INSTRUCTION_SETS: Final[dict[str, dict[str, str]]] = {
    "as it is": {},
    "aten default": {"ATEN_CPU_CAPABILITY": "default"},
    "aten avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "onednn avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "onednn sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    # on the CPU the float64 products are MKL's: its portable code path sums in another order
    "mkl compatible": {"MKL_CBWR": "COMPATIBLE"},
}
"""Environment variables by what they leave of a CPU's instructions, in one library each. Most do nothing but on x86."""
TOLERANCE: Final = 2
"""Levels by which AV1's pictures may differ: YUV to RGB is the AVIF library's, and differs between builds."""


class Entry(TypedDict):
    """What is recorded of a file. symbols, sha256: number and checksum of the symbols, int32 little-endian in coding order.
    streams: checksums of the AV1 streams. picture: the file with their picture."""

    file: str
    weights: str
    stream_id: str
    symbols: NotRequired[int]
    sha256: NotRequired[str]
    streams: NotRequired[list[str]]
    picture: NotRequired[str]


@dataclass(frozen=True)
class Outcome:
    """capability: of the CPU, as torch names it. files: how many were decoded. wrong: a line for each not as recorded."""

    capability: str
    files: int
    wrong: list[str]


def entries(folder: Path = FOLDER) -> list[Entry]:
    """What is recorded of the files in a folder."""
    return json.loads((folder / "golden.json").read_text())


def symbols_of(codec: AnyLatentCodec, data: bytes) -> bytes:
    """The symbols of every tile of a file, int32 little-endian in coding order. Raises BitstreamError."""
    from unquant.codecs.tiles import TileReader
    from unquant.container import parse

    reader = TileReader(codec.exact, parse(data), codec.config.tile)
    return b"".join(reader.decode(number).symbols for number in range(len(reader.places)))


def check(folder: Path = FOLDER) -> Outcome:
    """Decodes every file of a folder in this process, with the package's weights. Raises ModelMissing and WeightsError."""
    import torch

    wrong: list[str] = []
    recorded = entries(folder)
    with torch.inference_mode():
        for name in sorted({entry["weights"] for entry in recorded}):
            codec = load(SHIPPED_FOLDER / f"{name}.safetensors")
            codec.precision = torch.float32
            for entry in recorded:
                if entry["weights"] == name and (cause := _difference(codec, entry, folder)):
                    wrong.append(f"{entry['file']}: {cause}")
    return Outcome(torch.backends.cpu.get_cpu_capability(), len(recorded), wrong)


def _difference(codec: AnyCodec, entry: Entry, folder: Path) -> str | None:
    """What is not as recorded in one file."""
    from unquant.codecs.latent import LatentCodec

    data = (folder / entry["file"]).read_bytes()
    if codec.stream_id.hex() != entry["stream_id"]:
        return f"of the stream {entry['stream_id']}; the package's is {codec.stream_id.hex()}"
    try:
        if "picture" in entry:
            return _picture_difference(codec, data, folder / entry["picture"])
        assert isinstance(codec, LatentCodec)
        digest = hashlib.sha256(symbols_of(codec, data)).hexdigest()
    except BitstreamError as error:
        return str(error)
    return "other symbols than those recorded" if digest != entry.get("sha256") else None


def _picture_difference(codec: AnyCodec, data: bytes, picture: Path) -> str | None:
    import numpy as np
    from PIL import Image

    found = codec.decode(data)
    with Image.open(picture) as expected:
        if (found.mode, found.size) != (expected.mode, expected.size):
            return f"a picture of {found.mode} {found.size}, not {expected.mode} {expected.size}"
        most = int(np.abs(np.asarray(found, int) - np.asarray(expected, int)).max())
    return f"a picture that is {most} levels off, more than {TOLERANCE}" if most > TOLERANCE else None


def check_elsewhere(instructions: str, folder: Path = FOLDER) -> Outcome:
    """`check` in a process of its own. instructions: of INSTRUCTION_SETS. Raises UnquantError where that process fails."""
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = (
        os.environ | INSTRUCTION_SETS[instructions] | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    )
    command = [sys.executable, "-P", "-m", "unquant.selftest", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        cause = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UnquantError(f"the check with {instructions}: {cause}")
    return Outcome(**json.loads(done.stdout))
