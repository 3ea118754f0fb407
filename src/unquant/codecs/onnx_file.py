"""The network of a weights file as an ONNX file, for other runtimes; no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from unquant.errors import OptionError, WeightsError
from unquant.families import AVIF_FAMILY, family_of
from unquant.networks.av1_onnx import av1_graph, halo_of
from unquant.weights_header import WeightsHeader, read_header, weights_id

__all__ = ["OnnxNetwork", "onnx_network"]

_TYPES: Final = ("int8", "float16", "float32")


class OnnxNetwork(NamedTuple):
    """A network as the bytes of an ONNX file, and what whoever runs it has to know.

    halo: receptive field beyond a position of 16 pixels, in such positions. default_realism: ρ of a decode that asks for
    none. weights_id, stream_id (hex): of the weights file.
    """

    data: bytes
    halo: int
    default_realism: float
    weights_id: str
    stream_id: str


def onnx_network(path: Path) -> OnnxNetwork:
    """The network of a weights file of the family `av1`, its numbers as they are stored.

    Raises OptionError for another family, ModelMissing, WeightsError for a file that is damaged, CodecMissing without the
    package onnx.
    """
    header = read_header(path)
    if header.family != AVIF_FAMILY.name:
        raise OptionError(f"{path}: a model of the family {header.family}; ONNX is made of {AVIF_FAMILY.name} alone")
    try:
        arrays = _arrays(path, header)
        realism = header.default_realism
        name, stream_id = weights_id(header.hashes), header.hashes["stream"][:8]
        halo = halo_of(arrays)
        said = {"family": header.family, "weights_id": name, "stream_id": stream_id, "halo": str(halo)}
        data = av1_graph(arrays, {**said, "default_realism": f"{realism:g}"})
    except WeightsError as e:
        raise WeightsError(f"{path}: damaged weights file: {e}") from None
    return OnnxNetwork(data, halo, realism, name, stream_id)


def _arrays(path: Path, header: WeightsHeader) -> dict[str, npt.NDArray[Any]]:
    """The tensors as they are stored: finite numbers that match the hashes. Raises WeightsError, and MemoryError."""
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as e:
        raise WeightsError(" ".join(str(e).split())) from None
    for name, array in arrays.items():
        if array.dtype not in _TYPES or not np.isfinite(array).all():
            raise WeightsError(f"{name}: not finite numbers of a network")
    if (found := _hashes(arrays)).items() - header.hashes.items():
        raise WeightsError(f"its tensors do not match its hashes ({', '.join(sorted(found))})")
    return arrays


def _hashes(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, str]:
    """As `weights_file.group_hashes`, of the groups that have tensors."""
    hashers: dict[str, Any] = {}
    for name in sorted(arrays):
        array = arrays[name]
        hasher = hashers.setdefault(family_of(AVIF_FAMILY.name).group_of(name), hashlib.sha256())
        hasher.update(f"{name} torch.{array.dtype} {list(array.shape)}\n".encode())
        hasher.update(array.tobytes() if array.ndim else b"")
    return {group: hasher.hexdigest() for group, hasher in hashers.items()}
