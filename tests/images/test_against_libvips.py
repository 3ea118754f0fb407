"""A table of modes, depths, profiles and alpha on files made here: what `open_image` shows is what libvips shows."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import (
    P3_XYZ,
    SRGB_XYZ,
    cmyk_icc,
    gamma_curve,
    icc_chunk,
    make_icc,
    png_of,
    rgb_icc,
    smooth,
)
from PIL import Image

from unquant.images import open_image, to_picture

pyvips = pytest.importorskip("pyvips")

MOST = 2.0
"""Levels of 255, in the mean."""
PROFILES = {
    "none": None,
    "P3": rgb_icc(P3_XYZ, 2.2),
    "linear": rgb_icc(SRGB_XYZ, 1.0),
    "grey": make_icc(b"GRAY", b"XYZ ", {b"kTRC": gamma_curve(1.8)}),
    "linear grey": make_icc(b"GRAY", b"XYZ ", {b"kTRC": gamma_curve(1.0)}),
}
OF_GREY = ("none", "grey", "linear grey")
OF_COLOUR = ("none", "P3", "linear")


def by_libvips(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """(h, w, 3) uint8 sRGB, upright, and alpha."""
    image = pyvips.Image.new_from_file(str(path)).autorot()
    alpha = None
    if image.hasalpha():
        most = 65_535 if image.format == "ushort" else 255
        alpha = (image[-1] * (255 / most)).rint().cast("uchar").numpy()
        image = image[: image.bands - 1] if image.bands > 2 else image[0]
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb", embedded=True, intent="relative", black_point_compensation=True, depth=8)
    else:
        image = image.colourspace("srgb")
    rgb = np.atleast_3d(image.numpy())
    return (rgb.repeat(3, 2) if rgb.shape[2] == 1 else rgb), alpha


def check(path: Path, most: float = MOST) -> None:
    rgb, alpha = by_libvips(path)
    picture = to_picture(open_image(path))
    assert picture.rgb.shape == rgb.shape
    assert np.abs(picture.rgb.astype(float) - rgb).mean() <= most
    assert (picture.alpha is None) == (alpha is None or alpha.min() == 255)
    if picture.alpha is not None and alpha is not None:
        assert np.abs(picture.alpha.astype(float) - alpha).mean() <= 0.5


def close(profile: str) -> float:
    """Of linear grey LittleCMS, as libvips calls it, interpolates the dark levels; `test_spaces` has them by the formula."""
    return 1.0 if profile == "linear grey" else 0.6


def table(channels: tuple[int, ...] = (1, 2, 3, 4)) -> list[tuple[int, str]]:
    return [(c, profile) for c in channels for profile in (OF_GREY if c < 3 else OF_COLOUR)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "profile"), table())
def test_png(channels: int, profile: str, dtype: type, tmp_path: Path) -> None:
    icc = PROFILES[profile]
    path = tmp_path / "x.png"
    path.write_bytes(png_of(smooth(channels, dtype), icc_chunk(icc) if icc else b""))
    check(path, close(profile))


@pytest.mark.parametrize("compression", ["none", "deflate", "lzw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "profile"), table((1, 3, 4)))
def test_tiff(channels: int, profile: str, dtype: type, compression: str, tmp_path: Path) -> None:
    values = smooth(channels, dtype)
    image = pyvips.Image.new_from_array(values if channels > 1 else values[:, :, 0])
    wide = dtype == np.uint16
    image = image.copy(interpretation=("grey16" if wide else "b-w") if channels == 1 else ("rgb16" if wide else "srgb"))
    if (icc := PROFILES[profile]) is not None:
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    for name, options in (("strips", {}), ("tiles", {"tile": True, "tile_width": 32, "tile_height": 32})):
        path = tmp_path / f"{name}.tif"
        image.write_to_file(str(path), compression=compression, **options)
        check(path, close(profile))


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("profile", ["none", "linear"])
def test_turned_tiff_of_16_bits(profile: str, orientation: int, tmp_path: Path) -> None:
    image = pyvips.Image.new_from_array(smooth(3, np.uint16)).copy(interpretation="rgb16")
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    if (icc := PROFILES[profile]) is not None:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    image.write_to_file(str(tmp_path / "x.tif"))
    check(tmp_path / "x.tif", 0.6)


def pillow_file(kind: str, image: Image.Image, icc: bytes | None, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, icc_profile=icc, **options)
    return buffer.getvalue()


KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "420.jpg": ("JPEG", {"quality": 95, "subsampling": 2}),
    "webp": ("WEBP", {"quality": 90}),
    "lossless.webp": ("WEBP", {"lossless": True, "exact": True}),
    "avif": ("AVIF", {"quality": 90, "subsampling": "4:4:4"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "profile"), table((1, 3, 4)))
def test_lossy(kind: str, channels: int, profile: str, tmp_path: Path) -> None:
    name, options = KINDS[kind]
    if (name == "JPEG" and channels == 4) or (name != "JPEG" and profile in ("grey", "linear grey")):
        pytest.skip("the format has no such pictures")
    path = tmp_path / f"x.{kind}"
    path.write_bytes(pillow_file(name, Image.fromarray(smooth(channels).squeeze()), PROFILES[profile], **options))
    check(path)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_with_a_profile(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind.lower()}"
    options = {"quality": 100} if kind == "JPEG" else {}
    path.write_bytes(pillow_file(kind, Image.fromarray(smooth(4), "CMYK"), cmyk_icc(), **options))
    check(path)


@pytest.mark.parametrize("convert", [lambda i: i.convert("P"), lambda i: i.quantize(7), lambda i: i.convert("1")])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF"])
def test_palettes_and_bilevel(kind: str, convert: Callable[[Image.Image], Image.Image], tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind.lower()}"
    path.write_bytes(pillow_file(kind, convert(Image.fromarray(smooth(3))), None))
    check(path, 0.5)


@pytest.mark.parametrize("depth", [10, 12])
@pytest.mark.parametrize("profile", ["none", "linear"])
def test_deep_avif(depth: int, profile: str, tmp_path: Path) -> None:
    image = pyvips.Image.new_from_array(smooth(3, np.uint16)).copy(interpretation="rgb16")
    if (icc := PROFILES[profile]) is not None:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    path = tmp_path / "x.avif"
    image.write_to_file(str(path), bitdepth=depth, Q=95, subsample_mode="off")
    check(path)
