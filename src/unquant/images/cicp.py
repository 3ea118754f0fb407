"""Colour descriptions by code points (CICP, ITU-T H.273), as AVIF, HEIF and PNG carry them."""

from __future__ import annotations

from typing import BinaryIO, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from unquant.container.avif import AvifColour, read_colour
from unquant.errors import BitstreamError, ImageTooLarge
from unquant.images.png import chunks, read_chunk

__all__ = [
    "CURVES",
    "HLG",
    "PQ",
    "PRIMARIES",
    "SRGB_CURVE",
    "Cicp",
    "Curve",
    "Parametric",
    "Primaries",
    "avif_colour",
    "find_cicp",
]

Primaries: TypeAlias = tuple[float, float, float, float, float, float, float, float]
"""CIE x and y of white, red, green and blue, in the order of PNG's cHRM."""
Parametric: TypeAlias = tuple[float, float, float, float, float]
Curve: TypeAlias = float | Parametric | npt.NDArray[np.uint16]
"""From a number to light, both 0 to 1: the exponent; (g, a, b, c, d) of ICC's parametric curve of type 3, (a·x + b)^g from d
on, c·x below; or light at even steps, in 65535ths."""

SRGB_CURVE: Final[Parametric] = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE: Final[Parametric] = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
PQ, HLG = 16, 18
"""Transfer characteristics of a high dynamic range: SMPTE ST 2084, and ARIB STD-B67."""
CURVES: Final[dict[int, Curve]] = {
    1: _BT709_CURVE,
    4: 2.2,
    5: 2.8,
    6: _BT709_CURVE,
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0912),
    8: 1.0,
    13: SRGB_CURVE,
    14: _BT709_CURVE,
    15: _BT709_CURVE,
    17: 2.6,
}
"""Transfer characteristics: of BT.709, BT.601 and BT.2020 the inverse of the camera's curve, as in ICC profiles for them."""
_D65: Final = 0.3127, 0.3290
PRIMARIES: Final[dict[int, Primaries]] = {
    1: (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),  # BT.709, sRGB
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),  # BT.470 M
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),  # BT.470 BG, PAL
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # BT.601, NTSC
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # SMPTE 240M
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),  # film
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # DCI P3
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),  # EBU 3213
}
_UNSPECIFIED: Final = 2


class Cicp(NamedTuple):
    """Colour primaries and transfer characteristics of H.273; what a file leaves unspecified is sRGB's."""

    primaries: int
    transfer: int

    @classmethod
    def of(cls, primaries: int, transfer: int) -> Cicp | None:
        """None where neither is specified."""
        if primaries == transfer == _UNSPECIFIED:
            return None
        return cls(
            1 if primaries == _UNSPECIFIED else primaries,
            13 if transfer == _UNSPECIFIED else transfer,
        )


def find_cicp(image: Image.Image, file: BinaryIO) -> Cicp | None:
    """What a PNG, AVIF or HEIF file says of its colours by code points; None where it says nothing that holds.

    file: that of the image, whose position is moved. Of AVIF and HEIF with a profile the profile holds; PNG's cICP
    holds before a profile.
    """
    if image.format == "PNG":
        for chunk in chunks(file):
            if chunk.kind == b"cICP" and chunk.length == 4:
                return Cicp.of(*read_chunk(file, chunk)[:2])
            if chunk.kind == b"IDAT":
                break
        return None
    if image.info.get("icc_profile"):
        return None
    if image.format == "HEIF" and isinstance(nclx := image.info.get("nclx_profile"), dict):
        return Cicp.of(int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]))
    if image.format == "AVIF":
        colour = avif_colour(file)
        return None if colour is None else Cicp.of(colour.nclx.primaries, colour.nclx.transfer)
    return None


def avif_colour(file: BinaryIO) -> AvifColour | None:
    """Depth and colour description of an AVIF file; None where its boxes cannot be followed."""
    file.seek(0)
    try:
        return read_colour(file.read())
    except (BitstreamError, ImageTooLarge):
        return None
