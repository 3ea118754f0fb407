"""Rate control: quality to a step, and targets met from below."""

from __future__ import annotations

import warnings
from bisect import bisect
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unquant.codecs import latent
from unquant.codecs.av1 import Av1Codec
from unquant.codecs.interface import AnyCodec
from unquant.codecs.latent import AnyLatentCodec, LatentCodec
from unquant.codecs.rate import quality_to_q_index, search_q_index
from unquant.container import parse_header
from unquant.errors import OptionError, RateUnreachable


def test_quality() -> None:
    indices = [quality_to_q_index(q, 16, 344) for q in range(101)]
    assert (indices[0], indices[50], indices[100]) == (344, 180, 16)
    assert {a - b for a, b in pairwise(indices)} == {3, 4}  # a few per cent of the rate each
    for wrong in (-1, 101, float("nan"), "40", None):
        with pytest.raises(OptionError):
            quality_to_q_index(wrong, 16, 344)  # type: ignore[arg-type]


@st.composite
def sizes(draw: st.DrawFn) -> list[float]:
    """Sizes at the indices from the finest on, never rising: smooth, stepped, or with cliffs."""
    count = draw(st.integers(1, 400))
    match draw(st.sampled_from(["smooth", "stepped", "cliffs"])):
        case "smooth":
            start, rate = draw(st.floats(50, 1e6)), draw(st.floats(1e-4, 0.1))
            return [start * float(np.exp(-rate * i)) for i in range(count)]
        case "stepped":
            seed = draw(st.integers(0, 2**32 - 1))
            falls = np.random.default_rng(seed).integers(0, 3, count) * 4
            return [float(v) for v in 50 + falls[::-1].cumsum()[::-1]]
        case _:
            values = draw(st.lists(st.floats(0, 1e5), min_size=count, max_size=count)) if count < 30 else [7.0] * count
            return sorted(values, reverse=True)


@settings(max_examples=600, deadline=None)
@given(sizes(), st.floats(1, 2e5), st.integers(0, 50), st.none() | st.floats(0, 1), st.just(0.0) | st.floats(0, 1e4))
def test_search_is_brute_force(values: list[float], target: float, low: int, start: float | None, slack: float) -> None:
    """From both ends and from anywhere; with a slack the first one that is close enough."""
    calls: list[int] = []

    def size_at(index: int) -> float:
        calls.append(index)
        return values[index - low]

    high = low + len(values) - 1
    fitting = [i for i in range(low, high + 1) if values[i - low] <= target]
    begin = None if start is None else low + round(start * (high - low))
    found = search_q_index(size_at, target, low, high, start=begin, slack=slack)
    finest = fitting[0] if fitting else high
    assert found == finest or target - slack <= values[found - low] <= target
    assert len(calls) == len(set(calls))
    assert len(calls) <= 2 + 4 * int(np.ceil(np.log2(len(values) + 1)))
    if start is None:
        assert len(calls) <= 2 + 2 * int(np.ceil(np.log2(len(values) + 1)))


def test_search_is_quick_on_what_is_nearly_geometric() -> None:
    calls: list[int] = []

    def size_at(index: int) -> float:
        calls.append(index)
        return 1e5 * 2 ** (-index / 70 - (index / 500) ** 2)

    for target in np.geomspace(5e3, 8e4, 25):
        search_q_index(size_at, float(target), 16, 344)
    assert len(calls) / 25 < 8


# --- targets of the codec -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture(photo: Image.Image) -> Image.Image:
    return photo.crop((120, 60, 312, 204))


def check_met(codec: AnyCodec, picture: Image.Image, data: bytes, target: int) -> None:
    """Never above; below by at most 2%, 16 bytes or one level, whichever is largest."""
    assert len(data) <= target
    if target - len(data) <= max(0.02 * target, 16):
        return
    if isinstance(codec, Av1Codec):
        qualities = range(101)
        finer = bisect(qualities, len(data), key=lambda quality: len(codec.encode(picture, quality=quality)))
        assert len(codec.encode(picture, quality=qualities[finer])) > target
    else:
        assert len(codec.encode(picture, q_index=step_of(data) - 1)) > target


def smallest_of(codec: AnyCodec, picture: Image.Image) -> int:
    """The size of the smallest file: that of quality 0, of av1 one of half size where that is smaller."""
    if not isinstance(codec, Av1Codec):
        return len(codec.encode(picture, quality=0))
    with pytest.raises(RateUnreachable) as caught:
        codec.encode(picture, target_bytes=1)
    assert caught.value.smallest <= len(codec.encode(picture, quality=0))
    return caught.value.smallest


def step_of(data: bytes) -> int:
    return parse_header(data)[0].q_index


@pytest.mark.slow
@pytest.mark.parametrize("target", [250, 300, 333, 400, 520, 700, 900, 1100])
def test_target_bytes(every: AnyCodec, picture: Image.Image, target: int) -> None:
    data = every.encode(picture, target_bytes=target)
    check_met(every, picture, data, target)
    if not isinstance(every, Av1Codec):
        assert data == every.encode(picture, q_index=step_of(data))


@pytest.mark.slow
@pytest.mark.parametrize("bpp", [0.05, 0.11, 0.25])
def test_bpp(every: AnyCodec, picture: Image.Image, bpp: float) -> None:
    data = every.encode(picture, bpp=bpp)
    target = int(bpp * picture.width * picture.height / 8)
    assert data == every.encode(picture, target_bytes=target)
    check_met(every, picture, data, target)


@pytest.mark.slow
def test_target_counts_the_whole_file(every: AnyCodec, picture: Image.Image) -> None:
    picture = picture.crop((0, 0, 200, 160))
    translucent = picture.copy()
    translucent.putalpha(Image.linear_gradient("L").resize(picture.size))
    translucent.info["xmp"] = np.random.default_rng(1).bytes(250)  # which nothing deflates
    fixed = len(every.encode(translucent, quality=40)) - len(every.encode(picture, quality=40))
    assert fixed > 300
    data = every.encode(translucent, target_bytes=600 + fixed)
    assert 600 + fixed - 25 <= len(data) <= 600 + fixed


@pytest.mark.slow
def test_a_target_that_metadata_is_in_the_way_of(every: AnyCodec, picture: Image.Image) -> None:
    picture = picture.crop((0, 0, 100, 80))
    described = picture.copy()
    described.info["xmp"] = np.random.default_rng(1).bytes(1000)
    with pytest.raises(RateUnreachable, match="1010 bytes of it are metadata, which --no-metadata ") as caught:
        every.encode(described, target_bytes=350)
    assert caught.value.smallest > 1010
    assert len(every.encode(described, target_bytes=350, metadata=False)) <= 900
    with pytest.raises(RateUnreachable) as plain:
        every.encode(picture, target_bytes=10)
    assert "metadata" not in str(plain.value)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 17), (130, 130)])
def test_targets_of_small_pictures(every: AnyCodec, photo: Image.Image, size: tuple[int, int]) -> None:
    """130×130 has a tile of one single position."""
    small = photo.crop((200, 100, 200 + size[0], 100 + size[1]))
    smallest = smallest_of(every, small)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(every.encode(small, target_bytes=smallest + 10)) <= smallest + 10
    with pytest.raises(RateUnreachable):
        every.encode(small, target_bytes=smallest - 1)


@pytest.mark.slow
def test_a_target_above_the_highest_rate(every: AnyCodec, picture: Image.Image) -> None:
    with pytest.warns(UserWarning, match="above the highest rate"):
        data = every.encode(picture, target_bytes=10**6)
    assert data == every.encode(picture, quality=100)
    with pytest.warns(UserWarning, match="above the highest rate"):
        assert every.encode(picture, bpp=24) == data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        near = every.encode(picture, target_bytes=len(data))
    check_met(every, picture, near, len(data))


@pytest.mark.slow
def test_a_target_below_the_lowest_rate(every: AnyCodec, picture: Image.Image) -> None:
    smallest = smallest_of(every, picture)
    for target in (1, smallest - 1):
        with pytest.raises(RateUnreachable, match=str(smallest)) as caught:
            every.encode(picture, target_bytes=target)
        assert caught.value.smallest == smallest
    data = every.encode(picture, target_bytes=smallest)
    assert len(data) == smallest
    assert isinstance(every, Av1Codec) or data == every.encode(picture, quality=0)


@pytest.mark.slow
@pytest.mark.parametrize("q_index", [16, 100, 200, 300, 344])
def test_the_estimate(either: AnyLatentCodec, picture: Image.Image, q_index: int) -> None:
    """Targets are searched with an estimate: it must be close, or every encode to a target is slow.

    Outliers, which tiny models have many of at fine steps, take fewer bits than a Gaussian says.
    """
    data = either.encode(picture, q_index=q_index)
    tiles = len(data) - len(parse_header(data)[1])
    assert either.estimate(either.analyse(np.asarray(picture)), q_index) == pytest.approx(tiles, rel=0.04, abs=40)


@pytest.mark.slow
def test_the_latent_is_computed_once(
    either: AnyLatentCodec, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    analyse, encode_tiles = LatentCodec.analyse, latent.encode_tiles
    monkeypatch.setattr(LatentCodec, "analyse", lambda *a: (calls.append("g_a"), analyse(*a))[1])
    monkeypatch.setattr(latent, "encode_tiles", lambda *a: (calls.append("exact"), encode_tiles(*a))[1])
    either.encode(picture, target_bytes=600)
    assert calls.count("g_a") == 1
    assert calls.count("exact") <= 6
