"""`--dry-run`: everything is said as it would be, nothing is written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_codec import FakeCodec, picture
from PIL import Image
from typer.testing import Result

from unquant.cli.exits import Code
from unquant.images import image_size, open_image, to_picture

Call = Callable[..., Result]


def tree(folder: Path) -> dict[Path, bytes]:
    """All files under a folder with their bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_encoding(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture(64, 48).save(tmp_path / "in" / "a.png")
    picture(20, 10).save(tmp_path / "in" / "b.png")
    before = tree(tmp_path)
    result = call("encode", "-r", "in", "-o", "out", "--bpp", 0.5, "--dry-run")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "in/a.png -> out/a.unq: would be written, 64x48, at most 192 bytes",
        "in/b.png -> out/b.unq: would be written, 20x10, at most 12 bytes",
    ]
    rows = [
        json.loads(row)
        for row in call("encode", "in/a.png", "--target-size", "9k", "--dry-run", "--json").stdout.splitlines()
    ]
    assert rows == [
        {"input": "in/a.png", "output": "in/a.unq", "dry_run": True, "width": 64, "height": 48, "most_bytes": 9000}
    ]
    assert call("encode", "in/a.png", "--dry-run").stderr == "in/a.png -> in/a.unq: would be written, 64x48\n"
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()
    assert codec.calls == []


def test_decoding(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    picture(64, 48).save(tmp_path / "a.png")
    call("encode", "a.png")
    calls, before = len(codec.calls), tree(tmp_path)
    result = call("decode", "a.unq", "b.jpg", "--dry-run")
    assert result.stderr == "a.unq -> b.jpg: would be written, 64x48\n"
    result = call("decode", "a.unq", "--dry-run", "-o", "b.jpg", "--region", "3,5,20,9", "--scale", "1/8")
    assert result.stderr == "a.unq -> b.jpg: would be written, 3x2\n"
    result = call("decode", "a.unq", "--dry-run", "-o", "b.jpg", "--region", "60,5,20,9")
    assert result.exit_code == Code.USAGE
    assert "20x9 pixels at 60,5 are not all in a picture of 64x48" in result.stderr
    assert (len(codec.calls), tree(tmp_path)) == (calls, before)


def test_what_would_go_wrong(call: Call, codec: FakeCodec, tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    call("encode", "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "c.unq").write_bytes(b"\x89UNQ\x01")
    before = tree(tmp_path)
    for arguments, code, cause in (
        (("encode", "a.png"), Code.INPUT, "exists already"),
        (("encode", "b.png"), Code.INPUT, "b.png"),
        (("encode", "a.png", "b.png", "-o", ".", "--force"), Code.PARTIAL, "b.png"),
        (("encode", "a.png", "d.unq", "-m", "none-such"), Code.MODEL, "none-such"),
        (("encode", "a.png", "d.unq", "-q", "3", "--bpp", "1"), Code.USAGE, "exclude"),
        (("decode", "c.unq"), Code.CORRUPT, "c.unq"),
        (("decode", "a.unq", "e.nonsense"), Code.INPUT, "nonsense"),
    ):
        result = call(*arguments, "--dry-run")
        assert (result.exit_code, cause in result.stderr) == (code, True), result.stderr
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_by_the_headers_is_that_of_the_picture(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    picture(40, 24).save(stream, kind, exif=exif)
    size = image_size(io.BytesIO(stream.getvalue()))
    height, width = to_picture(open_image(io.BytesIO(stream.getvalue()))).rgb.shape[:2]
    assert size == (width, height)
