"""Numbers of more than 8 bits: converted before they are cut, scaled by what the file says, and without imagecodecs."""

from __future__ import annotations

import importlib.util
import io
import struct

import numpy as np
import pytest
from image_files import P3_XYZ, SRGB_XYZ, gamma_curve, icc_chunk, make_icc, png_chunk, png_of, rgb_icc, smooth
from PIL import Image

from unquant.errors import InputError, UnquantWarning
from unquant.images import image_bytes, open_image, to_picture

LINEAR = rgb_icc(SRGB_XYZ, 1.0)


def srgb(light: np.ndarray) -> np.ndarray:
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def shown(data: bytes) -> np.ndarray:
    return to_picture(open_image(io.BytesIO(data))).rgb.astype(float)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_dark_linear_light_keeps_its_steps(channels: int) -> None:
    """Of these 64 levels 8 bits have three."""
    levels = np.arange(64, dtype=np.uint16)[None, :, None].repeat(channels, 2) * 8
    levels[:, :, channels - 1 if channels in (2, 4) else 0] |= 0
    if channels in (2, 4):
        levels[:, :, -1] = 65_535
    icc = LINEAR if channels > 2 else make_icc(b"GRAY", b"XYZ ", {b"kTRC": gamma_curve(1.0)})
    found = shown(png_of(levels, icc_chunk(icc)))
    np.testing.assert_allclose(found[..., 0], srgb(levels[..., 0] / 65_535), atol=0.7)
    assert len(np.unique(found)) > 15


def test_without_a_profile_16_bits_are_rounded_not_cut() -> None:
    values = np.random.default_rng(3).integers(0, 65_536, (64, 64, 3)).astype(np.uint16)
    np.testing.assert_array_equal(shown(png_of(values)), (values.astype(int) + 128) // 257)


def test_a_key_of_16_bits_is_compared_with_all_of_them() -> None:
    values = np.array([[[1000, 2000, 3000], [1001, 2000, 3000]]], np.uint16)
    data = png_of(values, png_chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000)))
    picture = to_picture(open_image(io.BytesIO(data)))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255]]


def test_the_converted_image_is_srgb_for_who_reads_it_again() -> None:
    image = open_image(io.BytesIO(png_of(smooth(3, np.uint16), icc_chunk(LINEAR))))
    assert (image.mode, image.format) == ("RGB", "PNG")
    assert "icc_profile" not in image.info
    once = to_picture(image).rgb
    np.testing.assert_array_equal(to_picture(image).rgb, once)
    np.testing.assert_array_equal(shown(image_bytes(image, "x.png")), once)


def test_without_imagecodecs_8_bits_are_converted_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "imagecodecs" else find_spec(name))
    values = smooth(3, np.uint16)
    with pytest.warns(UnquantWarning, match=r"more than 8 bits, of which 8 .*pip install 'unquant\[formats\]'"):
        found = shown(png_of(values, icc_chunk(rgb_icc(P3_XYZ, 2.2))))
    assert np.abs(found - shown(png_of((values >> 8).astype(np.uint8), icc_chunk(rgb_icc(P3_XYZ, 2.2))))).max() == 0
    grey = smooth(1, np.uint16)
    icc = make_icc(b"GRAY", b"XYZ ", {b"kTRC": gamma_curve(1.8)})
    wanted = srgb((grey / 65_535) ** 1.8)
    for data in (png_of(grey, icc_chunk(icc)), png_of(np.dstack([grey, grey]), icc_chunk(icc))):
        assert np.abs(shown(data)[..., :1] - wanted).mean() <= 1


def test_files_that_two_decoders_read_differently_stay_pillow_s(monkeypatch: pytest.MonkeyPatch) -> None:
    import imagecodecs

    values = smooth(3, np.uint16)
    for other, text in ((values[::-1], "two decoders differ"), (values[:9], "two decoders differ")):
        monkeypatch.setattr(imagecodecs, "png_decode", lambda _, other=other: other)
        with pytest.warns(UnquantWarning, match=text):
            found = shown(png_of(values))
        np.testing.assert_array_equal(found, values >> 8)

    def fail(_: bytes) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(imagecodecs, "png_decode", fail)
    with pytest.warns(UnquantWarning, match="of which 8 are read: no such thing"):
        np.testing.assert_array_equal(shown(png_of(values)), values >> 8)


def tiff_of(bits: int, values: list[int], photometric: int = 1) -> bytes:
    """One row of grey, packed by the most significant bit."""
    packed = int("".join(f"{v:0{bits}b}" for v in values), 2).to_bytes(len(values) * bits // 8, "big")
    tags = [(256, 4, len(values)), (257, 4, 1), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, 1), (279, 4, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    start = 8 + len(packed) + len(packed) % 2
    body = packed + bytes(len(packed) % 2) + struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", start) + body


def test_tiff_of_12_bits() -> None:
    levels = [0, 1, 8, 16, 255, 2047, 2048, 4095]
    found = shown(tiff_of(12, levels))[0, :, 0]
    np.testing.assert_allclose(found, np.array(levels) * 255 / 4095, atol=0.51)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("scale", [1.0, 0.5, 4.0])
def test_pfm(scale: float, order: str) -> None:
    levels = np.linspace(0, 1, 24).reshape(4, 6)
    head = f"Pf\n6 4\n{-scale if order == '<' else scale}\n".encode()
    data = head + (levels[::-1] / scale).astype(f"{order}f4").tobytes()
    np.testing.assert_allclose(shown(data)[..., 1], 255 * levels, atol=0.51)


def test_pfm_of_whole_levels() -> None:
    for most in (255, 65_535):
        levels = np.linspace(0, most, 24).round().reshape(4, 6)
        data = b"Pf\n6 4\n-1.0\n" + levels[::-1].astype("<f4").tobytes()
        np.testing.assert_allclose(shown(data)[..., 1], 255 * levels / most, atol=0.51)


@pytest.mark.parametrize("values", [[0.5, 7.25], [-1, 0.5], [float("nan"), 0.5], [0, 1e6]])
def test_pfm_beyond_white_is_refused_by_name(values: list[float]) -> None:
    data = b"Pf\n2 1\n-1.0\n" + np.array(values, "<f4").tobytes()
    with pytest.raises(InputError, match=r"^x\.pfm: cannot be read: .*\[0, 1\]"):
        open_image(io.BytesIO(data), name="x.pfm")


def test_a_deep_frame_of_a_tiff() -> None:
    buffer = io.BytesIO()
    first = Image.fromarray(smooth(3))
    first.save(buffer, "TIFF", save_all=True, append_images=[Image.fromarray(smooth(3)[::-1])])
    picture = to_picture(open_image(io.BytesIO(buffer.getvalue()), frame=1))
    np.testing.assert_array_equal(picture.rgb, smooth(3)[::-1])
    pages = pytest.importorskip("pyvips")
    stacked = pages.Image.new_from_array(np.concatenate([smooth(3, np.uint16), smooth(3, np.uint16)[:, ::-1]]))
    stacked = stacked.copy(interpretation="rgb16")
    stacked.set_type(pages.GValue.gint_type, "page-height", 48)
    data = stacked.tiffsave_buffer()
    for frame, wanted in enumerate((smooth(3, np.uint16), smooth(3, np.uint16)[:, ::-1])):
        picture = to_picture(open_image(io.BytesIO(data), frame=frame))
        np.testing.assert_array_equal(picture.rgb, (wanted.astype(int) + 128) // 257)
