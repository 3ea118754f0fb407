"""Training data: shards, the held-out split, crops."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import P3_XYZ, make_exif, raw_png, rgb_icc
from PIL import Image

from unquant.errors import InputError, TrainingError
from unquant.images import to_picture
from unquant.train.data import CANVAS, Photos, held_out, read_shard

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photos(
    tmp_path_factory: pytest.TempPathFactory,
    shard: Callable[..., Path],
    photographs: Callable[..., dict[str, bytes]],
) -> Photos:
    folder = tmp_path_factory.mktemp("photos")
    shard(folder / "a.tar", photographs("a", 48, 1))
    return Photos(folder, CPU)


def encoded(image: Image.Image, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", **options)
    return data.getvalue()


def names(held: bool, count: int) -> list[str]:
    """Names on one side of the split."""
    return [n for n in (f"image{i}.png" for i in range(10_000)) if held_out(n) == held][:count]


def test_split_is_stable_disjoint_and_about_one_in_32() -> None:
    every = [f"photo_{i}.jpg" for i in range(6400)]
    assert 150 < sum(held_out(n) for n in every) < 250
    # literal names: a change of the split would let old held-out images into training
    assert [i for i in range(100) if held_out(f"photo_{i}.jpg")] == HELD_OUT_OF_FIRST_100


HELD_OUT_OF_FIRST_100 = [40, 42, 44, 46]


def test_split_follows_the_name_whatever_the_shard(
    tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes]
) -> None:
    kept, held = names(False, 3), names(True, 2)
    shard(tmp_path / "one.tar", {n: flat(80, 80) for n in kept[:1] + held[:1]})
    shard(tmp_path / "two.tar", {n: flat(80, 80) for n in kept[1:] + held[1:]})
    photos = Photos(tmp_path, CPU)
    assert (len(photos), photos.count(64, held_out=False), photos.count(64, held_out=True)) == (3, 3, 2)


def test_held_out_images_are_never_trained_on(
    tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes]
) -> None:
    members = {n: flat(80, 80, (255, 0, 0)) for n in names(False, 3)}
    members |= {n: flat(80, 80, (0, 0, 255)) for n in names(True, 3)}
    shard(tmp_path / "a.tar", members)
    photos = Photos(tmp_path, CPU)
    seen, unseen = (photos.crops(20, 64, generator(), held_out=held) for held in (False, True))
    assert float(seen[:, 2].max()) == 0
    assert float(unseen[:, 0].max()) == 0


def test_crops_follow_the_generator(photos: Photos) -> None:
    first, again = (photos.crops(10, 64, generator(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, photos.crops(10, 64, generator(4)))


@pytest.mark.parametrize(("count", "size"), [(1, 64), (3, 48), (8, 64), (13, 128)])
@pytest.mark.parametrize("augment", [False, True])
def test_crops_have_their_shape_range_and_layout(photos: Photos, count: int, size: int, augment: bool) -> None:
    for seed in range(6):
        x = photos.crops(count, size, generator(seed), augment=augment)
        assert x.shape == (count, 3, size, size)
        assert x.dtype == torch.float32
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= float(x.min()) <= float(x.max()) <= 1 + 1e-6
        assert float(x.std()) > 0.02


def test_a_crop_without_augmentation_is_a_piece_of_the_image(
    tmp_path: Path, shard: Callable[..., Path], photographs: Callable[..., dict[str, bytes]]
) -> None:
    members = dict(list(photographs("k", 40, 5).items())[:1])
    path = shard(tmp_path / "a.tar", members)
    ((name, image),) = read_shard(path)
    assert not held_out(name)
    crop = Photos(tmp_path, CPU).crops(1, 64, generator(1), augment=False)[0].permute(1, 2, 0).mul(255).round().byte()
    windows = np.lib.stride_tricks.sliding_window_view(image, (64, 64), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    assert (windows == crop.numpy()).all(axis=(2, 3, 4)).any()


def test_images_beyond_the_canvas_are_cut(
    tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes]
) -> None:
    path = shard(tmp_path / "a.tar", {names(False, 1)[0]: flat(700, 530)})
    assert [a.shape for _, a in read_shard(path)] == [(CANVAS, CANVAS, 3)]
    x = Photos(tmp_path, CPU).crops(2, CANVAS, generator(), augment=False)
    assert torch.allclose(x[:, 0], torch.tensor(10 / 255))


def test_images_smaller_than_the_crop_are_left_out(
    tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes]
) -> None:
    large, small, tiny = names(False, 3)
    shard(
        tmp_path / "a.tar",
        {large: flat(128, 96, (255, 255, 255)), small: flat(200, 70, (0, 0, 0)), tiny: flat(63, 200)},
    )
    photos = Photos(tmp_path, CPU)
    assert (len(photos), photos.count(96, held_out=False)) == (2, 1)
    assert float(photos.crops(16, 96, generator()).min()) > 0.99
    with pytest.raises(TrainingError, match=r"none of the 2 training images is as large as the crop, 128×128"):
        photos.crops(4, 128, generator())
    with pytest.raises(TrainingError, match=r"none of the 0 held-out images"):
        photos.crops(4, 64, generator(), held_out=True)


def test_folders_without_images(tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes]) -> None:
    with pytest.raises(TrainingError, match="no such folder"):
        Photos(tmp_path / "nowhere", CPU)
    with pytest.raises(TrainingError, match="no images"):
        Photos(tmp_path, CPU)
    shard(tmp_path / "a.tar", {names(False, 1)[0]: flat(20, 20), "readme.txt": b"not an image"})
    with pytest.raises(TrainingError, match="no images of at least 64×64"):
        Photos(tmp_path, CPU)


def test_a_damaged_shard_is_named(tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes]) -> None:
    (tmp_path / "bad.tar").write_bytes(b"this is no tar file" * 100)
    with pytest.raises(InputError, match=r"bad\.tar"):
        Photos(tmp_path, CPU)
    (tmp_path / "bad.tar").unlink()
    shard(tmp_path / "half.tar", {"good.png": flat(80, 80), "broken.png": flat(80, 80)[:-30]})
    with pytest.raises(InputError, match=r"half\.tar: broken\.png"):
        Photos(tmp_path, CPU)


def test_images_are_read_with_their_colours_and_upright(tmp_path: Path, shard: Callable[..., Path]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    wide = rgb_icc(P3_XYZ, 2.2)
    members = {
        "plain.png": encoded(Image.fromarray(pixels)),
        "turned.png": encoded(Image.fromarray(np.rot90(pixels)), exif=make_exif(6)),
        "wide.png": encoded(Image.fromarray(pixels), icc_profile=wide),
        "deep.png": encoded(Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)),
    }
    found = dict(read_shard(shard(tmp_path / "a.tar", members)))
    assert np.array_equal(found["plain.png"], pixels)
    assert np.array_equal(found["turned.png"], pixels)
    assert np.array_equal(found["deep.png"], np.dstack([pixels[:, :, 0]] * 3))
    image = Image.fromarray(pixels)
    image.info["icc_profile"] = wide
    assert np.array_equal(found["wide.png"], to_picture(image).rgb)
    assert not np.array_equal(found["wide.png"], pixels)


def test_an_image_beyond_the_limits_is_a_damaged_member(tmp_path: Path, shard: Callable[..., Path]) -> None:
    path = shard(tmp_path / "a.tar", {"huge.png": raw_png(65_535, 65_535, 8, 2, b"")})
    with pytest.raises(InputError, match=r"a\.tar: huge\.png: .*pixels"):
        read_shard(path)


def test_a_new_shard_is_read_once_it_stays_the_same(
    tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes]
) -> None:
    kept = names(False, 4)
    shard(tmp_path / "a.tar", {kept[0]: flat(80, 80)})
    photos = Photos(tmp_path, CPU)
    assert photos.refresh() == (0, [])
    whole = shard(tmp_path / "b.other", {n: flat(90, 90) for n in kept[1:]}).read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:2000])
    assert photos.refresh() == (0, [])
    (tmp_path / "b.tar").write_bytes(whole)
    assert photos.refresh() == (0, [])
    assert photos.refresh() == (1, [])
    assert (photos.refresh(), len(photos)) == ((0, []), 4)


def test_a_new_damaged_shard_is_reported_once_and_tried_again_when_it_changes(
    tmp_path: Path, shard: Callable[..., Path], flat: Callable[..., bytes]
) -> None:
    kept = names(False, 2)
    shard(tmp_path / "a.tar", {kept[0]: flat(80, 80)})
    photos = Photos(tmp_path, CPU)
    (tmp_path / "b.tar").write_bytes(b"x" * 700)
    found = [photos.refresh() for _ in range(4)]
    assert [f.shards for f in found] == [0, 0, 0, 0]
    assert [len(f.problems) for f in found] == [0, 1, 0, 0]
    assert "b.tar" in found[1].problems[0]
    shard(tmp_path / "b.tar", {kept[1]: flat(80, 80)})
    photos.refresh()
    assert (photos.refresh().shards, len(photos)) == (1, 2)
