"""Weights files: safetensors with a JSON configuration, integer coding tables and hashes in one file; never pickle.

A file's metadata holds `format`, `family`, `config` (JSON), `hashes` (JSON, SHA-256 by group of tensors) and `training`
(JSON, free). The groups: `stream` is what a decoder needs for the symbols and for ŷ (entropy networks without h_a, tables,
latent definition), and its first four bytes are the stream id in every `.unq` file; `analysis`, `synthesis` and `reverse`
may be replaced without breaking a file.

A file of the second format stores some weights of `synthesis` and `reverse` as int8, each with a tensor NAME.int8_scale (o)
beside it: fp16, one scale per output channel. Their product in float32 is the same on every machine. Hashes are of what is
stored.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unquant.entropy.base import HYPER_STRIDE
from unquant.errors import InputError, ModelMissing, WeightsError
from unquant.families import family_of
from unquant.files import whole_file, write_whole
from unquant.networks.common import Q_INDEX_OCTAVE
from unquant.networks.config import EntropyConfig
from unquant.weights_header import FORMAT, FORMAT_INT8, INT8_SCALE, read_header, weights_id

__all__ = [
    "FORMAT",
    "FORMAT_INT8",
    "TABLES",
    "Weights",
    "group_hashes",
    "join_shards",
    "quantisable",
    "read_weights",
    "write_shards",
    "write_weights",
]

SHARD_BYTES = 15 * 2**20
_INDEX = "ema.json"
TABLES = "tables."
"""What the names of a coder's tables begin with."""
_LEAST_INT8 = 4096
_LARGEST_ERROR = 1 / 80
"""Of int8, root mean square over that of the weights (38 dB): a bell of weights has half of it. Weights that int8 hits harder
have outliers, mostly where inputs of very different size meet, and stay fp16."""


@dataclass(frozen=True)
class Weights:
    """One weights file: family, configuration, tensors by name, SHA-256 hashes by group, notes on its training.

    int8: names of the tensors that are stored as int8; in `tensors` they are float32, and no scales.
    """

    family: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    hashes: dict[str, str]
    training: dict[str, Any]
    int8: frozenset[str] = frozenset()

    @property
    def stream_id(self) -> bytes:
        """The four bytes that name these weights in a file's header."""
        return bytes.fromhex(self.hashes["stream"][:8])

    @property
    def weights_id(self) -> str:
        """A short name of what decodes: the starts of the hashes of stream, synthesis and reverse (if any), in hex."""
        return weights_id(self.hashes)


def group_hashes(family: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of every group of tensors: names, types, shapes and bytes; `stream` covers the latent definition as well."""
    described = family_of(family)
    hashers: dict[str, Any] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        hasher = hashers.setdefault(described.group_of(name), hashlib.sha256())
        hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        hasher.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    entropy, compressor = config.get("entropy"), config.get("compressor")
    if isinstance(entropy, dict):
        # what a model does not have is as if its key had never been thought of: a later key changes no stream id, nor does
        # one that is written no longer
        entropy = {key: value for key, value in entropy.items() if value is not None and (key, value) != ("passes", 2)}
    latent = {
        "family": family,
        "latent": (compressor if isinstance(compressor, dict) else config).get("latent"),
        "tile": config.get("tile"),
        "entropy": entropy,
        "q_index_octave": Q_INDEX_OCTAVE,
        "hyper_stride": HYPER_STRIDE,
    }
    hashers.setdefault("stream", hashlib.sha256()).update(json.dumps(latent, sort_keys=True).encode())
    return {group: hasher.hexdigest() for group, hasher in sorted(hashers.items())}


def quantisable(family: str, tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """The tensors that a small file stores as int8: large weights of convolutions and linear layers that no stream needs.

    Not the analysis either, so that an encoder makes the same files; not the linear transforms beside the networks, whose
    error would stand in the picture undiminished; nor weights whose channels are so uneven that int8 is coarse for them.
    """
    return frozenset(
        name
        for name, tensor in tensors.items()
        if family_of(family).group_of(name) in ("synthesis", "reverse")
        and name.endswith(".weight")
        and tensor.ndim >= 2
        and tensor.numel() >= _LEAST_INT8
        and _error(tensor.float()) <= _LARGEST_ERROR
    )


def _error(weight: Tensor) -> float:
    return float((_dequantised(*_quantised(weight)) - weight).norm() / weight.norm().clamp(min=1e-30))


def _quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (o, ...) as int8 in −127..127 and fp16 scales (o); what was dequantised comes back as it was."""
    rows = weight.float().flatten(1)
    scales = (rows.abs().amax(1) / 127).half()
    divisors = scales.float()[:, None]
    codes = torch.where(divisors > 0, rows / divisors, 0.0).round().clamp(-127, 127)
    return codes.to(torch.int8).view(weight.shape), scales


def _dequantised(codes: Tensor, scales: Tensor) -> Tensor:
    return codes.float() * scales.float().view(-1, *[1] * (codes.ndim - 1))


def _with_scales(tensors: Mapping[str, Tensor], int8: Collection[str]) -> dict[str, Tensor]:
    """Tensors as they are stored, by name in order."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name in int8:
        stored[name], stored[name + INT8_SCALE] = _quantised(stored[name])
    return dict(sorted(stored.items()))


def _without_scales(stored: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], frozenset[str]]:
    """The inverse of `_with_scales`, and which tensors are int8. Raises WeightsError where the two do not go together."""
    tensors = {name: tensor for name, tensor in stored.items() if not name.endswith(INT8_SCALE)}
    int8 = frozenset(name for name, tensor in tensors.items() if tensor.dtype == torch.int8)
    if {name + INT8_SCALE for name in int8} != stored.keys() - tensors.keys():
        raise WeightsError("int8 weights and scales do not go together")
    for name in int8:
        codes, scales = tensors[name], stored[name + INT8_SCALE]
        if codes.ndim < 1 or scales.dtype != torch.float16 or scales.shape != codes.shape[:1]:
            raise WeightsError(f"{name}: not one fp16 scale per output channel")
        tensors[name] = _dequantised(codes, scales)
    return tensors, int8


def write_weights(
    path: Path,
    family: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    training: Mapping[str, Any],
    int8: Collection[str] = (),
) -> Weights:
    """Write one weights file with its hashes, in one step; one that exists is replaced. Returns what was written.

    The tensors are written as they are given, those named by `int8` in that precision; see `quantisable`. Raises
    InputError where the file cannot be written.
    """
    stored = _with_scales(tensors, int8)
    hashes = group_hashes(family, config, stored)
    metadata = {
        "format": FORMAT_INT8 if int8 else FORMAT,
        "family": family,
        "config": json.dumps(config, sort_keys=True),
        "hashes": json.dumps(hashes, sort_keys=True),
        "training": json.dumps(training, sort_keys=True),
    }
    _save(path, stored, metadata)
    return Weights(family, dict(config), _without_scales(stored)[0], hashes, dict(training), frozenset(int8))


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    with whole_file(path, force=True) as temporary:
        try:
            save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as e:
            raise InputError(f"{path}: cannot be written: {e}") from e


def read_weights(path: Path, *, verify: bool = True) -> Weights:
    """Read a weights file, check its hashes, and that all weights are finite.

    Raises ModelMissing when there is no such file, WeightsError when it is damaged or of another format, MemoryError.
    """
    header = read_header(path)
    try:
        stored = _stored(path)
        if verify and group_hashes(header.family, header.config, stored) != header.hashes:
            raise WeightsError("its tensors do not match its hashes")
        tensors, int8 = _without_scales(stored)
        for name, tensor in tensors.items():
            if name.startswith(TABLES):
                if tensor.dtype not in (torch.int32, torch.float64):
                    raise WeightsError(f"{name}: no numbers of a table")
            elif not tensor.is_floating_point() or not bool(torch.isfinite(tensor.float()).all()):
                raise WeightsError(f"{name}: not finite numbers")
    except WeightsError as e:
        raise WeightsError(f"{path}: damaged weights file: {e}") from None
    return Weights(header.family, header.config, tensors, header.hashes, header.training, int8)


def _stored(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name. Raises WeightsError without the file's name, and MemoryError."""
    try:
        with safe_open(path, framework="pt") as f:
            return {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as e:
        # the library maps the file, torch does so again, and neither has an error of its own for that
        if getattr(e, "errno", None) == errno.ENOMEM or "annot allocate memory" in str(e):
            raise MemoryError(f"{path}: the weights file does not fit into it") from e
        raise WeightsError(" ".join(str(e).split())) from e


def write_shards(
    folder: Path, family: str, config: Mapping[str, Any], state: Mapping[str, Tensor], training: Mapping[str, Any]
) -> None:
    """Write a model's state as fp16 shards of at most 15 MiB with an index `ema.json`, for transport; see `join_shards`.

    A coder's tables among it stay as they are. Raises WeightsError for a tensor that is not finite, InputError where the
    folder cannot be written.
    """
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        half = tensor.detach().to("cpu", tensor.dtype if name.startswith(TABLES) else torch.float16).contiguous()
        if not bool(torch.isfinite(half).all()):
            raise WeightsError(f"{name}: not finite in fp16, weights not exported")
        if size + half.nbytes > SHARD_BYTES and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = half
        size += half.nbytes
    names = [f"ema-{i + 1:02d}-of-{len(shards):02d}.safetensors" for i in range(len(shards))]
    for stale in set(folder.glob("ema-*.safetensors")) - {folder / n for n in names}:
        stale.unlink()
    for name, shard in zip(names, shards, strict=True):
        _save(folder / name, shard)
    index = {"family": family, "config": config, "shards": names, "training": training}
    write_whole(folder / _INDEX, json.dumps(index, indent=1, sort_keys=True), force=True)


def read_shards(folder: Path) -> Weights:
    """What `write_shards` wrote (no hashes). Raises ModelMissing or WeightsError."""
    index_path = folder / _INDEX
    if not index_path.is_file():
        raise ModelMissing(f"{index_path}: no export here; a training run writes one every few minutes")
    try:
        index = json.loads(index_path.read_text())
        tensors: dict[str, Tensor] = {}
        for name in index["shards"]:
            tensors |= _stored(folder / name)
        return Weights(index["family"], index["config"], tensors, {}, index["training"])
    except (WeightsError, OSError, KeyError, TypeError, ValueError, RecursionError) as e:
        raise WeightsError(f"{folder}: damaged export: {e}") from e


def join_shards(folder: Path, path: Path, *, int8: bool = False) -> Weights:
    """Join an export into one weights file that encodes and decodes: adds the hashes and, to an entropy model, its tables,
    unless it comes with those of the weights that it was trained from.

    int8: a smaller file, see `quantisable`. Raises ModelMissing, WeightsError, InputError.
    """
    export = read_shards(folder)
    config = family_of(export.family).load("config").from_dict(export.config)
    tensors = export.tensors
    if isinstance(entropy := getattr(config, "entropy", None), EntropyConfig):
        given = _given_tables(tensors, entropy)
        tensors = {k: v for k, v in tensors.items() if not k.startswith(TABLES)} | (given or _tables(entropy))
    chosen = quantisable(export.family, tensors) if int8 else ()
    return write_weights(path, export.family, export.config, tensors, export.training, chosen)


def _given_tables(tensors: Mapping[str, Tensor], entropy: EntropyConfig) -> dict[str, Tensor]:
    """The coder's tables among the tensors of weights, by name; none where they are of other scales.

    numpy's versions and instruction sets differ in the last digit of a scale, and a stream id is that of every digit.
    """
    scales = tensors.get(f"{TABLES}scales", torch.empty(0)).flatten()
    known = len(scales) and (len(scales), *scales[[0, -1]].tolist())
    if known != (entropy.scales, entropy.scale_low, entropy.scale_high):
        return {}
    return {name: tensor for name, tensor in tensors.items() if name.startswith(TABLES)}


def _tables(entropy: EntropyConfig) -> dict[str, Tensor]:
    """The integer tables of an entropy model."""
    # needs the entropy coder's package, which a training machine may lack
    from unquant.coding.tables import gaussian_tables, scale_grid

    tables = gaussian_tables(scale_grid(entropy.scale_low, entropy.scale_high, entropy.scales))
    return {f"{TABLES}{name}": torch.from_numpy(array.copy()) for name, array in tables.to_arrays().items()}
