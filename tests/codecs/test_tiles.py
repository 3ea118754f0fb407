"""Tiles of a latent: they cover it in the order of the file, and what a header says of the step reaches each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from unquant.codecs.latent import AnyLatentCodec
from unquant.codecs.tiles import Latents, encode_tiles, log2_q_in, q_indices, tile_windows
from unquant.codecs.windows import Window, blocks
from unquant.container import Container, Header, Tile
from unquant.errors import CorruptStream


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 8), (3, 17), (20, 25)])
def test_tiles_cover_a_latent_row_by_row(size: tuple[int, int]) -> None:
    number = torch.full(size, -1)
    places = list(tile_windows(*size, 8))
    for i, place in enumerate(places):
        assert bool((place.cut(number) == -1).all())
        place.cut(number).fill_(i)
    assert bool((number >= 0).all())
    assert len(places) == -(-size[0] // 8) * -(-size[1] // 8)
    assert number[0].tolist() == sorted(number[0].tolist())
    assert number[:, 0].tolist() == sorted(number[:, 0].tolist())


def header_of(codec: AnyLatentCodec, size: tuple[int, int], *, mapped: bool) -> Header:
    indices = np.random.default_rng(0).integers(100, 300, size).astype("<u2")
    q_map = indices.tobytes() if mapped else None
    return Header(codec.family, codec.stream_id, 16 * size[1] - 5, 16 * size[0], 200, q_map)


def test_the_step_of_a_header(tiny: AnyLatentCodec) -> None:
    single = header_of(tiny, (2, 3), mapped=False)
    assert q_indices(single).tolist() == [[200]]
    assert log2_q_in(single, tiny.device).tolist() == [[[[200 / 64]]]]
    mapped = header_of(tiny, (2, 3), mapped=True)
    log2_q = log2_q_in(mapped, tiny.device)
    assert log2_q.dtype == torch.float64
    assert (log2_q[0, 0] * 64).tolist() == q_indices(mapped).tolist()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_latent_comes_back_to_within_half_a_step(either: AnyLatentCodec, mapped: bool) -> None:
    size, side = (9, 10), either.config.tile
    header = header_of(either, size, mapped=mapped)
    y = 20 * torch.randn(1, either.config.latent, *size, generator=torch.Generator().manual_seed(0))
    whole = Window.whole(size)

    def latents(tiles: tuple[Tile, ...], parts: list[Window]) -> Latents:
        return Latents(either.exact, Container(header, tiles), either.config.latent, side, parts)

    with torch.inference_mode():
        tiles = encode_tiles(either.exact, either.model.entropy.hyper_analysis, header, [(whole, y)], side)
        found = latents(tiles, [whole]).cut(whole)
    assert len(tiles) == 4
    error = (found.y_file - y).abs() * torch.exp2(-found.log2_q_file)
    assert bool((found.t >= 0).any())
    assert float(error[found.t >= 0].max()) <= 0.5 + 1e-3
    with pytest.raises(CorruptStream, match="3 tiles where 4 are needed"):
        latents(tiles[:3], [whole])
    with pytest.raises(CorruptStream):
        latents(tiles[::-1], [whole]).cut(whole)


def test_tiles_are_decoded_once_and_held_no_longer_than_they_are_needed(
    either: AnyLatentCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, side = (24, 24), either.config.tile
    header = header_of(either, size, mapped=True)
    y = 20 * torch.randn(1, either.config.latent, *size, generator=torch.Generator().manual_seed(0))
    whole, parts = Window.whole(size), blocks(Window.whole(size), 5)
    decode, count = either.exact.decode, [0]

    def counting(*given: Any) -> Any:
        count[0] += 1
        return decode(*given)

    with torch.inference_mode():
        tiles = encode_tiles(either.exact, either.model.entropy.hyper_analysis, header, [(whole, y)], side)
        # by parts of whole tiles, last ones first: the same
        pieces = [(part, part.cut(y)) for part in reversed(blocks(whole, 16))]
        assert encode_tiles(either.exact, either.model.entropy.hyper_analysis, header, pieces, side) == tiles
        monkeypatch.setattr(either.exact, "decode", counting)
        container = Container(header, tiles)
        right = Latents(either.exact, container, either.config.latent, side, [whole]).cut(whole)
        assert count == [9]
        latents = Latents(either.exact, container, either.config.latent, side, parts)
        latents.prove()
        most = 0
        for part in parts:
            found = latents.cut(part)
            for name in ("y_file", "mu", "t"):
                assert torch.equal(getattr(found, name), part.cut(getattr(right, name)))
            most = max(most, len(latents.held))
    assert count == [18]
    assert most < 9
    assert latents.held == ()
