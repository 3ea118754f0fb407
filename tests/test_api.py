"""The public surface of the package: its names, its signatures, and what it takes for an image or a file."""

from __future__ import annotations

import inspect
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import unquant
from unquant import codecs, errors
from unquant.codecs.interface import AnyCodec, Codec
from unquant.codecs.options import DecodeKeywords, DecodeOptions, EncodeKeywords, EncodeOptions
from unquant.container import Header, parse_header, pixel_limit

ERRORS = set(errors.__all__) - {"TrainingError", "warn"}
"""Training is a command; what it raises is in `unquant.errors`."""


@pytest.fixture(scope="module")
def picture(photo: Image.Image) -> Image.Image:
    return photo.crop((100, 80, 148, 112))


@pytest.fixture
def installed(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny weights are found by their names."""
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(tiny_weights.parent))


def test_exported_members() -> None:
    names = {
        "Codec",
        "Info",
        "Limits",
        "ModelInfo",
        "__version__",
        "decode",
        "encode",
        "info",
        "load",
        "models",
        "register_opener",
        "uncertainty",
    } | ERRORS
    assert set(unquant.__all__) == names == set(dir(unquant))
    assert {name: getattr(unquant, name) for name in ERRORS} == {name: getattr(errors, name) for name in ERRORS}
    assert unquant.Codec is Codec
    assert set(codecs.__all__) >= {"Codec", "Info", "ModelInfo", "decode", "encode", "info", "load", "models"}
    for name in ("decode", "encode", "info", "load", "models", "register_opener", "uncertainty"):
        assert inspect.isfunction(getattr(unquant, name))  # not a folder of the package that has the same name
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = unquant.nothing_such
    assert (Path(unquant.__file__).parent / "py.typed").is_file()


IMPORTS = """
import sys
heavy = {"torch", "numpy", "PIL", "constriction", "safetensors", "jaxtyping", "pydantic", "typer", "rich"}
import unquant
assert not heavy & set(sys.modules), heavy & set(sys.modules)
dir(unquant), unquant.__version__
info = unquant.info(sys.argv[1])
assert info.width == 40 and unquant.models()
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_importing_is_light(every: AnyCodec, photo: Image.Image, tmp_path: Path) -> None:
    """`import unquant`, `info` and `models` need nothing but the standard library."""
    path = tmp_path / "a.unq"
    path.write_bytes(every.encode(photo.crop((0, 0, 40, 30))))
    source = Path(unquant.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, path],
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("functions", "keywords", "options"),
    [
        ((unquant.encode, Codec.encode), EncodeKeywords, EncodeOptions),
        ((unquant.decode, Codec.decode), DecodeKeywords, DecodeOptions),
    ],
)
def test_the_options_are_the_same_everywhere(
    functions: tuple[Callable[..., Any], ...], keywords: type, options: type
) -> None:
    named = {field.name: field.default for field in fields(options)}
    assert list(keywords.__annotations__) == list(named)
    for function in functions:
        found = {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name not in ("model", "device", "deterministic")
        }
        assert found == named, function


def test_unknown_options_are_refused(tiny: AnyCodec, picture: Image.Image) -> None:
    with pytest.raises(TypeError, match="qualty"):
        tiny.encode(picture, qualty=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="previw"):
        tiny.decode(b"", previw=True)  # type: ignore[call-overload]


# --- images and files -----------------------------------------------------------------------------------------------


def test_an_image_by_its_path_or_as_a_stream(tiny: AnyCodec, picture: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture.save(path)
    right = tiny.encode(picture, quality=30)
    data = path.read_bytes()
    for image in (path, str(path), io.BytesIO(data), data, bytearray(data), memoryview(data)):
        assert tiny.encode(image, quality=30) == right
    with path.open("rb") as stream:
        assert tiny.encode([stream, path], quality=30) == [right, right]
    path.write_bytes(path.read_bytes()[:200])
    for wrong in (path, tmp_path / "none.png", tmp_path, "\0"):
        with pytest.raises(unquant.InputError):
            tiny.encode(wrong)


@pytest.mark.usefixtures("installed")
def test_a_file_by_its_path_or_as_a_stream(tiny: AnyCodec, picture: Image.Image, tmp_path: Path) -> None:
    data = tiny.encode(picture, quality=30)
    path = tmp_path / "a.unq"
    path.write_bytes(data)
    right, about = tiny.decode(data), unquant.info(data)
    sources: tuple[Callable[[], Any], ...] = (
        lambda: path,
        lambda: str(path),
        lambda: io.BytesIO(data),
        lambda: bytearray(data),
        lambda: memoryview(data),
    )
    for source in sources:
        assert tiny.decode(source()) == right
        assert unquant.decode(source(), model="tiny") == right
        assert unquant.info(source()) == about
    assert tiny.decode([path, data]) == [right, right]


@pytest.mark.usefixtures("installed")
def test_what_is_no_file(tiny: AnyCodec, tmp_path: Path) -> None:
    closed = io.BytesIO(b"")
    closed.close()
    for read in (tiny.decode, unquant.decode, unquant.info):
        for missing in (tmp_path / "none.unq", str(tmp_path), "\0", closed):
            with pytest.raises(unquant.InputError, match="cannot be read"):
                read(missing)
        for wrong in (None, 30_000_000, 1.5, io.StringIO("text")):
            with pytest.raises(unquant.OptionTypeError, match="a binary stream") as caught:
                read(wrong)  # type: ignore[arg-type]
            assert isinstance(caught.value, TypeError)


def test_what_is_no_image(tiny: AnyCodec) -> None:
    for wrong in (None, 30_000_000, 1.5, object(), [3], ({"a": 1},), io.StringIO("text")):
        with pytest.raises(unquant.OptionTypeError, match="image: expected") as caught:
            tiny.encode(wrong)  # type: ignore[call-overload]
        assert isinstance(caught.value, TypeError)
    with pytest.raises(unquant.InputError, match="image stream"):
        tiny.encode(b"no image")


# --- codecs ---------------------------------------------------------------------------------------------------------


def test_a_codec_says_what_it_is(every: AnyCodec) -> None:
    assert repr(every) == f"<{every.family} codec {every.name!r}, weights {every.weights_id}, on cpu>"


def test_load_takes_a_path(tiny_weights: Path) -> None:
    codec = unquant.load(tiny_weights)
    assert (codec.name, codec.family) == ("tiny", "ratevar")
    assert unquant.load(str(tiny_weights)) is not codec


def test_a_codec_is_loaded_once(
    tiny_weights: Path, picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.safetensors"
    path.symlink_to(tiny_weights)
    calls: list[str] = []
    load = codecs.load

    def counted(model: str, device: str | None = None, **options: bool) -> AnyCodec:
        calls.append(model)
        return load(model, device, **options)

    monkeypatch.setattr(codecs, "load", counted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: codecs.loaded(path), range(8)))
    assert len(set(map(id, found))) == len(calls) == 1
    monkeypatch.chdir(tmp_path)
    assert codecs.loaded("./tiny.safetensors") is found[0]
    assert unquant.encode(picture, model=path, quality=10) == found[0].encode(picture, quality=10)
    assert len(calls) == 1


def test_warnings_are_of_one_class(tiny: AnyCodec, picture: Image.Image) -> None:
    with pytest.warns(unquant.UnquantWarning, match="highest rate") as caught:
        tiny.encode(picture, target_bytes=10**6)
    assert Path(caught[0].filename) == Path(__file__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", unquant.UnquantWarning)
        tiny.encode(picture, target_bytes=10**6)


def test_the_limit_on_pixels_is_one_number(every: AnyCodec, tmp_path: Path, picture: Image.Image) -> None:
    path = tmp_path / "x.png"
    picture.save(path)
    pixels = picture.width * picture.height
    for image in (path, picture):
        with pytest.raises(errors.ImageTooLarge, match=rf"48x32 pixels: at most {pixels - 1} .*max_pixels="):
            every.encode(image, max_pixels=pixels - 1)
    data = every.encode(path, max_pixels=pixels)
    for read in (unquant.info, every.decode):
        with pytest.raises(errors.ImageTooLarge, match=f"at most {pixels - 1} "):
            read(data, max_pixels=pixels - 1)
        assert read(data, max_pixels=pixels).width == read(data).width == 48
        for wrong in (0, -1):
            with pytest.raises(errors.OptionError, match="max_pixels"):
                read(data, max_pixels=wrong)


def test_the_limit_on_pixels_can_be_raised() -> None:
    data = Header("ratevar", b"\1\2\3\4", 20_000, 20_000, 320).to_bytes()
    for limit in (None, 20_000**2 - 1):
        with pixel_limit(limit), pytest.raises(errors.ImageTooLarge, match="20000x20000"):
            parse_header(data + bytes(40))
    with pixel_limit(20_000**2):
        assert parse_header(data + bytes(40))[0].width == 20_000
