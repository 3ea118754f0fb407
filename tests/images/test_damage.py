"""Files cut after their last pixel are read with a warning, those that lack pixels are refused."""

from __future__ import annotations

import io
import warnings
import zlib

import numpy as np
import pytest
from image_files import P3_XYZ, icc_chunk, png_chunk, png_of, rgb_icc, smooth
from PIL import Image, PngImagePlugin

from unquant.errors import InputError, UnquantWarning
from unquant.images import open_image, to_picture

JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "progressive, restarts": {"progressive": True, "restart_marker_rows": 1},
    "coarse": {"quality": 5, "subsampling": 2},
}


def jpeg(mode: str, options: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    values = smooth(1 if mode == "L" else 3)
    values = values ^ np.random.default_rng(1).integers(0, 32, values.shape, dtype=np.uint8)
    Image.fromarray(values.squeeze()).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.filterwarnings("ignore:.*CMYK")
def test_jpeg_without_its_end(kind: str, mode: str) -> None:
    data = jpeg(mode, JPEGS[kind])
    assert data.endswith(b"\xff\xd9")
    whole = to_picture(open_image(io.BytesIO(data))).rgb
    for cut in (data[:-2], data[:-1]):
        with pytest.warns(UnquantWarning, match=r"x\.jpg: cut after its last pixel \(no end marker\)"):
            image = open_image(io.BytesIO(cut), name="x.jpg")
        np.testing.assert_array_equal(to_picture(image).rgb, whole)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg_that_lacks_pixels(kind: str, mode: str) -> None:
    data = jpeg(mode, JPEGS[kind])
    markers = [n for n in range(len(data) - 2) if data[n] == 0xFF and data[n + 1] not in (0, 0xFF)]
    for length in {*range(4, len(data) - 8, 97), *(n for n in markers if n > 2), *(n + 2 for n in markers if n > 2)}:
        with pytest.raises(InputError):
            open_image(io.BytesIO(data[:length]))


@pytest.mark.parametrize("missing", [1, 4, 11, 12])
def test_png_without_its_end(missing: int) -> None:
    values = smooth(3)
    with pytest.warns(UnquantWarning, match=r"x\.png: cut after its last pixel \(no chunk IEND\)"):
        image = open_image(io.BytesIO(png_of(values)[:-missing]), name="x.png")
    np.testing.assert_array_equal(to_picture(image).rgb, values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_image(io.BytesIO(png_of(values) + b"and more"))
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    for length in range(40, len(png_of(noise)) - 40, 13):
        with pytest.raises(InputError):
            open_image(io.BytesIO(png_of(noise)[:length]))


def test_long_text_in_a_png() -> None:
    values = smooth(3)
    long = b"x" * (PngImagePlugin.MAX_TEXT_CHUNK + 1)
    for chunk in (
        png_chunk(b"zTXt", b"a\0\0" + zlib.compress(long)),
        png_chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(long)),
    ):
        data = png_of(values, png_chunk(b"tEXt", b"Author\0somebody") + chunk + icc_chunk(rgb_icc(P3_XYZ, 2.2)))
        with pytest.warns(UnquantWarning, match=r"text too long to be read is left out \(1 chunks\)"):
            image = open_image(io.BytesIO(data))
        assert image.info["Author"] == "somebody"
        plain = png_of(values, icc_chunk(rgb_icc(P3_XYZ, 2.2)))
        np.testing.assert_array_equal(to_picture(image).rgb, to_picture(open_image(io.BytesIO(plain))).rgb)
        with pytest.raises(InputError), pytest.warns(UnquantWarning):
            open_image(io.BytesIO(data[:-40]))


def test_many_texts_in_a_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 2_500)
    text = b"".join(png_chunk(b"zTXt", b"%d\0\0" % n + zlib.compress(b"x" * 1_000)) for n in range(5))
    with pytest.warns(UnquantWarning, match=r"left out \(3 chunks\)"):
        image = open_image(io.BytesIO(png_of(smooth(3), text)))
    np.testing.assert_array_equal(to_picture(image).rgb, smooth(3))


def test_a_long_profile_in_a_png() -> None:
    icc = rgb_icc(P3_XYZ, 2.2)
    data = png_of(smooth(3), icc_chunk(icc + bytes(PngImagePlugin.MAX_TEXT_CHUNK)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = to_picture(open_image(io.BytesIO(data)))
    np.testing.assert_array_equal(
        picture.rgb, to_picture(open_image(io.BytesIO(png_of(smooth(3), icc_chunk(icc))))).rgb
    )
