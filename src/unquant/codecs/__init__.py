"""The public surface: load, encode to bytes, decode to an image, info. torch is imported when a codec is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unquant.codecs.info import Info, info
from unquant.codecs.registry import DEFAULT_MODEL, ModelInfo, find_decoder, find_model, models
from unquant.families import family_of

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from unquant.codecs.interface import AnyCodec as Codec

__all__ = ["Codec", "Info", "ModelInfo", "decode", "encode", "info", "load", "models"]

_loaded: dict[tuple[str, str], Codec] = {}


def __getattr__(name: str) -> Any:
    if name == "Codec":
        from unquant.codecs import interface

        return interface.Codec
    raise AttributeError(f"module 'unquant.codecs' has no attribute {name!r}")


def load(model: str = DEFAULT_MODEL, device: str | None = None) -> Codec:
    """Load a codec: a name from `unquant.codecs.models()`, or the path of a weights file.

    device: "cpu", "cuda", "cuda:1", …; None for the CPU. Raises ModelMissing, WeightsError, OptionError.
    """
    entry = find_model(model)
    codec: type[Codec] = family_of(entry.family).load("codec")
    return codec.from_file(entry.path, device or "cpu")


def _cached(entry: ModelInfo, device: str | None) -> Codec:
    key = (str(entry.path), device or "cpu")
    if key not in _loaded:
        _loaded[key] = load(str(entry.path), device)
    return _loaded[key]


def encode(image: Any, *, model: str = DEFAULT_MODEL, device: str | None = None, **options: Any) -> bytes:
    """Encode one image to the bytes of a `.unq` file (av1 with container="avif": of an `.avif`).

    Options as in `Codec.encode`. The codec stays loaded.
    """
    return _cached(find_model(model), device).encode(image, **options)


def decode(data: bytes, *, model: str | None = None, device: str | None = None, **options: Any) -> PILImage.Image:
    """Decode the bytes of a `.unq` file with the weights it names, or redraw those of any `.avif` with weights of av1.

    Options as in `Codec.decode`.
    model: which weights, where several share a stream id and differ in what they draw; None for the first that fits.
    Raises BitstreamError for bytes that are no intact file, ModelMissing when its weights are not installed.
    """
    return _cached(find_decoder(data, model), device).decode(data, **options)
