"""What is particular to the codec of `av1`: how it draws, half size, both containers, foreign `.avif` files, and damage."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from av1_files import av1_streams, photograph, pillow_avif, pixels
from damage import Damage, damaged, damages
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import difference
from PIL import Image, features
from torch import Tensor

import unquant
from unquant.codecs import av1, windows
from unquant.codecs.av1 import Av1Codec
from unquant.codecs.av1_encode import Av1FileEncoder
from unquant.codecs.av1_open import open_avif
from unquant.codecs.avif import decode_avif, enlarge
from unquant.codecs.ratevar import RatevarCodec
from unquant.container import Container, Header, Tile, parse, parse_header, stream_crc
from unquant.container.avif import Nclx, build_avif, parse_avif
from unquant.container.obu import parse_obus, strip_temporal_delimiter
from unquant.diffusion.noise import seeded_noise
from unquant.errors import (
    BitstreamError,
    CodecMissing,
    CorruptStream,
    ImageTooLarge,
    ModelMissing,
    OptionError,
    RateUnreachable,
    UnsupportedVersion,
    WeightsError,
)
from unquant.networks.av1 import Av1, Coding, told
from unquant.weights_file import Weights, read_weights

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF/></x:xmpmeta>"
CHROMA = ("4:0:0", "4:2:0", "4:2:2", "4:4:4")


@pytest.fixture(scope="module")
def codec(tiny_av1_weights: Path) -> Av1Codec:
    """A codec in float32 throughout: bfloat16 would round what windows leave the same."""
    codec = Av1Codec.from_file(tiny_av1_weights)
    codec.precision = torch.float32
    return codec


@pytest.fixture(scope="module")
def picture(photo: Image.Image) -> Image.Image:
    """Several windows of few positions, an odd size."""
    return photo.crop((120, 80, 319, 219))


@pytest.fixture(scope="module")
def data(codec: Av1Codec, picture: Image.Image) -> bytes:
    return codec.encode(picture, quality=40)


def test_without_the_network_it_encodes_the_same(codec: Av1Codec, picture: Image.Image, tiny_av1_weights: Path) -> None:
    light = Av1FileEncoder(tiny_av1_weights)
    assert (light.name, light.stream_id) == (codec.name, codec.stream_id)
    mask = np.zeros((picture.height, picture.width), bool)
    mask[30:90, 40:120] = True
    cases: list[dict[str, Any]] = [
        {},
        {"bpp": 0.5, "realism": 0.3, "seed": 7},
        {"target_bytes": 700},
        {"quality": 10, "container": "avif", "realism": 1.0},
        {"quality": 30, "roi": mask},
    ]
    for options in cases:
        assert light.encode(picture, **options) == codec.encode(picture, **options)
    avif = light.encode(picture, container="avif", seed=3)
    assert light.repack(avif, realism=0.5) == codec.repack(avif, realism=0.5)
    assert light.repack(light.repack(avif)) == avif
    with pytest.raises(OptionError, match="steps"):
        light.encode(picture, steps=2)


def test_what_encodes_without_the_network_reads_the_header(
    tmp_path: Path, tiny_weights: Path, tiny_av1_weights: Path
) -> None:
    with pytest.raises(WeightsError, match=r"tiny.*of the family 'ratevar', not av1"):
        Av1FileEncoder(tiny_weights)
    with pytest.raises(ModelMissing, match=r"none\.safetensors"):
        Av1FileEncoder(tmp_path / "none.safetensors")
    data = tiny_av1_weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["config"] = json.dumps(
        json.loads(header["__metadata__"]["config"]) | {"default_realism": float("nan")}
    )
    changed = json.dumps(header).encode()
    path = tmp_path / "changed.safetensors"
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + data[8 + length :])
    with pytest.raises(WeightsError, match=r"changed\.safetensors: damaged weights file: default_realism"):
        Av1FileEncoder(path)


def plain(data: bytes) -> Image.Image:
    """AV1's own picture, RGB, by way of another file around the same streams."""
    return Image.fromarray(decode_avif(build_avif(av1_streams(data)[0]))[0])


def foreign(chroma: str, **options: Any) -> bytes:
    """A file of another program: Pillow's own options, which use quantisation matrices."""
    grey = chroma == "4:0:0"
    picture = photograph(70, 45, "L" if grey else "RGB")
    return pillow_avif(picture, **{"quality": 40} | ({} if grey else {"subsampling": chroma}) | options)


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"q_index": 100}, "q_index"),
        ({"effort": 0}, "effort"),
        ({"effort": 10}, "effort"),
        ({"effort": 4.0}, "effort"),
        ({"effort": True}, "effort"),
        ({"container": "png"}, "container"),
        ({"steps": 2}, "steps"),
        ({"steps": 0}, "steps"),
    ],
    ids=str,
)
def test_options(codec: Av1Codec, photo: Image.Image, options: dict[str, Any], cause: str) -> None:
    with pytest.raises(OptionError, match=cause):
        codec.encode(photo.crop((0, 0, 32, 32)), **options)


def test_effort_is_time(codec: Av1Codec, picture: Image.Image, data: bytes) -> None:
    assert codec.encode(picture, quality=40, effort=4) == data
    assert av1_streams(codec.encode(picture, quality=40, effort=1)) != av1_streams(data)


@pytest.mark.parametrize("steps", [-1, 2, 256, 1.0, True])
def test_steps_out_of_range(codec: Av1Codec, data: bytes, steps: Any) -> None:
    with pytest.raises(OptionError, match=rf"^steps must be a whole number in 0..1, got {steps}$"):
        codec.decode(data, steps=steps)


def test_without_avif(codec: Av1Codec, picture: Image.Image, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: feature != "avif")
    for work in (lambda: codec.encode(picture), lambda: codec.decode(data)):
        with pytest.raises(CodecMissing, match="built without AVIF"):
            work()


# --- the drawing ----------------------------------------------------------------------------------------------------


def test_no_steps_and_the_preview_are_av1_s_own_picture(codec: Av1Codec, data: bytes) -> None:
    expected = plain(data)
    for options in ({"preview": True}, {"preview": True, "seed": 3}, {"steps": 0}, {"steps": 0, "realism": 0.7}):
        assert codec.decode(data, **options) == expected
    for realism in (0, 1):
        assert difference(codec.decode(data, realism=realism), expected) > 3
    assert codec.decode(data, realism=1, steps=1) == codec.decode(data, realism=1)
    assert codec.decode(data, preview=True, steps=1) == codec.decode(data, realism=0)


@pytest.mark.parametrize("realism", [0.0, 1.0])
def test_a_decode_is_the_model_s_output(codec: Av1Codec, data: bytes, realism: float) -> None:
    """On AV1's picture, its edge repeated, in one piece, told what the headers say, with seeded noise at realism 1."""
    stream = av1_streams(data)[0]
    h = parse_header(data)[0].q_index
    padded = np.pad(np.asarray(plain(data)), ((0, 5), (0, 9), (0, 0)), mode="edge")
    x_q = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
    coarse, fine = seeded_noise(5, 0, 4, 18, 26, stream=0), seeded_noise(5, 0, 1, 72, 104, stream=1)
    coding = told([Coding(h, 8 * len(stream) / (199 * 139), qmatrix=True, delta_q=True)])
    with torch.inference_mode():
        x = codec.model(x_q, coding, torch.full((1, 1, 1, 1), realism), coarse, fine)
    expected = x[0, :, :139, :199].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy()
    found = np.asarray(codec.decode(data, realism=realism, seed=5), int)
    assert np.abs(found - expected).max() <= 1


def test_between_its_ends_the_knob_is_a_line(codec: Av1Codec, data: bytes) -> None:
    """(1−ρ)·x̂_0 + ρ·x̂_1, rounded once."""
    ends = [np.asarray(codec.decode(data, realism=rho), float) for rho in (0.0, 1.0)]
    assert np.abs(ends[0] - ends[1]).max() > 5
    for rho in (0.3, 0.9):
        found = np.asarray(codec.decode(data, realism=rho), float)
        assert np.abs(found - (1 - rho) * ends[0] - rho * ends[1]).max() <= 1.0


def test_one_seed_gives_one_image_and_realism_0_needs_none(codec: Av1Codec, photo: Image.Image, data: bytes) -> None:
    other = codec.encode(photo.crop((300, 200, 333, 217)))
    for seed in (0, 2**64 - 1):
        first = codec.decode(data, realism=1, seed=seed)
        assert codec.decode([other, data, other, data], realism=1, seed=seed)[1::2] == [first, first]
    assert codec.decode(data, realism=1) == codec.decode(data, realism=1, seed=0)
    assert difference(codec.decode(data, realism=1, seed=1), codec.decode(data, realism=1, seed=2)) > 3
    assert codec.decode(data, realism=0, seed=1) == codec.decode(data, realism=0, seed=2)


def test_the_noise_is_that_of_seed_and_place(codec: Av1Codec, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn for the padded picture once a window, keyed by where it lies: what an image looks like hangs on these keys."""
    asked: list[tuple[int, ...]] = []

    def keep(*key: int, stream: int, top: int, left: int) -> Tensor:
        asked.append((*key, stream, top, left))
        return seeded_noise(*key, stream=stream, top=top, left=left)

    monkeypatch.setattr(windows, "seeded_noise", keep)
    codec.decode(data, realism=0, seed=7)
    assert asked == []
    codec.decode(data, realism=0.5, seed=7)
    assert asked == [(7, 0, 4, 18, 26, 0, 0, 0), (7, 0, 1, 72, 104, 1, 0, 0)]


def test_windows_give_the_same_image(tiny_av1_weights: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a network never sees more than a window and its halo, which bounds the memory of a decode."""
    codec = Av1Codec.from_file(tiny_av1_weights)
    codec.precision = torch.float32
    assert codec.model.f.halo < 9  # else every window would read all of the picture
    sides: set[int] = set()
    codec.model.f.register_forward_pre_hook(lambda module, args: sides.update(args[0].shape[-2:]))
    for realism in (0.0, 1.0):
        whole = codec.decode(data, realism=realism, seed=3)
        for window in (2, 3, 4):
            sides.clear()
            monkeypatch.setattr(Av1Codec, "window", window)
            assert difference(codec.decode(data, realism=realism, seed=3), whole) <= 1
            assert max(sides) <= 16 * (window + 2 * codec.model.f.halo)
        monkeypatch.undo()
    monkeypatch.setattr(Av1Codec, "window", 2)
    monkeypatch.setattr(codec.model.f, "halo", 0)
    assert difference(codec.decode(data, realism=1, seed=3), whole) > 2


def test_threads_of_torch(codec: Av1Codec, data: bytes) -> None:
    threads = torch.get_num_threads()
    try:
        images: list[Image.Image] = []
        for count in (1, 2):
            torch.set_num_threads(count)
            images.append(codec.decode(data, realism=1))
    finally:
        torch.set_num_threads(threads)
    assert difference(*images) <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (17, 33), (65, 1), (1, 40)])
def test_any_size(codec: Av1Codec, photo: Image.Image, size: tuple[int, int]) -> None:
    picture = photo.crop((250, 120, 250 + size[0], 120 + size[1]))
    for container in ("unq", "avif"):
        data = codec.encode(picture, quality=30, container=container)
        decoded = codec.decode(data, realism=1)
        assert (decoded.mode, decoded.size) == ("RGB", size)
        assert codec.decode(data, preview=True) == plain(data)
        assert codec.decode(codec.repack(data), realism=1) == decoded


# --- what leaves the picture alone ----------------------------------------------------------------------------------


def test_untrained_weights_give_av1_s_picture(tiny_av1_weights: Path, data: bytes) -> None:
    weights = read_weights(tiny_av1_weights)
    state = Av1(Av1Codec(weights).config).state_dict()
    codec = Av1Codec(Weights("av1", weights.config, state, weights.hashes, {}))
    for file in (data, foreign("4:2:0"), foreign("4:0:0")):
        for realism in (0.0, 0.3, 1.0):
            assert codec.decode(file, realism=realism) == codec.decode(file, preview=True)


def test_lossless_files_are_left_alone(codec: Av1Codec, picture: Image.Image) -> None:
    small = picture.crop((0, 0, 50, 41))
    for file in (
        codec.encode(small, quality=100),
        codec.encode(small, quality=100, container="avif"),
        foreign("4:4:4", quality=100),
    ):
        assert unquant.info(file).q_index == 0
        assert codec.decode(file, realism=1, seed=4) == plain(file)
    finest = codec.encode(small, quality=99)
    assert parse_header(finest)[0].q_index > 0


def test_the_finer_the_step_the_less_is_drawn(codec: Av1Codec, picture: Image.Image) -> None:
    drawn: list[float] = []
    for quality in (10, 50, 80, 95):
        data = codec.encode(picture.crop((0, 0, 90, 70)), quality=quality)
        away = np.asarray(codec.decode(data, realism=1), float) - np.asarray(codec.decode(data, preview=True), float)
        drawn.append(float(np.abs(away).mean()))
    assert drawn == sorted(drawn, reverse=True)
    assert drawn[-1] < drawn[0] / 4


# --- what a file asks for -------------------------------------------------------------------------------------------


def test_what_a_file_asks_for(codec: Av1Codec, picture: Image.Image, data: bytes) -> None:
    assert codec.encode(picture, quality=40, seed=0, steps=1, realism=0.5) == data
    asking = {c: codec.encode(picture, quality=40, realism=0.8, seed=11, container=c) for c in ("unq", "avif")}
    header, _ = parse_header(asking["unq"])
    assert (header.realism, header.steps, header.seed) == (80, None, 11)
    drawn = codec.decode(data, realism=0.8, seed=11)
    for file in asking.values():
        assert (unquant.info(file).realism, unquant.info(file).seed) == (0.8, 11)
        assert codec.decode(file) == drawn
        assert codec.decode(file, realism=0) == codec.decode(data, realism=0)
        assert codec.decode(file, preview=True) == codec.decode(data, preview=True)
    assert codec.repack(asking["unq"]) == asking["avif"]
    assert codec.repack(asking["avif"]) == asking["unq"]
    # of later weights
    later = rebuilt(data, replace(header, steps=7))
    assert codec.decode(later) == drawn


def rebuilt(data: bytes, header: Header, streams: list[bytes] | None = None, **sections: bytes) -> bytes:
    """A `.unq` file with another header, other streams, and checksums that hold."""
    head = header.to_bytes()
    streams = streams or av1_streams(data)
    tiles = (Tile(stream, stream_crc(head, number, stream)) for number, stream in enumerate(streams))
    return Container(header, tuple(tiles), **sections).to_bytes()


# --- half size ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(120, 91), (79, 64), (51, 77)])
def test_half_size(codec: Av1Codec, photo: Image.Image, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    picture = photo.crop((120, 60, 120 + size[0], 60 + size[1]))
    target = len(codec.encode(picture, quality=0)) * 2 // 3
    data = codec.encode(picture, target_bytes=target)
    assert len(data) <= target
    header, _ = parse_header(data)
    assert header.half
    half = plain(data)
    assert half.size == (-(-size[0] // 2), -(-size[1] // 2))
    expected = enlarge(np.asarray(half), size[1], size[0])
    assert np.array_equal(codec.decode(data, preview=True), expected)
    codings: list[Coding] = []
    monkeypatch.setattr(av1, "told", lambda given: (codings.extend(given), told(given))[1])
    assert difference(codec.decode(data, realism=1), Image.fromarray(expected)) > 3
    stream = av1_streams(data)[0]
    differs = parse_obus(stream).delta_q_present  # there may be one superblock
    bpp = 8 * len(stream) / (size[0] * size[1])
    assert codings == [Coding(header.q_index, bpp, qmatrix=True, delta_q=differs, half=True)]
    with pytest.raises(UnsupportedVersion, match="half size"):
        codec.repack(data)
    for other in (replace(header, half=False), replace(header, width=size[0] + 2)):
        with pytest.raises(CorruptStream, match="coded pixels"):
            codec.decode(rebuilt(data, other))


def test_half_size_with_alpha(codec: Av1Codec, photo: Image.Image) -> None:
    picture = photo.crop((120, 60, 221, 123))
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    data = codec.encode(picture, target_bytes=len(codec.encode(picture, quality=0)) - 30)
    assert parse_header(data)[0].half
    assert np.array_equal(np.asarray(codec.decode(data))[..., 3], np.asarray(picture)[..., 3])


def test_an_avif_is_never_of_half_size(codec: Av1Codec, photo: Image.Image) -> None:
    picture = photo.crop((120, 60, 240, 151))
    with pytest.raises(RateUnreachable) as caught:
        codec.encode(picture, target_bytes=1, container="avif")
    smallest = caught.value.smallest
    # finer steps in places only make the file of the lowest quality larger
    assert smallest < len(codec.encode(picture, quality=0, container="avif"))
    assert len(codec.encode(picture, target_bytes=smallest, container="avif")) == smallest
    with pytest.raises(OptionError, match=f"smallest file of this image is {smallest} bytes"):
        codec.encode(picture, target_bytes=smallest - 1, container="avif")
    data = codec.encode(picture, target_bytes=2 * smallest, container="avif")
    assert 0.96 * 2 * smallest <= len(data) <= 2 * smallest
    assert Image.fromarray(pixels(data)).size == picture.size


# --- the other container --------------------------------------------------------------------------------------------


def test_an_avif_is_the_unq_s_stream(codec: Av1Codec, picture: Image.Image, data: bytes) -> None:
    avif = codec.encode(picture, quality=40, container="avif")
    assert av1_streams(avif) == av1_streams(data)
    assert np.array_equal(pixels(avif), codec.decode(data, preview=True))
    assert codec.decode(avif, realism=1) == codec.decode(data, realism=1)
    assert (codec.repack(avif), codec.repack(data)) == (data, avif)


@pytest.mark.parametrize("chroma", CHROMA)
def test_foreign_files(codec: Av1Codec, chroma: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn after what their headers say, and repacked without loss; repacked once, nothing changes any more."""
    file = foreign(chroma)
    mode = "L" if chroma == "4:0:0" else "RGB"
    parsed = parse_avif(file)
    assert parsed.obus is not None
    codings: list[Coding] = []
    monkeypatch.setattr(av1, "told", lambda given: (codings.extend(given), told(given))[1])
    preview, drawn = codec.decode(file, preview=True), codec.decode(file, realism=1)
    assert (preview.mode, drawn.mode) == (mode, mode)
    assert np.array_equal(preview, pixels(file))
    assert difference(preview, drawn) > 3
    packed = codec.repack(file)
    assert av1_streams(packed) == [strip_temporal_delimiter(parsed.obus)]
    assert len(packed) <= len(parsed.obus) + 32
    again = codec.repack(packed)
    assert codec.repack(again) == packed
    assert codec.repack(codec.repack(again)) == again
    for other in (packed, again):
        assert codec.decode(other, realism=1) == drawn
    assert len(codings) == 3
    assert set(codings) == {
        Coding(
            parsed.picture.base_q_idx or 0,
            8 * len(av1_streams(packed)[0]) / (70 * 45),
            qmatrix=True,
            delta_q=parsed.picture.delta_q_present,
            chroma=chroma,
        )
    }


def test_alpha_of_an_avif(codec: Av1Codec, picture: Image.Image) -> None:
    """A stream of its own there; exact, and the same in every container, whoever wrote it."""
    translucent = picture.crop((0, 0, 61, 34))
    translucent.putalpha(Image.radial_gradient("L").resize(translucent.size))
    expected = np.asarray(translucent)[..., 3]
    own = [codec.encode(translucent, quality=30, container=container) for container in ("unq", "avif")]
    for data in (*own, *map(codec.repack, own), codec.repack(codec.repack(own[1]))):
        assert np.array_equal(np.asarray(codec.decode(data, realism=1))[..., 3], expected)
    other = pillow_avif(translucent, quality=30)
    packed = codec.repack(other)
    assert len(parse(packed).tiles) == 2
    for data in (other, packed, codec.repack(packed)):
        decoded = codec.decode(data, realism=1)
        assert np.array_equal(np.asarray(decoded)[..., 3], pixels(other)[..., 3])
    grey = pillow_avif(translucent.convert("LA"), subsampling="4:0:0")
    assert codec.decode(grey).mode == "RGBA"


def test_metadata_of_an_avif(codec: Av1Codec) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a cup of coffee"
    profile = b"\0" * 128  # not looked into: it goes through
    file = pillow_avif(photograph(40, 30), exif=exif, xmp=XMP, icc_profile=profile)
    for data in (file, codec.repack(file), codec.repack(codec.repack(file))):
        decoded = codec.decode(data)
        assert decoded.getexif()[0x010E] == "a cup of coffee"
        assert (decoded.info["xmp"], decoded.info["icc_profile"]) == (XMP, profile)
    described = photograph(40, 30).copy()
    described.info |= {"exif": exif.tobytes(), "xmp": XMP}
    avif = codec.encode(described, container="avif")
    with Image.open(io.BytesIO(avif)) as image:
        assert image.getexif()[0x010E] == "a cup of coffee"
        assert image.info["xmp"] == XMP
    bare = codec.encode(described, container="avif", metadata=False)
    assert not {"exif", "xmp"} & set(codec.decode(bare).info)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_of_an_avif(codec: Av1Codec, orientation: int) -> None:
    """The boxes' turn comes out as EXIF's tag, and the picture as it lies in the file."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = pillow_avif(photograph(24, 17), exif=exif)
    assert parse_avif(file).orientation == orientation
    packed = codec.repack(file)
    for data in (file, packed, codec.repack(packed)):
        decoded = codec.decode(data, preview=True)
        assert decoded.size == (24, 17)
        assert decoded.getexif()[0x0112] == orientation
    assert parse_avif(codec.repack(packed)).orientation == orientation
    assert codec.repack(codec.repack(packed)) == packed


def test_film_grain_is_warned_of(codec: Av1Codec) -> None:
    file = foreign("4:2:0", advanced={"film-grain-test": "1"})
    with pytest.warns(UserWarning, match="film grain"):
        codec.decode(file)


def test_families_are_told_apart(codec: Av1Codec, tiny: RatevarCodec, picture: Image.Image, data: bytes) -> None:
    other = tiny.encode(picture.crop((0, 0, 32, 32)))
    with pytest.raises(ModelMissing, match="this file needs ratevar weights"):
        codec.decode(other)
    with pytest.raises(ModelMissing, match="this file needs av1 weights"):
        tiny.decode(data)
    with pytest.raises(UnsupportedVersion, match="ratevar"):
        codec.repack(other)


# --- damage ---------------------------------------------------------------------------------------------------------

REFUSALS = (BitstreamError, ImageTooLarge)


def test_headers_that_contradict_the_stream(codec: Av1Codec, photo: Image.Image) -> None:
    data = codec.encode(photo.crop((100, 60, 164, 100)), quality=40)
    header, _ = parse_header(data)
    assert codec.decode(rebuilt(data, header), preview=True) == plain(data)
    for changed, cause in (
        (replace(header, width=63), "coded pixels"),
        (replace(header, height=41), "coded pixels"),
        (replace(header, half=True), "coded pixels"),
        (replace(header, q_index=header.q_index - 1), "base_q_idx"),
    ):
        with pytest.raises(CorruptStream, match=cause):
            codec.decode(rebuilt(data, changed))
    other = av1_streams(codec.encode(photo.crop((100, 60, 160, 100)), quality=40))[0]
    stream = av1_streams(data)[0]
    with pytest.raises(CorruptStream):  # alpha of another size
        codec.decode(rebuilt(data, header, [stream, other]))
    coded = parse(codec.encode(Image.new("RGBA", (64, 40), (9, 9, 9, 77)))).alpha
    assert coded is not None
    with pytest.raises(CorruptStream, match="alpha"):  # twice
        codec.decode(rebuilt(data, header, [stream, stream], alpha=coded))
    swapped = Container(header, (Tile(stream, stream_crc(header.to_bytes(), 1, stream)),)).to_bytes()
    with pytest.raises(CorruptStream, match="checksum"):
        codec.decode(swapped)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["4:4:4", "4:2:0", "4:0:0"]), damages())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_avif_is_refused_or_drawn(codec: Av1Codec, chroma: str, damage: Damage) -> None:
    """It has no checksum: what AV1 makes of it is drawn, of the size that the headers tell; never another error."""
    file = damaged(foreign(chroma), damage)
    try:
        decoded = codec.decode(file)
    except REFUSALS:
        return
    parsed = parse_avif(file)
    assert decoded.size == (parsed.width, parsed.height)


@settings(max_examples=60, deadline=None)
@given(damages())
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_stream_under_a_checksum_that_holds(codec: Av1Codec, data: bytes, damage: Damage) -> None:
    """What was written on purpose, not by accident: decoded to the size in the header, or refused."""
    header, _ = parse_header(data)
    stream = damaged(av1_streams(data)[0], damage)
    try:
        decoded = codec.decode(rebuilt(data, header, [stream]), steps=0)
    except REFUSALS:
        return
    assert decoded.size == (header.width, header.height)


@pytest.mark.parametrize("grey", [False, True])
def test_code_points_become_a_profile(grey: bool) -> None:
    """What an AVIF says of its colours without a profile goes on with the picture."""
    image = Image.fromarray(np.arange(48 * 32, dtype=np.uint8).reshape(32, 48)).convert("L" if grey else "RGB")
    obus = parse_avif(pillow_avif(image)).obus
    assert obus is not None
    for points in ((1, 13), (2, 2)):
        assert open_avif(build_avif(obus, nclx=Nclx(*points, 6, True))).icc is None
    icc = open_avif(build_avif(obus, nclx=Nclx(12, 13, 6, True))).icc
    assert (icc is None) == grey  # grey of P3 is that of sRGB
    if icc is not None:
        assert open_avif(build_avif(obus, icc=b"another", nclx=Nclx(12, 13, 6, True))).icc == b"another"
    linear = open_avif(build_avif(obus, nclx=Nclx(9, 8, 9 if not grey else 6, True))).icc
    assert linear is not None
    assert linear[16:20] == (b"GRAY" if grey else b"RGB ")
