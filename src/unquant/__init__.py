"""unquant: a generative image codec. A photograph in, a very small real file out, and back.

    import unquant
    data = unquant.encode(image, quality=40)      # or bpp=0.15, or target_bytes=20_000
    image = unquant.decode(data)                  # PIL.Image; realism=0..1
    unquant.uncertainty(data)                     # where that is invented, (h, w) float32 in levels of 255
    unquant.info(data)                            # header only; a path or a stream in place of the bytes will do
    codec = unquant.load("av1")                   # keep it loaded for many images
    unquant.register_opener()                     # from here on Image.open("a.unq") and im.save("a.unq", bpp=0.15) work

Importing this module is cheap: torch is imported when a codec is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unquant.errors import (
    BitstreamError,
    CodecMissing,
    CorruptStream,
    ImageTooLarge,
    InputError,
    ModelMissing,
    NotUnquant,
    OptionError,
    OptionTypeError,
    RateUnreachable,
    UnquantError,
    UnquantWarning,
    UnsupportedVersion,
    WeightsError,
)

if TYPE_CHECKING:
    from unquant.codecs import Codec, Info, Limits, ModelInfo, decode, encode, info, load, models, uncertainty
    from unquant.pillow_plugin import register_opener

__version__ = "0.1.0"
__all__ = [
    "BitstreamError",
    "Codec",
    "CodecMissing",
    "CorruptStream",
    "ImageTooLarge",
    "Info",
    "InputError",
    "Limits",
    "ModelInfo",
    "ModelMissing",
    "NotUnquant",
    "OptionError",
    "OptionTypeError",
    "RateUnreachable",
    "UnquantError",
    "UnquantWarning",
    "UnsupportedVersion",
    "WeightsError",
    "__version__",
    "decode",
    "encode",
    "info",
    "load",
    "models",
    "register_opener",
    "uncertainty",
]


def __getattr__(name: str) -> Any:
    if name == "register_opener":
        return import_module("unquant.pillow_plugin").register_opener
    if name in __all__:
        return getattr(import_module("unquant.codecs"), name)
    raise AttributeError(f"module 'unquant' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
