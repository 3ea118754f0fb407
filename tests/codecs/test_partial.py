"""What is whole of a damaged file is decoded where that is asked for, and what is not is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import unquant
from unquant.cli.app import app
from unquant.cli.exits import Code
from unquant.codecs.interface import AnyCodec
from unquant.codecs.latent import AnyLatentCodec
from unquant.container import Container, Header, Tile, parse, salvage
from unquant.errors import BitstreamError, CorruptStream

SIDE = 128
"""Pixels of a tile."""


@pytest.fixture(scope="module")
def image(photo: Image.Image) -> Image.Image:
    """Of 3×2 tiles, with alpha."""
    picture = photo.crop((100, 60, 100 + 3 * SIDE - 20, 60 + 2 * SIDE)).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


def with_tile(container: Container, number: int) -> bytes:
    """The file with another coder stream in a tile."""
    tiles = list(container.tiles)
    tiles[number] = Tile(tiles[number].stream[::-1], tiles[number].crc)
    return replace(container, tiles=tuple(tiles)).to_bytes()


def rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), float)


@pytest.mark.slow
def test_a_damaged_tile_has_the_mean_of_those_around_it(either: AnyLatentCodec, image: Image.Image) -> None:
    data = either.encode(image, q_index=150)
    whole = either.decode(data, preview=True)
    assert "damage" not in either.decode(data, preview=True, allow_partial=True).info
    damaged = with_tile(parse(data), 1)
    with pytest.raises(CorruptStream, match="tile 1"):
        either.decode(damaged, preview=True)
    found = either.decode(damaged, preview=True, allow_partial=True)
    assert found.info["damage"] == ("tile 1 is damaged: 128x128 pixels at 128,0",)
    assert found.getchannel("A").tobytes() == whole.getchannel("A").tobytes()
    # far from the tile nothing changes; within it, all is one colour, about that of the tiles around
    assert np.abs(rgb(found)[SIDE + 100 :, :20] - rgb(whole)[SIDE + 100 :, :20]).max() <= 1
    inside = rgb(found)[48:80, SIDE + 48 : SIDE + 80].reshape(-1, 3)
    around = np.concatenate([rgb(whole)[:, :SIDE].reshape(-1, 3), rgb(whole)[:, 2 * SIDE :].reshape(-1, 3)])
    assert np.abs(inside.mean(0) - around.mean(0)).max() < 30
    assert inside.std(0).max() < 12 < rgb(whole)[48:80, SIDE + 48 : SIDE + 80].reshape(-1, 3).std(0).max()


@pytest.mark.slow
def test_damage_of_a_part_and_of_a_small_picture(tiny: AnyLatentCodec, image: Image.Image) -> None:
    data = tiny.encode(image, q_index=150)
    damaged = with_tile(parse(data), 1)
    far = tiny.decode(damaged, region=(0, SIDE + 90, 30, 20), preview=True, allow_partial=True)
    assert "damage" not in far.info
    small, right = (tiny.decode(d, scale=1 / 8, allow_partial=True) for d in (damaged, data))
    assert [line[:17] for line in small.info["damage"]] == ["tile 1 is damaged"]
    hole = np.zeros(rgb(right).shape[:2], bool)
    hole[:16, 16:32] = True
    assert np.array_equal(rgb(small)[~hole], rgb(right)[~hole])
    assert np.abs(rgb(small)[hole] - rgb(right)[~hole].mean(0)).max() <= 1


def test_tiles_that_are_cut_off(tiny: AnyLatentCodec, image: Image.Image) -> None:
    data = tiny.encode(image.convert("RGB"), q_index=150)
    whole = rgb(tiny.decode(data, preview=True))
    container = parse(data)
    cut = data[: len(data) - sum(len(tile.stream) + 5 for tile in container.tiles[3:]) - 20]
    with pytest.raises(CorruptStream, match="truncated"):
        tiny.decode(cut)
    found = tiny.decode(cut, preview=True, allow_partial=True)
    note, *tiles = found.info["damage"]
    assert "truncated" in note
    assert [line.split(":")[0] for line in tiles] == [f"tile {n} is damaged" for n in (2, 3, 4, 5)]
    assert np.abs(rgb(found)[:20, :20] - whole[:20, :20]).max() <= 1


def test_nothing_is_made_of_nothing(every: AnyCodec, image: Image.Image) -> None:
    """Of no whole tile, of a damaged header, of another file: an error, not a grey picture."""
    data = every.encode(image.crop((0, 0, 60, 40)).convert("RGB"), quality=20)
    container = parse(data)
    for bad in (with_tile(container, 0), data[: len(data) - len(container.tiles[0].stream)], data[:12], b"", data[1:]):
        with pytest.raises(BitstreamError):
            every.decode(bad, allow_partial=True)
    header = replace(container.header, width=61)
    with pytest.raises(CorruptStream):
        every.decode(Container(header, container.tiles).to_bytes(), allow_partial=True)


def test_sections_that_are_damaged(every: AnyCodec, image: Image.Image) -> None:
    """Alpha and metadata are left out by themselves; the picture is the same."""
    small = image.crop((0, 0, 60, 40))
    small.info["xmp"] = b"<x/>"
    data = every.encode(small, quality=20)
    right = every.decode(data, preview=True)
    container = parse(data)
    assert container.alpha is not None
    at = data.index(container.alpha)
    flipped = data[: at + 3] + bytes([data[at + 3] ^ 8]) + data[at + 4 :]
    for bad, told in (
        (flipped, "'Alph': checksum does not match"),
        (replace(container, alpha=b"\x00oh").to_bytes(), "alpha plane"),
    ):
        with pytest.raises(CorruptStream, match=told):
            every.decode(bad)
        found = every.decode(bad, preview=True, allow_partial=True)
        assert found.mode == "RGB"
        assert np.array_equal(rgb(found), rgb(right))
        assert found.info["xmp"] == b"<x/>"
        (line,) = found.info["damage"]
        assert told in line
    cut = every.decode(data[:-3], preview=True, allow_partial=True)
    assert "xmp" not in cut.info
    assert cut.mode == "RGBA"
    assert "truncated" in cut.info["damage"][0]


def test_a_damaged_stream_of_alpha(tiny_av1: AnyCodec, image: Image.Image) -> None:
    data = tiny_av1.repack(tiny_av1.encode(image.crop((0, 0, 60, 40)), quality=20, container="avif"))
    container = parse(data)
    assert len(container.tiles) == 2
    right = tiny_av1.decode(data, preview=True)
    assert right.mode == "RGBA"
    with pytest.raises(CorruptStream, match="tile 1"):
        tiny_av1.decode(with_tile(container, 1))
    found = tiny_av1.decode(with_tile(container, 1), preview=True, allow_partial=True)
    assert found.info["damage"] == ("the AV1 stream of alpha is damaged",)
    assert np.array_equal(rgb(found), rgb(right))


def test_salvage_of_a_whole_file_is_the_file() -> None:
    header = Header("cdc", b"abcd", 768, 512, 200)
    container = Container(header, (Tile(b"one", 1), Tile(b"two", 2)), b"A", None, b"E" * 90, b"X")
    found = salvage(container.to_bytes())
    assert found == (container, frozenset(), ())
    found = salvage(container.to_bytes() + b"more")
    assert found == (container, frozenset(), ("4 bytes after the end of the file's data",))


@pytest.mark.slow
def test_the_command_writes_what_is_whole_and_exits_with_4(
    tiny: AnyLatentCodec, tiny_weights: Path, image: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(tiny_weights.parent))
    monkeypatch.chdir(tmp_path)
    data = tiny.encode(image, q_index=150)
    Path("a.unq").write_bytes(with_tile(parse(data), 1))
    run = CliRunner()
    strict = run.invoke(app, ["decode", "a.unq", "a.png", "--preview"])
    assert strict.exit_code == Code.CORRUPT
    assert not Path("a.png").exists()
    partial = run.invoke(app, ["decode", "a.unq", "a.png", "--preview", "--allow-partial"])
    assert partial.exit_code == Code.CORRUPT
    assert partial.stderr == (
        "unquant: error: a.unq: tile 1 is damaged: 128x128 pixels at 128,0; what is whole is in a.png\n"
    )
    with Image.open("a.png") as found:
        assert found.size == image.size
    Path("b.unq").write_bytes(data)
    whole = run.invoke(app, ["decode", "b.unq", "b.png", "--preview", "--allow-partial"])
    assert whole.exit_code == 0, whole.stderr
    with Image.open("b.png") as found:
        assert found.tobytes() == unquant.decode(data, preview=True).tobytes()
