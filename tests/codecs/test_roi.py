"""A region of interest is coded finer, the rest coarser, for as many bytes as are asked for."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unquant.codecs.av1 import Av1Codec
from unquant.codecs.av1_rate import base_q_idx_of
from unquant.codecs.avif import BASE, decode_avif, encode_avif
from unquant.codecs.interface import AnyCodec
from unquant.codecs.latent import AnyLatentCodec
from unquant.codecs.ratevar import RatevarCodec
from unquant.codecs.roi import mask_weights, q_offsets, rate_guide
from unquant.codecs.tiles import q_indices
from unquant.container import parse
from unquant.container.avif import parse_avif
from unquant.errors import CodecMissing, InputError, OptionError, OptionTypeError

Array = np.ndarray[Any, Any]


def face(width: int, height: int) -> Image.Image:
    """An ellipse with a soft edge, about where a face is in a portrait."""
    y, x = np.mgrid[0:height, 0:width]
    away = ((y / height - 0.45) / 0.3) ** 2 + ((x / width - 0.5) / 0.2) ** 2
    return Image.fromarray((255 * np.clip(1.6 - 1.2 * away, 0, 1)).astype(np.uint8))


def psnr(found: Image.Image | Array, original: Image.Image, mask: Image.Image) -> tuple[float, float]:
    """In dB, within the mask and beyond it."""
    error = ((np.asarray(found, float) - np.asarray(original, float)) ** 2).mean(2)
    inside = np.asarray(mask) > 127
    return tuple(10 * np.log10(255**2 / error[part].mean()) for part in (inside, ~inside))


@pytest.fixture(scope="module")
def part(photo: Image.Image) -> Image.Image:
    """Blocks of 16×16 pixels, 9×15 of them."""
    return photo.crop((120, 80, 360, 220))


# --- what a mask says ----------------------------------------------------------------------------------------------


def test_weights_are_means_of_the_mask_at_the_size_of_the_picture() -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[:24, :8] = 255
    found = mask_weights(mask, 40, 50)
    assert found.shape == (3, 4)
    assert np.allclose(found[:, 0], [0.5, 0.25, 0])
    assert not found[:, 1:].any()
    # the last block is as its edge goes on
    mask[:] = 0
    mask[32:, 48:] = 255
    assert np.allclose(mask_weights(mask, 40, 50)[2:, 3:], 1)
    double = np.repeat(np.repeat(mask, 2, 0), 2, 1)
    assert np.abs(mask_weights(double, 40, 50) - mask_weights(mask, 40, 50)).max() < 0.2


def test_steps_differ_by_the_gain() -> None:
    weights = np.array([[0.0, 0.5, 1.0]])
    assert q_offsets(weights, 2).tolist() == [[0, -32, -64]]
    assert q_offsets(weights, 0.5).tolist() == [[0, 32, 64]]
    assert not q_offsets(weights, 1).any()
    assert abs(2 ** (-q_offsets(weights, 1.5)[0, 2] / 64) - 1.5) < 0.03


def test_the_guide_of_libaom_shares_out_the_same_bits(part: Image.Image) -> None:
    """Its sum does not move, and a block's share over that of no region is 1 + log2 of how much finer it is."""
    rgb = np.asarray(part)
    weights = mask_weights(np.asarray(face(*part.size)), *rgb.shape[:2])
    even, guided = (rate_guide(rgb, weights, gain, 60.0) for gain in (1, 1.8))
    assert even.shape == weights.shape
    assert even.min() >= 4  # a bit for each 8×8 pixels
    assert guided.sum() == pytest.approx(even.sum())
    shift = guided / even - 1
    assert shift[weights == 1].mean() - shift[weights == 0].mean() == pytest.approx(np.log2(1.8))
    evened = rate_guide(rgb, weights, 1, 60.0, even=0.5)
    assert evened.sum() == pytest.approx(even.sum())
    assert evened.std() == pytest.approx(even.std() / 2)
    # finer steps take more, smooth blocks less
    assert rate_guide(rgb, weights, 1, 10.0).sum() > 1.5 * even.sum()
    assert (rate_guide(np.full_like(rgb, 90), weights, 1, 60.0) == 4).all()


@pytest.mark.parametrize("quality", [0, 1, 2, 20, 63, 99, 100])
def test_the_quantiser_of_a_quality(quality: int, part: Image.Image) -> None:
    data = encode_avif(np.asarray(part)[:32, :32], replace(BASE, quality=quality))
    assert parse_avif(data).picture.base_q_idx == base_q_idx_of(quality)


# --- what becomes of it --------------------------------------------------------------------------------------------


def test_steps_of_a_latent(either: AnyLatentCodec, part: Image.Image) -> None:
    mask = face(*part.size)
    weights = mask_weights(np.asarray(mask), part.height, part.width)
    low, high = either.q_index_range
    plain = parse(either.encode(part, quality=40)).header.q_index
    for gain in (1.5, 4, 0.25):
        found = q_indices(parse(either.encode(part, quality=40, roi=mask, roi_gain=gain)).header)
        assert np.array_equal(found, np.clip(plain + q_offsets(weights, gain), low, high))
    offsets = np.random.default_rng(0).integers(-30, 30, weights.shape)
    found = q_indices(parse(either.encode(part, q_index=200, q_map=offsets)).header)
    assert np.array_equal(found, 200 + offsets)


def test_a_latent_for_equal_bytes(tiny: RatevarCodec, part: Image.Image) -> None:
    mask, target = face(*part.size), 500
    plain = tiny.encode(part, target_bytes=target)
    data = tiny.encode(part, target_bytes=target, roi=mask, roi_gain=2)
    assert 0.97 * target <= len(data) <= target
    before, after = (psnr(tiny.decode(each, realism=0), part, mask) for each in (plain, data))
    assert after[0] > before[0] + 0.3
    assert after[1] < before[1] - 0.1


@pytest.mark.slow
def test_av1_for_equal_bytes(tiny_av1: Av1Codec, photo: Image.Image) -> None:
    """By AV1's own picture: what weights of no training draw says nothing."""
    mask, target = face(*photo.size), 4500
    plain = tiny_av1.encode(photo, target_bytes=target)
    data = tiny_av1.encode(photo, target_bytes=target, roi=mask, roi_gain=2)
    assert 0.97 * target <= len(data) <= target
    before, after = (psnr(tiny_av1.decode(each, preview=True), photo, mask) for each in (plain, data))
    assert after[0] > before[0] + 0.3
    assert after[1] < before[1] - 0.1


@pytest.mark.slow
# of AV1 the steps that vary by the contents, which cost squared error, make way: what is elsewhere may not fall
@pytest.mark.parametrize(("name", "elsewhere"), [("shipped_av1", 0.05), ("shipped", -0.05)])
def test_a_face_for_equal_bytes(
    name: str, elsewhere: float, photo: Image.Image, request: pytest.FixtureRequest
) -> None:
    codec: AnyCodec = request.getfixturevalue(name)
    image = photo.crop((100, 0, 484, 256))
    mask = face(*image.size)
    plain, data = (codec.encode(image, bpp=0.15, **options) for options in ({}, {"roi": mask}))
    assert len(data) <= 0.15 * image.width * image.height / 8
    for realism in (0, 1):
        before, after = (psnr(codec.decode(each, realism=realism), image, mask) for each in (plain, data))
        assert after[0] > before[0] + 0.2
        assert after[1] < before[1] + elsewhere
        assert after[1] - before[1] < after[0] - before[0] - 0.3


def test_av1_of_other_kinds(tiny_av1: Av1Codec, part: Image.Image) -> None:
    """A guide is of any picture: odd sizes, one of a few pixels, half size, an .avif, the highest quality."""
    for size, options in (((33, 17), {"quality": 30}), ((1, 1), {"quality": 30}), ((33, 17), {"quality": 100})):
        image = part.crop((0, 0, *size))
        assert tiny_av1.decode(tiny_av1.encode(image, roi=face(20, 20), **options)).size == size
    small = tiny_av1.encode(part, target_bytes=260, roi=face(20, 20), roi_gain=4)
    assert parse(small).header.half
    assert parse_avif(tiny_av1.encode(part, quality=5, container="avif", roi=face(20, 20))).picture.delta_q_present


def test_a_libaom_without_it(tiny_av1: Av1Codec, part: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    save = Image.Image.save

    def old(self: Image.Image, fp: Any, kind: str, **options: Any) -> None:
        if "rate-distribution-info" in options["advanced"]:
            raise ValueError("Failed to encode image: Invalid codec-specific option")
        save(self, fp, kind, **options)

    monkeypatch.setattr(Image.Image, "save", old)
    with pytest.raises(CodecMissing, match="region of interest"):
        tiny_av1.encode(part, quality=10, roi=face(20, 20))
    rgb = np.asarray(part)
    assert decode_avif(encode_avif(rgb))[0].shape == rgb.shape


def test_masks_of_all_kinds(tiny: RatevarCodec, part: Image.Image) -> None:
    mask = face(*part.size)
    png = io.BytesIO()
    mask.save(png, "PNG")
    right = tiny.encode(part, quality=20, roi=mask)
    for given in (np.asarray(mask), png, png.getvalue(), mask.convert("RGB")):
        assert tiny.encode(part, quality=20, roi=given) == right
    within = np.asarray(mask) > 127
    found = tiny.encode(part, quality=20, roi=within)
    assert found == tiny.encode(part, quality=20, roi=within.astype(np.uint8) * 255)
    assert found != right


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"roi": b"GIF89a, or not"}, "not an image that can be read"),
        ({"roi": 3}, "image"),
        ({"roi_gain": 0.2}, r"roi_gain must lie in 1/4\.\.4, got 0.2"),
        ({"roi_gain": "high"}, "roi_gain must lie"),
        ({"roi": np.zeros((1, 1), np.uint8), "q_map": np.zeros((9, 15), int)}, "roi and q_map exclude"),
        ({"q_map": np.zeros((9, 15), int), "q_index": np.full((9, 15), 99)}, "q_map and a map of q_index exclude"),
        ({"q_map": np.zeros((9, 14), int)}, r"q_map .* \(9, 15\)"),
        ({"q_map": np.zeros((9, 15))}, "q_map .* whole numbers"),
    ],
    ids=str,
)
def test_what_is_refused(tiny: RatevarCodec, part: Image.Image, options: dict[str, Any], cause: str) -> None:
    with pytest.raises((OptionError, InputError, OptionTypeError), match=cause):
        tiny.encode(part, **options)


def test_av1_takes_no_map_of_steps(tiny_av1: Av1Codec, part: Image.Image) -> None:
    with pytest.raises(OptionError, match=r"q_map: .*\(roi\)"):
        tiny_av1.encode(part, q_map=np.zeros((9, 15), int))
