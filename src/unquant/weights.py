"""Weights files: safetensors with a JSON configuration, integer coding tables and hashes in one file; never pickle.

A file's metadata holds `format`, `family`, `config` (JSON), `hashes` (JSON, SHA-256 by group of tensors) and `training`
(JSON, free). The groups: `stream` is what a decoder needs for the symbols and for ŷ (entropy networks without h_a, tables,
latent definition), and its first four bytes are the stream id in every `.unq` file; `analysis`, `synthesis` and `reverse`
may be replaced without breaking a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unquant.entropy.two_pass import HYPER_STRIDE
from unquant.errors import ModelMissing, WeightsError
from unquant.models.families import family_of
from unquant.models.ratevar import Q_INDEX_OCTAVE

__all__ = [
    "FORMAT",
    "Weights",
    "group_hashes",
    "installed",
    "join_shards",
    "read_weights",
    "shipped_folder",
    "write_shards",
    "write_weights",
]

FORMAT = "unquant-weights/1"
SHARD_BYTES = 15 * 2**20
_INDEX = "ema.json"
_TABLES = ("tables.scales", "tables.counts", "tables.offsets")


@dataclass(frozen=True)
class Weights:
    """One weights file: family, configuration, tensors by name, SHA-256 hashes by group, notes on its training."""

    family: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    hashes: dict[str, str]
    training: dict[str, Any]

    @property
    def stream_id(self) -> bytes:
        """The four bytes that name these weights in a file's header."""
        return bytes.fromhex(self.hashes["stream"][:8])

    @property
    def weights_id(self) -> str:
        """A short name of what decodes: the starts of the hashes of stream, synthesis and reverse (if any), in hex."""
        groups = ("stream", "synthesis", "reverse")
        return "-".join(self.hashes[group][:8] for group in groups if group in self.hashes)


def shipped_folder() -> Path:
    """The folder of the weights in the package."""
    return Path(__file__).with_name("weights")


def installed(folder: Path | None = None) -> dict[str, Path]:
    """Model names and files that are installed: the *.safetensors of the package, or of another folder."""
    return {p.stem: p for p in sorted((folder or shipped_folder()).glob("*.safetensors"))}


def group_of(name: str) -> str:
    """The hash group of a tensor name."""
    if name.startswith(("g_a.", "entropy.analysis.")):
        return "analysis"
    if name.startswith(("entropy.", "tables.")):
        return "stream"
    return "reverse" if name.startswith("f.") else "synthesis"


def group_hashes(family: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of every group of tensors: names, types, shapes and bytes; `stream` covers the latent definition as well."""
    hashers: dict[str, Any] = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        hasher = hashers.setdefault(group_of(name), hashlib.sha256())
        hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        hasher.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    entropy, compressor = config.get("entropy"), config.get("compressor")
    if isinstance(entropy, dict):
        # what a model does not have is as if its key had never been thought of: a later key changes no stream id; without
        # a key there are two passes
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


def write_weights(
    path: Path, family: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], training: Mapping[str, Any]
) -> Weights:
    """Write one weights file with its hashes; the tensors are written as they are given. Returns what was written."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    hashes = group_hashes(family, config, stored)
    metadata = {
        "format": FORMAT,
        "family": family,
        "config": json.dumps(config, sort_keys=True),
        "hashes": json.dumps(hashes, sort_keys=True),
        "training": json.dumps(training, sort_keys=True),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    save_file(stored, partial, metadata=metadata)
    partial.chmod(0o644)  # the library makes it readable to its owner alone
    partial.replace(path)
    return Weights(family, dict(config), stored, hashes, dict(training))


def read_weights(path: Path, *, verify: bool = True) -> Weights:
    """Read a weights file and check its hashes.

    Raises ModelMissing when there is no such file, WeightsError when it is damaged or of another format.
    """
    if not path.is_file():
        raise ModelMissing(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="pt") as f:
            metadata: dict[str, str] = dict(f.metadata() or {})
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  # not a mapping
        if metadata.get("format") != FORMAT:
            raise WeightsError(f"{path}: not an unquant weights file (format {metadata.get('format')!r})")
        config, hashes, training = (json.loads(metadata[k]) for k in ("config", "hashes", "training"))
        weights = Weights(metadata["family"], config, tensors, hashes, training)
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as e:
        raise WeightsError(f"{path}: damaged weights file: {e}") from e
    if verify and group_hashes(weights.family, config, tensors) != hashes:
        raise WeightsError(f"{path}: damaged weights file: its tensors do not match its hashes")
    return weights


def write_shards(
    folder: Path, family: str, config: Mapping[str, Any], state: Mapping[str, Tensor], training: Mapping[str, Any]
) -> None:
    """Write a model's state as fp16 shards of at most 15 MiB with an index `ema.json`, for transport; see `join_shards`."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        half = tensor.detach().to("cpu", torch.float16).contiguous()
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
        partial = folder / (name + ".part")
        save_file(shard, partial)
        partial.replace(folder / name)
    index = {"family": family, "config": config, "shards": names, "training": training}
    (folder / _INDEX).write_text(json.dumps(index, indent=1, sort_keys=True))


def read_shards(folder: Path) -> Weights:
    """The fp16 state written by `write_shards` (no tables, no hashes). Raises ModelMissing or WeightsError."""
    index_path = folder / _INDEX
    if not index_path.is_file():
        raise ModelMissing(f"{index_path}: no export here; a training run writes one every few minutes")
    try:
        index = json.loads(index_path.read_text())
        tensors: dict[str, Tensor] = {}
        for name in index["shards"]:
            with safe_open(folder / name, framework="pt") as f:
                tensors |= {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118
        return Weights(index["family"], index["config"], tensors, {}, index["training"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as e:
        raise WeightsError(f"{folder}: damaged export: {e}") from e


def join_shards(folder: Path, path: Path) -> Weights:
    """Join an export into one weights file that encodes and decodes: adds the integer tables and the hashes."""
    # needs the entropy coder's package, which a training machine may lack
    from unquant.coding.tables import gaussian_tables, scale_grid

    export = read_shards(folder)
    entropy = family_of(export.family).config.from_dict(export.config).entropy
    tables = gaussian_tables(scale_grid(entropy.scale_low, entropy.scale_high, entropy.scales))
    arrays = tables.to_arrays()
    extra = {f"tables.{name}": torch.from_numpy(array.copy()) for name, array in arrays.items()}
    return write_weights(path, export.family, export.config, {**export.tensors, **extra}, export.training)
