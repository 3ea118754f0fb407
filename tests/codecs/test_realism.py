"""The codec with a reverse network: a tiny one of random weights, added to the tiny model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import difference
from PIL import Image
from reversing import REVERSE, with_reverse

import unquant
from unquant.codecs import ratevar
from unquant.codecs.ratevar import RatevarCodec
from unquant.container import parse, parse_header
from unquant.diffusion.noise import seeded_noise
from unquant.errors import OptionError, WeightsError
from unquant.networks.common import log2_q_of
from unquant.networks.reverse import SAMPLERS
from unquant.weights_file import read_weights


@pytest.fixture(scope="session")
def plain(tiny_weights: Path) -> RatevarCodec:
    """The codec of the same weights without a reverse network, in float32 throughout."""
    codec = RatevarCodec.from_file(tiny_weights)
    codec.precision = torch.float32
    return codec


@pytest.fixture(scope="module")
def data(drawing: RatevarCodec, picture: Image.Image) -> bytes:
    return drawing.encode(picture, q_index=200)


# --- the file is that of the weights without it ---------------------------------------------------------------------


def test_a_reverse_network_changes_no_file(
    drawing: RatevarCodec, plain: RatevarCodec, picture: Image.Image, data: bytes
) -> None:
    assert drawing.stream_id == plain.stream_id
    assert plain.encode(picture, q_index=200) == data
    assert drawing.decode(data, realism=0) == plain.decode(data, realism=0)
    asking = drawing.encode(picture, q_index=200, steps=7, seed=5)
    assert [t.stream for t in parse(asking).tiles] == [t.stream for t in parse(data).tiles]
    # weights without the network leave aside what the file asks for, those with it do not
    assert plain.decode(asking) == plain.decode(data)
    assert drawing.decode(asking) != drawing.decode(data)


def test_only_what_differs_from_the_defaults_is_written(drawing: RatevarCodec, picture: Image.Image) -> None:
    small = picture.crop((0, 0, 40, 30))
    bare = drawing.encode(small)
    assert drawing.encode(small, seed=0, steps=REVERSE.steps, realism=drawing.config.default_realism) == bare
    header, _ = parse_header(bare)
    assert (header.realism, header.steps, header.seed) == (None, None, None)
    for options, expected in (
        ({"seed": 300}, (None, None, 300)),
        ({"steps": 1}, (None, 1, None)),
        ({"realism": 0.25, "steps": 9}, (25, 9, None)),
        ({"realism": 1.0, "seed": 2**64 - 1}, (100, None, 2**64 - 1)),
    ):
        full = drawing.encode(small, **options)
        header, _ = parse_header(full)
        assert (header.realism, header.steps, header.seed) == expected
        info = unquant.info(full)
        assert (info.steps, info.seed) == expected[1:]
        assert (info.realism is None) == ("realism" not in options)
        assert len(bare) < len(full) <= len(bare) + 11
    sized = drawing.encode(small, target_bytes=len(bare) + 3, steps=9)
    assert parse_header(sized)[0].steps == 9
    assert len(sized) <= len(bare) + 3


def test_what_a_file_asks_for_is_done_and_may_be_overruled(
    drawing: RatevarCodec, picture: Image.Image, data: bytes
) -> None:
    asking = drawing.encode(picture, q_index=200, realism=0.8, steps=3, seed=11)
    own = drawing.decode(asking)
    assert own == drawing.decode(data, realism=0.8, steps=3, seed=11)
    images = [own]
    for options in ({"seed": 0}, {"steps": 1}, {"realism": 1.0}, {"seed": 12}):
        images.append(drawing.decode(asking, **options))
        assert images[-1] == drawing.decode(data, **({"realism": 0.8, "steps": 3, "seed": 11} | options))
    assert len({image.tobytes() for image in images}) == len(images)
    assert drawing.decode(data) == drawing.decode(data, realism=0.5, steps=2, seed=0)


# --- the plain decode -----------------------------------------------------------------------------------------------


def test_realism_0_is_the_plain_decode(drawing: RatevarCodec, plain: RatevarCodec, data: bytes) -> None:
    expected = plain.decode(data, realism=0)
    for options in ({}, {"steps": 1}, {"steps": 5}, {"seed": 77}, {"steps": 0, "seed": 1}):
        assert drawing.decode(data, realism=0, **options) == expected
        assert drawing.decode(data, preview=True, **options) == expected
    assert drawing.decode(data) != expected


@pytest.mark.parametrize("realism", [0.0, 0.3, 1.0])
def test_no_steps_are_weights_without_the_network(
    drawing: RatevarCodec, plain: RatevarCodec, data: bytes, realism: float
) -> None:
    assert drawing.decode(data, steps=0, realism=realism, seed=4) == plain.decode(data, realism=realism)
    assert (drawing.decode(data, realism=realism) != plain.decode(data, realism=realism)) == (realism > 0)


def test_the_finest_step_is_left_alone(drawing: RatevarCodec, picture: Image.Image) -> None:
    data = drawing.encode(picture, q_index=drawing.q_index_range[0])
    assert drawing.decode(data, realism=1) == drawing.decode(data, realism=1, steps=0)


def test_the_synthesis_is_told_how_far_the_path_went(
    drawing: RatevarCodec, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[float, ...]] = []
    g_s = drawing.model.g_s.draft

    def keep(y: torch.Tensor, *conditions: Any) -> torch.Tensor:
        told.append(tuple(float(c) for c in conditions[:3]))
        return g_s(y, *conditions)

    monkeypatch.setattr(drawing.model.g_s, "draft", keep)
    file, low = log2_q_of(200), log2_q_of(drawing.q_index_range[0])
    plain, drawn, undrawn = (file, file, 0.0), (low, file, 1.0), (file, file, 1.0)
    for realism, steps, expected in (
        (0.0, 2, [plain]),
        (0.5, 2, [plain, drawn]),
        (0.5, 0, [plain, undrawn]),
        (1.0, 1, [drawn]),
    ):
        told.clear()
        drawing.decode(data, realism=realism, steps=steps)
        assert told == expected


def test_between_its_ends_the_knob_is_a_line(drawing: RatevarCodec, data: bytes) -> None:
    """(1−ρ)·x̂_0 + ρ·x̂_1, rounded once."""
    plain, drawn = (np.asarray(drawing.decode(data, realism=rho), float) for rho in (0.0, 1.0))
    assert np.abs(plain - drawn).max() > 20
    for rho in (0.25, 0.9):
        found = np.asarray(drawing.decode(data, realism=rho), float)
        assert np.abs(found - (1 - rho) * plain - rho * drawn).max() <= 1.0


def test_side_information_is_that_of_training(drawing: RatevarCodec, picture: Image.Image, data: bytes) -> None:
    """The decoder's ŷ, μ and σ are those on which f is trained, up to the grids of the exact path."""
    side = drawing.dequantise(parse(data))
    y = drawing.analyse(np.asarray(picture))
    steps = (side.y_file / torch.exp2(side.log2_q_file) - side.mu).round()
    torch.testing.assert_close((steps + side.mu) * torch.exp2(side.log2_q_file), side.y_file, rtol=1e-5, atol=1e-4)
    tile = drawing.config.tile
    trained = drawing.model.quantise(y[..., :tile, :tile], side.log2_q_file, noise=False, rdoq=drawing.rdoq)
    for found, expected, scale in ((side.mu, trained.mu, 0.01), (side.t, trained.t, 0.01)):
        away = (found[..., :tile, :tile] - expected).abs()
        assert float(away.median()) <= scale
        assert float((away > 10 * scale).float().mean()) < 0.05


def test_the_plain_decode_keeps_no_side_information(drawing: RatevarCodec, data: bytes) -> None:
    container = parse(data)
    whole, bare = drawing.dequantise(container), drawing.dequantise(container, path=False)
    assert torch.equal(whole.y_file, bare.y_file)
    assert whole.mu.shape == whole.t.shape == whole.y_file.shape
    assert bare.mu.numel() == bare.t.numel() == 1


# --- one seed, one image --------------------------------------------------------------------------------------------


def test_one_seed_gives_one_image(drawing: RatevarCodec, photo: Image.Image, data: bytes) -> None:
    other = drawing.encode(photo.crop((300, 200, 333, 217)), q_index=250)
    for seed in (0, 2**64 - 1):
        first = drawing.decode(data, seed=seed)
        assert drawing.decode(data, seed=seed) == first
        assert drawing.decode([other, data, other, data], seed=seed)[1::2] == [first, first]
    assert difference(drawing.decode(data, seed=1), drawing.decode(data, seed=2)) > 3


def test_the_noise_is_that_of_seed_stream_and_step(
    drawing: RatevarCodec, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One draw for the whole plane for each use at each step: what an image looks like hangs on these keys."""
    asked: list[tuple[tuple[int, ...], int]] = []

    def keep(*key: int, stream: int, top: int, left: int) -> torch.Tensor:
        assert (top, left) == (0, 0)
        asked.append((key, stream))
        return seeded_noise(*key, stream=stream)

    monkeypatch.setattr(ratevar, "seeded_noise", keep)
    drawing.decode(data, realism=1, steps=2, seed=7)
    assert sorted(asked) == [((7, step, c, 9, 13), s) for step in (0, 1) for c, s in ((2, 1), (16, 0))]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 480), (330, 200)])
def test_windows_give_the_same_image(
    reverse_weights: Path, photo: Image.Image, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = RatevarCodec.from_file(reverse_weights)
    codec.precision = torch.float32
    assert codec.model.f is not None
    assert RatevarCodec.window % 2 == codec.model.f.halo % 2 == 0  # windows start on the grid of the fold
    latents = -(-shape[1] // 16), -(-shape[0] // 16)
    q_map = np.random.default_rng(0).integers(150, 345, latents)
    data = codec.encode(photo.rotate(90, expand=True).crop((0, 0, *shape)), q_index=q_map)
    whole = codec.decode(data, realism=1, seed=3)
    for window in (2, 6, 10, 16):
        monkeypatch.setattr(RatevarCodec, "window", window)
        assert difference(codec.decode(data, realism=1, seed=3), whole) <= 1
    monkeypatch.setattr(RatevarCodec, "window", 2)
    monkeypatch.setattr(codec.model.f, "halo", 0)
    assert difference(codec.decode(data, realism=1, seed=3), whole) > 3


def test_threads_do_not_disturb_each_other(drawing: RatevarCodec, photo: Image.Image) -> None:
    files = [drawing.encode(photo.crop((x, 60, x + 100, 130)), q_index=220) for x in range(0, 180, 30)]
    one_by_one = [drawing.decode(one, seed=seed) for seed, one in enumerate(files)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda job: drawing.decode(job[1], seed=job[0]), enumerate(files))) == one_by_one


# --- any picture ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (33, 16)])
def test_any_size(drawing: RatevarCodec, photo: Image.Image, size: tuple[int, int]) -> None:
    picture = photo.crop((250, 120, 250 + size[0], 120 + size[1]))
    for q_index in (300, np.full((-(-size[1] // 16), -(-size[0] // 16)), 300)):
        data = drawing.encode(picture, q_index=q_index)
        decoded = drawing.decode(data, realism=1)
        assert (decoded.mode, decoded.size) == ("RGB", size)
        assert difference(decoded, drawing.decode(data, realism=1, seed=9)) > 0


def test_q_map(drawing: RatevarCodec, picture: Image.Image) -> None:
    """A constant map is the scalar; what lies at the finest step, away from the rest, is not redrawn."""
    low, high = drawing.q_index_range
    decoded = [
        drawing.decode(drawing.encode(picture, q_index=q), realism=1, seed=1) for q in (200, np.full((9, 13), 200))
    ]
    assert difference(*decoded) <= 2
    q_map = np.full((9, 13), low)
    q_map[:, 10:] = high
    data = drawing.encode(picture, q_index=q_map)
    first, second = (drawing.decode(data, realism=1, seed=seed) for seed in (1, 2))
    assert drawing.model.g_s.halo <= 4
    fine, coarse = (0, 0, 96, 140), (160, 0, 200, 140)
    assert difference(first.crop(fine), second.crop(fine)) == 0
    assert difference(first.crop(coarse), second.crop(coarse)) > 3


def test_alpha_is_kept(drawing: RatevarCodec, photo: Image.Image) -> None:
    picture = photo.crop((220, 100, 253, 170))
    picture.putalpha(Image.radial_gradient("L").resize(picture.size))
    data = drawing.encode(picture, quality=20)
    drawn, preview = drawing.decode(data, realism=1), drawing.decode(data, preview=True)
    assert drawn.mode == "RGBA"
    assert np.array_equal(np.asarray(drawn)[..., 3], np.asarray(picture)[..., 3])
    assert difference(drawn.convert("RGB"), preview.convert("RGB")) > 3


# --- every way to sample --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 3])
def test_every_sampler(tiny_weights: Path, data: bytes, sampler: str, steps: int) -> None:
    config = replace(REVERSE, sampler=sampler, schedule_power=0.7, tau="constant", alpha_last=0.5)
    codec = RatevarCodec(with_reverse(read_weights(tiny_weights), config))
    image = codec.decode(data, realism=1, steps=steps, seed=1)
    assert codec.decode(data, realism=1, steps=steps, seed=1) == image
    assert difference(image, codec.decode(data, realism=1, steps=steps, seed=2)) > 3
    assert difference(image, codec.decode(data, realism=1, steps=steps + 1, seed=1)) > 0
    assert codec.decode(data, realism=0, steps=steps) == codec.decode(data, preview=True)


def test_without_noise_every_seed_gives_the_same_image(tiny_weights: Path, data: bytes) -> None:
    config = replace(REVERSE, training="mse", noise_channels=0, sampler="deterministic")
    codec = RatevarCodec(with_reverse(read_weights(tiny_weights), config))
    image = codec.decode(data, realism=1, seed=1)
    assert image == codec.decode(data, realism=1, seed=2)
    assert difference(image, codec.decode(data, realism=1, steps=0)) > 0


def test_a_network_that_does_not_fit_is_refused(tiny_weights: Path) -> None:
    weights = with_reverse(read_weights(tiny_weights), REVERSE)
    for reverse in (None, asdict(replace(REVERSE, width=24)), asdict(replace(REVERSE, noise_channels=3))):
        with pytest.raises(WeightsError):
            RatevarCodec(replace(weights, config=weights.config | {"reverse": reverse}))
    with pytest.raises(WeightsError):
        RatevarCodec(replace(weights, config=weights.config | {"synthesis_width8": -1}))


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"steps": -1}, "-1"),
        ({"steps": 2.0}, "2.0"),
        ({"steps": True}, "True"),
        ({"steps": "3"}, "'3'"),
        ({"seed": -1}, "-1"),
        ({"seed": 2**64}, str(2**64)),
        ({"seed": 0.5}, "0.5"),
        ({"seed": True}, "True"),
        ({"realism": 1.01}, "1.01"),
        ({"realism": float("nan")}, "nan"),
    ],
    ids=str,
)
def test_options_out_of_range(
    drawing: RatevarCodec, picture: Image.Image, data: bytes, options: dict[str, Any], value: str
) -> None:
    (name,) = options
    for work in (lambda: drawing.decode(data, **options), lambda: drawing.encode(picture, **options)):
        with pytest.raises(OptionError, match=rf"^{name} must .*got {value}$"):
            work()


def test_options_that_contradict_each_other(
    drawing: RatevarCodec, plain: RatevarCodec, picture: Image.Image, data: bytes
) -> None:
    with pytest.raises(OptionError, match="0 steps"):
        drawing.encode(picture, steps=0)
    with pytest.raises(OptionError, match="preview"):
        drawing.decode(data, preview=True, realism=0.1)
    for work in (lambda: plain.decode(data, steps=2), lambda: plain.encode(picture, steps=2)):
        with pytest.raises(OptionError, match="tiny have no reverse network for 2 steps"):
            work()
