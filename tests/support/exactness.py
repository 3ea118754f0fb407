"""Decodes files under disturbance and says which symbols came out: a library, and a script for processes of their own.

    python tests/support/exactness.py SPEC.json      writes what `run` gives to the standard output, as JSON

The script is run with the environment that fixes a machine's instruction sets, which cannot change within a process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import unquant
from unquant.codecs.latent import AnyLatentCodec
from unquant.container import parse
from unquant.entropy import exact
from unquant.errors import BitstreamError

NETWORKS = ("condition_of", "hyper_prior", "hyper_synthesis", "group_params")
"""What the exact path asks of the networks. The rest of it, k + μ and the snap, is exact in any IEEE arithmetic."""
_COPIES = {"cat", "clone", "_to_copy", "copy_", "contiguous", "detach"}
_MOVES_DATA = _COPIES | {"index", "index_select", "gather", "pad", "pixel_shuffle", "repeat"}


class Noise(TorchDispatchMode):
    """Multiplies every float64 that a layer computes by 1 + scale·n; operations that only move data are left alone.

    seed: n is standard normal; None: n = 1 everywhere, so that the sign of scale is the sign of the error.
    """

    def __init__(self, scale: float, seed: int | None) -> None:
        super().__init__()
        self.scale = scale
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.disturbed: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not isinstance(out, Tensor) or out.dtype != torch.float64 or func.is_view or name in _MOVES_DATA:
            return out
        self.disturbed[name] = self.disturbed.get(name, 0) + 1
        if self.generator is None:
            factor: Tensor | float = 1 + self.scale
        else:
            noise = torch.randn(out.shape, generator=self.generator, dtype=torch.float64)
            factor = 1 + self.scale * noise.to(out.device)
        return out.mul_(factor) if func._schema.is_mutable else out * factor


@contextlib.contextmanager
def disturbed(coder: exact.ExactCoder, scale: float, seed: int | None = None) -> Iterator[Noise]:
    """Noise in every network call of the coder, as long as the context lasts."""
    noise = Noise(scale, seed)

    def wrap(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            with noise:
                return method(*args, **kwargs)

        return call

    for name in NETWORKS:
        setattr(coder.networks, name, wrap(getattr(coder.networks, name)))
    try:
        yield noise
    finally:
        for name in NETWORKS:
            delattr(coder.networks, name)


@contextlib.contextmanager
def recorded_tiles(coder: exact.ExactCoder) -> Iterator[list[exact.CodedTile | exact.DecodedTile]]:
    """Every tile that the coder codes or decodes meanwhile, in order."""
    tiles: list[exact.CodedTile | exact.DecodedTile] = []

    def wrap(method: Any) -> Any:
        def call(*args: Any) -> Any:
            tile = method(*args)
            tiles.append(tile)
            return tile

        return call

    for name in ("encode", "decode"):
        setattr(coder, name, wrap(getattr(coder, name)))
    try:
        yield tiles
    finally:
        for name in ("encode", "decode"):
            delattr(coder, name)


@contextlib.contextmanager
def recorded_grids() -> Iterator[list[Tensor]]:
    """The values that are snapped meanwhile, before the snap, one tensor a group of symbols."""
    grids: list[Tensor] = []
    snap = exact.snap

    def call(grid: Tensor, overrides: Any) -> Tensor:
        grids.append(grid.clone())
        return snap(grid, overrides)

    exact.snap = call
    try:
        yield grids
    finally:
        exact.snap = snap


def digest(tiles: list[exact.CodedTile | exact.DecodedTile]) -> str:
    """A checksum of the symbols and of ŷ/q of all tiles, to the last bit."""
    hasher = hashlib.sha256()
    for tile in tiles:
        hasher.update(tile.symbols)
        hasher.update(tile.v_hat.cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def encode_recorded(codec: AnyLatentCodec, image: Any, **options: Any) -> tuple[bytes, str]:
    """A file and the digest of what the encoder put into it."""
    with recorded_tiles(codec.exact) as tiles:
        data = codec.encode(image, **options)
    return data, digest(tiles)


def decode_digest(codec: AnyLatentCodec, data: bytes) -> str:
    """The digest of what a decoder finds in a file, or the name of the error that it raises."""
    with recorded_tiles(codec.exact) as tiles, torch.inference_mode():
        try:
            codec.dequantise(parse(data))
        except BitstreamError as error:
            return type(error).__name__
    return digest(tiles)


def deviation(clean: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference between two runs' values before the snap, in grid units."""
    return max((float((a - b).abs().max()) for a, b in zip(clean, other, strict=True) if a.numel()), default=0.0)


def run(weights: Path, files: list[Path], scale: float, seeds: list[int], threads: list[int], device: str) -> Any:
    """Decode every file with each number of threads, without noise and with that of each seed (the first alone, but for
    the first number of threads).

    Returns a list of file, threads, seed (None without noise), digest, deviation from the first run, a checksum of the
    values before the snap, and how many outputs of layers the noise met.
    """
    codec = unquant.load(str(weights), device)
    results: list[dict[str, Any]] = []
    for path in files:
        data = path.read_bytes()
        clean: list[Tensor] | None = None
        for number in threads:
            torch.set_num_threads(number)
            for seed in (None, *(seeds if number == threads[0] else seeds[:1])):
                with contextlib.ExitStack() as stack:
                    grids = stack.enter_context(recorded_grids())
                    noise = None if seed is None else stack.enter_context(disturbed(codec.exact, scale, seed))
                    found = decode_digest(codec, data)
                clean = clean or grids
                raw = hashlib.sha256(b"".join(g.cpu().numpy().tobytes() for g in grids)).hexdigest()
                results.append(
                    {
                        "file": path.name,
                        "threads": number,
                        "seed": seed,
                        "digest": found,
                        "deviation": deviation(clean, grids) if len(clean) == len(grids) else None,
                        "raw": raw,
                        "disturbed": 0 if noise is None else sum(noise.disturbed.values()),
                    }
                )
    return results


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    results = [
        run(Path(job["weights"]), [Path(f) for f in job["files"]], job["scale"], job["seeds"], job["threads"], "cpu")
        for job in spec
    ]
    print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability(), "results": results}))


if __name__ == "__main__":
    main()
