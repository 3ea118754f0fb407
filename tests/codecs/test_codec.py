"""The public surface, with a tiny model: any picture in, a file out, and back; and every way to use it wrongly."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import Damage, damaged, damages
from hypothesis import given, settings
from PIL import Image

import unquant
from unquant import codecs
from unquant.codecs.av1 import Av1Codec
from unquant.codecs.interface import AnyCodec
from unquant.codecs.latent import AnyLatentCodec
from unquant.codecs.ratevar import RatevarCodec
from unquant.container import parse, parse_header
from unquant.errors import (
    BitstreamError,
    CorruptStream,
    ImageTooLarge,
    ModelMissing,
    NotUnquant,
    OptionError,
    WeightsError,
)
from unquant.families import family_of
from unquant.weights_file import read_weights

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF/></x:xmpmeta>"


def psnr(a: Image.Image, b: Image.Image) -> float:
    error = np.asarray(a.convert("RGB"), float) - np.asarray(b.convert("RGB"), float)
    return 10 * np.log10(255**2 / max(float(np.square(error).mean()), 1e-9))


def translucent(photo: Image.Image) -> Image.Image:
    image = photo.crop((220, 100, 253, 170))
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    return image


def described(photo: Image.Image) -> Image.Image:
    image = photo.crop((0, 0, 48, 32))
    exif = Image.Exif()
    exif[0x010E] = "a cup of coffee"
    image.info |= {"exif": exif.tobytes(), "xmp": XMP}
    return image


# --- pictures in and out --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (17, 1), (1, 17), (16, 16), (16, 15), (70, 33), (129, 130), (300, 200)]
)
def test_any_size(every: AnyCodec, photo: Image.Image, width: int, height: int) -> None:
    picture = photo.crop((150, 110, 150 + width, 110 + height))
    data = every.encode(picture, quality=100)
    header, _ = parse_header(data)
    assert (header.width, header.height) == (width, height)
    tiles = 1 if isinstance(every, Av1Codec) else -(-width // 128) * -(-height // 128)
    assert len(parse(data).tiles) == tiles
    decoded = every.decode(data, realism=0)
    assert (decoded.mode, decoded.size) == ("RGB", (width, height))
    assert psnr(decoded, picture) > 20
    assert data == every.encode(picture, quality=100)


def test_overhead(every: AnyCodec, photo: Image.Image) -> None:
    data = every.encode(photo.crop((0, 0, 128, 128)), quality=75)
    container = parse(data)
    assert len(data) - sum(len(tile.stream) for tile in container.tiles) <= 32


def test_all_kinds_of_input(every: AnyCodec, photo: Image.Image) -> None:
    picture = photo.crop((150, 110, 190, 140))
    array = np.asarray(picture)
    data = every.encode(picture)
    assert every.encode(array) == data
    assert every.encode(torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 255) == data
    assert every.encode(picture.convert("L")) == every.encode(np.asarray(picture.convert("L")))
    assert every.decode(every.encode(picture.convert("P"))).size == picture.size
    assert every.decode(memoryview(data)) == every.decode(data)  # type: ignore[call-overload]
    for wrong in (None, 3, array.astype(np.float32)):
        with pytest.raises(OptionError):
            every.encode(wrong)


def test_alpha_is_exact(every: AnyCodec, photo: Image.Image) -> None:
    picture = translucent(photo)
    decoded = every.decode(every.encode(picture, quality=20))
    assert decoded.mode == "RGBA"
    assert np.array_equal(np.asarray(decoded)[..., 3], np.asarray(picture)[..., 3])
    dot = Image.new("RGBA", (1, 1), (10, 200, 30, 77))
    assert np.asarray(every.decode(every.encode(dot)))[0, 0, 3] == 77
    opaque = photo.crop((0, 0, 20, 20)).convert("RGBA")
    assert every.encode(opaque) == every.encode(opaque.convert("RGB"))


def test_metadata(every: AnyCodec, photo: Image.Image) -> None:
    picture = described(photo)
    kept, dropped = every.encode(picture), every.encode(picture, metadata=False)
    decoded = every.decode(kept)
    assert decoded.getexif()[0x010E] == "a cup of coffee"
    assert decoded.info["xmp"] == XMP
    assert parse(dropped).exif is parse(dropped).xmp is parse(dropped).icc is None
    assert not {"exif", "xmp"} & set(every.decode(dropped).info)
    assert np.array_equal(decoded, every.decode(dropped))
    assert len(kept) > len(dropped) + len(XMP)


def test_orientation_is_applied(every: AnyCodec, photo: Image.Image) -> None:
    picture = photo.crop((0, 0, 48, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = picture.copy()
    turned.info["exif"] = exif.tobytes()
    assert every.encode(turned) == every.encode(picture.transpose(Image.Transpose.ROTATE_270))


def test_lists(every: AnyCodec, photo: Image.Image) -> None:
    pictures = [photo.crop((0, 0, 40, 30)), translucent(photo), photo.crop((100, 100, 101, 101))]
    files = every.encode(pictures, quality=30)
    assert files == [every.encode(picture, quality=30) for picture in pictures]
    assert every.decode(files, realism=1) == [every.decode(data, realism=1) for data in files]
    assert every.decode(tuple(files))[1].mode == "RGBA"
    assert every.encode([]) == []


@pytest.mark.slow
def test_threads_do_not_disturb_each_other(every: AnyCodec, photo: Image.Image) -> None:
    pictures = [photo.crop((x, 60, x + 150, 200)) for x in range(0, 160, 20)]
    one_by_one = [every.encode(picture, quality=50) for picture in pictures]
    images = [every.decode(data) for data in one_by_one]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda picture: every.encode(picture, quality=50), pictures)) == one_by_one
        assert list(pool.map(every.decode, one_by_one)) == images


# --- the step -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_size_falls_with_the_step(either: AnyLatentCodec, photo: Image.Image) -> None:
    picture = photo.crop((100, 60, 484, 316))
    low, high = either.q_index_range
    sizes = [len(either.encode(picture, q_index=index)) for index in range(low, high + 1, 16)]
    assert all(a > b for a, b in pairwise(sizes))
    assert sizes[0] > 5 * sizes[-1]
    near = [len(either.encode(picture, q_index=index)) for index in range(200, 209)]
    assert all(a + 4 >= b for a, b in pairwise(near))  # streams end at whole words


def test_quality_is_a_step(either: AnyLatentCodec, photo: Image.Image) -> None:
    picture = photo.crop((0, 0, 40, 40))
    low, high = either.q_index_range
    assert either.encode(picture, quality=100) == either.encode(picture, q_index=low)
    assert either.encode(picture, quality=0) == either.encode(picture, q_index=high)
    assert either.encode(picture) == either.encode(picture, quality=40)
    assert either.encode(picture, q_index=np.int64(77)) == either.encode(picture, q_index=77)


@pytest.mark.slow
def test_q_map(either: AnyLatentCodec, photo: Image.Image) -> None:
    """A fine left and a coarse right half, over several tiles and an odd size."""
    picture = photo.crop((150, 100, 450, 250))
    low, high = either.q_index_range
    q_map = np.full((10, 19), high)
    q_map[:, :9] = low
    data = either.encode(picture, q_index=q_map)
    header, _ = parse_header(data)
    assert header.q_map == q_map.astype("<u2").tobytes()
    assert unquant.info(data).q_map
    fine, coarse = either.encode(picture, q_index=low), either.encode(picture, q_index=high)
    assert len(coarse) < len(data) < len(fine)
    mapped, fine, coarse = (either.decode(d, realism=0) for d in (data, fine, coarse))
    left, right = (0, 0, 120, 150), (180, 0, 300, 150)
    for region, like in ((left, fine), (right, coarse)):
        other = coarse if like is fine else fine
        assert psnr(mapped.crop(region), like.crop(region)) > psnr(mapped.crop(region), other.crop(region)) + 3
    assert psnr(mapped.crop(left), picture.crop(left)) > psnr(coarse.crop(left), picture.crop(left)) + 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (17, 1), (1, 80), (40, 24), (129, 130)])
def test_q_map_of_any_size(either: AnyLatentCodec, photo: Image.Image, size: tuple[int, int]) -> None:
    picture = photo.crop((150, 100, 150 + size[0], 100 + size[1]))
    shape = (-(-size[1] // 16), -(-size[0] // 16))
    q_map = np.random.default_rng(0).integers(16, 345, shape)
    assert either.decode(either.encode(picture, q_index=q_map)).size == size
    constant = either.encode(picture, q_index=np.full(shape, 120))
    whole = either.encode(picture, q_index=120)
    assert psnr(either.decode(constant), either.decode(whole)) > 45


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 40, "bpp": 0.2},
        {"bpp": 0.2, "target_bytes": 1000},
        {"quality": 1, "bpp": 0.2, "target_bytes": 1000},
    ],
)
def test_rates_exclude_each_other(every: AnyCodec, photo: Image.Image, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="exclude each other") as caught:
        every.encode(photo, **options)
    assert all(name in str(caught.value) for name in options)


@pytest.mark.parametrize("options", [{"quality": 40}, {"target_bytes": 1000}, {"quality": 1, "bpp": 0.2}])
def test_rates_exclude_a_step(either: AnyLatentCodec, photo: Image.Image, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="exclude each other") as caught:
        either.encode(photo, q_index=100, **options)
    assert all(name in str(caught.value) for name in (*options, "q_index"))


@pytest.mark.parametrize("options", [{"effort": 4}, {"container": "avif"}])
def test_options_of_av1_alone(either: AnyLatentCodec, photo: Image.Image, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="for the family av1 alone"):
        either.encode(photo, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": -1},
        {"quality": 100.5},
        {"quality": float("nan")},
        {"quality": "high"},
        {"bpp": 0},
        {"bpp": -0.1},
        {"bpp": float("inf")},
        {"bpp": float("nan")},
        {"target_bytes": 0},
        {"target_bytes": -5},
        {"target_bytes": 100.0},
        {"target_bytes": True},
        {"q_index": 15},
        {"q_index": 345},
        {"q_index": 100.0},
        {"q_index": True},
        {"q_index": "100"},
        {"q_index": np.zeros((0, 0), np.int64)},
        {"q_index": np.full((2, 2), 100)},
        {"q_index": np.full((2, 3), 15)},
        {"q_index": np.full((2, 3), 100.0)},
        {"q_index": np.full(6, 100)},
        {"realism": -0.01},
        {"realism": 1.01},
        {"realism": float("nan")},
    ],
    ids=str,
)
def test_options_out_of_range(every: AnyCodec, photo: Image.Image, options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        every.encode(photo.crop((0, 0, 48, 32)), **options)


# --- decoding -------------------------------------------------------------------------------------------------------


def test_realism(every: AnyCodec, photo: Image.Image) -> None:
    picture = photo.crop((100, 100, 180, 160))
    plain = every.encode(picture)
    assert parse_header(plain)[0].realism is None
    assert parse_header(every.encode(picture, realism=every.config.default_realism))[0].realism is None
    assert unquant.info(plain).realism is None
    stored = every.encode(picture, realism=0.25)
    assert parse_header(stored)[0].realism == 25
    assert unquant.info(stored).realism == 0.25
    decoded = {rho: every.decode(plain, realism=rho) for rho in (0, 0.25, 0.5, 1)}
    assert every.decode(stored) == decoded[0.25]
    assert every.decode(plain) == decoded[0.5]  # the default of these weights
    assert every.decode(stored, realism=1) == decoded[1]
    assert decoded[0] != decoded[1]
    fewest = {"ratevar": 0, "cdc": 1, "av1": 0}[every.family]
    preview = every.decode(plain, realism=0, steps=fewest)
    assert every.decode(stored, preview=True) == every.decode(stored, preview=True, realism=0.0) == preview
    assert (preview == decoded[0]) == (every.family == "ratevar")


def test_seed_and_steps(tiny: RatevarCodec, photo: Image.Image) -> None:
    data = tiny.encode(photo.crop((100, 100, 180, 160)))
    image = tiny.decode(data)
    assert tiny.decode(data, seed=0) == tiny.decode(data, seed=2**64 - 1) == image
    assert tiny.decode(data, steps=0) == image


@pytest.mark.parametrize(
    "options",
    [
        {"realism": -0.1},
        {"realism": 1.5},
        {"realism": float("nan")},
        {"realism": "much"},
        {"preview": True, "realism": 0.5},
        {"steps": -1},
        {"steps": 257},
        {"steps": True},
        {"seed": -1},
        {"seed": 2**64},
    ],
    ids=str,
)
def test_decode_options_out_of_range(every: AnyCodec, photo: Image.Image, options: dict[str, Any]) -> None:
    data = every.encode(photo.crop((0, 0, 48, 32)))
    with pytest.raises(OptionError):
        every.decode(data, **options)


# --- damage ---------------------------------------------------------------------------------------------------------

Q_MAP = np.array([[200, 300], [250, 30], [16, 344]])
REFUSALS = (BitstreamError, ImageTooLarge, ModelMissing)


@pytest.fixture(scope="module")
def intact(every: AnyCodec, photo: Image.Image) -> tuple[bytes, Image.Image]:
    picture = described(photo).crop((0, 0, 20, 37))
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    rate = {"quality": 40} if isinstance(every, Av1Codec) else {"q_index": Q_MAP}
    data = every.encode(picture, **rate, realism=0.7)
    return data, every.decode(data)


def check_damage(codec: AnyCodec, data: bytes, image: Image.Image) -> bool:
    """Whether the damage is noticed; fails if it gives another picture, or an error of another kind."""
    try:
        decoded = codec.decode(data)
    except REFUSALS:
        return True
    assert decoded.mode == image.mode
    assert decoded.tobytes() == image.tobytes()
    assert decoded.info == image.info
    return False


@pytest.mark.slow
def test_no_flipped_bit_gives_another_picture(every: AnyCodec, intact: tuple[bytes, Image.Image]) -> None:
    data, image = intact
    assert not check_damage(every, data, image)
    noticed = []
    for position in range(len(data)):
        bits = range(8) if position < 48 else [position * 5 % 8]
        for bit in bits:
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            noticed.append(check_damage(every, bytes(flipped), image))
    assert sum(noticed) > 0.98 * len(noticed)


@settings(max_examples=120, deadline=None)
@given(damages())
def test_no_damage_gives_another_picture(every: AnyCodec, intact: tuple[bytes, Image.Image], damage: Damage) -> None:
    data, image = intact
    check_damage(every, damaged(data, damage), image)


def test_what_is_no_file(every: AnyCodec, intact: tuple[bytes, Image.Image]) -> None:
    for junk in (b"", b"\x89UN", b"\xff\xd8\xff\xe0 a JPEG", bytes(100)):
        with pytest.raises(NotUnquant):
            every.decode(junk)
    for size in range(4, len(intact[0])):
        with pytest.raises(BitstreamError):
            every.decode(intact[0][:size])


def test_tiles_are_bound_to_their_place(either: AnyLatentCodec, photo: Image.Image) -> None:
    """Two tiles that change places are noticed, though each is whole."""
    container = parse(either.encode(photo.crop((100, 100, 300, 180)), q_index=100))
    first, second = container.tiles
    swapped = type(container)(container.header, (second, first)).to_bytes()
    with pytest.raises(CorruptStream):
        either.decode(swapped)
    for tiles in ((first,), (first, second, second)):
        with pytest.raises((CorruptStream, OptionError)):
            either.decode(type(container)(container.header, tiles).to_bytes())


# --- weights --------------------------------------------------------------------------------------------------------


def test_other_weights_are_named(every: AnyCodec, photo: Image.Image) -> None:
    data = bytearray(every.encode(photo.crop((0, 0, 40, 40))))
    data[6:10] = bytes.fromhex("deadbeef")
    for decode in (every.decode, unquant.decode):
        with pytest.raises(ModelMissing, match="deadbeef"):
            decode(bytes(data))
    with pytest.raises(ModelMissing, match=every.stream_id.hex()):
        every.decode(bytes(data))


def test_damaged_weights(tmp_path: Path, every_weights: Path) -> None:
    whole = every_weights.read_bytes()
    path = tmp_path / "damaged.safetensors"
    flipped = bytearray(whole)
    flipped[-5000] ^= 1
    for content in (bytes(flipped), whole[:-1], whole[: len(whole) // 2], b"", b"not weights", whole[:100]):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"damaged\.safetensors"):
            unquant.load(str(path))
    with pytest.raises(ModelMissing):
        unquant.load(str(tmp_path / "none.safetensors"))
    with pytest.raises(ModelMissing, match="no-such-model"):
        unquant.load("no-such-model")


@pytest.mark.parametrize(
    ("name", "other", "changes"),
    [
        ("tiny", "cdc", ({"analysis_width8": 13}, {"colour": "blue"}, {"entropy": {"width": 17}})),
        (
            "tiny_cdc",
            "ratevar",
            ({"steps": 0}, {"schedule": "linear", "train_steps": 20}, {"denoiser": {"widths": [8]}}, {"compressor": 3}),
        ),
        ("tiny_av1", "cdc", ({"width8": 17}, {"width8": -1}, {"colour": "blue"}, {"default_realism": 1.5})),
    ],
)
def test_weights_that_do_not_fit_their_configuration(
    request: pytest.FixtureRequest, name: str, other: str, changes: tuple[dict[str, Any], ...]
) -> None:
    weights = read_weights(request.getfixturevalue(f"{name}_weights"))
    codec = type(request.getfixturevalue(name))
    with pytest.raises(WeightsError, match="family"):
        codec(replace(weights, family=other))
    for change in changes:
        with pytest.raises(WeightsError):
            codec(replace(weights, config=weights.config | change))
    last = list(weights.tensors)[-1]
    assert last == ("f.up.weight" if name == "tiny_av1" else "tables.scales")
    missing = {k: v for k, v in weights.tensors.items() if k != last}
    with pytest.raises(WeightsError, match=last.removeprefix("tables.")):
        codec(replace(weights, tensors=missing))


def test_unknown_device(every_weights: Path) -> None:
    for device in ("abacus", "cuda:99"):
        with pytest.raises(OptionError, match=device):
            unquant.load(str(every_weights), device)


# --- the package ----------------------------------------------------------------------------------------------------


def test_the_short_way(
    every: AnyCodec, every_weights: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """encode, decode, info, load and models find weights in the folder that UNQUANT_WEIGHTS names."""
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(every_weights.parent))
    picture = photo.crop((0, 0, 40, 30))
    data = unquant.encode(picture, model=every.name, quality=70)
    assert data == every.encode(picture, quality=70) == unquant.load(every.name).encode(picture, quality=70)
    # nothing learned is on the way to an AV1 stream: all weights of av1 draw it, and the package's come first
    shared = every.family == "av1"
    chosen = {"model": every.name} if shared else {}
    assert unquant.decode(data, realism=0, **chosen) == every.decode(data, realism=0)
    assert unquant.info(data).model in ({every.name, "av1"} if shared else {every.name})
    (entry,) = [m for m in codecs.models() if m.name == every.name]
    assert (entry.stream_id, entry.weights_id) == (every.stream_id.hex(), every.weights_id)
    assert entry.parameters == sum(p.numel() for p in every.model.parameters())


def test_info(every: AnyCodec, photo: Image.Image) -> None:
    picture = described(photo)
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    data = every.encode(picture, quality=60)
    info = unquant.info(data)
    step = parse_header(data)[0].q_index
    assert step > 0
    assert (info.family, info.stream_id, info.width, info.height) == (every.family, every.stream_id.hex(), 48, 32)
    assert (info.q_index, info.q_map, info.tiles, info.seed, info.steps) == (step, False, 1, None, None)
    assert (info.bytes, info.bpp) == (len(data), 8 * len(data) / (48 * 32))
    assert set(info.sections) == {"alpha", "exif", "xmp"}
    assert 0 < info.sections["xmp"] <= len(XMP)
    assert json.loads(json.dumps(info.to_dict()))["q_index"] == step
    with pytest.raises(NotUnquant):
        unquant.info(b"GIF89a")


def test_repacking_is_of_families_that_draw_avif(every: AnyCodec) -> None:
    if family_of(every.family).draws_avif:
        with pytest.raises(BitstreamError):
            every.repack(b"no file")
    else:
        with pytest.raises(OptionError, match=rf"{every.family} repack no \.avif"):
            every.repack(b"no file")
