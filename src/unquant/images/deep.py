"""Colours of more than 8 bits, which Pillow cuts, read by imagecodecs and made sRGB with all their bits.

imagecodecs (of the extra `formats`) is one well-kept package for all of them, and the one whose LittleCMS takes 16 bits.
Without it the pixels are Pillow's; where that costs more than a rounding, a warning says so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, BinaryIO, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from unquant.errors import warn
from unquant.images.checks import cause_of
from unquant.images.cicp import avif_colour
from unquant.images.colour import deep_to_srgb
from unquant.images.formats import EXTRA
from unquant.images.numbers import U16, from_16_bit
from unquant.images.profiles import Space

__all__ = ["deepen", "scale_gray"]

_Reader: TypeAlias = Callable[[], npt.NDArray[Any]]
_COLOUR_KEYS: Final = ("icc_profile", "gamma", "chromaticity", "cicp", "nclx_profile", "transparency")
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339
_PNG_DEPTH: Final = 24  # where IHDR has it
_MOST_DIFFERENCE: Final = 3.0
"""Mean, in levels of 255, between Pillow's pixels and those read here, beyond which the two have not read the same."""


def deepen(
    image: ImageFile.ImageFile, file: BinaryIO, space: Space, transpose: Image.Transpose | None, name: str
) -> None:
    """Puts 8-bit sRGB, made of all bits of the file, into an image whose colours Pillow has cut to 8 bits.

    image: loaded, at the frame that is wanted. space: of its colours; afterwards it is sRGB, and `.info` says so.
    transpose: by which Pillow has turned the pixels when loading. An image of 8 bits, or of grey that Pillow reads at 16
    bits, stays as it is, and so does, with an UnquantWarning, one that imagecodecs does not read, or is not there to read.
    """
    reader = _reader(image, file, space)
    if reader is None:
        return
    if importlib.util.find_spec("imagecodecs") is None:
        if space is not None:
            warn(f"{name}: more than 8 bits, of which 8 are converted to sRGB; for all: pip install '{EXTRA}'")
        return
    try:
        values = reader()
    except Exception as error:  # third-party parsers raise nearly everything
        warn(f"{name}: more than 8 bits, of which 8 are read: {cause_of(error)}")
        return
    if values.dtype != np.uint16:
        return  # JPEG XL of 8 bits
    colour, alpha = _planes(values[:, :, None] if values.ndim == 2 else values, image)
    if colour is None or not _same(colour, image, transpose):
        warn(f"{name}: more than 8 bits, of which 8 are read: two decoders differ on them")
        return
    rgb = deep_to_srgb(colour, space, name)
    made = Image.fromarray(rgb if alpha is None else np.dstack([rgb, from_16_bit(alpha)]))
    _replace(image, made if transpose is None else made.transpose(transpose))


def scale_gray(image: ImageFile.ImageFile) -> None:
    """Grey of 9 to 15 bits in a TIFF file to 16, and that of a PFM file to 0..1, in place.

    The scale of a PFM file multiplies its numbers, and 1 is white. Pillow writes grey levels as they are, with a scale of 1:
    whole numbers beyond 1 are therefore levels of 255, or of 65535.
    """
    if image.format == "TIFF" and image.mode.startswith("I;16"):
        (bits, *_) = cast("dict[int, tuple[int, ...]]", getattr(image, "tag_v2", {})).get(_BITS_PER_SAMPLE, (16,))
        if 8 < bits < 16:
            values = _scaled(np.asarray(image).astype(np.uint16), (1 << bits) - 1)
            _put(image, Image.fromarray(values))
    elif image.format == "PPM" and image.mode == "F":
        numbers = np.asarray(image) * np.float32(image.info.get("scale", 1.0))
        largest = float(numbers.max())
        if 1 < largest <= 65_535 and (numbers == np.rint(numbers)).all():
            numbers = numbers / np.float32(255 if largest <= 255 else 65_535)
        _put(image, Image.fromarray(numbers))


def _reader(image: ImageFile.ImageFile, file: BinaryIO, space: Space) -> _Reader | None:
    """What reads the (h, w[, c]) of uint16 at full scale; None for a picture that Pillow has not cut."""
    frame = image.tell()
    if image.mode not in ("RGB", "RGBA", "RGBX", "L", "LA"):
        return None
    if image.format == "PNG":
        file.seek(_PNG_DEPTH)
        if int(getattr(image, "n_frames", 1)) > 1 or file.read(1) != b"\x10":
            return None
        return lambda: _imagecodecs().png_decode(_bytes(file))
    if image.format == "TIFF":
        tags = cast("dict[int, tuple[int, ...]]", getattr(image, "tag_v2", {}))
        if set(tags.get(_BITS_PER_SAMPLE, ())) != {16} or set(tags.get(_SAMPLE_FORMAT, (1,))) != {1}:
            return None
        return lambda: _interleaved(_imagecodecs().tiff_decode(_bytes(file), index=frame), image)
    if space is None:  # nothing that 8 bits would not show
        return None
    if image.format == "JXL":
        return lambda: _imagecodecs().jpegxl_decode(_bytes(file))
    if image.format == "AVIF" and (colour := avif_colour(file)) is not None and colour.depth > 8:
        most = (1 << colour.depth) - 1
        return lambda: _scaled(_imagecodecs().avif_decode(_bytes(file), index=frame), most)
    if image.format == "HEIF" and image.info.get("bit_depth", 8) > 8:
        return lambda: _heif(file, frame)
    return None


def _imagecodecs() -> Any:
    import imagecodecs

    return imagecodecs


def _bytes(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _scaled(values: npt.NDArray[np.uint16], most: int) -> U16:
    return ((values.astype(np.uint32) * 65_535 + most // 2) // most).astype(np.uint16)


def _heif(file: BinaryIO, frame: int) -> U16:
    import pillow_heif

    file.seek(0)
    return np.asarray(pillow_heif.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=True)[frame])


def _interleaved(values: U16, image: Image.Image) -> U16:
    """(h, w, c) of planes apart as well."""
    return np.moveaxis(values, 0, 2) if values.ndim == 3 and values.shape[0] == len(image.getbands()) else values


def _planes(values: U16, image: Image.Image) -> tuple[U16 | None, U16 | None]:
    """Colour, (h, w, 1 | 3), None where it is of another kind, and alpha."""
    channels = values.shape[2]
    # imagecodecs makes alpha of a transparent key, Pillow keeps it beside the picture
    if channels not in (1, 2, 3, 4) or (channels == 4 and image.mode == "RGB" and "transparency" not in image.info):
        return None, None
    if channels in (2, 4) and image.mode != "RGBX":
        return values[:, :, :-1], values[:, :, -1]
    return values[:, :, :3], None


def _same(colour: U16, image: Image.Image, transpose: Image.Transpose | None) -> bool:
    """Whether the picture is Pillow's: premultiplied alpha, for one, is not."""
    made = Image.fromarray(from_16_bit(np.repeat(colour, 3, axis=2) if colour.shape[2] == 1 else colour))
    if transpose is not None:
        made = made.transpose(transpose)
    if made.size != image.size:
        return False
    difference = np.abs(np.asarray(made, np.int16) - np.asarray(image.convert("RGB"), np.int16))
    return float(difference.mean()) <= _MOST_DIFFERENCE


def _replace(image: ImageFile.ImageFile, made: Image.Image) -> None:
    _put(image, made)
    for key in _COLOUR_KEYS:
        image.info.pop(key, None)
    image.info["srgb"] = 0  # as of PNG's chunk


def _put(image: ImageFile.ImageFile, made: Image.Image) -> None:
    image.im = made.im
    image._mode = made.mode  # pyright: ignore[reportPrivateUsage]  # as Pillow's own plug-ins do on load
