from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
from image_files import RGB, make_exif, raw_png, smooth
from PIL import Image

from unquant.errors import CodecMissing, ImageTooLarge, InputError
from unquant.images import open_image, readable_suffixes, to_picture
from unquant.images.jxl import jxl_size

HEIF = pytest.importorskip("pillow_heif")
JXL = pytest.importorskip("pillow_jxl")


def jxl(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JXL", **options)
    return buffer.getvalue()


def heif(image: Image.Image, **options: object) -> bytes:
    HEIF.register_heif_opener()
    buffer = io.BytesIO()
    image.save(buffer, "HEIF", quality=-1, chroma=444, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [3, 4])
def test_heif_and_jxl_are_read(channels: int) -> None:
    values = smooth(channels)
    for data, tolerance in ((heif(Image.fromarray(values)), 2), (jxl(Image.fromarray(values), lossless=True), 0)):
        picture = to_picture(open_image(io.BytesIO(data)))
        assert np.abs(picture.rgb.astype(int) - values[:, :, :3]).max() <= tolerance
        assert (picture.alpha is None) == (channels == 3)
        if picture.alpha is not None:
            assert np.abs(picture.alpha.astype(int) - values[:, :, 3]).max() <= tolerance
    assert {".heic", ".heif", ".jxl"} <= readable_suffixes()


def test_heif_and_jxl_are_turned_once() -> None:
    """By what the formats themselves say, which the libraries follow; EXIF beside it does not count."""
    values = smooth(3)
    turned = to_picture(open_image(io.BytesIO(heif(Image.fromarray(values), exif=make_exif(6)[6:]))))
    assert np.abs(turned.rgb.astype(int) - values[::-1].swapaxes(0, 1)).max() <= 2
    assert turned.exif is not None
    exif = make_exif(6)[6:]
    upright = to_picture(open_image(io.BytesIO(jxl(Image.fromarray(values), lossless=True, exif=exif))))
    np.testing.assert_array_equal(upright.rgb, values)
    assert upright.exif == make_exif(1)[6:]


@pytest.mark.parametrize(
    ("data", "format_", "package", "modules"),
    [
        (heif(Image.fromarray(RGB)), "HEIC/HEIF", "pillow-heif", ("pillow_heif",)),
        (jxl(Image.fromarray(RGB)), "JPEG XL", "pillow-jxl-plugin", ("pillow_jxl",)),
        (jxl(Image.fromarray(RGB), use_container=True), "JPEG XL", "pillow-jxl-plugin", ("pillow_jxl",)),
    ],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, data: bytes, format_: str, package: str, modules: tuple[str, ...]
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    for kind in ("HEIF", "JXL"):
        monkeypatch.delitem(Image.OPEN, kind, raising=False)
    monkeypatch.setattr(Image, "ID", [kind for kind in Image.ID if kind in Image.OPEN])
    with pytest.raises(
        CodecMissing, match=rf"x: is {format_}, which needs {package}: pip install 'unquant\[formats\]'"
    ):
        open_image(io.BytesIO(data), name="x")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"II*\0\x08\0\0\0\0\0", "TIFF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", r"Canon raw \(CR3\)"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "a video or another file of the brand 'mp42'"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
        (b"#?RADIANCE\n", "Radiance HDR"),
        (b"gimp xcf v011", "GIMP XCF"),
        (b"PF\n2 2\n-1.0\n", "PFM with colour"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_other_formats_are_named(head: bytes, name: str) -> None:
    with pytest.raises(InputError, match=f"^x: not an image that can be read: {name}"):
        open_image(io.BytesIO(head + bytes(400)), name="x")


def test_a_tiff_is_named_by_its_tags() -> None:
    tags = [(256, 4, 2), (257, 4, 2), (258, 3, 16), (259, 3, 1), (262, 3, 8), (273, 4, 8), (277, 3, 1), (279, 4, 8)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = b"II*\0" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.raises(InputError, match=r"^x: not an image that can be read: TIFF with CIELab of 16 bits$"):
        open_image(io.BytesIO(data), name="x")


@pytest.mark.parametrize("size", [(8, 8), (256, 256), (7, 5), (300, 200), (1600, 900), (9000, 3), (3, 20_000)])
@pytest.mark.parametrize("container", [False, True])
def test_the_size_in_a_jxl_header(size: tuple[int, int], container: bool) -> None:
    data = jxl(Image.new("L", size), use_container=container, exif=make_exif()[6:] if container else None)
    assert jxl_size(io.BytesIO(data)) == size
    with pytest.raises(ImageTooLarge, match=f"{size[0]}x{size[1]}"):
        open_image(io.BytesIO(data), max_pixels=size[0] * size[1] - 1)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n", b"\x00\x00\x00\x0cJXL \r\n\x87\n" * 9]
)
def test_no_size_in_a_header_cut_short(data: bytes) -> None:
    assert jxl_size(io.BytesIO(data)) is None
    with pytest.raises(InputError):
        open_image(io.BytesIO(data))


def test_the_limit_is_ours_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS
    data = raw_png(15_000, 14_000, 1, 0, bytes(14_000 * (1 + 15_000 // 8)))  # beyond twice Pillow's own
    assert open_image(io.BytesIO(data)).size == (15_000, 14_000)
    with pytest.raises(ImageTooLarge, match="15000x14000 pixels: at most 1000000"):
        open_image(io.BytesIO(data), max_pixels=1_000_000)
    assert before == Image.MAX_IMAGE_PIXELS
    jpeg = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 60_000, 60_000, 1) + b"\1\x11\0"
    jpeg += b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\1\0\0\x3f\0"
    with pytest.raises(ImageTooLarge, match="60000x60000"):
        open_image(io.BytesIO(jpeg))
    with pytest.raises(InputError):
        open_image(io.BytesIO(jpeg), max_pixels=60_000**2)
