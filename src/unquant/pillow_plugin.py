"""`.unq` files for Pillow: after `register_opener`, `Image.open("a.unq")` and `im.save("a.unq", bpp=0.15)` work.

Opening reads the file and parses its headers, without torch; `load()` draws the pixels. Errors are those of Pillow's own
plugins.
"""

from __future__ import annotations

import os
import threading
from typing import IO, Any, Final

from PIL import Image, ImageFile

from unquant.codecs import decode, encode
from unquant.codecs.options import DecodeOptions, EncodeKeywords
from unquant.codecs.registry import DEFAULT_MODEL
from unquant.codecs.sources import file_bytes
from unquant.container import MAGIC, Container, parse
from unquant.container.obu import parse_obus
from unquant.errors import BitstreamError, ImageTooLarge, InputError, OptionError, UnquantError
from unquant.families import AVIF_FAMILY
from unquant.images import metadata_info

__all__ = ["FORMAT", "UnqImageFile", "register_opener"]

FORMAT: Final = "UNQ"
"""Pillow's name of the format, as in `im.format` and `im.save(stream, "UNQ")`."""
_RATE_AND_WISHES: Final = tuple(name for name in EncodeKeywords.__annotations__ if name != "container")
_METADATA: Final = ("icc_profile", "exif", "xmp")

_decoding: dict[str, Any] = {}
"""How pictures opened from now on are drawn; replaced as a whole, never changed."""


def register_opener(
    *,
    model: str | os.PathLike[str] | None = None,
    device: str | None = None,
    realism: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    preview: bool = False,
) -> None:
    """Make `.unq` known to Pillow: opening, saving, the extension `.unq` and the MIME type `image/x-unquant`.

    May be called again. The options are those of `unquant.decode`: how pictures that are opened from then on are drawn, each
    None as their files say. Raises OptionError for an option out of range.
    """
    global _decoding
    DecodeOptions(realism=realism, steps=steps, seed=seed, preview=preview)
    _decoding = {
        "model": model,
        "device": device,
        "realism": realism,
        "steps": steps,
        "seed": seed,
        "preview": preview,
    }
    Image.register_open(FORMAT, UnqImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, ".unq")
    Image.register_mime(FORMAT, "image/x-unquant")


class UnqImageFile(ImageFile.ImageFile):
    """A `.unq` file that Pillow has opened: mode RGB, RGBA or (a grey picture of av1) L.

    `info`: "family", "stream_id" (hex), "q_index", "bpp" (8·bytes/pixels), "realism" (0..1) and "seed", None where the file
    leaves them to the weights, and "icc_profile", "exif" and "xmp" where present. `load()` draws the picture, once, however
    many threads ask for it; it raises OSError for a damaged stream or missing weights.
    """

    format = FORMAT
    format_description = "unquant, a generative image codec"

    # what is still to be drawn, how, and who draws it; None once that is done, and in unpickled images
    _pending: tuple[bytes, dict[str, Any], threading.Lock] | None = None

    def _open(self) -> None:
        assert self.fp is not None
        try:
            data = file_bytes(self.fp)
            container = parse(data)
            self._mode = _mode(container)
        except ImageTooLarge as error:
            raise Image.DecompressionBombError(str(error)) from error
        except InputError as error:
            raise OSError(str(error)) from error
        except BitstreamError as error:
            raise SyntaxError(str(error)) from error
        header = container.header
        self._size = header.width, header.height
        self.info = {
            "family": header.family,
            "stream_id": header.stream_id.hex(),
            "q_index": header.q_index,
            "bpp": 8 * len(data) / (header.width * header.height),
            "realism": None if header.realism is None else header.realism / 100,
            "seed": header.seed,
            **metadata_info(container.icc, container.exif, container.xmp),
        }
        self._pending = data, _decoding, threading.Lock()

    def load(self) -> Image.core.PixelAccess | None:
        """Draws the picture, at the first call. Raises OSError."""
        if (pending := self._pending) is not None:
            data, options, lock = pending
            with lock:
                if pending is self._pending:
                    self.im = _draw(data, options, self.mode).im
                    self.readonly = 0
                    self._pending = None
                    if self._exclusive_fp and self.fp is not None:
                        self.fp.close()
                    self.fp = None
        return super().load()

    def close(self) -> None:
        """Lets go of the file and of the pixels; the picture can no longer be drawn."""
        self._pending = None
        super().close()


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


def _mode(container: Container) -> str:
    """The mode of the picture that decoding gives."""
    if container.has_alpha:
        return "RGBA"
    grey = container.header.family == AVIF_FAMILY.name and parse_obus(container.tiles[0].stream).mono
    return "L" if grey else "RGB"


def _draw(data: bytes, options: dict[str, Any], mode: str) -> Image.Image:
    try:
        image = decode(data, **options)
    except UnquantError as error:
        raise OSError(str(error)) from error
    return image if image.mode == mode else image.convert(mode)


def _save(im: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Pillow's writer. Options: those of `unquant.encode`, and icc_profile, exif and xmp in place of the image's own; others
    are ignored, as by all writers of Pillow."""
    given: dict[str, Any] = im.encoderinfo
    replaced = {name: given[name] for name in _METADATA if name in given}
    if replaced:
        im = im.copy()
        for name, value in replaced.items():
            im.info[name] = value.tobytes() if isinstance(value, Image.Exif) else value
    options = {name: given[name] for name in _RATE_AND_WISHES if name in given}
    try:
        data = encode(im, model=given.get("model") or DEFAULT_MODEL, device=given.get("device"), **options)
    except OptionError:  # a ValueError, as of other writers
        raise
    except UnquantError as error:
        raise OSError(str(error)) from error
    fp.write(data)
