"""Pairs of pictures: where crops lie, what is kept and coded anew, what threads may and may not change."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features
from torch import Tensor

from unquant.codecs.avif import AvifOptions, decode_avif, encode_avif
from unquant.errors import OptionError, TrainingError
from unquant.networks.av1 import Coding
from unquant.train.av1 import pairs
from unquant.train.av1.pairs import CUT_GRID, Pairs, PairsConfig, fixed_pairs
from unquant.train.av1.versions import Version, coding_of
from unquant.train.data import Photos, held_out

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")

CPU = torch.device("cpu")
SMALL = PairsConfig(pool=8, files=1, reuse=2.0, refresh=0.0, half=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photos(pieces: Path) -> Photos:
    return Photos(pieces, CPU)


@pytest.fixture
def pool(photos: Photos) -> Any:
    """Makes pools, and lets their threads go."""
    made: list[Pairs] = []

    def make(config: PairsConfig = SMALL, size: int = 48, seed: int = 0, of: Photos = photos) -> Pairs:
        made.append(Pairs(of, config, size, seeded(seed)))
        return made[-1]

    yield make
    for one in made:
        one.close()


Pool = Callable[..., Pairs]


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Changes every recipe that is drawn from here on; returns the list of those made."""

    def change(**options: Any) -> list[Any]:
        drawn: list[Any] = []
        original = pairs.draw_version

        def other(*args: Any) -> Any:
            recipe = original(*args)
            drawn.append(recipe._replace(options=replace(recipe.options, **options)))
            return drawn[-1]

        monkeypatch.setattr(pairs, "draw_version", other)
        return drawn

    return change


def distance(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference, in levels."""
    return float((a - b).abs().mean()) * 255


LOSSLESS = {"quality": 100, "subsampling": "4:4:4", "tune": "psnr", "deltaq_strength": 0, "speed": 9}


def test_crops_of_a_lossless_file_are_the_original(
    pool: Pool, recipes: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both crops lie in one place, whatever scale, flips and turn were, and it is on the grid."""
    drawn = recipes(**LOSSLESS)
    corners: list[Tensor] = []
    original = pairs.cut

    def spy(pixels: Tensor, codings: Any, pick: Tensor, corner: Tensor, size: int) -> Any:
        corners.append(corner)
        return original(pixels, codings, pick, corner, size)

    monkeypatch.setattr(pairs, "cut", spy)
    made = pool(replace(SMALL, pool=16))
    for _ in range(4):
        batch = made.crops(8)
        assert batch.x.shape == batch.x_q.shape == (8, 3, 48, 48)
        assert batch.x.is_contiguous(memory_format=torch.channels_last)
        assert distance(batch.x, batch.x_q) < 0.8  # what YUV of 8 bits leaves
        # one pixel off would be seen
        assert distance(batch.x[..., 1:], batch.x_q[..., :-1]) > 2
    found = torch.cat(corners)
    assert not (found % CUT_GRID).any()
    assert len({tuple(place) for place in found.tolist()}) > 5
    assert int(found.max()) == 128 - 48  # the last place of the largest pictures
    for what in ("turn", "flips"):
        assert len({getattr(recipe, what) for recipe in drawn}) >= 2
    assert len({recipe.size for recipe in drawn}) > 3
    assert min(min(recipe.size) for recipe in drawn) >= 48


def test_a_picture_is_scaled_flipped_and_turned_before_it_is_coded(photos: Photos) -> None:
    photo = photos.picture(0)
    options = AvifOptions(quality=20, speed=9)
    version = Version((96, 112), (True, False), True, options, False)
    made = pairs.make_pair(photo, version, None)
    scaled = np.array(Image.fromarray(photo).resize((112, 96), Image.Resampling.LANCZOS))
    expected = np.ascontiguousarray(scaled[::-1].transpose(1, 0, 2))
    assert np.array_equal(made.x, expected)
    # the file alone gives the coded picture: nothing happened to it after that
    assert np.array_equal(made.x_q, decode_avif(encode_avif(expected, options))[0])
    assert np.array_equal(made.x_q, decode_avif(made.data)[0])
    # bytes that are kept make the same pair again
    again = pairs.make_pair(photo, version, made.data)
    assert np.array_equal(again.x, made.x)
    assert np.array_equal(again.x_q, made.x_q)
    assert again.coding == made.coding


def test_half_size_is_enlarged_to_the_size_of_the_picture(pool: Pool, recipes: Callable[..., list[Any]]) -> None:
    recipes(**{**LOSSLESS, "quality": 90})
    batch = pool(replace(SMALL, half=1.0)).crops(8)
    assert torch.equal(batch.coding[:, 6], torch.ones(8))
    error = distance(batch.x, batch.x_q)
    assert 0.8 < error < distance(batch.x[..., 2:], batch.x_q[..., :-2])
    assert torch.equal(pool().crops(8).coding[:, 6], torch.zeros(8))


def test_what_f_is_told_is_the_file_s(pool: Pool, recipes: Callable[..., list[Any]]) -> None:
    recipes(quality=30, subsampling="4:2:0", tune="iq", deltaq_strength=None)
    coding = pool().crops(4).coding
    assert torch.equal(coding[:, 2], torch.ones(4))  # matrices
    assert torch.equal(coding[:, 5], torch.ones(4))  # 4:2:0
    assert len(set(coding[:, -1].tolist())) == 1
    data = encode_avif(
        np.zeros((32, 48, 3), np.uint8), AvifOptions(quality=30, speed=9, tune="psnr", deltaq_strength=0)
    )
    found = coding_of(data, 32 * 48)
    assert isinstance(found, Coding)
    assert (found.qmatrix, found.delta_q, found.chroma, found.half) == (False, False, "4:4:4", False)
    assert 0 < found.bpp < 8 * len(data) / (32 * 48)


def test_one_state_of_the_generator_gives_one_run_of_batches(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of threads, and however they take turns."""
    config = PairsConfig(pool=6, files=2, reuse=2.0, refresh=0.3)
    monkeypatch.setattr(pairs.os, "cpu_count", lambda: 2)
    one = pool(config)
    monkeypatch.setattr(pairs.os, "cpu_count", lambda: 8)
    other = pool(config)
    original = pairs.make_pair
    turn = threading.Event()

    def dawdling(*args: Any) -> Any:
        turn.wait(0.02 * (hash(args[1]) % 3))
        return original(*args)

    monkeypatch.setattr(pairs, "make_pair", dawdling)
    batches = [(one.crops(5), other.crops(5)) for _ in range(8)]
    for first, second in batches:
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(batches[0][0].x, batches[1][0].x)
    assert not torch.equal(pool(config, seed=1).crops(5).x, batches[0][0].x)


class AtOnce(Executor):
    """Does all work where it is asked for."""

    def __init__(self, workers: int) -> None:
        pass

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def test_versions_are_kept_and_at_times_coded_anew(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, shard: Callable[..., Path], flat: Callable[..., bytes], tmp_path: Path
) -> None:
    coded: list[bool] = []
    original = pairs.make_pair

    def counting(photo: Any, recipe: Any, data: bytes | None) -> Any:
        coded.append(data is None)
        return original(photo, recipe, data)

    monkeypatch.setattr(pairs, "make_pair", counting)
    monkeypatch.setattr(pairs, "ThreadPoolExecutor", AtOnce)
    name = next(name for name in (f"{i}.png" for i in range(9)) if not held_out(name))
    shard(tmp_path / "a.tar", {name: flat(64, 64)})
    single = Photos(tmp_path, CPU)

    def share(refresh: float) -> float:
        """Of the pairs made after the first ones, those that were coded."""
        made = pool(PairsConfig(pool=2, files=1, reuse=1.0, refresh=refresh), of=single)
        made.crops(4)
        before = len(coded)
        for _ in range(10):
            made.crops(4)
        assert len(coded) - before == 40  # one pair for every crop
        return sum(coded[before:]) / (len(coded) - before)

    assert share(0.0) < 0.2
    assert share(1.0) == 1.0
    assert 0.2 < share(0.5) < 0.8


def test_a_pair_is_used_as_often_as_asked(
    pool: Pool, recipes: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes(quality=20, speed=9)
    made = pool(PairsConfig(pool=8, reuse=4.0))
    jobs: list[Any] = []
    original = made.photos.draw
    monkeypatch.setattr(made.photos, "draw", lambda *args: (jobs.append(1), original(*args))[1])
    for _ in range(20):
        made.crops(4)
    assert len(jobs) == 20


def test_held_out_pictures_are_never_trained_on(pool: Pool, photos: Photos, recipes: Callable[..., list[Any]]) -> None:
    """All that a long run draws lies in the training part; what is validated on in the other one."""
    recipes(speed=9)
    seen: set[bytes] = set()
    made = pool(replace(SMALL, reuse=1.0))
    original = made.photos.picture

    def spy(index: int, *, held_out: bool = False) -> Any:
        assert not held_out
        picture = original(index)
        seen.add(picture.tobytes())
        return picture

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made.photos, "picture", spy)
        for _ in range(20):
            made.crops(8)
    kept_back = {photos.picture(i, held_out=True).tobytes() for i in photos.first(99, 48, held_out=True)}
    assert len(seen) > 50
    assert kept_back
    assert not kept_back & seen
    assert len(fixed_pairs(photos, 9, 48, 20, held_out=True).x) == len(kept_back)


def test_fixed_pairs_are_the_same_every_time(photos: Photos) -> None:
    one, other = (fixed_pairs(photos, 2, 64, 20, held_out=False) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    photo = torch.from_numpy(photos.picture(0)).permute(2, 0, 1) / 255
    assert torch.equal(one.x[0], photo[:, 32:96, 32:96])
    rates = [float(fixed_pairs(photos, 2, 64, q, held_out=False).coding[0, 1]) for q in (5, 30, 80)]
    assert rates == sorted(rates)
    with pytest.raises(TrainingError, match="no held-out image is as large as the crop, 256×256"):
        fixed_pairs(photos, 2, 256, 20, held_out=True)


def test_what_a_thread_fails_on_is_named(pool: Pool, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pool(replace(SMALL, reuse=1.0))
    made.crops(2)

    def failing(*args: Any) -> Any:
        raise ValueError("encoder broke down")

    monkeypatch.setattr(pairs, "make_pair", failing)
    with pytest.raises(TrainingError, match=r"pieces.*: a\d{3}\.jpg: no pair can be made \(ValueError: encoder broke"):
        [made.crops(8) for _ in range(20)]
    # at the start as well, and no thread is left behind
    with pytest.raises(TrainingError, match="encoder broke"):
        Pairs(photos, SMALL, 48, seeded())


def test_threads_stop(photos: Photos) -> None:
    before = set(threading.enumerate())
    made = Pairs(photos, SMALL, 48, seeded())
    made.crops(8)
    working = set(threading.enumerate()) - before
    assert working
    made.close()
    for thread in working:
        thread.join(10)
        assert not thread.is_alive()


def test_no_picture_as_large_as_a_crop(photos: Photos) -> None:
    with pytest.raises(TrainingError, match="no training image is as large as the crop, 256×256"):
        Pairs(photos, SMALL, 256, seeded())


@pytest.mark.parametrize(
    "wrong", [{"pool": 0}, {"files": 0}, {"reuse": 0.0}, {"refresh": 1.5}, {"half": -0.1}, {"base": 2.0}]
)
def test_wrong_numbers_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        PairsConfig(**wrong)


def test_new_shards_keep_the_places_of_the_old(
    shard: Callable[..., Path], photographs: Callable[..., dict[str, bytes]], tmp_path: Path
) -> None:
    """Versions are kept by an image's number, so a number must never change."""
    shard(tmp_path / "m.tar", photographs("m", 8, 1))
    photos = Photos(tmp_path, CPU)
    before = [(photos.name(i), photos.picture(i).tobytes()) for i in range(len(photos))]
    shard(tmp_path / "a.tar", photographs("a", 8, 2))
    photos.refresh()
    assert photos.refresh().shards == 1
    assert len(photos) > len(before)
    assert [(photos.name(i), photos.picture(i).tobytes()) for i in range(len(before))] == before
    for i in range(len(photos)):
        with Image.open(io.BytesIO({**photographs("m", 8, 1), **photographs("a", 8, 2)}[photos.name(i)])) as image:
            assert np.array_equal(photos.picture(i), np.array(image))
