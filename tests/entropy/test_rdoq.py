"""Rate-distortion optimised quantisation: the rule by itself, in files, and in the search for a rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unquant.codecs.latent import AnyLatentCodec
from unquant.coding import gaussian_tables, scale_grid
from unquant.entropy.rdoq import Rdoq
from unquant.networks.common import log2_q_of

TABLES = gaussian_tables(scale_grid())
WEIGHT = 20.0


def nearest(sigma: float) -> int:
    return int(np.abs(np.log(TABLES.scales / sigma)).argmin())


def chosen(offset: list[float], index: list[int], weight: float = WEIGHT) -> list[float]:
    offsets = torch.tensor(offset, dtype=torch.float64)
    k = torch.where(torch.tensor(index) >= 0, offsets.round(), 0)
    return Rdoq(TABLES, weight)(offsets, k, torch.tensor(index)).tolist()


def mass(k: int, sigma: float) -> float:
    a, b = ((k + side) / (sigma * math.sqrt(2)) for side in (-0.5, 0.5))
    return 0.5 * (math.erfc(a) - math.erfc(b))


def test_a_rare_symbol_just_above_half_a_step_is_not_worth_its_bits() -> None:
    narrow, wide = nearest(0.12), nearest(4.0)
    assert chosen([0.51, -0.51, 1.0, 0.51, -0.51, 0.49], [narrow] * 3 + [wide] * 3) == [0, 0, 1, 1, -1, 0]


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("k", "sigma"), [(1, 0.3), (1, 0.6), (1, 2.0), (2, 0.6), (2, 1.1), (3, 1.1), (9, 3.0)])
def test_the_dead_zone_is_as_wide_as_the_bits(k: int, sigma: float, sign: int) -> None:
    """k becomes k − 1 below k − ½ + (bits(k) − bits(k − 1))/(2Λ): that solves J(k) = J(k − 1)."""
    table = nearest(sigma)
    scale = float(TABLES.scales[table])
    edge = k - 0.5 + math.log2(mass(k - 1, scale) / mass(k, scale)) / (2 * WEIGHT)
    assert k - 0.5 < edge < k + 0.5
    below, above = chosen([sign * (edge - 1e-3), sign * (edge + 1e-3)], [table] * 2)
    assert (below, above) == (sign * (k - 1), sign * k)


OFFSETS = st.lists(st.tuples(st.floats(-80, 80), st.integers(-1, len(TABLES) - 1)), min_size=1, max_size=50)


@settings(max_examples=200, deadline=None)
@given(OFFSETS, st.floats(0, 200))
def test_no_choice_raises_the_cost(values: list[tuple[float, int]], weight: float) -> None:
    offset, index = (np.array(column) for column in zip(*values, strict=True))
    plain = np.where(index >= 0, np.round(offset), 0)
    found = np.array(chosen(offset.tolist(), index.tolist(), weight))
    steps = np.abs(plain) - np.abs(found)
    assert np.isin(steps, [0, 1]).all()
    assert (found * plain >= 0).all()

    def cost(k: np.ndarray) -> np.ndarray:
        return TABLES.bits(index, k.astype(np.int64)) + weight * (offset - k) ** 2

    less = np.where(index >= 0, plain - np.sign(plain), plain)
    assert cost(found) == pytest.approx(np.minimum(cost(plain), cost(less)), rel=1e-9, abs=1e-9)


@given(OFFSETS)
def test_an_infinite_weight_rounds(values: list[tuple[float, int]]) -> None:
    offset, index = map(list, zip(*values, strict=True))
    assert chosen(offset, index, math.inf) == [round(o) if i >= 0 else 0 for o, i in values]


# --- in files and in the search -------------------------------------------------------------------------------------


class Encoded:
    """One tile at a q index, with Rdoq or without: what the file holds, and what the search makes of it.

    symbols, searched: of the first group, in the file and in the search. cost: J of those in the file.
    """

    def __init__(self, codec: AnyLatentCodec, image: Image.Image, q_index: int, rdoq: Rdoq | None) -> None:
        log2_q = torch.full((1, 1, 1, 1), log2_q_of(q_index), dtype=torch.float64)
        with torch.inference_mode():
            y = codec.analyse(np.asarray(image))
            self.v = y.double() * torch.exp2(-log2_q)
            z = codec.model.entropy.hyper_analysis(self.v.float(), log2_q.float())
            self.tile = codec.exact.encode(self.v, z, log2_q, rdoq)
            size = (self.v.shape[-2], self.v.shape[-1])
            self.decoded = codec.exact.decode(self.tile.stream, size, log2_q)
            self.search = codec.model.quantise(y, log2_q.float(), noise=False, rdoq=rdoq)

        first = codec.model.entropy.groups[0]
        positions = first.positions(size)
        self.symbols, index, error = (
            plane.flatten(2)[:, first.channels, positions]
            for plane in (self.decoded.v_hat - self.decoded.mu, self.decoded.t, self.decoded.v_hat - self.v)
        )
        cost = codec.exact.tables.bits(index.long().numpy(), self.symbols.long().numpy())
        self.cost = float(cost.sum()) + WEIGHT * float(error.square().sum())
        found = self.search.v_hat - self.search.mu
        self.searched = found.flatten(2)[:, first.channels, positions].round()


@pytest.mark.parametrize("q_index", [100, 180, 260])
def test_files_and_search(either: AnyLatentCodec, photo: Image.Image, q_index: int) -> None:
    rdoq = Rdoq(either.exact.tables, WEIGHT)
    plain, ours = (Encoded(either, photo.crop((200, 120, 328, 248)), q_index, rule) for rule in (None, rdoq))
    # the groups of the decoder see the symbols that the encoder chose
    assert ours.decoded.symbols == ours.tile.symbols != plain.tile.symbols
    assert torch.equal(ours.decoded.v_hat, ours.tile.v_hat)
    # in the first group, where both have the same μ and σ, J falls by itself wherever a symbol changes
    changed = float((ours.symbols != plain.symbols).double().mean())
    assert ours.cost < plain.cost if changed else ours.cost == plain.cost
    # and the search makes the same choice, as far as it rounds to the same symbols: it knows no grid of μ
    differ, rounded = (float((each.symbols != each.searched).double().mean()) for each in (ours, plain))
    assert differ <= rounded + 0.1 * changed + 0.02
    assert ours.search.bits_y.sum() < plain.search.bits_y.sum()


def test_an_encode_uses_it(either: AnyLatentCodec, photo: Image.Image) -> None:
    image = photo.crop((200, 120, 328, 248))
    assert either.rdoq.tables is either.exact.tables
    assert 0 < either.rdoq.weight < math.inf
    ours = Encoded(either, image, 160, either.rdoq)
    assert ours.tile.stream in either.encode(image, q_index=160)
    y = either.analyse(np.asarray(image))
    assert 8 * either.estimate(y, 160) == pytest.approx(
        float(ours.search.bits_y.sum() + ours.search.bits_z.sum()), abs=65
    )
