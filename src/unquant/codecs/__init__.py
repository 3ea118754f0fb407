"""The public surface: load, encode to bytes, decode to an image, info. torch is imported when a codec is loaded,
not to encode by av1.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unquant.codecs.info import Info, info
from unquant.codecs.options import (
    DEFAULT_ROI_GAIN,
    DEFAULT_SEEDS,
    ContainerName,
    ImageSource,
    QIndex,
    QMap,
    Region,
    Source,
)
from unquant.codecs.registry import DEFAULT_MODEL, ModelInfo, find_decoder, find_model, models
from unquant.codecs.sources import file_bytes
from unquant.container import Limits, decode_limit, limits_within, pixel_limit
from unquant.errors import WeightsError
from unquant.families import FAMILIES, family_of

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from PIL import Image as PILImage

    from unquant.codecs.encoder import Encoder
    from unquant.codecs.interface import AnyCodec as Codec

__all__ = [
    "Codec",
    "Info",
    "Limits",
    "ModelInfo",
    "decode",
    "encode",
    "info",
    "load",
    "loaded",
    "loaded_encoder",
    "models",
    "uncertainty",
]

_loaded: dict[tuple[str, str, bool], Codec] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    """Another thread, which is not there in the child, may have been loading."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def __getattr__(name: str) -> Any:
    if name == "Codec":
        from unquant.codecs import interface

        return interface.Codec
    raise AttributeError(f"module 'unquant.codecs' has no attribute {name!r}")


def load(
    model: str | os.PathLike[str] = DEFAULT_MODEL, device: str | None = None, *, deterministic: bool = False
) -> Codec:
    """Load a codec, each time anew.

    model: a name from `unquant.models()`, or the path of a weights file. device: "cpu", "cuda", "cuda:1", …; None for
    the CPU. deterministic: see `Codec.make_deterministic`. Raises ModelMissing, WeightsError, OptionError, ImageTooLarge
    (memory).
    """
    entry = find_model(model)
    try:
        family = family_of(entry.family)
    except WeightsError as e:
        raise WeightsError(f"{entry.path}: {e}") from None
    codec: type[Codec] = family.load("codec")
    made = codec.from_file(entry.path, device or "cpu")
    return made.make_deterministic() if deterministic else made


def loaded(
    model: str | os.PathLike[str] | ModelInfo = DEFAULT_MODEL,
    device: str | None = None,
    *,
    deterministic: bool = False,
) -> Codec:
    """The codec that `load` gives, loaded once in a process and shared by all threads; `encode` and `decode` use it."""
    path = (model if isinstance(model, ModelInfo) else find_model(model)).path
    key = str(path.absolute()), device or "cpu", deterministic
    with _lock:
        if key not in _loaded:
            _loaded[key] = load(str(path), device, deterministic=deterministic)
        return _loaded[key]


def loaded_encoder(
    model: str | os.PathLike[str] = DEFAULT_MODEL, device: str | None = None, *, deterministic: bool = False
) -> Encoder:
    """What encodes as the codec that `loaded` gives does: of a family that can, without its network, and without torch."""
    entry = find_model(model)
    if device in (None, "cpu") and entry.family in FAMILIES and FAMILIES[entry.family].encoder:
        return _file_encoder(entry.family, entry.path.absolute())
    return loaded(entry, device, deterministic=deterministic)


@cache
def _file_encoder(family: str, path: Path) -> Encoder:
    return family_of(family).load("encoder")(path)


def encode(
    image: ImageSource,
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str | None = None,
    deterministic: bool = False,
    quality: float | None = None,
    bpp: float | None = None,
    target_bytes: int | None = None,
    q_index: QIndex | None = None,
    roi: ImageSource | None = None,
    roi_gain: float = DEFAULT_ROI_GAIN,
    q_map: QMap | None = None,
    metadata: bool = True,
    realism: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    effort: int | None = None,
    container: ContainerName = "unq",
    max_pixels: int | None = None,
) -> bytes:
    """Encode one image to the bytes of a `.unq` file (av1 with container="avif": of an `.avif`).

    model, device, deterministic: as of `load`; the codec stays loaded, of av1 no more than it takes to encode. The rest and
    what is raised: as of `Codec.encode`.
    """
    return loaded_encoder(model, device, deterministic=deterministic).encode(
        image,
        quality=quality,
        bpp=bpp,
        target_bytes=target_bytes,
        q_index=q_index,
        roi=roi,
        roi_gain=roi_gain,
        q_map=q_map,
        metadata=metadata,
        realism=realism,
        steps=steps,
        seed=seed,
        effort=effort,
        container=container,
        max_pixels=max_pixels,
    )


def decode(
    data: Source,
    *,
    model: str | os.PathLike[str] | None = None,
    device: str | None = None,
    deterministic: bool = False,
    realism: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    preview: bool = False,
    region: Region | None = None,
    scale: float = 1,
    allow_partial: bool = False,
    max_pixels: int | None = None,
    limits: Limits | None = None,
) -> PILImage.Image:
    """Decode a `.unq` file with the weights it names, or redraw any `.avif` with weights that can.

    data: the file's bytes, its path, or a binary stream of it. model: which weights, where several share a stream id and
    differ in what they draw; None for the first that fits. device, deterministic: as of `load`; the codec stays loaded.
    The rest: as of `Codec.decode`. Raises BitstreamError for bytes that are no intact file, ModelMissing when its weights
    are not installed, and what `Codec.decode` raises.
    """
    data = file_bytes(data)
    with limits_within(limits), pixel_limit(max_pixels), decode_limit():
        codec = loaded(find_decoder(data, model), device, deterministic=deterministic)
    return codec.decode(
        data,
        realism=realism,
        steps=steps,
        seed=seed,
        preview=preview,
        region=region,
        scale=scale,
        allow_partial=allow_partial,
        max_pixels=max_pixels,
        limits=limits,
    )


def uncertainty(
    data: Source,
    *,
    model: str | os.PathLike[str] | None = None,
    device: str | None = None,
    deterministic: bool = False,
    seeds: int = DEFAULT_SEEDS,
    region: Region | None = None,
    max_pixels: int | None = None,
    limits: Limits | None = None,
) -> Float[np.ndarray, "h w"]:
    """Where a decode of a file at realism 1 invents: a spread for each pixel, (h, w) float32 in levels of 255.

    data, model, device, deterministic: as of `decode`. The rest, what it means and what is raised: as of
    `Codec.uncertainty`.
    """
    data = file_bytes(data)
    with limits_within(limits), pixel_limit(max_pixels), decode_limit():
        codec = loaded(find_decoder(data, model), device, deterministic=deterministic)
    return codec.uncertainty(data, seeds=seeds, region=region, max_pixels=max_pixels, limits=limits)
