"""What the model says a picture costs is what the file takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unquant
from unquant.codecs.latent import AnyLatentCodec
from unquant.container import parse
from unquant.entropy import exact
from unquant.entropy.gaussian import gaussian_bits
from unquant.entropy.rdoq import Rdoq
from unquant.networks.common import log2_q_of

Q_INDICES = (16, 100, 200, 300, 336)


class Payload:
    """The coder streams of one picture beside what they should take, in bytes; one large tile, so no ends to fill up.

    outliers: how much less the escape codes take than a Gaussian would have them cost.
    """

    def __init__(
        self, codec: AnyLatentCodec, image: Image.Image, q_index: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tables, bits, saved = codec.exact.tables, [0.0], [0.0]

        class Recorder(exact.SymbolEncoder):
            def encode(self, symbols: np.ndarray, table_index: np.ndarray) -> None:
                cost = tables.bits(table_index, symbols)
                bits.append(float(cost.sum()))
                escaped = (np.abs(symbols) > tables.half_widths[table_index]) & (table_index >= 0)
                sigma = torch.from_numpy(tables.scales[table_index[escaped]])
                gaussian = gaussian_bits(torch.from_numpy(symbols[escaped].astype(np.float64)), sigma)
                saved.append(float(gaussian.sum()) - float(cost[escaped].sum()))
                super().encode(symbols, table_index)

        with monkeypatch.context() as patch:
            patch.setattr(exact, "SymbolEncoder", Recorder)
            self.data = codec.encode(image, q_index=q_index)
        tiles = parse(self.data).tiles
        assert len(tiles) == 1
        self.coded = sum(len(tile.stream) for tile in tiles)
        self.tables, self.outliers = sum(bits) / 8, sum(saved) / 8


def cross_entropy(
    codec: AnyLatentCodec, image: Image.Image, q_index: int, *, noise: bool = False, rdoq: Rdoq | None = None
) -> float:
    """Bytes by the networks' own estimate, in float32."""
    with torch.inference_mode():
        y = codec.analyse(np.asarray(image))
        log2_q = torch.full((1, 1, 1, 1), log2_q_of(q_index))
        out = codec.model.quantise(y, log2_q, noise=noise, rdoq=rdoq)
        return float(out.bits_y.double().sum() + out.bits_z.double().sum()) / 8


@pytest.fixture(scope="module", params=["tiny", "tiny_sliced", "tiny_cdc", "shipped", "shipped_cdc"])
def codec(request: pytest.FixtureRequest) -> AnyLatentCodec:
    path: Path = request.getfixturevalue(f"{request.param}_weights")
    codec = unquant.load(str(path))
    codec.config = replace(codec.config, tile=64)
    return codec


@pytest.fixture(scope="module")
def image(photo: Image.Image, codec: AnyLatentCodec) -> Image.Image:
    size = (592, 400) if codec.config.latent < 100 else (256, 256)
    return photo.crop((0, 0, *size))


@pytest.mark.slow
@pytest.mark.parametrize("q_index", Q_INDICES)
def test_payload_is_the_cross_entropy(
    codec: AnyLatentCodec, image: Image.Image, q_index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = Payload(codec, image, q_index, monkeypatch)
    assert payload.coded > 100
    assert payload.tables - 1 <= payload.coded <= 1.01 * payload.tables + 16
    model = cross_entropy(codec, image, q_index, rdoq=codec.rdoq)
    assert model < cross_entropy(codec, image, q_index)
    assert payload.coded <= 1.01 * model + 16
    assert payload.outliers < 0.1 * model
    assert abs(payload.coded + payload.outliers - model) <= 0.01 * model + 16


@pytest.mark.slow
@pytest.mark.parametrize("q_index", Q_INDICES)
def test_training_bits_are_an_upper_bound(codec: AnyLatentCodec, image: Image.Image, q_index: int) -> None:
    torch.manual_seed(q_index)
    draws = [cross_entropy(codec, image, q_index, noise=True) for _ in range(4)]
    evaluation = cross_entropy(codec, image, q_index)
    assert np.mean(draws) >= evaluation
    assert np.std(draws) > 0
