from __future__ import annotations

import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unquant.codecs.alpha import decode_alpha, encode_alpha
from unquant.errors import BitstreamError, CorruptStream, OptionError, UnsupportedVersion


def disk(n: int, feather: float = 1.0) -> np.ndarray:
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    return (np.clip((n * 0.4 - np.hypot(x, y)) / feather + 0.5, 0, 1) * 255).astype(np.uint8)


planes = hnp.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24))) | hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.sampled_from([0, 255])
)


@settings(deadline=None, max_examples=60)
@given(planes)
def test_roundtrip(alpha: np.ndarray) -> None:
    decoded = decode_alpha(encode_alpha(alpha), *alpha.shape)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, alpha)


@pytest.mark.parametrize(
    "alpha",
    [
        np.full((1, 1), 7, np.uint8),
        disk(128),
        disk(128, 40),
        np.full((300, 200), 128, np.uint8),
        disk(64)[:, ::-2].T,  # not contiguous
        np.tile(np.arange(256, dtype=np.uint8), (3, 1)),
        np.random.default_rng(0).integers(0, 256, (70, 90), dtype=np.uint8),
        np.zeros((1, 20_000), np.uint8),  # beyond the dimensions of WebP
    ],
    ids=["1x1", "disk", "feather", "constant", "strided", "ramp", "noise", "wide"],
)
def test_roundtrip_of_typical_planes(alpha: np.ndarray) -> None:
    decoded = decode_alpha(encode_alpha(alpha), *alpha.shape)
    np.testing.assert_array_equal(decoded, alpha)
    assert decoded.flags.writeable


def test_size() -> None:
    soft = disk(128, 40)
    assert len(encode_alpha(soft)) < 0.6 * len(zlib.compress(soft.tobytes(), 9))
    assert len(encode_alpha(np.full((512, 512), 128, np.uint8))) <= 40
    assert len(encode_alpha(np.full((1, 1), 9, np.uint8))) <= 10
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    assert len(encode_alpha(noise)) <= noise.size + 32


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2), np.uint16), np.zeros((2, 2, 1), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_encode_refuses_other_arrays(bad: np.ndarray) -> None:
    with pytest.raises(OptionError):
        encode_alpha(bad)


@pytest.mark.parametrize("alpha", [disk(32), np.full((1, 1), 7, np.uint8)], ids=["vp8l", "zlib"])
def test_other_dimensions_are_refused(alpha: np.ndarray) -> None:
    data = encode_alpha(alpha)
    h, w = alpha.shape
    for size in [(h + 1, w), (h, w + 1), (2 * h, 2 * w), (1, h * w + 1), (20_000, 20_000)]:
        with pytest.raises(CorruptStream):
            decode_alpha(data, *size)


def test_bomb_is_cut_off() -> None:
    bomb = b"\0" + zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(CorruptStream):
        decode_alpha(bomb, 4, 4)


@pytest.mark.parametrize("data", [b"", b"\0", b"\1", b"\1/", b"\1" + bytes(9), b"\0" + bytes(40), b"\1/\0\0\0\xf0\0"])
def test_garbage(data: bytes) -> None:
    with pytest.raises(CorruptStream):
        decode_alpha(data, 1, 1)


def test_unknown_method() -> None:
    with pytest.raises(UnsupportedVersion):
        decode_alpha(b"\x07abc", 1, 1)


@pytest.mark.parametrize("alpha", [disk(24, 9), np.eye(3, dtype=np.uint8) * 255], ids=["vp8l", "zlib"])
def test_every_truncation_is_typed(alpha: np.ndarray) -> None:
    data = encode_alpha(alpha)
    for length in range(len(data)):
        try:
            decoded = decode_alpha(data[:length], *alpha.shape)
        except CorruptStream:
            continue
        # only bytes that carry nothing (padding at the end of a VP8L stream) may go missing unnoticed
        np.testing.assert_array_equal(decoded, alpha)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_flipped_bits_are_typed_or_decode_to_the_right_size(data: st.DataObject) -> None:
    alpha = data.draw(st.sampled_from([disk(24, 9), disk(40), np.eye(3, dtype=np.uint8) * 255]))
    coded = bytearray(encode_alpha(alpha))
    for _ in range(data.draw(st.integers(1, 3))):
        coded[data.draw(st.integers(0, len(coded) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(BitstreamError):
        assert decode_alpha(bytes(coded), *alpha.shape).shape == alpha.shape
