from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tools import __main__ as command
from tools import spread
from tools.pages import filled
from tools.spread import Spread
from unquant.codecs.av1 import Av1Codec
from unquant.errors import InputError

ROW = Spread("a.png", "av1", "1-2", 0.15, 5.0, 8.0, 9.0, 0.6, 0.8)


def test_blocks() -> None:
    plane = np.zeros((17, 20))
    plane[:8, 8:16] = 3
    plane[8, 0] = 8
    plane[16:] = plane[:, 16:] = 99  # no whole block
    assert np.allclose(spread.block_rms(plane), [[0, 3], [1, 0]])


def test_measured_by_the_public_calls(tiny_av1: Av1Codec, photo: Image.Image) -> None:
    image = photo.crop((200, 120, 280, 176))
    row = spread.measure(tiny_av1, "av1", image, "a.png", 0.5)
    assert row.bpp <= 0.5
    data = tiny_av1.encode(image, bpp=0.5)
    away = np.asarray(tiny_av1.decode(data, realism=0), float) - np.asarray(image, float)
    assert row.error_0 == pytest.approx(np.sqrt((away**2).mean()))
    assert row.spread == pytest.approx(np.sqrt((tiny_av1.uncertainty(data).astype(float) ** 2).mean()))
    assert max(abs(row.spearman_0), abs(row.spearman_1)) < 1
    assert row.error_1 != row.error_0
    assert spread.picture(tiny_av1, image, 0.5).size == (240, 56)


def test_rows_a_table_and_a_page(tmp_path: Path, tiny_av1_weights: Path, photo: Image.Image) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [ROW, replace(ROW, image="b.png", bpp=0.13, spearman_1=0.6, error_1=10)]
    path.write_text(spread.lines_of(rows))
    assert spread.read_rows(path) == rows
    page = "<!-- uncertainty rows.jsonl -->\n<!-- end -->\n"
    lines = filled(page, tmp_path / "page.md").splitlines()
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == [
        "av1", "0.140", "2", "0.70 (0.60 … 0.80)", "0.60 (0.60 … 0.60)", "5.0", "9.5",
    ]  # fmt: skip
    assert "av1 1-2." in lines
    photo.crop((0, 0, 40, 32)).save(tmp_path / "c.png")
    model = str(tiny_av1_weights)
    path.write_text(spread.lines_of([*rows, replace(ROW, image="c.png", codec=model, version="older")]))
    for _ in range(2):  # what is known is not measured again, rows of other weights go
        arguments = ["uncertainty", str(tmp_path / "c.png"), "--out", str(path), "-m", model, "--at-bpp", "1"]
        assert CliRunner().invoke(command.app, arguments).exit_code == 0
        assert [row.image for row in spread.read_rows(path)] == ["a.png", "b.png", "c.png"]
        assert spread.read_rows(path)[2].version != "older"
    figure = tmp_path / "figure.png"
    arguments = ["uncertainty", str(tmp_path / "c.png"), "--figure", str(figure), "-m", model, "--at-bpp", "1"]
    assert CliRunner().invoke(command.app, arguments).exit_code == 0
    with Image.open(figure) as drawn:
        assert drawn.size == (120, 32)
    path.write_text('{"image": "a"}\n')
    with pytest.raises(InputError, match="no rows of"):
        spread.read_rows(path)
