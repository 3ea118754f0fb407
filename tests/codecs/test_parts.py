"""A part of a picture is those pixels of the whole, and no more is decoded than it takes; a small picture is its mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import unquant
from unquant.codecs.interface import AnyCodec
from unquant.codecs.latent import LatentCodec
from unquant.codecs.ratevar import RatevarCodec
from unquant.container import Tile, parse
from unquant.errors import CorruptStream, ImageTooLarge, OptionError
from unquant.nn.transforms import linear_decode

SIZE = (363, 310)
"""In pixels; latents of 20×23: 3×3 tiles of 8×8, smaller ones at the right and at the bottom."""
REGIONS = ((0, 0, 1, 1), (130, 140, 60, 33), (362, 309, 1, 1), (0, 250, 363, 60), (250, 17, 113, 5))


def coded(codec: AnyCodec, photo: Image.Image) -> bytes:
    image = photo.crop((100, 60, 100 + SIZE[0], 60 + SIZE[1]))
    if not isinstance(codec, LatentCodec):
        return codec.encode(image, quality=10)
    return codec.encode(image, q_index=np.random.default_rng(0).integers(150, 300, (20, 23)))


@pytest.fixture
def single(every_weights: Path) -> AnyCodec:
    """A codec in float32 throughout: bfloat16 would round what windows leave the same."""
    codec = unquant.load(str(every_weights))
    codec.precision = torch.float32
    return codec


@pytest.fixture
def narrow(single: AnyCodec, monkeypatch: pytest.MonkeyPatch) -> AnyCodec:
    """Its windows are small: those of a part begin elsewhere than those of the whole."""
    monkeypatch.setattr(type(single), "window", 5)
    return single


def pixels(image: Image.Image) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(image, np.int64)


def cut(values: np.ndarray[Any, Any], region: tuple[int, int, int, int]) -> np.ndarray[Any, Any]:
    x, y, width, height = region
    return values[y : y + height, x : x + width]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"realism": 0}, {"realism": 0.6, "seed": 5}, {"preview": True}], ids=str)
def test_a_region_is_that_part_of_the_picture(
    narrow: AnyCodec, photo: Image.Image, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = coded(narrow, photo)
    whole = pixels(narrow.decode(data, **options))
    for region in REGIONS:
        found = pixels(narrow.decode(data, region=region, **options))
        assert found.shape == (region[3], region[2], 3)
        assert np.abs(found - cut(whole, region)).max() <= 1
    if options == {"realism": 0} and isinstance(narrow, LatentCodec):
        # and so a part that is read too narrow is seen
        monkeypatch.setattr(narrow, "_reach", lambda _: (0, narrow.config.tile))
        found = pixels(narrow.decode(data, region=REGIONS[1], **options))
        assert np.abs(found - cut(whole, REGIONS[1])).max() > 1


@pytest.mark.parametrize("steps", [1, 3])
def test_a_region_behind_the_reverse_path(drawing: RatevarCodec, photo: Image.Image, steps: int) -> None:
    """Each step looks a receptive field further, and noise is that of its place."""
    data = coded(drawing, photo)
    options: dict[str, Any] = {"realism": 1, "steps": steps, "seed": 3}
    whole = pixels(drawing.decode(data, **options))
    assert np.abs(whole - pixels(drawing.decode(data, realism=0))).max() > 20
    for region in REGIONS[:3]:
        assert np.abs(pixels(drawing.decode(data, region=region, **options)) - cut(whole, region)).max() <= 1


def test_no_tiles_but_those_that_it_needs(
    tiny: RatevarCodec, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3×3 tiles; damage of others is not met, of those it is."""
    container = parse(coded(tiny, photo))
    decode, count = tiny.exact.decode, [0]

    def counted(*args: Any) -> Any:
        count[0] += 1
        return decode(*args)

    monkeypatch.setattr(tiny.exact, "decode", counted)
    halo = 16 * tiny.model.g_s.halo
    assert halo <= 64
    for region, needed in (
        ((0, 0, 128 - halo, 128 - halo), 1),
        ((0, 0, 128 - halo, 129 - halo), 2),
        ((0, 0, *SIZE), 9),
    ):
        count[0] = 0
        tiny.decode(container.to_bytes(), region=region, preview=True)
        assert count == [needed]
    tiles = list(container.tiles)
    tiles[4] = Tile(b"damaged", tiles[4].crc)
    damaged = replace(container, tiles=tuple(tiles)).to_bytes()
    assert tiny.decode(damaged, region=(0, 0, 20, 20), preview=True).size == (20, 20)
    with pytest.raises(CorruptStream, match="tile 4"):
        tiny.decode(damaged, region=(128 - halo, 129 - halo, 1, 1), preview=True)


def test_alpha_and_metadata_of_a_part(every: AnyCodec, photo: Image.Image) -> None:
    image = photo.crop((0, 0, 120, 90)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA002: 120, 0xA003: 90, 0x9286: "here"})
    image.info |= {"exif": exif.tobytes(), "xmp": b'<x exif:PixelXDimension="120" exif:PixelYDimension="90"/>'}
    data = every.encode(image, quality=20)
    whole = every.decode(data, preview=True)
    for options, size in (
        ({"region": (7, 5, 33, 21)}, (33, 21)),
        ({"scale": 1 / 8}, (15, 12)),
        ({"scale": 0.25}, (30, 23)),
    ):
        part = every.decode(data, preview=True, **options)
        assert (part.mode, part.size) == ("RGBA", size)
        told = part.getexif().get_ifd(0x8769)
        assert (told[0xA002], told[0xA003], told[0x9286]) == (*size, "here")
        assert b'XDimension="%d" exif:PixelYDimension="%d"' % size in part.info["xmp"]
        alpha = whole.getchannel("A")
        right = alpha.crop((7, 5, 40, 26)) if "region" in options else alpha.reduce(round(1 / options["scale"]))
        assert part.getchannel("A").tobytes() == right.tobytes()


@pytest.mark.parametrize("scale", [1 / 2, 1 / 4, 1 / 8])
def test_a_small_picture_is_the_mean_of_the_linear_path(tiny: RatevarCodec, photo: Image.Image, scale: float) -> None:
    data, r = coded(tiny, photo), round(1 / scale)
    linear = tiny.model.g_s.linear
    with torch.inference_mode():
        image = 0.5 + linear_decode(tiny.dequantise(parse(data)).y_file, linear)[0]
        blocks = image.unflatten(2, (-1, r)).unflatten(1, (-1, r)).mean((2, 4)).clamp(0, 1)
    right = (255 * blocks.permute(1, 2, 0).double()).numpy()
    found = pixels(tiny.decode(data, scale=scale))
    assert found.shape == (-(-SIZE[1] // r), -(-SIZE[0] // r), 3)
    assert np.abs(found - right[: found.shape[0], : found.shape[1]]).max() <= 0.51
    # of a region: the squares that it touches
    x, y, width, height = 37, 101, 150, 3
    part = pixels(tiny.decode(data, scale=scale, region=(x, y, width, height)))
    squares = slice(y // r, -(-(y + height) // r)), slice(x // r, -(-(x + width) // r))
    assert np.abs(part - found[squares]).max() <= 1


def test_a_first_look_is_the_linear_path_of_the_first_channels(tiny_sliced: RatevarCodec, photo: Image.Image) -> None:
    """Enlarged; it hears the first slice alone, and says so of what follows: nothing of that is read."""
    data = coded(tiny_sliced, photo)
    container = parse(data)
    with torch.inference_mode():
        y = tiny_sliced.dequantise(container).y_file[:, :2]
        small = (0.5 + linear_decode(y, tiny_sliced.model.g_s.linear[:2], 8))[0].permute(1, 2, 0)
    right = Image.fromarray(small.clamp(0, 1).mul(255).round().byte().numpy())
    right = right.resize((8 * right.width, 8 * right.height), Image.Resampling.BICUBIC).crop((0, 0, *SIZE))
    found = tiny_sliced.decode(data, preview=True)
    assert found.size == SIZE
    assert np.abs(pixels(found) - pixels(right)).max() <= 1
    assert np.abs(pixels(found) - pixels(photo.crop((100, 60, 100 + SIZE[0], 60 + SIZE[1])))).mean() < 30
    for region in REGIONS:
        part = pixels(tiny_sliced.decode(data, region=region, preview=True))
        assert np.abs(part - cut(pixels(found), region)).max() <= 1
    # damage behind the first slice is no matter; whoever asks for more is told
    tiles = [Tile(tile.stream[:-6] + b"damage", tile.crc) for tile in container.tiles]
    damaged = replace(container, tiles=tuple(tiles)).to_bytes()
    assert tiny_sliced.decode(damaged, preview=True) == found
    for options in ({"realism": 0}, {"preview": True, "steps": 0}, {"preview": True, "scale": 1 / 8}):
        with pytest.raises(CorruptStream):
            tiny_sliced.decode(damaged, **options)
    plain = tiny_sliced.decode(data, realism=0)
    assert tiny_sliced.decode(data, preview=True, allow_partial=True) == plain
    assert tiny_sliced.decode(data, preview=True, steps=0) == plain


def test_a_first_look_at_what_cannot_be_one(tiny_sliced: RatevarCodec, photo: Image.Image) -> None:
    container = parse(coded(tiny_sliced, photo))
    with pytest.raises(CorruptStream, match="8 tiles where 9 are needed"):
        tiny_sliced.decode(replace(container, tiles=container.tiles[:8]).to_bytes(), preview=True)
    with pytest.raises(ImageTooLarge):
        tiny_sliced.decode(container.to_bytes(), preview=True, limits=unquant.Limits(max_memory=10**6))


def test_a_small_picture_of_av1_is_the_mean_of_its_own(tiny_av1: AnyCodec, photo: Image.Image) -> None:
    data = coded(tiny_av1, photo)
    small = tiny_av1.decode(data, scale=0.5)
    assert small == tiny_av1.decode(data, steps=0).reduce(2)
    region = tiny_av1.decode(data, scale=0.5, region=(11, 20, 30, 31))
    assert region == small.crop((5, 10, 21, 26))


def test_a_small_picture_of_cdc_is_the_mean_of_the_preview(tiny_cdc: AnyCodec, photo: Image.Image) -> None:
    data = coded(tiny_cdc, photo)
    assert tiny_cdc.decode(data, scale=0.25) == tiny_cdc.decode(data, preview=True).reduce(4)


def test_what_is_no_part(every: AnyCodec, photo: Image.Image) -> None:
    data = every.encode(photo.crop((0, 0, 40, 30)), quality=20)
    for region in ((0, 0, 41, 1), (39, 0, 2, 1), (0, 30, 1, 1), (5, 29, 1, 2)):
        with pytest.raises(OptionError, match="not all in a picture of 40x30"):
            every.decode(data, region=region)
    wrong: list[dict[str, Any]] = [
        *(
            {"region": r}
            for r in ((0, 0, 0, 1), (-1, 0, 2, 2), (0, 0, 1.5, 1), (0, 0, 1), "0,0,1,1", 7, (True, 0, 1, 1))
        ),
        *({"scale": s} for s in (0, 2, 1 / 3, 1 / 16, "1/2", None)),
        *({"scale": 0.5, "realism": 1}, {"scale": 0.5, "steps": 1}),
    ]
    for options in wrong:
        with pytest.raises(OptionError, match=r"^(region|scale)"):
            every.decode(data, **options)
    assert every.decode(data, scale=0.5, realism=0, steps=None).size == (20, 15)
