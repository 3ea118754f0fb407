"""ICC profiles of colour spaces that a file describes otherwise: by code points, by gAMA and cHRM, by EXIF.

A profile of three primaries and a curve, or of a curve alone for grey, is all that is written here (ICC.1:2010, version 4);
LittleCMS applies it as it does any other.
"""

from __future__ import annotations

import struct
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from unquant.errors import warn
from unquant.images.cicp import CURVES, HLG, PQ, PRIMARIES, SRGB_CURVE, Cicp, Curve, Primaries

__all__ = ["Space", "described_profile", "gray_profile", "rgb_profile", "rgb_to_xyz", "space_of"]

Space = bytes | Cicp | None
"""What the numbers of a picture mean: an ICC profile; PQ or HLG by their code points; None is sRGB."""

_ADOBE_RGB: Final[Primaries] = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_ADOBE_GAMMA: Final = 563 / 256
_NEAR: Final = 0.05
"""A gAMA within this of sRGB's 1/2.2 means sRGB's curve, as programs write it beside, or in place of, the chunk sRGB; it is
libpng's PNG_GAMMA_THRESHOLD."""
_STEPS: Final = 4096
_D50: Final = (0.9642, 1.0, 0.8249)
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_COLOR_SPACE, _UNCALIBRATED, _INTEROP_INDEX = 0xA001, 0xFFFF, 1


def space_of(image: Image.Image, exif: Image.Exif | None, name: str) -> Space:
    """What the numbers of a PIL image mean, by what is in `.info` and EXIF, the first that there is of

    PNG's cICP (which `open_image` puts there as "cicp"), a profile, nclx of AVIF and HEIF, PNG's sRGB, its gAMA and cHRM
    (PNG, third edition, 4.3), and EXIF's ColorSpace, or InteropIndex R03, for Adobe RGB (DCF 2.0).
    """
    info = image.info
    if isinstance(cicp := info.get("cicp"), Cicp):
        return _of_cicp(cicp, name)
    if isinstance(icc := info.get("icc_profile"), bytes) and icc:
        return icc
    if "srgb" in info:
        return None
    if isinstance(nclx := info.get("nclx_profile"), dict):  # pillow-heif's
        found = Cicp.of(int(nclx["color_primaries"]), int(nclx["transfer_characteristics"]))
        return None if found is None else _of_cicp(found, name)
    if "gamma" in info or "chromaticity" in info:
        return _of_png(info.get("gamma"), info.get("chromaticity"), gray=image.mode in ("1", "L", "LA", "I", "I;16"))
    return rgb_profile(_ADOBE_RGB, _ADOBE_GAMMA) if exif and _is_adobe_rgb(exif) else None


def described_profile(primaries: int, transfer: int, name: str, *, gray: bool) -> bytes | None:
    """The ICC profile that says what code points of H.273 do; None for sRGB, and for PQ and HLG, of which no profile here
    can. Code points that are unknown are sRGB's, with an UnquantWarning."""
    cicp = Cicp.of(primaries, transfer)
    space = None if cicp is None else _of_cicp(cicp, name)
    if space is None or isinstance(space, Cicp):
        return None
    assert cicp is not None
    if not gray:
        return space
    curve = CURVES[cicp.transfer]
    return None if curve is SRGB_CURVE else gray_profile(curve)


def rgb_profile(primaries: Primaries, curve: Curve) -> bytes:
    """The ICC profile of an RGB space. Raises ValueError for primaries that span no space."""
    matrix = rgb_to_xyz(primaries)
    tags = {f"{c}XYZ".encode(): _xyz(*column) for c, column in zip("rgb", matrix.T.tolist(), strict=True)}
    return _profile(b"RGB ", {**tags, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(curve))})


def gray_profile(curve: Curve) -> bytes:
    """The ICC profile of a grey scale."""
    return _profile(b"GRAY", {b"kTRC": _curve(curve)})


def rgb_to_xyz(primaries: Primaries) -> npt.NDArray[np.float64]:
    """(3, 3): from linear RGB to XYZ, white adapted to D50 (Bradford) as in a profile. Raises ValueError."""
    xy = np.array(primaries).reshape(4, 2)
    if not (xy[:, 1] > 0).all():
        raise ValueError("chromaticities without luminance")
    white, *columns = np.column_stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(axis=1)) / xy[:, 1]])
    unscaled = np.column_stack(columns)
    try:
        matrix = unscaled * np.linalg.solve(unscaled, white)
    except np.linalg.LinAlgError as error:
        raise ValueError("primaries on one line") from error
    cones = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    return np.linalg.solve(_BRADFORD, cones[:, None] * (_BRADFORD @ matrix))


def _of_cicp(cicp: Cicp, name: str) -> Space:
    if cicp.primaries not in PRIMARIES or (cicp.transfer not in CURVES and cicp.transfer not in (PQ, HLG)):
        warn(f"{name}: colours by the code points {tuple(cicp)} (H.273) are unknown here; taken for sRGB")
        return None
    if cicp.transfer in (PQ, HLG):
        return cicp
    if cicp == (1, 13):
        return None
    return rgb_profile(PRIMARIES[cicp.primaries], CURVES[cicp.transfer])


def _of_png(gamma: object, chromaticity: object, *, gray: bool) -> Space:
    """gamma: gAMA. chromaticity: cHRM."""
    curve = _png_curve(gamma) if isinstance(gamma, float) and gamma > 0 else SRGB_CURVE
    if gray:
        return None if curve is SRGB_CURVE else gray_profile(curve)
    primaries = PRIMARIES[1]
    if isinstance(chromaticity, tuple) and len(cast("tuple[float, ...]", chromaticity)) == 8:
        primaries = cast("Primaries", chromaticity)
    if curve is SRGB_CURVE and np.abs(np.subtract(primaries, PRIMARIES[1])).max() < 1e-3:
        return None
    try:
        return rgb_profile(primaries, curve)
    except ValueError:
        return None if curve is SRGB_CURVE else rgb_profile(PRIMARIES[1], curve)


def _png_curve(gamma: float) -> Curve:
    """The curve of gAMA, the exponent of a number over light: 1 is light itself. All others are relative to sRGB's curve,
    for which gAMA has 1/2.2, as libpng and what writes these files have it."""
    if abs(gamma * 2.2 - 1) <= _NEAR:
        return SRGB_CURVE
    if abs(gamma - 1) < 1e-3:
        return 1.0
    g, a, b, c, d = SRGB_CURVE
    number = np.linspace(0, 1, _STEPS) ** (1 / (2.2 * gamma))
    return np.rint(65_535 * np.where(number >= d, (a * number + b) ** g, c * number)).astype(np.uint16)


def _is_adobe_rgb(exif: Image.Exif) -> bool:
    """ColorSpace 2 is Adobe's own; DCF writes "uncalibrated" and names the option file by the index R03."""
    try:
        photo = exif.get_ifd(ExifTags.IFD.Exif)
        space = photo.get(_COLOR_SPACE)
        if space != _UNCALIBRATED:
            return space == 2
        index = exif.get_ifd(ExifTags.IFD.Interop).get(_INTEROP_INDEX)
    except Exception:  # a third-party parser on foreign bytes
        return False
    return (index.encode() if isinstance(index, str) else bytes(index or b"")).startswith(b"R03")


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = "unquant".encode("utf-16-be")
    text = b"mluc" + struct.pack(">4xII4sII", 1, 12, b"enUS", len(text), 28) + text
    tags = {b"desc": text, b"cprt": text, b"wtpt": _xyz(*_D50), **tags}
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += struct.pack(">4sII", tag, offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = offset + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s28x", size, 0x04300000, b"mntr", space, b"XYZ ", b"acsp") + _xyz(*_D50)[8:]
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(x, y, z)


def _curve(curve: Curve) -> bytes:
    if isinstance(curve, np.ndarray):
        return b"curv" + struct.pack(">4xI", len(curve)) + curve.astype(">u2").tobytes()
    kind, values = (3, curve) if isinstance(curve, tuple) else (0, (curve,))
    return b"para" + struct.pack(">4xHxx", kind) + _fixed(*values)


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(65_536 * v) for v in values))
