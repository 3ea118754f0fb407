"""`.avif` in and out of the commands and of the public functions: written, redrawn, repacked, refused by name."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from av1_files import (
    av1_streams,
    deep,
    exif_bytes,
    first_item,
    grid,
    heif,
    photograph,
    pillow_avif,
    pixels,
    still,
)
from PIL import ExifTags, Image, ImageCms, features
from typer.testing import Result

import unquant
from unquant.cli.exits import Code
from unquant.codecs import registry
from unquant.container.avif import Nclx, build_avif, is_avif, parse_avif
from unquant.container.isobmff import box, full_box
from unquant.errors import CodecMissing, CorruptStream, ModelMissing, OptionError, UnsupportedVersion
from unquant.images import to_picture

if not features.check("avif"):
    pytest.skip("this Pillow has no AVIF", allow_module_level=True)

Call = Callable[..., Result]
Spawn = Callable[..., "subprocess.CompletedProcess[bytes]"]

SIZE = 48, 32
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def av1_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the family `av1`, whose last layers are not zero, so that what is drawn is not AV1's picture."""
    import torch

    from unquant.networks.av1 import Av1, Av1Config
    from unquant.weights_file import write_weights

    config = Av1Config(width8=16, depth8=1, width16=16, depth16=1, width2=8, cond=8)
    torch.manual_seed(0)
    state = {name: (t + 0.05 * torch.randn(t.shape)).half() for name, t in Av1(config).state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "av1.safetensors"
    write_weights(path, "av1", config.to_dict(), state, {"stage": 1})
    return path


@pytest.fixture(autouse=True)
def weights(tiny_weights: Path, av1_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny models of two families are all that is installed: ratevar and av1. Gives their folder."""
    folder = tmp_path.parent / f"{tmp_path.name}-weights"
    folder.mkdir()
    shutil.copy(tiny_weights, folder / "ratevar.safetensors")
    shutil.copy(av1_weights, folder / "av1.safetensors")
    monkeypatch.setattr(registry, "SHIPPED_FOLDER", folder)
    monkeypatch.delenv(registry.FOLDER_VARIABLE, raising=False)
    return folder


def sample(mode: str = "RGB", **options: Any) -> bytes:
    return pillow_avif(photograph(*SIZE, mode), **{"quality": 50, **options})


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def row(result: Result) -> dict[str, Any]:
    (line,) = result.stdout.splitlines()
    return json.loads(line)


# --- what is made of an AVIF file: the table of docs/av1.md -----------------------------------------------------------


def two_frames() -> bytes:
    """Two frames of a sequence in a file for one picture: the header of the second one needs the first."""
    frames = [photograph(*SIZE), photograph(*SIZE).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    data = pillow_avif(frames[0], save_all=True, append_images=frames[1:])
    return build_avif(data[data.index(first_item(data)) :])


def full_header() -> bytes:
    """The first frame of a sequence, whose header is not the reduced one of still pictures."""
    frames = [photograph(*SIZE), photograph(*SIZE).transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return build_avif(first_item(pillow_avif(frames[0], save_all=True, append_images=frames[1:])))


def sequence() -> bytes:
    return pillow_avif(photograph(*SIZE), save_all=True, append_images=[photograph(*SIZE, "L").convert("RGB")])


def cropped() -> bytes:
    coded = first_item(sample())
    clap = box(b"clap", b"".join(value.to_bytes(4, "big") for value in (8, 1, 8, 1, 0, 1, 0, 1)))
    return heif([(b"av01", coded, [*still(coded), (clap, True)])])


def many_bits(twelve: bool) -> bytes:
    size = full_box(b"ispe", (3).to_bytes(4, "big"), (7).to_bytes(4, "big"))
    coded = deep()
    if twelve:  # profile 2, whose header has one bit more, in place of the bit that says whether there is colour
        bits = "010" + "".join(f"{byte:08b}" for byte in coded[2 : 2 + coded[1]])[3:]
        place = 3 + 1 + 1 + 5 + 4 + 4 + 2 + 3 + 3 + 3 + 1  # just after high_bitdepth
        bits = bits[:place] + "1" + bits[place:]
        bits = bits[: len(bits) // 8 * 8]
        coded = bytes((0x0A, len(bits) // 8)) + int(bits, 2).to_bytes(len(bits) // 8, "big") + coded[2 + coded[1] :]
    return heif([(b"av01", coded, [(size, False), (config(coded), True)])])


def config(coded: bytes) -> bytes:
    from unquant.container.avif_writer import configuration
    from unquant.container.obu import parse_obus

    return box(b"av1C", configuration(parse_obus(coded)))


def with_box(kind: bytes, offset: int, value: bytes) -> bytes:
    """A file with other bytes in the first box of that type."""
    data = sample()
    start = data.index(kind) + 4 + offset
    return data[:start] + value + data[start + len(value) :]


class Row(NamedTuple):
    """mode: of the picture that is drawn. described: with a profile in place of code points. decode, repack: the cause where
    it is refused. code: then."""

    make: Callable[[], bytes]
    mode: str = "RGB"
    warning: str = ""
    described: bool = False
    unchanged: bool = False
    nominal: bool = False
    decode: str = ""
    repack: str = ""
    code: Code = Code.CORRUPT


def refused(make: Callable[[], bytes], cause: str, code: Code = Code.CORRUPT) -> Row:
    return Row(make, decode=cause, repack=cause, code=code)


TABLE = {
    "4:2:0": Row(lambda: sample(subsampling="4:2:0")),
    "4:2:2": Row(lambda: sample(subsampling="4:2:2")),
    "4:4:4": Row(lambda: sample(subsampling="4:4:4")),
    "grey": Row(lambda: sample("L"), mode="L"),
    "alpha": Row(lambda: sample("RGBA"), mode="RGBA"),
    "grey with alpha": Row(lambda: build_avif(first_item(sample("L")), alpha=first_item(sample("L"))), mode="RGBA"),
    "premultiplied alpha": Row(
        lambda: sample("RGBA", alpha_premultiplied=True), mode="RGBA", repack="premultiplied alpha cannot go into"
    ),
    "profile": Row(lambda: sample(icc_profile=PROFILE)),
    "turned": Row(lambda: sample(exif=exif_bytes("somebody", 6))),
    "mirrored": Row(lambda: build_avif(first_item(sample()), orientation=2)),
    "cropped": Row(cropped, warning="the crop that the file asks for", repack="a crop (clap)"),
    "film grain": Row(lambda: sample(advanced={"film-grain-test": "1"}), warning="film grain"),
    "full header": Row(full_header),
    "header of another frame": Row(two_frames, nominal=True, repack="header cannot be followed"),
    "grid": Row(grid, nominal=True, repack="a grid of pictures"),
    "lossless": Row(lambda: sample(quality=100, subsampling="4:4:4"), unchanged=True),
    "lossless grey": Row(lambda: sample("L", quality=100), mode="L", unchanged=True),
    "Display P3": Row(
        lambda: build_avif(first_item(sample()), nclx=Nclx(12, 13, 6, True)),
        described=True,
        repack="colours described other than in the stream",
    ),
    "10 bits": refused(lambda: many_bits(False), "10 bits a sample"),
    "12 bits": refused(lambda: many_bits(True), "12 bits a sample"),
    "PQ": refused(lambda: build_avif(first_item(sample()), nclx=Nclx(9, 16, 9, True)), "PQ transfer"),
    "HLG": refused(lambda: build_avif(first_item(sample()), nclx=Nclx(9, 18, 9, True)), "HLG transfer"),
    "cut": refused(lambda: sample()[:-20], "truncated"),
    "another size": refused(lambda: with_box(b"ispe", 4, bytes((0, 0, 0, 49))), "49x32 pixels by ispe, 48x32 by"),
    "too large": refused(lambda: with_box(b"ispe", 4, b"\0\1\0\0"), "65536x32", Code.LIMIT),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLE)
def test_table(call: Call, tmp_path: Path, kind: str) -> None:
    data, wanted = TABLE[kind].make(), TABLE[kind]
    (tmp_path / "a.avif").write_bytes(data)
    drawn = call("decode", "a.avif")
    if wanted.decode:
        assert drawn.exit_code == call("info", "a.avif").exit_code == wanted.code
        (line,) = drawn.stderr.splitlines()
        assert line.startswith("unquant: error: a.avif: ")
        assert wanted.decode in line
        assert not (tmp_path / "a.png").exists()
    else:
        assert drawn.exit_code == 0, drawn.stderr
        *warned, _ = drawn.stderr.splitlines()
        assert [wanted.warning in line for line in warned] == [True] * bool(wanted.warning)
        check_drawn(data, Image.open(tmp_path / "a.png"), wanted)
    packed = call("encode", "a.avif", "b.unq", "-m", "av1")
    if not wanted.repack:
        assert packed.exit_code == 0, packed.stderr
        assert "the same AV1 stream repacked" in packed.stderr
        check_repacked(call, tmp_path)
        return
    assert packed.exit_code == wanted.code
    *_, line = packed.stderr.splitlines()
    assert wanted.repack in line
    # what is whole can be coded anew
    foreign = wanted.code == Code.CORRUPT and kind not in ("cut", "another size")
    assert line.endswith("with -q, --bpp or --target-size it is coded anew") == foreign
    assert files(tmp_path) == sorted(["a.avif"] + ["a.png"] * (not wanted.decode))
    assert (tmp_path / "a.avif").read_bytes() == data


@pytest.mark.slow
def test_a_sequence_is_coded_anew(call: Call, tmp_path: Path) -> None:
    """It is not drawn as it is, but its first picture is one like any other."""
    (tmp_path / "a.avif").write_bytes(sequence())
    drawn = call("decode", "a.avif")
    assert drawn.exit_code == Code.CORRUPT
    assert "an image sequence" in drawn.stderr
    packed = call("encode", "a.avif", "b.unq", "-m", "av1")
    assert packed.exit_code == 0, packed.stderr
    assert "has 2 frames or pages" in packed.stderr
    assert unquant.info((tmp_path / "b.unq").read_bytes()).width == SIZE[0]


def check_drawn(data: bytes, picture: Image.Image, wanted: Row) -> None:
    original, said = pixels(data), unquant.info(data)
    assert picture.mode == wanted.mode
    assert (picture.width, picture.height) == (said.width, said.height) == (original.shape[1], original.shape[0])
    assert said.q_nominal == wanted.nominal
    with Image.open(io.BytesIO(data)) as by_pillow:
        assert picture.getexif().get(ExifTags.Base.Orientation, 1) == by_pillow.getexif().get(
            ExifTags.Base.Orientation, 1
        )
        if not wanted.described:
            assert picture.info.get("icc_profile") == by_pillow.info.get("icc_profile")
    if wanted.described:  # the same numbers mean another colour
        assert np.abs(np.array(to_picture(picture).rgb, int) - np.array(picture)).max() > 4
    drawn = np.array(picture)
    if wanted.mode == "RGBA":
        assert np.array_equal(drawn[..., 3], original[..., 3])
    elif wanted.mode == "L":
        assert original.ndim == 2 or (original == original[..., :1]).all()
        original = original if original.ndim == 2 else original[..., 0]
    assert np.array_equal(drawn, original) == wanted.unchanged
    assert (said.q_index == 0) == wanted.unchanged


def check_repacked(call: Call, folder: Path) -> None:
    """b.unq holds the streams of a.avif, is drawn alike, and gives an .avif that gives b.unq again."""
    data, packed = (folder / "a.avif").read_bytes(), (folder / "b.unq").read_bytes()
    assert [s.removeprefix(b"\x12\0") for s in av1_streams(data)] == av1_streams(packed)
    assert call("decode", "b.unq", "c.png").exit_code == 0
    assert (folder / "c.png").read_bytes() == (folder / "a.png").read_bytes()
    back = call("decode", "b.unq", "c.avif")
    assert back.exit_code == 0, back.stderr
    assert "the same AV1 stream repacked" in back.stderr
    again = (folder / "c.avif").read_bytes()
    assert av1_streams(again) == av1_streams(packed)
    assert parse_avif(again).orientation == parse_avif(data).orientation
    assert np.array_equal(pixels(again), pixels(data))
    assert call("encode", "c.avif", "d.unq", "-m", "av1").exit_code == 0
    assert av1_streams((folder / "d.unq").read_bytes()) == av1_streams(packed)


def test_damage_leaves_nothing(call: Call, tmp_path: Path) -> None:
    """A plain .avif has no checksum: a damaged one is drawn, or refused in one line and nothing written."""
    data = bytearray(sample())
    random = np.random.default_rng(0)
    refusals = 0
    for _ in range(12):
        damaged = bytearray(data)
        for place in random.integers(32, len(data), 6):
            damaged[place] ^= 1 << int(random.integers(8))
        (tmp_path / "a.avif").write_bytes(damaged)
        result = call("decode", "a.avif", "--force")
        assert result.exit_code in (0, Code.CORRUPT, Code.LIMIT)
        assert sum("unquant: error: a.avif: " in line for line in result.stderr.splitlines()) == (result.exit_code > 0)
        assert files(tmp_path) == ["a.avif"] + ["a.png"] * (result.exit_code == 0)
        refusals += result.exit_code != 0
        (tmp_path / "a.png").unlink(missing_ok=True)
    assert 0 < refusals < 12


def test_the_limit_of_the_image_library_does_not_count(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.avif").write_bytes(sample())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIZE[0] * SIZE[1] // 3)
    result = call("decode", "a.avif")
    assert result.exit_code == 0
    assert "bomb" not in result.stderr
    assert call("decode", "a.avif", "b.png", "--max-pixels", SIZE[0] * SIZE[1] - 1).exit_code == Code.LIMIT
    assert files(tmp_path) == ["a.avif", "a.png"]


# --- written ----------------------------------------------------------------------------------------------------------


def test_a_standard_file_is_written(call: Call, tmp_path: Path) -> None:
    photograph(*SIZE, "RGBA").save(tmp_path / "a.png")
    options = ("-m", "av1", "-q", 40, "--effort", 1, "--realism", 0.25, "--seed", 9)
    result = call("encode", "a.png", "b.avif", *options, "--json")
    assert result.exit_code == 0, result.stderr
    data = (tmp_path / "b.avif").read_bytes()
    picture = Image.open(tmp_path / "b.avif")
    assert (picture.format, picture.size, picture.mode) == ("AVIF", SIZE, "RGBA")
    assert np.array_equal(np.array(picture)[..., 3], np.array(photograph(*SIZE, "RGBA"))[..., 3])
    assert row(result).items() >= {"bytes": len(data), "model": "av1", "stream_id": "", "repacked": False}.items()
    said = row(call("info", "b.avif", "--json"))
    assert (
        said.items() >= {"container": "avif", "realism": 0.25, "seed": 9, "chroma": "4:4:4", "has_alpha": True}.items()
    )
    # the same stream as in a .unq
    assert call("encode", "a.png", "b.unq", *options).exit_code == 0
    assert av1_streams((tmp_path / "b.unq").read_bytes())[0] == av1_streams(data)[0].removeprefix(b"\x12\0")
    # what the file asks for is what is drawn
    assert call("decode", "b.avif", "asked.png").exit_code == 0
    assert call("decode", "b.avif", "said.png", "--realism", 0.25, "--seed", 9).exit_code == 0
    assert call("decode", "b.avif", "other.png", "--seed", 8).exit_code == 0
    asked, said, other = ((tmp_path / f"{name}.png").read_bytes() for name in ("asked", "said", "other"))
    assert asked == said != other


def test_rates_and_effort(call: Call, tmp_path: Path) -> None:
    photograph(192, 128).save(tmp_path / "a.png")
    assert call("encode", "a.png", "b.avif", "-m", "av1", "--target-size", 900).exit_code == 0
    assert 750 < (tmp_path / "b.avif").stat().st_size <= 900
    sizes: list[int] = []
    for effort in (1, 4, 9):
        assert call("encode", "a.png", "c.unq", "-m", "av1", "--effort", effort, "--force").exit_code == 0
        sizes.append((tmp_path / "c.unq").stat().st_size)
    assert len(set(sizes)) == 3
    assert call("encode", "a.png", "d.unq", "-m", "av1").exit_code == 0
    assert (tmp_path / "d.unq").stat().st_size == sizes[1]
    result = call("encode", "a.png", "e.avif", "-m", "av1", "--target-size", 300)
    assert result.exit_code == Code.USAGE
    assert "the smallest file of this image is " in result.stderr
    assert not (tmp_path / "e.avif").exists()


def test_formats_by_option(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    photograph(*SIZE).save(tmp_path / "in" / "a.png")
    photograph(*SIZE).save(tmp_path / "in" / "deep" / "b.jpg")
    av1 = "-m", "av1"
    assert call("encode", "in/a.png", "--format", "avif", *av1).exit_code == 0
    assert is_avif((tmp_path / "in" / "a.avif").read_bytes())
    (tmp_path / "in" / "a.avif").unlink()
    assert call("encode", "-r", "in", "out", "--format", "avif", *av1, "-j", 2).exit_code == 0
    assert files(tmp_path / "out") == ["a.avif", "deep/b.avif"]
    piped = call("encode", "-", "--format", "AVIF", *av1, stdin=(tmp_path / "in" / "a.png").read_bytes())
    assert piped.stdout_bytes == (tmp_path / "out" / "a.avif").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("encode", "a.png", "b.avif", "-m", "ratevar"), "-m ratevar: models of the family ratevar write .unq alone"),
        (
            ("encode", "a.png", "--format", "avif", "-m", "ratevar"),
            "-m ratevar: models of the family ratevar write .unq alone",
        ),
        (
            ("encode", "a.png", "--effort", "5", "-m", "ratevar"),
            "effort and the container avif are for the family av1 alone",
        ),
        (("encode", "a.png", "--effort", "10", "-m", "av1"), "--effort"),
        (("encode", "a.png", "--format", "png", "-m", "av1"), "--format png: unq or avif"),
        (
            ("encode", "a.png", "b.avif", "--format", "unq", "-m", "av1"),
            "b.avif: the extension of OUT gives the format",
        ),
        (("encode", "a.png", "b.unq", "--format", "avif", "-m", "av1"), "b.unq: the extension of OUT gives the format"),
        (("encode", "a.avif", "b.avif", "-m", "av1"), "a.avif: it is an AVIF file already"),
        (("encode", "a.avif", "-o", "a.avif", "-q", "9", "-m", "av1"), "a.avif: would be written over an input"),
        (("encode", "a.avif", "other.avif", "-q", "9", "-m", "av1"), "other.avif: a file like the input, which exists"),
        (("encode", "-r", ".", "--format", "avif", "-q", "9", "-m", "av1"), "a.avif: would be written over an input"),
        (("decode", "a.avif", "a.avif"), "a.avif: would be written over an input"),
        (("decode", "a.avif", "link.avif"), "a.avif: would be written over an input"),
        (("decode", "a.avif", "--format", "avif"), "a.avif: would be written over an input"),
        (("decode", "a.avif", "other.avif"), "other.avif: a file like the input, which exists"),
        (("decode", "a.avif", "b.unq"), "b.unq: this is the name of an input"),
        (("decode", "a.avif", "-m", "ratevar"), "ratevar: a model of the family ratevar draws no .avif"),
        (("decode", "a.avif", "--steps", "2"), "steps must be a whole number in 0..1, got 2"),
        (("decode", "a.avif", "--realism", "0.5", "--preview"), "--preview and --realism exclude each other"),
    ],
)
def test_usage_errors(call: Call, tmp_path: Path, arguments: tuple[str, ...], cause: str) -> None:
    photograph(*SIZE).save(tmp_path / "a.png")
    (tmp_path / "a.avif").write_bytes(sample())
    (tmp_path / "link.avif").hardlink_to(tmp_path / "a.avif")
    (tmp_path / "other.avif").write_bytes(sample("L"))
    before = files(tmp_path)
    result = call(*arguments, "--force")
    assert result.exit_code == Code.USAGE
    assert cause in result.stderr
    assert result.stdout == ""
    assert files(tmp_path) == before
    assert (tmp_path / "a.avif").read_bytes() == sample()
    assert (tmp_path / "other.avif").read_bytes() == sample("L")


# --- repacked or coded again ------------------------------------------------------------------------------------------


def test_a_rate_codes_a_second_time(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(sample())
    for rate in (("-q", 20), ("--bpp", 2), ("--target-size", 500)):
        result = call("encode", "a.avif", "b.unq", "-m", "av1", *rate, "--force")
        assert result.exit_code == 0, result.stderr
        warning, line = result.stderr.splitlines()
        assert warning == "unquant: warning: a.avif: this is an AVIF file: with a rate given it is coded a second time"
        assert "repacked" not in line
        assert av1_streams((tmp_path / "b.unq").read_bytes()) != [first_item(sample()).removeprefix(b"\x12\0")]
    again = call("encode", "a.avif", "b.avif", "-m", "av1", "-q", 20)
    assert "coded a second time" in again.stderr
    assert Image.open(tmp_path / "b.avif").size == SIZE
    # any other family codes it as it does any image
    assert call("encode", "a.avif", "c.unq", "-m", "ratevar").stderr.startswith("a.avif -> c.unq: ")
    assert unquant.info((tmp_path / "c.unq").read_bytes()).family == "ratevar"


def test_repacking_by_content_and_through_pipes(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.jpg").write_bytes(sample())  # an AVIF file by another name
    (tmp_path / "in" / "b.avif").write_bytes(sample("L"))
    photograph(*SIZE).save(tmp_path / "in" / "c.png")
    result = call("encode", "-r", "in", "out", "-m", "av1", "--json", "--effort", 1)
    assert result.exit_code == 0, result.stderr
    rows = {Path(one["input"]).name: one for one in map(json.loads, result.stdout.splitlines())}
    assert {name: one["repacked"] for name, one in rows.items()} == {"photo.jpg": True, "b.avif": True, "c.png": False}
    packed = call("encode", "-", "-m", "av1", stdin=sample())
    assert packed.stderr.startswith("standard input -> standard output: the same AV1 stream repacked, ")
    assert packed.stdout_bytes == (tmp_path / "out" / "photo.unq").read_bytes()
    back = call("decode", "-", "-", "--format", "avif", stdin=packed.stdout_bytes)
    assert av1_streams(back.stdout_bytes) == av1_streams(packed.stdout_bytes)
    assert row(call("decode", "out/b.unq", "b.avif", "--json"))["repacked"] is True
    # drawn, all of them, and both kinds from one folder
    shutil.copy(tmp_path / "in" / "b.avif", tmp_path / "out" / "d.avif")
    assert call("decode", "-r", "out", "back").exit_code == 0
    assert files(tmp_path / "back") == ["b.png", "c.png", "d.png", "photo.png"]
    drawn = [(tmp_path / "back" / f"{name}.png").read_bytes() for name in ("b", "d")]
    assert drawn[0] == drawn[1]
    assert call("decode", "out/c.unq", "out/d.avif", "-o", "two").exit_code == 0
    assert files(tmp_path / "two") == ["c.png", "d.png"]
    ppm = call("decode", "-", "-", "--format", "ppm", stdin=sample())
    assert Image.open(io.BytesIO(ppm.stdout_bytes)).size == SIZE


def test_metadata_and_wishes_of_a_repacked_file(call: Call, tmp_path: Path) -> None:
    exif = exif_bytes("somebody", 6)
    coded = first_item(sample())
    data = build_avif(coded, icc=PROFILE, exif=exif_bytes("somebody"), xmp=b"<x:xmpmeta/>", orientation=6)
    (tmp_path / "a.avif").write_bytes(data)
    assert call("encode", "a.avif", "b.unq", "-m", "av1", "--realism", 0.5, "--seed", 7).exit_code == 0
    said = row(call("info", "b.unq", "--json"))
    assert said.items() >= {"realism": 0.5, "seed": 7, "width": SIZE[0], "height": SIZE[1]}.items()
    assert set(said["sections"]) == {"icc", "exif", "xmp"}
    assert call("decode", "b.unq", "c.avif").exit_code == 0
    file = parse_avif((tmp_path / "c.avif").read_bytes())
    assert (file.icc, file.xmp, file.orientation) == (PROFILE, b"<x:xmpmeta/>", 6)
    parsed = Image.Exif()
    parsed.load(file.exif or b"")
    assert dict(parsed) == {ExifTags.Base.Artist: "somebody", ExifTags.Base.Orientation: 1}
    assert unquant.info((tmp_path / "c.avif").read_bytes()).realism == 0.5
    # from there on EXIF keeps its length, and comes back to the byte
    assert call("encode", "c.avif", "d.unq", "-m", "av1").exit_code == 0
    assert (tmp_path / "d.unq").read_bytes() == (tmp_path / "b.unq").read_bytes()
    # without metadata the picture is still the right way up
    assert call("encode", "a.avif", "e.unq", "-m", "av1", "--no-metadata").exit_code == 0
    assert call("decode", "e.unq", "e.png").exit_code == 0
    assert dict(Image.open(tmp_path / "e.png").getexif()) == {ExifTags.Base.Orientation: 6}
    assert exif != exif_bytes("somebody")


def test_broken_exif_does_not_stop_a_repack(call: Call, tmp_path: Path) -> None:
    for orientation in (1, 6):
        data = build_avif(first_item(sample()), exif=b"no TIFF structure", orientation=orientation)
        (tmp_path / "a.avif").write_bytes(data)
        result = call("encode", "a.avif", "b.unq", "-m", "av1", "--force")
        assert result.exit_code == 0, result.stderr
        assert ("EXIF left out but for the orientation" in result.stderr) == (orientation == 6)
        assert call("decode", "b.unq", "c.avif", "--force").exit_code == 0
        file = parse_avif((tmp_path / "c.avif").read_bytes())
        assert (file.orientation, file.exif) == (orientation, b"no TIFF structure" if orientation == 1 else None)


@pytest.mark.parametrize(
    "option",
    [("--realism", 0), ("--seed", 0), ("--steps", 0), ("--preview",), ("--scale", "1/2"), ("--region", "0,0,9,9")],
)
def test_what_is_drawn_is_coded_a_second_time(call: Call, tmp_path: Path, option: tuple[object, ...]) -> None:
    (tmp_path / "a.avif").write_bytes(sample())
    assert call("encode", "a.avif", "b.unq", "-m", "av1").exit_code == 0
    result = call("decode", "b.unq", "c.avif", *option)
    assert result.exit_code == 0
    assert result.stderr.startswith("unquant: warning: b.unq: what is drawn is coded a second time, as AVIF\n")
    assert av1_streams((tmp_path / "c.avif").read_bytes())[0] != first_item(sample())
    result = call("decode", "a.avif", "-o", "d.avif", *option)
    assert result.stderr.startswith("unquant: warning: a.avif: what is drawn is coded a second time, as AVIF\n")


def test_a_base_of_half_size_is_drawn_but_not_repacked(call: Call, tmp_path: Path) -> None:
    photograph(192, 128).save(tmp_path / "a.png")
    data = unquant.encode(photograph(192, 128), model="av1", target_bytes=210)
    assert unquant.info(data).half
    (tmp_path / "a.unq").write_bytes(data)
    assert "coding:    base at half size\n" in call("info", "a.unq").stdout
    result = call("decode", "a.unq", "b.avif")
    assert result.exit_code == Code.CORRUPT
    assert "coded at half size" in result.stderr
    assert result.stderr.endswith("with --realism it is drawn, and coded a second time\n")
    assert not (tmp_path / "b.avif").exists()
    assert call("decode", "a.unq", "b.avif", "--realism", 0).exit_code == 0
    assert Image.open(tmp_path / "b.avif").size == (192, 128)
    # other families' files have nothing to repack
    assert call("encode", "a.png", "c.unq").exit_code == 0
    assert call("decode", "c.unq", "c.avif").stderr.startswith("c.unq -> c.avif: ")


# --- what is missing --------------------------------------------------------------------------------------------------


def test_an_image_library_without_avif(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photograph(*SIZE).save(tmp_path / "a.png")
    (tmp_path / "a.avif").write_bytes(sample())
    assert call("encode", "a.png", "a.unq", "-m", "av1").exit_code == 0
    monkeypatch.setattr(features, "check", lambda name: name != "avif")
    before = files(tmp_path)
    for arguments in (
        ("encode", "a.png", "b.unq", "-m", "av1"),
        ("encode", "a.png", "b.avif", "-m", "av1"),
        ("encode", "a.avif", "b.unq", "-m", "av1", "-q", 9),
        ("decode", "a.avif", "b.png"),
        ("decode", "a.unq", "b.png"),
        ("decode", "a.unq", "b.avif"),
        ("decode", "a.unq", "--format", "avif"),
    ):
        result = call(*arguments)
        assert result.exit_code == Code.MODEL, arguments
        assert "this Pillow was built without AVIF (libavif)" in result.stderr
        assert files(tmp_path) == before
    with pytest.raises(CodecMissing):
        unquant.decode(sample())
    # what needs no codec goes on
    assert call("info", "a.avif").exit_code == 0
    assert call("encode", "a.avif", "b.unq", "-m", "av1").exit_code == 0


def test_no_weights_for_avif(call: Call, tmp_path: Path, weights: Path) -> None:
    (tmp_path / "a.avif").write_bytes(sample())
    assert call("encode", "a.avif", "a.unq", "-m", "av1").exit_code == 0
    (weights / "av1.safetensors").unlink()
    result = call("decode", "a.avif")
    assert result.exit_code == Code.MODEL
    assert "a.avif: an .avif is drawn by weights of the family av1, of which none are installed" in result.stderr
    with pytest.raises(ModelMissing, match="of the family av1"):
        unquant.decode(sample())
    assert "no installed model" in call("info", "a.avif").stdout
    assert call("encode", "a.avif", "b.unq", "-m", "av1").exit_code == Code.MODEL
    # back to .avif no weights are needed
    assert call("decode", "a.unq", "b.avif").exit_code == 0
    assert files(tmp_path) == ["a.avif", "a.unq", "b.avif"]


# --- info, public functions, processes of their own -------------------------------------------------------------------


def test_info(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(sample("RGBA", subsampling="4:2:0", advanced={"tune": "iq"}))
    text = call("info", "a.avif").stdout
    assert "size:      48x32 pixels, " in text
    assert "stream id: none: an AVIF file (model av1)" in text
    assert "coding:    4:2:0, quantisation matrices" in text
    assert "sections:  alpha " in text
    (tmp_path / "b.avif").write_bytes(grid(alpha=True))
    text = call("info", "b.avif").stdout
    assert "by the bytes per pixel; the headers do not tell" in text
    assert "a grid of pictures, alpha" in text
    (tmp_path / "c.avif").write_bytes(build_avif(first_item(sample()), orientation=8))
    assert "to be turned (orientation 8)" in call("info", "c.avif").stdout
    for name in "abc":
        said = row(call("info", f"{name}.avif", "--json"))
        assert said == {"file": f"{name}.avif", **unquant.info((tmp_path / f"{name}.avif").read_bytes()).to_dict()}
    base = parse_avif((tmp_path / "a.avif").read_bytes())
    said = unquant.info((tmp_path / "a.avif").read_bytes())
    assert said.q_index == base.picture.base_q_idx
    assert said.sections == {"alpha": len(base.alpha or b"")}
    assert said.bpp == 8 * said.bytes / (48 * 32)


def test_public_functions() -> None:
    data = unquant.encode(photograph(*SIZE), model="av1", container="avif", quality=40)
    assert is_avif(data)
    assert unquant.info(data).family == "av1"
    plain = unquant.decode(data, steps=0)
    assert np.array_equal(np.array(plain), pixels(data))
    drawn = unquant.decode(data, realism=1, seed=3)
    assert (drawn.size, drawn.mode) == (SIZE, "RGB")
    assert not np.array_equal(np.array(drawn), np.array(plain))
    assert np.array_equal(np.array(drawn), np.array(unquant.decode(data, model="av1", realism=1, seed=3)))
    with pytest.raises(OptionError, match="draws no \\.avif"):
        unquant.decode(data, model="ratevar")
    with pytest.raises(CorruptStream):
        unquant.decode(data[:-30])
    with pytest.raises(UnsupportedVersion, match="sequence"):
        unquant.decode(sequence())


@pytest.mark.slow
def test_in_processes_of_their_own(
    spawn: Spawn, tmp_path: Path, weights: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipes, and what takes no torch: the headers, an encode, and a file made of another."""
    environment[registry.FOLDER_VARIABLE] = str(weights.parent / "more")
    (weights.parent / "more").mkdir()
    shutil.copy(weights / "av1.safetensors", weights.parent / "more" / "tiny_av1.safetensors")
    png = io.BytesIO()
    photograph(*SIZE).save(png, "PNG")
    coded = spawn("encode", "-", "-", "--format", "avif", "-m", "tiny_av1", stdin=png.getvalue())
    assert coded.returncode == 0, coded.stderr
    assert Image.open(io.BytesIO(coded.stdout)).format == "AVIF"
    drawn = spawn("decode", "-", "a.png", "-m", "tiny_av1", stdin=coded.stdout)
    assert drawn.returncode == 0, drawn.stderr
    assert Image.open(tmp_path / "a.png").size == SIZE
    (tmp_path / "b.unq").write_bytes(unquant.encode(photograph(*SIZE), model="av1"))
    (tmp_path / "a.avif").write_bytes(coded.stdout)
    photograph(*SIZE).save(tmp_path / "c.png")
    for arguments, light in (
        (("info", "a.avif"), (b"numpy", b"PIL.Image")),
        (("decode", "b.unq", "b.avif"), ()),
        (("encode", "c.png", "--bpp", "0.5"), ()),
        (("encode", "a.avif", "d.unq"), ()),
    ):
        done = spawn(*arguments, python=("-X", "importtime"))
        assert done.returncode == 0
        imported = {line.rsplit(b"|", 1)[-1].strip() for line in done.stderr.splitlines() if b"|" in line}
        assert b"unquant.container.avif" in imported
        assert imported.isdisjoint({b"torch", *light})
    assert spawn("decode", "-", stdin=coded.stdout[:-40]).returncode == Code.CORRUPT


# --- the map of uncertainty, of whichever file ------------------------------------------------------------------------


def test_the_map_of_uncertainty(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(sample(quality=10))
    assert call("encode", "a.avif", "a.unq", "-m", "av1").exit_code == 0
    spread = unquant.uncertainty(tmp_path / "a.unq", model="av1")
    assert spread.max() > 1
    right = np.minimum(np.rint(8 * spread), 255)
    for source, target in (("a.unq", "a.png"), ("a.avif", "b.png"), ("a.unq", "b.avif")):
        assert call("decode", source, target, "--uncertainty", "map.png", "--force").exit_code == 0
        assert (tmp_path / target).is_file()
        with Image.open(tmp_path / "map.png") as found:
            assert found.mode == "L"
            assert np.array_equal(np.asarray(found), right)
    # the AV1 stream is repacked, as without the map
    assert call("decode", "a.unq", "c.avif").exit_code == 0
    assert (tmp_path / "b.avif").read_bytes() == (tmp_path / "c.avif").read_bytes()
    assert call("decode", "a.unq", "c.png", "--uncertainty", "part.png", "--region", "3,4,20,10").exit_code == 0
    with Image.open(tmp_path / "part.png") as found:
        assert found.size == (20, 10)


@pytest.mark.parametrize(
    ("arguments", "code", "cause"),
    [
        (("a.unq", "c.png", "--uncertainty", "a.unq"), Code.USAGE, "written over an input"),
        (("a.unq", "c.png", "--uncertainty", "c.png"), Code.USAGE, "c.png is that of a.unq as well"),
        (("a.unq", "c.png", "--uncertainty", "old.png"), Code.INPUT, "old.png: exists already"),
        (("a.unq", "c.png", "--uncertainty", "no/map.png"), Code.INPUT, "its folder does not exist"),
        (("a.unq", "c.png", "--uncertainty", "map.gif"), Code.INPUT, "unknown image extension"),
        (("a.unq", "b.unq", "-o", "out", "--uncertainty", "map.png"), Code.USAGE, "for one file"),
        (("a.unq", "c.png", "--uncertainty", "map.png", "--scale", "1/2"), Code.USAGE, "excludes"),
        (("b.unq", "c.png", "--uncertainty", "map.png"), Code.CORRUPT, "b.unq"),
    ],
    ids=str,
)
def test_no_map_and_no_picture(call: Call, tmp_path: Path, arguments: tuple[str, ...], code: Code, cause: str) -> None:
    (tmp_path / "a.avif").write_bytes(sample(quality=10))
    assert call("encode", "a.avif", "a.unq", "-m", "av1").exit_code == 0
    (tmp_path / "a.avif").unlink()
    data = (tmp_path / "a.unq").read_bytes()
    (tmp_path / "b.unq").write_bytes(data[:-3] + b"abc")
    (tmp_path / "old.png").write_bytes(b"")
    result = call("decode", *arguments)
    assert result.exit_code == code
    assert cause in result.stderr
    assert files(tmp_path) == ["a.unq", "b.unq", "old.png"]
    assert (tmp_path / "a.unq").read_bytes() == data


# --- a region of interest ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["av1", "ratevar"])
def test_a_region_of_interest(call: Call, tmp_path: Path, model: str) -> None:
    photograph(96, 64).save(tmp_path / "a.png")
    mask = Image.linear_gradient("L")
    mask.save(tmp_path / "mask.png")
    arguments = ("encode", "a.png", "-m", model, "-q", 20)
    assert call(*arguments, "-o", "a.unq", "--roi", "mask.png").exit_code == 0
    assert call(*arguments, "-o", "b.unq", "--roi", "mask.png", "--roi-gain", 3).exit_code == 0
    for name, options in (("a", {}), ("b", {"roi_gain": 3})):
        right = unquant.encode(tmp_path / "a.png", model=model, quality=20, roi=mask, **options)
        assert (tmp_path / f"{name}.unq").read_bytes() == right
    for wrong, code in (
        (("--roi-gain", 2), Code.USAGE),
        (("--roi", "no.png"), Code.INPUT),
        (("--roi", "a.unq"), Code.INPUT),
    ):
        assert call(*arguments, "-o", "c.unq", *wrong).exit_code == code
    assert not (tmp_path / "c.unq").exists()


def test_a_region_of_interest_codes_an_avif_anew(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(sample())
    Image.linear_gradient("L").save(tmp_path / "mask.png")
    result = call("encode", "a.avif", "a.unq", "-m", "av1", "--roi", "mask.png")
    assert result.exit_code == 0
    assert "with --roi it is coded a second time" in result.stderr
