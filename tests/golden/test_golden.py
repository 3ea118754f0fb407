"""Files that exist keep decoding, and the same symbols keep giving the same bytes (see make.py)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import exactness
import pytest
import torch

from unquant.codecs.base import AnyLatentCodec
from unquant.container import parse
from unquant.entropy.exact import CodedTile, ExactCoder

FOLDER = Path(__file__).parent
RECORD: list[dict[str, Any]] = json.loads((FOLDER / "golden.json").read_text())
SHIPPED = {"ratevar": "shipped", "cdc": "shipped_cdc"}
NAMES = ("point", "fine", "coarse", "map", "alpha", "blocks")


def codec_of(entry: dict[str, Any], request: pytest.FixtureRequest) -> AnyLatentCodec:
    name = entry["weights"]
    return request.getfixturevalue(SHIPPED.get(name, name))


def encode_again(coder: ExactCoder, streams: list[bytes], data: bytes, codec: AnyLatentCodec) -> list[CodedTile]:
    """Every tile of a file decoded to ẑ and ŷ/q, and those encoded: their rounding gives the recorded symbols back."""
    hyper: list[torch.Tensor] = []
    synthesis = coder.networks.hyper_synthesis

    def keep(z_hat: torch.Tensor, *rest: Any) -> torch.Tensor:
        hyper.append(z_hat.clone())
        return synthesis(z_hat, *rest)

    header = parse(data).header
    log2_q = codec._log2_q(header)
    places = list(codec._tiles(-(-header.height // 16), -(-header.width // 16)))
    tiles: list[CodedTile] = []
    for stream, (rows, columns) in zip(streams, places, strict=True):
        step = log2_q if log2_q.numel() == 1 else log2_q[..., rows, columns]
        coder.networks.hyper_synthesis = keep  # type: ignore[method-assign]
        try:
            decoded = coder.decode(stream, (rows.stop - rows.start, columns.stop - columns.start), step)
        finally:
            del coder.networks.hyper_synthesis
        tiles.append(coder.encode(decoded.v_hat, hyper.pop(), step))
    return tiles


def test_the_record_is_whole() -> None:
    files = {entry["file"] for entry in RECORD}
    assert files == {path.name for path in FOLDER.glob("*.unq")}
    assert {f"{model}-{name}.unq" for model in ("tiny", "tiny_cdc") for name in NAMES} <= files


@pytest.mark.parametrize("family", SHIPPED)
def test_the_package_s_weights_have_golden_files(request: pytest.FixtureRequest, family: str) -> None:
    """New weights come with new golden files: `python tests/golden/make.py ratevar`."""
    shipped: AnyLatentCodec = request.getfixturevalue(SHIPPED[family])
    ids = {entry["file"]: entry["stream_id"] for entry in RECORD if entry["weights"] == family}
    assert ids == {f"{family}-{name}.unq": shipped.stream_id.hex() for name in NAMES}


@pytest.mark.parametrize("entry", RECORD, ids=lambda entry: entry["file"])
def test_recorded_bytes_give_the_recorded_symbols(entry: dict[str, Any], request: pytest.FixtureRequest) -> None:
    codec = codec_of(entry, request)
    assert codec.stream_id.hex() == entry["stream_id"]
    with exactness.recorded_tiles(codec.exact) as tiles:
        image = codec.decode((FOLDER / entry["file"]).read_bytes())
    assert image.mode == ("RGBA" if "alpha" in entry["file"] else "RGB")
    symbols = b"".join(tile.symbols for tile in tiles)
    assert (len(symbols) // 4, hashlib.sha256(symbols).hexdigest()) == (entry["symbols"], entry["sha256"])


@pytest.mark.parametrize("entry", RECORD, ids=lambda entry: entry["file"])
def test_recorded_symbols_give_the_recorded_bytes(entry: dict[str, Any], request: pytest.FixtureRequest) -> None:
    codec = codec_of(entry, request)
    data = (FOLDER / entry["file"]).read_bytes()
    streams = [tile.stream for tile in parse(data).tiles]
    again = encode_again(codec.exact, streams, data, codec)
    assert [tile.stream for tile in again] == streams
    symbols = b"".join(tile.symbols for tile in again)
    assert hashlib.sha256(symbols).hexdigest() == entry["sha256"]
