"""`unquant compare`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_codec import FakeCodec, picture
from PIL import Image
from typer.testing import Result

from unquant.cli.exits import Code

Call = Callable[..., Result]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Image.Image, Image.Image]:
    """a.png, and b.png with every value two steps away: 42.11 dB."""
    a = np.asarray(picture(200, 180)).clip(2, 250)
    b = a + np.uint8(2)
    images = Image.fromarray(a), Image.fromarray(b)
    for name, image in zip("ab", images, strict=True):
        image.save(tmp_path / f"{name}.png")
    return images


@pytest.fixture(autouse=True)
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNQUANT_METRICS", raising=False)


@pytest.mark.usefixtures("pair")
def test_two_images(call: Call, tmp_path: Path) -> None:
    result = call("compare", "a.png", "b.png")
    assert result.exit_code == 0
    size = (tmp_path / "b.png").stat().st_size
    assert f"B           b.png: 200x180, {size} bytes, {8 * size / 36000:.3f} bpp" in result.stdout
    assert "PSNR, dB ↑  42.11" in result.stdout
    assert "MS-SSIM ↑   1.0000" in result.stdout
    assert "DISTS" not in result.stdout  # what cannot be measured is told beside
    for name in ("LPIPS (AlexNet)", "LPIPS (VGG16)", "DISTS"):
        assert f"unquant: note: {name}: " in result.stderr


@pytest.mark.usefixtures("pair")
def test_json(call: Call) -> None:
    result = call("compare", "a.png", "b.png", "--metrics", "psnr,lpips_alex", "--json")
    row = json.loads(result.stdout)
    assert row["psnr"] == pytest.approx(42.11, abs=0.01)
    assert (row["a"], row["b"], row["identical"], row["lpips_alex"]) == ("a.png", "b.png", False, None)
    row = json.loads(call("compare", "a.png", "a.png", "--metrics", "psnr", "--json").stdout)
    assert (row["identical"], row["psnr"]) == (True, None)
    assert "inf" in call("compare", "a.png", "a.png", "--metrics", "psnr").stdout


def test_a_compressed_file(call: Call, codec: FakeCodec, tmp_path: Path, pair: tuple[Image.Image, ...]) -> None:
    assert call("encode", "b.png").exit_code == 0
    data = (tmp_path / "b.unq").read_bytes()
    for name, stdin in (("b.unq", None), ("-", data)):
        result = call("compare", "a.png", name, "--metrics", "psnr", stdin=stdin)
        assert "PSNR, dB ↑  42.11" in result.stdout
        assert f"{name}: 200x180, {len(data)} bytes" in result.stdout


def test_what_cannot_be_compared(call: Call, codec: FakeCodec, tmp_path: Path, pair: tuple[Image.Image, ...]) -> None:
    picture(20, 10).save(tmp_path / "small.png")
    (tmp_path / "damaged.unq").write_bytes(b"\x89UNQ\x01")
    for arguments, code, cause in (
        (("a.png", "small.png"), Code.INPUT, "small.png: pictures of one size are compared: a.png is 200x180"),
        (("a.png", "none.png"), Code.INPUT, "none.png: cannot be read"),
        (("a.png", "damaged.unq"), Code.CORRUPT, "damaged.unq: "),
        (("a.png", "b.png", "--metrics", "nonsense"), Code.USAGE, "nonsense"),
        (("a.png", "b.png", "--metrics", "none"), Code.USAGE, "nothing to measure"),
        (("-", "-"), Code.USAGE, "both"),
    ):
        result = call("compare", *arguments)
        assert result.exit_code == code
        assert f"unquant: error: {cause}" in result.stderr or (code == Code.USAGE and cause in result.stderr)
        assert result.stdout == ""
