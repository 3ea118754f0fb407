from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import ALPHA, P3_XYZ, RGB, RNG, make_exif, raw_png, rgb_icc, with_icc
from PIL import ExifTags, Image

from unquant.errors import ImageTooLarge, InputError, OptionError, UnquantWarning
from unquant.images import (
    Picture,
    frame_count,
    from_arrays,
    image_bytes,
    open_image,
    read_rgb,
    register_formats,
    to_picture,
)


def file_bytes(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def test_open_path_and_stream(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(RGB).save(path)
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        image = open_image(source)
        np.testing.assert_array_equal(np.asarray(image), RGB)
        np.testing.assert_array_equal(to_picture(image).rgb, RGB)
        assert image.format == "PNG"


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_frames(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    colours = [(255, 0, 0), (0, 0, 255), (0, 200, 0)]
    first, *others = [Image.new("RGB", (16, 16), c) for c in colours]
    first.save(path, kind, save_all=True, append_images=others)
    assert frame_count(path) == 3
    with pytest.warns(UnquantWarning, match="x: has 3 frames or pages, of which the first"):
        assert np.abs(to_picture(open_image(path)).rgb.astype(int) - colours[0]).max() <= 8
    stream = io.BytesIO(path.read_bytes())
    assert frame_count(stream) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, colour in enumerate(colours):
            for source in (path, stream):
                picture = to_picture(open_image(source, frame=number))
                assert np.abs(picture.rgb.astype(int) - colour).max() <= 8
    for number in (-1, 3):
        with pytest.raises(OptionError, match=f"no frame {number}, of 3"):
            open_image(path, frame=number)


def test_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(RGB).save(path)
    assert frame_count(path) == 1
    np.testing.assert_array_equal(np.asarray(open_image(path, frame=0)), RGB)
    with pytest.raises(OptionError, match="no frame 1"):
        open_image(path, frame=1)
    path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"x\.png"):
        frame_count(path)


def test_pages_are_held_to_the_limit_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.new("L", (4, 4)).save(path, save_all=True, append_images=[Image.new("L", (50, 50))])
    assert open_image(path, max_pixels=100, frame=0).size == (4, 4)
    with pytest.raises(ImageTooLarge, match="50x50"):
        open_image(path, max_pixels=100, frame=1)


def test_missing_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png.*No such file"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(InputError, match="directory"):
        open_image(tmp_path)
    with pytest.raises(InputError):
        open_image("nul\0byte")


@pytest.mark.parametrize("data", [b"", b"just some text\n" * 9, RNG.bytes(5000), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_not_an_image(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "thing.jpg"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"thing\.jpg"):
        open_image(path)


def test_drawings_are_refused() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(InputError):
        open_image(io.BytesIO(eps))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000", "PPM"])
def test_truncated(kind: str, tmp_path: Path) -> None:
    data = file_bytes(kind)
    path = tmp_path / "cut"
    for length in {*range(0, len(data) - 64, max(1, len(data) // 25))}:
        path.write_bytes(data[:length])
        try:  # some decoders make do with less: what counts is that nothing but our errors comes out
            image = open_image(path)
        except (InputError, ImageTooLarge):
            continue
        assert kind not in ("PNG", "JPEG", "BMP", "PPM")
        to_picture(image)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "TGA", "PCX", "ICO", "AVIF", "HEIF", "JXL"]),
    st.data(),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged(kind: str, data: st.DataObject) -> None:
    register_formats()
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = open_image(io.BytesIO(bytes(damaged)), max_pixels=1 << 20)
        assert isinstance(to_picture(image), Picture)
    except (InputError, ImageTooLarge, OptionError):
        pass


@pytest.mark.parametrize("size", [(16_385, 16_384), (65_535, 65_535), (2**31 - 1, 2**31 - 1)])
def test_bomb_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLarge):
        open_image(io.BytesIO(raw_png(*size, 8, 2, b"")))


def test_max_pixels() -> None:
    data = raw_png(100, 100, 8, 2, b"")  # no pixels in it: were it decoded first, it would be an InputError
    with pytest.raises(ImageTooLarge, match="100x100"):
        open_image(io.BytesIO(data), max_pixels=9_999)
    with pytest.raises(InputError):
        open_image(io.BytesIO(data), max_pixels=10_000)


def test_truncated_lazy_image() -> None:
    data = file_bytes("JPEG")
    with pytest.raises(InputError, match="truncated"):
        to_picture(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_read_rgb(tmp_path: Path) -> None:
    image = with_icc(Image.fromarray(np.dstack([RGB, ALPHA])), rgb_icc(P3_XYZ, 2.2))
    path = tmp_path / "x.png"
    image.save(path, icc_profile=image.info["icc_profile"], exif=make_exif(3))
    expected = to_picture(image).rgb[::-1, ::-1]
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        np.testing.assert_array_equal(read_rgb(source), expected)


def test_messages_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(np.full((2, 2), 2.0, np.float32)).save(path)
    for source, name, text in ((path, None, str(path)), (io.BytesIO(path.read_bytes()), "member", "member")):
        with pytest.raises(InputError, match=f"^{text}: cannot be read: .*in \\[0, 1\\]"):
            read_rgb(source, name=name)
    with path.open("rb") as stream, pytest.raises(InputError, match=f"^{path}: cannot be read"):
        read_rgb(stream)
    with pytest.raises(InputError, match=r"^member: cannot be read: not an image"):
        read_rgb(io.BytesIO(b"no image"), name="member")
    Image.fromarray(RGB).save(tmp_path / "x.png", icc_profile=b"not a profile")
    with pytest.warns(UserWarning, match=r"^/.*/x\.png: colour profile ignored"):
        to_picture(open_image(tmp_path / "x.png"))


SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:240:6j, 0:240:8j], 90), axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp", ".avif", ".tif", ".tiff", ".ppm"])
def test_save_every_format(suffix: str) -> None:
    big = np.asarray(Image.fromarray(SMOOTH).resize((64, 48), Image.Resampling.BILINEAR))
    alpha = np.full(big.shape[:2], 255, np.uint8)
    alpha[:, :32] = 0
    for image in (from_arrays(big), from_arrays(big, alpha)):
        picture = to_picture(open_image(io.BytesIO(image_bytes(image, f"x{suffix}"))))
        tolerance = 0 if suffix in (".png", ".tif", ".tiff", ".ppm") else 12
        opaque = picture.rgb[:, 40:].astype(int) - big[:, 40:]
        assert np.abs(opaque).max() <= tolerance
        if image.mode == "RGBA":
            if suffix.lower() in (".jpg", ".jpeg", ".ppm"):
                assert picture.alpha is None
                assert picture.rgb[:, :24].min() >= 250
            else:
                np.testing.assert_array_equal(picture.alpha, alpha)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".avif", ".tif"])
def test_save_keeps_the_profile(suffix: str) -> None:
    icc = rgb_icc(P3_XYZ, 2.2)
    image = open_image(io.BytesIO(image_bytes(from_arrays(RGB, icc=icc), f"x{suffix}")))
    assert image.info["icc_profile"] == icc


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "I;16", "F", "YCbCr"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".ppm"])
def test_save_other_modes(mode: str, suffix: str) -> None:
    assert open_image(io.BytesIO(image_bytes(Image.new(mode, (3, 2)), f"x{suffix}"))).size == (3, 2)


def test_tiff_ignores_layout_tags_in_exif() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageWidth] = 9999
    exif[ExifTags.Base.Make] = "Maker"
    image = open_image(io.BytesIO(image_bytes(from_arrays(RGB, exif=exif.tobytes()), "x.tif")))
    np.testing.assert_array_equal(np.asarray(image), RGB)
    assert image.getexif()[ExifTags.Base.Make] == "Maker"


def test_save_refuses() -> None:
    image = Image.fromarray(RGB)
    for name in ("x.xyz", "x", "x.unq"):
        with pytest.raises(InputError, match="extension"):
            image_bytes(image, name)
    with pytest.raises(InputError, match="WEBP"):
        image_bytes(Image.new("L", (20_000, 1)), "x.webp")


def test_failure_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(InputError, match=r"x\.png.*No space"):
        image_bytes(Image.fromarray(RGB), "x.png")
