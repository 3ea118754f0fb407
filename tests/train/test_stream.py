"""Training data beyond memory: what is read when, what is held, what breaks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import rows

from unquant.errors import TrainingError
from unquant.train import data as data_module
from unquant.train.av1.pairs import Pairs, PairsConfig
from unquant.train.data import Photos, held_out
from unquant.train.loop import train
from unquant.train.recipe import Recipe, Run
from unquant.train.stream import AHEAD, HELD_OUT, READERS, REUSE, Part, Stream

pytest.importorskip("pyarrow")
CPU = torch.device("cpu")
ALONE = Part(0, 1)
Open = Callable[..., Stream]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens a stream of images of 64 pixels and more, on the CPU."""
    begun: list[Stream] = []

    def open_stream(folder: Path | str, images: int, seed: tuple[int, int] = (1, 0), part: Part = ALONE) -> Stream:
        begun.append(Stream(str(folder), CPU, images, 64, seed, part))
        return begun[-1]

    yield open_stream
    for stream in begun:
        stream.close()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, shard: Callable[..., Path], flat: Callable[..., bytes]) -> Path:
    """Eight shards of twelve flat pictures, each of a colour of its own."""
    folder = tmp_path_factory.mktemp("shards")
    for i in range(8):
        pictures = {f"s{i}_{j}.png": flat(80, 72, (30 * i, 20 * j, 100)) for j in range(12)}
        shard(folder / f"{i}.tar", pictures)
    return folder


def kept(folder: Path) -> list[str]:
    """The names of all training images there."""
    names = [f"s{i}_{j}.png" for i in range(len(list(folder.glob("*.tar")))) for j in range(12)]
    return [name for name in names if not held_out(name)]


def following(stream: Stream, count: int) -> list[str]:
    """The names of the first images of a stream, in order."""
    found = [stream.name(i) for i in range(len(stream))]
    while len(found) < count:
        place = len(found) % len(stream)
        stream.advance(REUSE)
        found.append(stream.name(place))
    return found[:count]


def test_an_epoch_has_every_shard_once_whatever_the_processes(shards: Path, opened: Open) -> None:
    """Three processes with two readers each, of which two have two shards in an epoch and four have one, others each time."""
    streams = [opened(shards, 1, part=Part(rank, 3)) for rank in range(3)]
    assert [len(stream._readers) for stream in streams] == [2, 2, 2]
    read: list[list[str]] = [[stream.name(0) for stream in streams], [], [], []]
    for reader in (reader for stream in streams for reader in stream._readers):
        for names in read:
            while (image := reader.take()) is not None:
                names.append(image[0])
    every = sorted(kept(shards))
    assert all(sorted(names) == every for names in read)
    assert len({tuple(names) for names in read}) == 4


def test_the_order_follows_from_the_seed(shards: Path, opened: Open) -> None:
    first, again, other, later = (following(opened(shards, 8, seed), 80) for seed in ((1, 0), (1, 0), (2, 0), (1, 50)))
    assert first == again
    assert first not in (other, later)


def test_what_is_drawn_is_what_a_folder_in_memory_gives(
    tmp_path: Path, shard: Callable[..., Path], photographs: Callable[..., dict[str, bytes]], opened: Open
) -> None:
    """One shard that fits: the same images in the same order, so the same crops, held-out ones among them."""
    shard(tmp_path / "a.tar", photographs("a", 60, 1))
    photos, stream = Photos(tmp_path, CPU), opened(tmp_path, 100)
    assert len(photos) == len(stream) < 60
    for held in (False, True):
        assert photos.first(60, 64, held_out=held) == stream.first(60, 64, held_out=held)
        drawn = [p.crops(12, 64, torch.Generator().manual_seed(3), held_out=held) for p in (photos, stream)]
        assert torch.equal(*drawn)


def test_the_held_out_images_are_those_of_their_names_and_stay(shards: Path, opened: Open) -> None:
    photos, stream = Photos(shards, CPU), opened(shards, 10)
    wanted = {photos.name(i, held_out=True) for i in photos.first(99, 64, held_out=True)}
    for _ in range(2):
        assert {stream.name(i, held_out=True) for i in stream.first(99, 64, held_out=True)} == wanted
        assert not any(held_out(name) for name in following(stream, 60))
    assert 0 < len(wanted) <= HELD_OUT
    assert opened(shards, 4, part=Part(1, 2)).count(64, held_out=True) == 0


def test_no_more_is_held_than_was_asked_for(shards: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring, and what the readers have decoded ahead."""
    decoded, lock, read = 0, threading.Lock(), data_module.read_rgb

    def count(*args: Any, **options: Any) -> Any:
        nonlocal decoded
        with lock:
            decoded += 1
        return read(*args, **options)

    monkeypatch.setattr(data_module, "read_rgb", count)
    stream = opened(shards, 10)
    held = stream.count(64, held_out=True)
    for taken in range(40):
        stream.advance(REUSE)
        assert len(stream) == len(stream._parts[False].images) == 10
        assert decoded <= held + 10 + taken + 1 + READERS * (AHEAD + 1)
    assert len({stream.serial(i) for i in range(10)}) == 10
    assert min(stream.serial(i) for i in range(10)) == 40


def test_a_broken_shard_is_told_once_and_left_out(
    tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes], opened: Open
) -> None:
    for i in range(3):
        shard(tmp_path / f"{i}.tar", {f"s{i}_{j}.png": flat(70, 70) for j in range(12)})
    (tmp_path / "1.tar").write_bytes(b"no tar file" * 100)
    stream = opened(tmp_path, 5)
    assert {name[:2] for name in following(stream, 100)} == {"s0", "s2"}
    (problem,) = stream.refresh().problems
    assert "1.tar: not a readable tar file" in problem
    following(stream, 100)
    assert stream.refresh() == (0, [])
    # mended, it is there in a later epoch
    shard(tmp_path / "1.tar", {f"s1_{j}.png": flat(70, 70) for j in range(12)})
    assert "s1" in {name[:2] for name in following(stream, 300)}


def test_a_shard_that_breaks_off_ends_there(
    tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes], opened: Open
) -> None:
    whole = shard(tmp_path / "0.tar", {f"s0_{j}.png": flat(70, 70) for j in range(12)}).read_bytes()
    (tmp_path / "0.tar").write_bytes(
        whole[: 4 * 1024 + 512 + 100]
    )  # in the fifth member, each of which takes two blocks
    stream = opened(tmp_path, 20)
    assert len(stream) == 4 - sum(map(held_out, [f"s0_{j}.png" for j in range(4)]))
    assert "0.tar" in stream.refresh().problems[0]


def test_data_that_does_not_serve(
    tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes], opened: Open
) -> None:
    with pytest.raises(TrainingError, match="0 shards"):
        opened(tmp_path / "nowhere", 4)
    shard(tmp_path / "0.tar", {"s0_0.png": flat(60, 200)})
    with pytest.raises(TrainingError, match="none of the 1 shards has a readable training image of at least 64×64"):
        opened(tmp_path, 4)
    with pytest.raises(TrainingError, match=r"1 shards \(\*\.tar\) here; each process needs one .* 2"):
        opened(tmp_path, 4, part=Part(0, 2))


def test_pairs_of_a_stream_belong_together(shards: Path, opened: Open) -> None:
    """A version that is kept is of the photograph that was in the place before: it must not be taken for the next one's."""
    stream = opened(shards, 3)
    config = PairsConfig(pool=4, reuse=1.0, files=1, refresh=0.0, base=1.0, half=0.0)
    pairs = Pairs(stream, config, 64, torch.Generator().manual_seed(1))
    seen: set[tuple[int, ...]] = set()
    try:
        for _ in range(8):
            batch = pairs.crops(4)
            colours = [x.mean((2, 3)).mul(255).round() for x in (batch.x, batch.x_q)]
            assert (colours[0] - colours[1]).abs().max() <= 8
            seen |= {tuple(c) for c in colours[0].int().tolist()}
            stream.advance(2 * REUSE)
    finally:
        pairs.close()
    assert len(seen) > 6
    assert len(pairs._versions) <= 3


@pytest.mark.slow
def test_a_run_streams_from_an_object_store(bucket: str, shards: Path, tmp_path: Path, smoke_recipe: Recipe) -> None:
    """A run of steps that is repeated is the same run; a shard that is broken is told of, once."""
    from unquant.places import Place

    for path in shards.glob("*.tar"):
        Place(bucket.format("deep/shards")).child(path.name).write(path.read_bytes())
    Place(bucket.format("deep/shards")).child("broken.tar").write(b"x" * 5000)
    loop = replace(smoke_recipe.loop, batch=8, precision="32-true", validation_crops=2)
    recipe = replace(smoke_recipe, loop=loop)
    url = bucket.format("deep/shards")
    for out in ("a", "b"):
        train(recipe, Run(url, tmp_path / out, steps=4, stream=16, init="random", device="cpu"), lambda line: None)
    start = rows(tmp_path / "a", "start")[0]
    assert (start["images"], start["held_out"] > 0) == (16, True)
    (note,) = (row["text"] for row in rows(tmp_path / "a", "note"))
    assert "broken.tar" in note
    assert "not a readable tar file" in note
    states = [torch.load(tmp_path / out / "checkpoint.ckpt", weights_only=True) for out in ("a", "b")]
    assert all(torch.equal(states[0]["model"][name], value) for name, value in states[1]["model"].items())
    run = Run(url, tmp_path / "a", steps=2, stream=16, resume=True, device="cpu")
    train(recipe, run, lambda line: None)
    assert torch.load(tmp_path / "a" / "checkpoint.ckpt", weights_only=True)["steps"] == 6
    with pytest.raises(TrainingError, match=r"strangers.*: 0 shards"):
        train(recipe, replace(run, data=url.replace("photos", "strangers")), lambda line: None)
