"""The demonstration with a stand-in for the codec, so that it runs without weights."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from unquant.bench.subjects import anchors
from unquant.bench.subjects.search import encode_to_size
from unquant.demo import terminal as demo
from unquant.demo.montage import Panel, draw


class StandIn:
    weights_id = "stand-in"

    def encode(self, image, *, quality=None, bpp=None, target_bytes=None, q_index=None) -> bytes:
        return encode_to_size(image, "webp", int(bpp * image.width * image.height / 8)).data

    def decode(self, data: bytes, *, realism=None) -> Image.Image:
        return anchors.decode(data)


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[demo.DemoResult, ...], str]:
    monkeypatch.delenv("UNQUANT_METRICS", raising=False)
    console = Console(file=io.StringIO(), width=100)
    made = demo.run(tmp_path / "new", 0.15, codec=StandIn(), console=console)
    return made, console.file.getvalue()


@pytest.mark.slow
def test_the_demo_draws_writes_and_prints(result: tuple[tuple[demo.DemoResult, ...], str]) -> None:
    made, printed = result
    assert [one.file.name for one in made] == ["cat.unq", "coffee.unq"]
    for one, (width, height), detail in zip(made, ((451, 300), (600, 400)), (54, 73), strict=True):
        with Image.open(one.picture) as picture:
            assert picture.format == "PNG"
            assert picture.size == (2 * width + 16 + 2 * 24, 60 + 2 * (height + 58 + 16) + 34 + detail * 3 + 24)
        size = one.file.stat().st_size
        assert size <= 0.15 * width * height / 8
        ours, plain, avif, jpeg = one.rows
        assert ours.bytes == plain.bytes == size
        assert avif.bytes <= size
        assert (jpeg.bytes > size) == any("JPEG: its smallest possible" in note for note in one.notes)
        assert all(note in printed for note in one.notes)
        assert ours.scores["lpips_alex"] is None
        assert str(one.picture) in printed
        for row in one.rows:
            assert row.name in printed
            assert f"{row.bytes:,}" in printed
    assert printed.count("UNQUANT_METRICS") == printed.count("plain: the same file at realism 0") == 1


@pytest.mark.slow
def test_another_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(demo, "load", lambda name: loaded.append(name) or StandIn())
    console = Console(file=io.StringIO(), width=100)
    made = demo.run(tmp_path, 0.15, "folder/cdc.safetensors", console=console)
    assert loaded == ["folder/cdc.safetensors"]
    for one in made:
        assert [row.name for row in one.rows[:2]] == ["unquant, cdc", "unquant, cdc, plain"]
    assert "unquant, cdc, plain: the same file at realism 0" in console.file.getvalue()


def test_the_photographs_come_with_their_licences() -> None:
    for name, size in (("cat", (451, 300)), ("coffee", (600, 400))):
        assert demo.photograph(f"{name}.png").size == size
        assert "CC0" in (Path(demo.__file__).parent / f"{name}.LICENSE.txt").read_text()


def test_panels_show_their_pictures_unchanged() -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (150, 200, 3), np.uint8)) for _ in range(3)]
    sheet = draw("heading", [Panel(f"name {index}", "caption", image) for index, image in enumerate(pictures)])
    corner = sheet.crop((24, 60, 24 + 40, 60 + 40))
    assert corner.tobytes() == pictures[0].crop((0, 0, 40, 40)).tobytes()


@pytest.mark.parametrize("centre", [(0.0, 0.0), (1.0, 1.0), (0.5, 0.2)])
def test_the_detail_stays_inside(centre: tuple[float, float]) -> None:
    picture = Image.new("RGB", (90, 40), (0, 0, 255))
    sheet = draw("heading", [Panel("name", "caption", picture)] * 2, centre)
    bottom = sheet.crop((24, sheet.height - 24 - 30, 24 + 60, sheet.height - 24))
    assert bottom.getcolors() == [(60 * 30, (0, 0, 255))]
