"""AV1 by way of Pillow: every option, options that a build does not know, half size, damage."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from av1_files import photograph, pillow_avif, pixels
from PIL import Image, features

from unquant.codecs.avif import (
    BASE,
    SUBSAMPLINGS,
    TUNES,
    AvifOptions,
    decode_avif,
    encode_avif,
    enlarge,
    reduce,
    require_avif,
)
from unquant.container.avif import parse_avif
from unquant.errors import CodecMissing, CorruptStream, OptionError

PICTURE = np.asarray(photograph(96, 72))


@pytest.mark.parametrize(
    "change",
    [
        {"quality": -1},
        {"quality": 101},
        {"quality": 50.0},
        {"quality": True},
        {"speed": 11},
        {"speed": None},
        {"deltaq_strength": 101},
        {"deltaq_strength": "20"},
        {"sharpness": 8},
        {"sharpness": -1},
        {"tune": "butteraugli"},
        {"subsampling": "4:0:0"},
        {"subsampling": 444},
    ],
    ids=str,
)
def test_options_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"^{next(iter(change))}: "):
        replace(BASE, **change)


def test_the_names_of_libaom() -> None:
    assert BASE.advanced() == {"tune": "iq", "deltaq-mode": "6", "deltaq-strength": "50", "sharpness": "0"}
    assert AvifOptions(deltaq_strength=None, sharpness=None).advanced() == {"tune": "iq"}
    assert AvifOptions(tune="ssim", deltaq_strength=0, sharpness=2).advanced() == {
        "tune": "ssim",
        "deltaq-mode": "0",
        "sharpness": "2",
    }


@pytest.mark.parametrize("tune", TUNES)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_options_are_used(tune: str, subsampling: str) -> None:
    options = replace(BASE, quality=40, speed=9, tune=tune, subsampling=subsampling)
    found = parse_avif(encode_avif(PICTURE, options)).picture
    assert (found.chroma, found.full_range, found.reduced_header) == (subsampling, True, True)
    assert found.delta_q_present
    # matrices come with tune iq
    assert found.using_qmatrix == (tune == "iq")
    without = parse_avif(encode_avif(PICTURE, replace(options, deltaq_strength=0)))
    assert not without.picture.delta_q_present
    assert without.obus != parse_avif(encode_avif(PICTURE, replace(options, deltaq_strength=0, quality=45))).obus


def test_grey_is_monochrome() -> None:
    grey = np.asarray(photograph(33, 17, "L"))
    data = encode_avif(grey, replace(BASE, quality=100, deltaq_strength=0))
    assert parse_avif(data).picture.mono
    assert np.array_equal(pixels(data), grey)
    rgb, alpha = decode_avif(data)
    assert np.array_equal(rgb, np.repeat(grey[..., None], 3, axis=2))
    assert alpha is None


def test_other_views_of_an_array() -> None:
    assert encode_avif(PICTURE[:, ::-1]) == encode_avif(PICTURE[:, ::-1].copy())


@pytest.mark.parametrize("unknown", [{"tune"}, {"sharpness"}, {"deltaq-strength"}, {"deltaq-mode", "deltaq-strength"}])
def test_an_option_that_a_build_does_not_know_is_left_out(unknown: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As Pillow says it: it does not say which. Pictures are coded all the same, and other refusals are told."""
    save = Image.Image.save
    tried: list[dict[str, str]] = []

    def picky(self: Image.Image, fp: Any, kind: str, **options: Any) -> None:
        tried.append(dict(options["advanced"]))
        if unknown & set(options["advanced"]):
            raise ValueError("Failed to encode image: Invalid codec-specific option")
        save(self, fp, kind, **options)

    monkeypatch.setattr(Image.Image, "save", picky)
    data = encode_avif(PICTURE, replace(BASE, sharpness=1))
    assert parse_avif(data).picture.chroma == "4:4:4"
    assert len(tried) > 1
    assert not unknown & set(tried[-1])
    if "tune" not in unknown:
        assert tried[-1]["tune"] == "iq"


def test_other_errors_of_pillow_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("Failed to encode image: Out of memory")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OptionError, match=r"96×72: .*Out of memory"):
        encode_avif(PICTURE)


def test_without_avif(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_avif(PICTURE)
    monkeypatch.setattr(features, "check", lambda feature: feature != "avif")
    for work in (require_avif, lambda: encode_avif(PICTURE), lambda: decode_avif(data)):
        with pytest.raises(CodecMissing, match="Pillow"):
            work()


def test_threads() -> None:
    """Two encoder threads and more give the same bytes, and encodes beside each other do not disturb each other."""
    large = np.asarray(photograph(300, 200))
    options = replace(BASE, quality=30)
    files = [encode_avif(large, options, threads=threads) for threads in (2, 2, 4)]
    assert len(set(files)) == 1
    crops = [large[y : y + 90] for y in range(0, 100, 20)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(encode_avif, crops)) == [encode_avif(crop) for crop in crops]


def test_decode_as_it_lies_in_the_file() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = pillow_avif(photograph(40, 23, "RGBA"), exif=exif)
    rgb, alpha = decode_avif(data)
    assert rgb.shape == (23, 40, 3)
    assert np.array_equal(np.dstack([rgb, alpha]), pixels(data))


@pytest.mark.parametrize("data", [b"", b"\0" * 40, encode_avif(PICTURE)[:-60], encode_avif(PICTURE)[:100]])
def test_what_cannot_be_decoded(data: bytes) -> None:
    with pytest.raises(CorruptStream):
        decode_avif(data)


def test_pillow_s_own_limit_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one limit on pixels, ours."""
    data = encode_avif(PICTURE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decode_avif(data)[0].shape == PICTURE.shape


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 5), (3, 7), (17, 33), (64, 40), (65, 1)])
def test_half_size(size: tuple[int, int]) -> None:
    width, height = size
    rgb = np.asarray(photograph(width, height))
    half = reduce(rgb)
    assert half.shape == (-(-height // 2), -(-width // 2), 3)
    assert enlarge(half, height, width).shape == (height, width, 3)
    # as docs/format.md has it
    double = Image.fromarray(half).resize((2 * half.shape[1], 2 * half.shape[0]), Image.Resampling.BICUBIC)
    assert np.array_equal(enlarge(half, height, width), np.asarray(double.crop((0, 0, width, height))))


def test_half_size_keeps_colours_and_places() -> None:
    for size in ((7, 9), (8, 8)):
        flat = np.full((*size, 3), (10, 200, 77), np.uint8)
        assert np.array_equal(enlarge(reduce(flat), *size), flat)
    smooth = np.asarray(Image.linear_gradient("L").resize((61, 47)).convert("RGB"))
    away = enlarge(reduce(smooth), 47, 61).astype(int) - smooth
    assert np.abs(away[2:-2, 2:-2]).max() <= 3
