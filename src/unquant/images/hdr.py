"""Pictures of a high dynamic range, by PQ or HLG, to the range of sRGB.

    numbers ─► light in cd/m² ─► EETF of BT.2390 ─► gamut ─► sRGB

PQ: SMPTE ST 2084. HLG: ITU-R BT.2100, shown at its nominal peak of 1000 cd/m² with a system gamma of 1.2. The curve is the
EETF of ITU-R BT.2390 (also BT.2408, annex 5), by the largest of the three channels, so that hues stay: the identity in the
shadows and middle tones, a Hermite spline up to the picture's own peak. sRGB's white is BT.2408's reference white of
203 cd/m². A picture that nowhere exceeds that is not changed by the curve at all.
"""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from unquant.images.cicp import HLG, PRIMARIES, Cicp
from unquant.images.numbers import U8
from unquant.images.profiles import rgb_to_xyz

__all__ = ["WHITE", "tone_mapped"]

WHITE: Final = 203.0
"""cd/m² of BT.2408's reference white."""
_PEAK: Final = 10_000.0
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2
_REST: Final = 99.9
"""The picture's peak is this percentile of its pixels: few sparks do not darken all others."""
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_ROWS: Final = 256
F32 = npt.NDArray[np.float32]


def tone_mapped(values: npt.NDArray[Any], cicp: Cicp) -> U8:
    """(h, w, 3) uint8 sRGB of (h, w, 3) uint8 or uint16 at full scale, whose transfer is PQ or HLG.

    Raises KeyError for primaries that are not in `PRIMARIES`.
    """
    to_xyz = rgb_to_xyz(PRIMARIES[cicp.primaries])
    gamut = np.linalg.solve(rgb_to_xyz(PRIMARIES[1]), to_xyz).astype(np.float32)
    codes = np.arange(np.iinfo(values.dtype).max + 1) / np.iinfo(values.dtype).max
    table = (_hlg_scene(codes) if cicp.transfer == HLG else _pq_light(codes)).astype(np.float32)
    luma = to_xyz[1].astype(np.float32) if cicp.transfer == HLG else None
    blocks = [slice(start, start + _ROWS) for start in range(0, len(values), _ROWS)]
    peaks = np.concatenate([_light(values[block], table, luma).max(axis=2).ravel() for block in blocks])
    factors = _Factors(float(np.percentile(peaks, _REST)))
    del peaks
    out = np.empty((*values.shape[:2], 3), np.uint8)
    for block in blocks:
        light = _light(values[block], table, luma)
        light *= factors(light.max(axis=2, keepdims=True)) / np.float32(WHITE)
        out[block] = _srgb(light @ gamut.T)
    return out


class _Factors:
    """What the curve multiplies light by, of pixels whose largest channel is so many cd/m²."""

    def __init__(self, peak: float) -> None:
        peak = min(max(peak, WHITE), _PEAK)
        self.light = np.concatenate([[0.0], np.geomspace(0.01, _PEAK, 4096)])
        source = _pq_code(np.array([peak])).item()
        target = _pq_code(np.array([WHITE])).item() / source
        knee = 1.5 * target - 0.5
        coded = np.minimum(_pq_code(self.light) / source, 1.0)
        t = np.clip((coded - knee) / max(1 - knee, 1e-9), 0, 1)
        spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * target
        shown = _pq_light(np.where(coded < knee, coded, spline) * source)
        self.factor = np.where(self.light > 0, shown / np.maximum(self.light, 1e-9), 1.0)

    def __call__(self, largest: F32) -> F32:
        return np.interp(largest, self.light, self.factor).astype(np.float32)


def _light(values: npt.NDArray[Any], table: F32, luma: F32 | None) -> F32:
    """(h, w, 3) in cd/m². luma: the weights of the channels in HLG's luminance, which bends all of them."""
    light = table[values]
    if luma is not None:
        light *= np.float32(_HLG_PEAK) * (light @ luma)[:, :, None] ** np.float32(_HLG_GAMMA - 1)
    return light


def _pq_light(code: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    root = np.clip(code, 0, 1) ** (1 / _M2)
    return _PEAK * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)


def _pq_code(light: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    power = (light / _PEAK) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def _hlg_scene(code: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    a = 0.17883277
    b = 1 - 4 * a
    c = 0.5 - a * np.log(4 * a)
    return cast("npt.NDArray[np.float64]", np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12))


def _srgb(light: F32) -> U8:
    light = np.clip(light, 0, 1)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * coded).astype(np.uint8)
