"""Files of a given size: close below it, each made once, right where sizes dip."""

from __future__ import annotations

import pytest
from PIL import Image

from unquant.bench.subjects import anchors
from unquant.bench.subjects.search import Ladder, encode_to_size, fit


def test_fractions_of_the_quality_meet_a_size_closely(picture: Image.Image) -> None:
    found = encode_to_size(picture, "webp", 1200)
    assert 1150 < len(found.data) <= 1200
    assert found.quality != round(found.quality)


def test_a_ladder_makes_each_file_once_and_counts_its_time_in_every_search(
    picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, made = anchors.encode, []

    def counting(image: Image.Image, name: str, quality: float) -> bytes:
        made.append(quality)
        return plain(image, name, quality)

    monkeypatch.setattr(anchors, "encode", counting)
    ladder = Ladder(picture, "jpeg")
    first, again = ladder.to_size(4000), ladder.to_size(4000)
    assert first == again
    ladder.to_size(9000)
    assert len(made) == len(set(made)) < 2 * 9
    assert first == encode_to_size(picture, "jpeg", 4000)._replace(seconds=first.seconds)


def test_fit_takes_the_largest_file_where_sizes_dip() -> None:
    sizes = [10, 20, 30, 45, 38, 60, 70, 80]
    data, index = fit(lambda index: bytes(sizes[index]), 7, 40)
    assert (len(data), index) == (38, 4)


@pytest.mark.parametrize("target", range(5, 105, 5))
def test_fit_on_a_rising_ladder_is_exact(target: int) -> None:
    data, _ = fit(lambda index: bytes(10 * index + 10), 9, target)
    assert len(data) == max(10, min(100, target // 10 * 10))
