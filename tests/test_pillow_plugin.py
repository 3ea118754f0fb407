"""`.unq` as a format of Pillow: opened, drawn, saved, refused."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

import unquant
from unquant import pillow_plugin
from unquant.codecs.av1 import Av1Codec
from unquant.codecs.interface import AnyCodec
from unquant.container import Container, Header, Tile, parse
from unquant.pillow_plugin import FORMAT, UnqImageFile

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><about>a cup</about></x:xmpmeta>'


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> None:
    """The plugin, for one test; the tiny weights are found by their names."""
    Image.init()
    for registry in ("ID", "OPEN", "SAVE", "EXTENSION", "MIME"):
        monkeypatch.setattr(Image, registry, getattr(Image, registry).copy())
    monkeypatch.setattr(pillow_plugin, "_decoding", {})
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(tiny_weights.parent))
    unquant.register_opener()


@pytest.fixture(scope="module")
def picture(photo: Image.Image) -> Image.Image:
    return photo.crop((100, 80, 148, 112))


def same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures have the same pixels, whatever travels beside them."""
    return one.mode == other.mode and one.size == other.size and one.tobytes() == other.tobytes()


def test_what_pillow_is_told() -> None:
    for _ in range(2):
        unquant.register_opener()
        assert Image.ID.count(FORMAT) == 1
    assert Image.registered_extensions()[".unq"] == FORMAT
    assert Image.MIME[FORMAT] == "image/x-unquant"
    with pytest.raises(unquant.OptionError, match="realism"):
        unquant.register_opener(realism=2)


OPENING = """
import sys
import unquant.pillow
from PIL import Image
with Image.open(sys.argv[1]) as image:
    assert (image.format, image.size, image.mode) == ("UNQ", (48, 32), "RGB"), image
    assert image.info["q_index"] and image.getexif() is not None
    assert "torch" not in sys.modules
    image.load()
    assert "torch" in sys.modules
"""


def test_the_header_needs_no_torch(tiny: AnyCodec, picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.unq"
    path.write_bytes(tiny.encode(picture))
    source = str(Path(unquant.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source}
    done = subprocess.run(
        [sys.executable, "-c", OPENING, path], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_file_of_every_family(every: AnyCodec, every_weights: Path, picture: Image.Image, tmp_path: Path) -> None:
    unquant.register_opener(model=every_weights)
    path = tmp_path / "a.unq"
    data = every.encode(picture, quality=30, realism=0.25, seed=7)
    path.write_bytes(data)
    about = unquant.info(data)
    for source in (path, str(path), io.BytesIO(data)):
        with Image.open(source) as image:
            assert isinstance(image, UnqImageFile)
            assert (image.format, image.mode, image.size) == (FORMAT, "RGB", picture.size)
            assert image.get_format_mimetype() == "image/x-unquant"
            assert image.info == {
                "family": every.family,
                "stream_id": about.stream_id,
                "q_index": about.q_index,
                "bpp": about.bpp,
                "realism": 0.25,
                "seed": 7,
            }
            assert same(image, every.decode(data))
            assert (image.size, image.mode) == (picture.size, "RGB")
            image.putpixel((0, 0), (1, 2, 3))
            assert image.getpixel((0, 0)) == (1, 2, 3)
    with path.open("rb") as stream, Image.open(stream) as image:
        image.load()
        assert not stream.closed
    plain = io.BytesIO(every.encode(picture))
    assert Image.open(plain).info | {"realism": None, "seed": None} == Image.open(plain).info


def test_modes(tiny: AnyCodec, tiny_av1: Av1Codec, tiny_av1_weights: Path, picture: Image.Image) -> None:
    transparent = picture.copy()
    transparent.putalpha(Image.linear_gradient("L").resize(picture.size))
    avif = io.BytesIO()
    picture.convert("L").save(avif, "AVIF", subsampling="4:0:0")
    for codec, weights, data, mode in (
        (tiny, None, tiny.encode(transparent), "RGBA"),
        (tiny_av1, tiny_av1_weights, tiny_av1.encode(transparent), "RGBA"),
        (tiny_av1, tiny_av1_weights, tiny_av1.repack(avif.getvalue()), "L"),
    ):
        unquant.register_opener(model=weights)
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == mode
            assert same(image, codec.decode(data))
            assert image.mode == mode


def test_metadata(tiny: AnyCodec, picture: Image.Image) -> None:
    tagged = picture.copy()
    exif = Image.Exif()
    exif[0x010E] = "a cup"
    tagged.info |= {"exif": exif.tobytes(), "xmp": XMP}
    container = parse(tiny.encode(tagged))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = Container(container.header, container.tiles, None, profile, container.exif, container.xmp).to_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[0x010E] == "a cup"
        assert image.info["xmp"] == XMP
        assert image.info["icc_profile"] == profile
        png = io.BytesIO()
        image.save(png, "PNG", exif=image.info["exif"])
    with Image.open(png) as image:
        assert image.getexif()[0x010E] == "a cup"
        assert image.info["icc_profile"] == profile


# --- saving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 10},
        {"bpp": 0.35},
        {"target_bytes": 60},
        {"q_index": 200},
        {"quality": 10, "realism": 0.5, "seed": 3},
        {},
    ],
)
def test_saving_takes_the_options_of_an_encode(
    tiny: AnyCodec, picture: Image.Image, tmp_path: Path, options: dict[str, Any]
) -> None:
    path = tmp_path / "a.UNQ"
    picture.save(path, model="tiny", optimize=True, **options)
    assert path.read_bytes() == tiny.encode(picture, **options)
    stream = io.BytesIO()
    picture.save(stream, FORMAT, model=tiny.name, **options)
    assert stream.getvalue() == path.read_bytes()


def test_saving_any_mode(tiny: AnyCodec, picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.unq"
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"):
        image = Image.new(mode, (20, 10)) if mode == "I;16" else picture.convert(mode)
        image.save(path, model="tiny", quality=20)
        assert path.read_bytes() == tiny.encode(image, quality=20)


def test_saving_metadata(tiny: AnyCodec, picture: Image.Image, tmp_path: Path) -> None:
    path, again = tmp_path / "a.unq", tmp_path / "b.unq"
    tagged = picture.copy()
    exif = Image.Exif()
    exif[0x010E] = "a cup"
    tagged.info["exif"] = exif.tobytes()
    tagged.save(path, model="tiny")
    assert Image.open(path).getexif()[0x010E] == "a cup"
    Image.open(path).save(again, model="tiny")
    assert Image.open(again).getexif()[0x010E] == "a cup"
    tagged.save(path, model="tiny", metadata=False)
    assert "exif" not in Image.open(path).info
    exif[0x010E] = "a saucer"
    for given in (exif, exif.tobytes()):
        tagged.save(path, model="tiny", exif=given, xmp=XMP)
        assert Image.open(path).getexif()[0x010E] == "a saucer"
        assert Image.open(path).info["xmp"] == XMP
    assert tagged.info == {"exif": tagged.info["exif"]}
    tagged.save(path, model="tiny", exif=b"")
    assert "exif" not in Image.open(path).info


def test_saving_what_cannot_be(picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.unq"
    wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ValueError, "exclude", {"quality": 10, "bpp": 1}),
        (ValueError, "quality", {"quality": "keep"}),
        (ValueError, "smallest|least|reach", {"target_bytes": 1}),
        (OSError, "no model named", {"model": "none-such"}),
    ]
    for kind, cause, options in wrong:
        with pytest.raises(kind, match=cause):
            picture.save(path, **{"model": "tiny"} | options)
        assert not path.exists()


# --- what is wrong --------------------------------------------------------------------------------------------------


def damaged(tiny: AnyCodec, picture: Image.Image) -> bytes:
    """A file whose headers are right and whose tile is not."""
    container = parse(tiny.encode(picture))
    tile = container.tiles[0]
    return Container(container.header, (Tile(tile.stream, tile.crc ^ 1),)).to_bytes()


def test_what_is_no_file(tiny: AnyCodec, picture: Image.Image, tmp_path: Path) -> None:
    data = tiny.encode(picture)
    path = tmp_path / "a.unq"
    for wrong in (data[:4], data[:-1], data + b"\0", data[:4] + b"\xff" + data[5:], b"no picture"):
        path.write_bytes(wrong)
        for source in (path, io.BytesIO(wrong)):
            with pytest.raises(UnidentifiedImageError):
                Image.open(source)
        with pytest.raises(SyntaxError):
            UnqImageFile(path)
    with pytest.raises(FileNotFoundError):
        Image.open(tmp_path / "none.unq")
    # other formats are as they were
    picture.save(tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").format == "PNG"


def test_too_many_pixels() -> None:
    header = Header("ratevar", b"\0\0\0\1", 20_000, 9_000, 300)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(Container(header, (Tile(b"", 0),)).to_bytes()))
    # beyond our own limit: the file cannot be made by the container
    data = Header("ratevar", b"\0\0\0\1", 70_000, 70_000, 300).to_bytes() + b"\x02\x00\0\0\0\0"
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_a_damaged_tile(tiny: AnyCodec, picture: Image.Image) -> None:
    with Image.open(io.BytesIO(damaged(tiny, picture))) as image:
        for _ in range(2):
            with pytest.raises(OSError, match="checksum"):
                image.load()


def test_missing_weights(tiny: AnyCodec, picture: Image.Image) -> None:
    container = parse(tiny.encode(picture))
    header = Header("ratevar", b"\0\0\0\1", *picture.size, container.header.q_index)
    with Image.open(io.BytesIO(Container(header, container.tiles).to_bytes())) as image:
        assert image.info["stream_id"] == "00000001"
        with pytest.raises(OSError, match="00000001"):
            image.load()


def test_closed_and_copied(tiny: AnyCodec, picture: Image.Image, tmp_path: Path) -> None:
    data = tiny.encode(picture)
    image = Image.open(io.BytesIO(data))
    right = tiny.decode(data)
    assert same(pickle.loads(pickle.dumps(image)), right)
    assert same(image.copy(), right)
    image.close()
    with pytest.raises(ValueError, match="closed"):
        image.load()
    unread = Image.open(io.BytesIO(data))
    unread.close()
    with pytest.raises((ValueError, OSError)):
        unread.load()
    path = tmp_path / "a.unq"
    path.write_bytes(data)
    opened = Image.open(path)
    stream = opened.fp
    assert stream is not None
    opened.load()
    assert stream.closed


def test_how_pictures_are_drawn(tiny: AnyCodec, picture: Image.Image) -> None:
    data = tiny.encode(picture, quality=10, seed=5)
    before = Image.open(io.BytesIO(data))
    unquant.register_opener(realism=1, seed=2)
    assert same(Image.open(io.BytesIO(data)), tiny.decode(data, realism=1, seed=2))
    assert not same(tiny.decode(data, realism=1, seed=2), tiny.decode(data))
    unquant.register_opener()
    assert same(before, tiny.decode(data))  # as it was told when it was opened


# --- threads --------------------------------------------------------------------------------------------------------


def test_threads_share_an_image(tiny: AnyCodec, picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.encode(picture)
    calls: list[int] = []
    decode = pillow_plugin.decode

    def counted(*arguments: Any, **options: Any) -> Image.Image:
        calls.append(threading.get_ident())
        return decode(*arguments, **options)

    monkeypatch.setattr(pillow_plugin, "decode", counted)
    image = Image.open(io.BytesIO(data))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: image.tobytes(), range(8)))
    assert len(calls) == 1
    assert set(found) == {tiny.decode(data).tobytes()}


def test_threads_open_and_save(tiny: AnyCodec, picture: Image.Image, tmp_path: Path) -> None:
    right = tiny.decode(tiny.encode(picture, quality=20)).tobytes()

    def there_and_back(number: int) -> bytes:
        path = tmp_path / f"{number}.unq"
        unquant.register_opener()
        picture.copy().save(path, model="tiny", quality=20)  # Pillow keeps the options of a save in the image
        with Image.open(path) as image:
            return image.tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(there_and_back, range(8))) == {right}


def test_numpy_takes_an_opened_file(tiny: AnyCodec, picture: Image.Image) -> None:
    data = tiny.encode(picture)
    image = Image.open(io.BytesIO(data))
    assert isinstance(image, ImageFile.ImageFile)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(tiny.decode(data)))
