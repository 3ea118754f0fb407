"""PQ and HLG against the formulas of their standards, written out once more, number by number."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from image_files import png_chunk, png_of, smooth

from unquant.errors import UnquantWarning
from unquant.images import open_image, to_picture
from unquant.images.cicp import HLG, PQ, Cicp
from unquant.images.hdr import WHITE, tone_mapped


def pq(nits: float) -> float:
    y = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def unpq(code: float) -> float:
    root = code ** (1 / 78.84375)
    return 10_000 * (max(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


def hlg(scene: float) -> float:
    return math.sqrt(3 * scene) if scene <= 1 / 12 else 0.17883277 * math.log(12 * scene - 0.28466892) + 0.55991073


def srgb(light: float) -> float:
    light = min(max(light, 0), 1)
    return 255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055)


def eetf(nits: float, peak: float) -> float:
    """BT.2390, for a display of 203 cd/m² that reaches black."""
    e1, most = pq(nits) / pq(peak), pq(203) / pq(peak)
    ks = 1.5 * most - 0.5
    if e1 < ks:
        return nits
    t = (min(e1, 1) - ks) / (1 - ks)
    p = (2 * t**3 - 3 * t**2 + 1) * ks + (t**3 - 2 * t**2 + t) * (1 - ks) + (-2 * t**3 + 3 * t**2) * most
    return unpq(p * pq(peak))


def grays(codes: list[float]) -> np.ndarray:
    return np.rint(65_535 * np.array(codes)).astype(np.uint16)[None, :, None].repeat(3, 2)


def test_a_picture_within_white_is_what_it_was() -> None:
    nits = [0.0, 0.5, 5, 20, 50, 100, 150, 203]
    shown = tone_mapped(grays([pq(n) for n in nits]), Cicp(9, PQ))[0]
    np.testing.assert_allclose(shown, np.array([srgb(n / WHITE) for n in nits])[:, None].repeat(3, 1), atol=0.6)


@pytest.mark.parametrize("peak", [300, 1000, 4000, 10_000])
def test_pq_by_the_eetf(peak: float) -> None:
    nits = sorted([0.0, 1, 10, 50, 100, 203, 250, peak / 2, peak])
    values = grays([pq(n) for n in nits] + [pq(peak)] * 30)
    shown = tone_mapped(values, Cicp(9, PQ))[0, : len(nits)].astype(float)
    expected = np.array([srgb(eetf(n, peak) / 203) for n in nits])
    np.testing.assert_allclose(shown, expected[:, None].repeat(3, 1), atol=1)
    assert shown[-1].min() == 255
    assert (np.diff(shown[:, 0]) >= 0).all()


def test_a_few_sparks_darken_nothing() -> None:
    values = np.full((100, 100, 3), round(65_535 * pq(100)), np.uint16)
    values[0, :5] = 65_535
    assert np.abs(tone_mapped(values, Cicp(1, PQ))[1:].astype(float) - srgb(100 / 203)).max() <= 1


def test_hlg_by_its_system_gamma() -> None:
    scene = [0.0, 0.01, 0.05, 0.1, 0.2]
    shown = tone_mapped(grays([hlg(e) for e in scene]), Cicp(9, HLG))[0]
    nits = [1000 * e**1.2 for e in scene]
    assert max(nits) < 203
    np.testing.assert_allclose(shown[:, 1], [srgb(n / 203) for n in nits], atol=1)
    # reference white of HLG, 75%, is that of PQ
    assert abs(1000 * 0.26496256**1.2 - 203) < 1
    assert tone_mapped(grays([0.75]), Cicp(9, HLG)).min() >= 254


def test_hue_stays() -> None:
    values = np.rint(65_535 * np.array([[[pq(800), pq(400), pq(200)]] * 9])).astype(np.uint16)
    red, green, blue = (255 * np.power(tone_mapped(values, Cicp(1, PQ))[0, 0] / 255, 2.2)).tolist()
    assert red > 250
    assert green / red == pytest.approx(0.5, abs=0.03)
    assert blue / red == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("transfer", "name"), [(PQ, "PQ"), (HLG, "HLG")])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_files_are_mapped_with_a_warning(channels: int, transfer: int, name: str, dtype: type) -> None:
    values = smooth(channels, dtype) // 2
    data = png_of(values, png_chunk(b"cICP", bytes((9, transfer, 0, 1))))
    with pytest.warns(UnquantWarning, match=rf"x: a high dynamic range \({name}\), mapped to that of sRGB"):
        picture = to_picture(open_image(io.BytesIO(data), name="x"))
    colour = values[:, :, :3] if channels > 1 else values.repeat(3, 2)
    np.testing.assert_array_equal(picture.rgb, tone_mapped(np.ascontiguousarray(colour), Cicp(9, transfer)))
    assert (picture.alpha is None) == (channels != 4)
