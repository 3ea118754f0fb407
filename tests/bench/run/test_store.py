"""The cache gives back what was put in, and nothing that is damaged, half written or of another version."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unquant.bench.run.rows import Row, read_rows
from unquant.bench.run.store import Decoded, Store, finite
from unquant.errors import InputError

MADE = {"quality": 3.5, "q_index": None, "reached": True, "seconds": 0.25, "environment": "e"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def test_a_file_comes_back_with_how_it_was_made(store: Store, tmp_path: Path) -> None:
    assert store.file("k", ".avif") is None
    made = store.put_file("k", ".avif", b"file", **MADE)
    assert store.file("k", ".avif") == (b"file", made)
    assert (made.bytes, made.quality, made.seconds) == (4, 3.5, 0.25)
    assert (tmp_path / "out/cache/files/k.avif").read_bytes() == b"file"
    assert Store(tmp_path / "out").encoded("k") == made


def test_a_damaged_file_is_none(store: Store, tmp_path: Path) -> None:
    store.put_file("k", ".avif", b"file", **MADE)
    path = tmp_path / "out/cache/files/k.avif"
    path.write_bytes(b"fil")
    assert store.file("k", ".avif") is None
    path.write_bytes(b"file")
    assert store.file("k", ".avif") is not None
    for content in ("", "[1]", '{"bytes": 4}', "{"):
        path.with_suffix(".json").write_text(content)
        assert store.file("k", ".avif") is None


def test_scores_are_lacking_where_the_version_differs(store: Store, tmp_path: Path) -> None:
    assert store.decoded("k") is None
    decoded = Decoded(0.5, "e", {"psnr": ("1", 30.0), "ms_ssim": ("1", None)})
    store.put_decoded("k", decoded)
    assert store.decoded("k") == decoded
    assert decoded.lacks({"psnr": "1", "ms_ssim": "1"}) == ()
    assert decoded.lacks({"psnr": "2", "ms_ssim": "1", "dists": "1"}) == ("psnr", "dists")
    for content in ("", "{}", '{"seconds": 1, "environment": "e", "scores": {"psnr": 3}}'):
        (tmp_path / "out/cache/scores/k.json").write_text(content)
        assert store.decoded("k") is None


def test_features_come_back(store: Store, tmp_path: Path) -> None:
    features = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert not store.has_features("k")
    store.put_features("k", features)
    assert store.has_features("k")
    assert np.array_equal(store.features("k"), features)
    (tmp_path / "out/cache/features/k.npy").write_bytes(b"no")
    assert store.features("k") is None
    assert store.features("other") is None


def test_rows_are_replaced_at_the_start_and_then_added_to(store: Store) -> None:
    row = Row(key="a", image="i", image_id="0", width=8, height=8, codec="c", version="1", quality=5.0, bytes=3)
    other = Row(key="b", image="i", image_id="0", width=8, height=8, codec="c", version="1", quality=6.0, bytes=4)
    store.start([row])
    store.append(other)
    assert read_rows(store.rows_path) == [row, other]
    store.start([])
    assert read_rows(store.rows_path) == []


def test_one_place_has_one_id(store: Store) -> None:
    first, same, other = (store.put_environment({"cpu": cpu}) for cpu in ("a", "a", "b"))
    assert first == same != other
    assert store.environments() == {first: {"cpu": "a"}, other: {"cpu": "b"}}
    assert json.loads((store.out / "environments.json").read_text()).keys() == {first, other}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/out: results cannot be written here"):
        Store(tmp_path / "file" / "out")


def test_what_is_not_finite_is_none() -> None:
    assert (finite(1.5), finite(float("inf")), finite(float("nan")), finite(None)) == (1.5, None, None, None)
