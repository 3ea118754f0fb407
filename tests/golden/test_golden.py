"""Files that exist keep decoding, and the same symbols keep giving the same bytes (see make.py)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import exactness
import numpy as np
import pytest
import torch
from av1_files import av1_streams
from PIL import Image

from unquant.codecs.av1 import Av1Codec
from unquant.codecs.interface import AnyCodec
from unquant.codecs.latent import AnyLatentCodec
from unquant.codecs.tiles import log2_q_in, tile_windows
from unquant.container import parse
from unquant.entropy.exact import CodedTile, ExactCoder
from unquant.selftest import FOLDER as SHIPPED_GOLDEN
from unquant.selftest import TOLERANCE, entries

FOLDER = Path(__file__).parent
RECORD: list[dict[str, Any]] = [
    {**entry, "path": folder / entry["file"]} for folder in (FOLDER, SHIPPED_GOLDEN) for entry in entries(folder)
]
SHIPPED = {"ratevar": "shipped", "cdc": "shipped_cdc", "av1": "shipped_av1"}
NAMES = tuple(f"{name}.unq" for name in ("point", "fine", "coarse", "map", "alpha", "blocks"))
AV1_NAMES = ("plain.unq", "half.unq", "alpha.unq", "grey.avif", "chroma.avif")
CODED = [entry for entry in RECORD if "symbols" in entry]
AV1 = [entry for entry in RECORD if "streams" in entry]


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
    log2_q = log2_q_in(header, codec.device)
    places = list(tile_windows(-(-header.height // 16), -(-header.width // 16), codec.config.tile))
    tiles: list[CodedTile] = []
    for stream, place in zip(streams, places, strict=True):
        step = place.cut(log2_q)
        coder.networks.hyper_synthesis = keep  # type: ignore[method-assign]
        try:
            decoded = coder.decode(stream, place.size, step)
        finally:
            del coder.networks.hyper_synthesis
        tiles.append(coder.encode(decoded.v_hat, hyper.pop(), step))
    return tiles


def test_the_record_is_whole() -> None:
    files = {entry["file"] for entry in RECORD}
    folders = FOLDER, SHIPPED_GOLDEN
    assert files == {path.name for kind in ("unq", "avif") for folder in folders for path in folder.glob(f"*.{kind}")}
    assert {f"{model}-{name}" for model in ("tiny", "tiny_sliced", "tiny_cdc") for name in NAMES} <= files
    assert "tiny-metadata.unq" in files
    assert {f"tiny_av1-{name}" for name in AV1_NAMES} <= files
    assert {entry["picture"] for entry in AV1} == {path.name for folder in folders for path in folder.glob("*.png")}
    assert len(CODED) + len(AV1) == len(RECORD)


@pytest.mark.parametrize("family", SHIPPED)
def test_the_package_s_weights_have_golden_files(request: pytest.FixtureRequest, family: str) -> None:
    """New weights come with new golden files: `python tests/golden/make.py ratevar`."""
    shipped: AnyCodec = request.getfixturevalue(SHIPPED[family])
    ids = {entry["file"]: entry["stream_id"] for entry in RECORD if entry["weights"] == family}
    names = AV1_NAMES if family == "av1" else NAMES
    assert ids == {f"{family}-{name}": shipped.stream_id.hex() for name in names}


@pytest.mark.parametrize("entry", AV1, ids=lambda entry: entry["file"])
def test_recorded_files_give_the_recorded_pictures(
    entry: dict[str, Any], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The AV1 streams are what was recorded, whatever today's encoder would write."""
    codec: Av1Codec = request.getfixturevalue(SHIPPED.get(entry["weights"], entry["weights"]))
    monkeypatch.setattr(codec, "precision", torch.float32)
    data = entry["path"].read_bytes()
    assert codec.stream_id.hex() == entry["stream_id"]
    assert [hashlib.sha256(stream).hexdigest() for stream in av1_streams(data)] == entry["streams"]
    found = codec.decode(data)
    with Image.open(entry["path"].parent / entry["picture"]) as expected:
        assert (found.mode, found.size) == (expected.mode, expected.size)
        assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= TOLERANCE
    if (half := "half" in entry["file"]) or entry["file"].endswith("plain.unq"):
        assert parse(data).header.half == half


@pytest.mark.parametrize("entry", CODED, ids=lambda entry: entry["file"])
def test_recorded_bytes_give_the_recorded_symbols(entry: dict[str, Any], request: pytest.FixtureRequest) -> None:
    codec = codec_of(entry, request)
    assert codec.stream_id.hex() == entry["stream_id"]
    with exactness.recorded_tiles(codec.exact) as tiles:
        image = codec.decode(entry["path"].read_bytes())
    assert image.mode == ("RGBA" if "alpha" in entry["file"] else "RGB")
    symbols = b"".join(tile.symbols for tile in tiles)
    assert (len(symbols) // 4, hashlib.sha256(symbols).hexdigest()) == (entry["symbols"], entry["sha256"])


def test_recorded_metadata() -> None:
    """One section as it is, one deflated."""
    data = (FOLDER / "tiny-metadata.unq").read_bytes()
    container = parse(data)
    assert b"exif" in data
    assert b"XMP " in data
    assert container.xmp == b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + b" a golden packet" * 20 + b"</x:xmpmeta>"
    assert container.exif == bytes.fromhex(
        "4d4d002a00000008000201120003000000010001000082980002000000042863290000000000"
    )
    assert container.to_bytes() == data


@pytest.mark.parametrize("entry", CODED, ids=lambda entry: entry["file"])
def test_recorded_symbols_give_the_recorded_bytes(entry: dict[str, Any], request: pytest.FixtureRequest) -> None:
    codec = codec_of(entry, request)
    data = entry["path"].read_bytes()
    streams = [tile.stream for tile in parse(data).tiles]
    again = encode_again(codec.exact, streams, data, codec)
    assert [tile.stream for tile in again] == streams
    symbols = b"".join(tile.symbols for tile in again)
    assert hashlib.sha256(symbols).hexdigest() == entry["sha256"]
