"""The alpha plane, losslessly, in few bytes.

    alpha (h, w) uint8 ──► [method: 1 byte][payload]

    method 0  zlib stream of the h·w bytes, row by row
    method 1  VP8L bitstream (lossless WebP without its 20 bytes of RIFF framing); alpha is the green channel, red and
              blue are 0

The smaller one is kept. On binary, antialiased, feathered and photographic masks VP8L takes 15-85% of what PNG takes;
zlib wins on planes of a few pixels and on noise, and has no limit on the dimensions.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from unquant.errors import CorruptStream, OptionError, UnsupportedVersion

__all__ = ["decode_alpha", "encode_alpha"]

_ZLIB: Final = 0
_VP8L: Final = 1
_VP8L_MAX_SIDE: Final = 1 << 14
_VP8L_MAX_PIXELS: Final = 1 << 26  # stays below the size at which Pillow starts to warn of a decompression bomb
_THOROUGH_PIXELS: Final = 1 << 18  # up to here the slowest search (a third of a second) is affordable
_RIFF_BYTES: Final = 20
_VP8L_HEADER: Final = struct.Struct("<BI")
_VP8L_SIGNATURE: Final = 0x2F


def encode_alpha(alpha: npt.NDArray[np.uint8]) -> bytes:
    """The coded plane; `decode_alpha` gives back the same values.

    alpha: (h, w) uint8, 0 transparent to 255 opaque, h and w at least 1. Raises OptionError for anything else.
    """
    if alpha.ndim != 2 or alpha.dtype != np.uint8 or alpha.size == 0:
        raise OptionError(f"alpha plane: expected (h, w) of uint8, not {alpha.shape} of {alpha.dtype}")
    coded = bytes([_ZLIB]) + zlib.compress(alpha.tobytes(), 9)
    if max(alpha.shape) <= _VP8L_MAX_SIDE and alpha.size <= _VP8L_MAX_PIXELS and features.check("webp"):
        vp8l = _encode_vp8l(alpha)
        if vp8l is not None and len(vp8l) < len(coded):
            return vp8l
    return coded


def decode_alpha(data: bytes, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The (height, width) uint8 plane that `encode_alpha` was given.

    height, width: the size that the file's header states; memory is bounded by it, whatever `data` claims. Raises
    CorruptStream if `data` is damaged or holds another size, UnsupportedVersion for a method unknown here.
    """
    if len(data) < 2:
        raise CorruptStream("alpha plane: truncated")
    method, payload = data[0], data[1:]
    if method == _ZLIB:
        return _decode_zlib(payload, height, width)
    if method == _VP8L:
        return _decode_vp8l(payload, height, width)
    raise UnsupportedVersion(f"alpha plane: coding method {method} is unknown to this version")


def _encode_vp8l(alpha: npt.NDArray[np.uint8]) -> bytes | None:
    """Method byte and VP8L bitstream, or None should the encoder ever wrap it in anything but a plain file."""
    planes = np.zeros((*alpha.shape, 3), np.uint8)
    planes[:, :, 1] = alpha
    buffer = io.BytesIO()
    effort = 6 if alpha.size <= _THOROUGH_PIXELS else 4
    Image.fromarray(planes).save(buffer, "WEBP", lossless=True, quality=100, method=effort)
    riff = buffer.getvalue()
    if riff[8:16] != b"WEBPVP8L":
        return None
    (size,) = struct.unpack_from("<I", riff, 16)
    return bytes([_VP8L]) + riff[_RIFF_BYTES : _RIFF_BYTES + size]


def _decode_zlib(payload: bytes, height: int, width: int) -> npt.NDArray[np.uint8]:
    inflate = zlib.decompressobj()
    try:
        plane = inflate.decompress(payload, height * width + 1)
    except zlib.error as error:
        raise CorruptStream(f"alpha plane: {error}") from error
    if len(plane) != height * width or not inflate.eof or inflate.unused_data:
        raise CorruptStream(f"alpha plane: does not hold the {width}x{height} values of this image")
    return np.frombuffer(bytearray(plane), np.uint8).reshape(height, width)


def _decode_vp8l(payload: bytes, height: int, width: int) -> npt.NDArray[np.uint8]:
    if len(payload) < _VP8L_HEADER.size:
        raise CorruptStream("alpha plane: truncated")
    signature, bits = _VP8L_HEADER.unpack_from(payload)
    # 14 bits of width - 1, 14 of height - 1, one of "alpha used", three of version: the last two are 0 here
    if signature != _VP8L_SIGNATURE or bits >> 28:
        raise CorruptStream("alpha plane: not a VP8L bitstream")
    coded_width, coded_height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if (coded_width, coded_height) != (width, height):
        raise CorruptStream(f"alpha plane: {coded_width}x{coded_height} pixels in an image of {width}x{height}")
    if width * height > _VP8L_MAX_PIXELS:
        raise CorruptStream(f"alpha plane: VP8L is not used for {width}x{height} pixels")
    if not features.check("webp"):
        raise UnsupportedVersion("alpha plane: this build of Pillow has no WebP support, which is needed to decode it")
    padding = len(payload) & 1
    size = len(payload)
    riff = b"RIFF" + struct.pack("<I", 12 + size + padding) + b"WEBPVP8L" + struct.pack("<I", size)
    try:
        with Image.open(io.BytesIO(riff + payload + b"\0" * padding), formats=["WEBP"]) as image:
            if image.size != (width, height):
                raise CorruptStream("alpha plane: sizes disagree")
            plane = np.array(image.convert("RGB"))[:, :, 1]
    except CorruptStream:
        raise
    except Exception as error:  # a third-party parser on hostile bytes: whatever it raises means a damaged plane
        raise CorruptStream(f"alpha plane: {error}") from error
    return np.ascontiguousarray(plane)
