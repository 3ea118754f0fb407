from __future__ import annotations

import json
from pathlib import Path

import pytest

from unquant.bench import figures
from unquant.errors import InputError, OptionError

ROWS = [
    {
        "codec": "ratevar",
        "target_bpp": bpp,
        "realism": rho,
        "steps": None,
        "psnr": 30 - rho - i,
        "dists": 0.2 - rho / 10,
    }
    for bpp in (0.1, 0.2)
    for rho in (1.0, 0.0, 0.5)
    for i in (0, 2)
]


def test_a_line_for_every_setting_with_means_in_order() -> None:
    lines = figures.lines_of(ROWS, "psnr", "dists", "realism")
    assert [line.name for line in lines] == ["ratevar, 0.1 bpp", "ratevar, 0.2 bpp"]
    assert lines[0].points == [pytest.approx(p) for p in [(29.0, 0.2), (28.5, 0.15), (28.0, 0.1)]]
    assert len(figures.lines_of(ROWS, "psnr", "dists", "bpp")) == 3


def test_rows_without_a_value_are_left_out() -> None:
    rows = [*ROWS, {**ROWS[0], "dists": None}, {**ROWS[0], "realism": None}]
    assert figures.lines_of(rows, "psnr", "dists", "realism") == figures.lines_of(ROWS, "psnr", "dists", "realism")


@pytest.mark.parametrize("axes", [("psnr", "fid", "realism"), ("psnr", "dists", "codec"), ("psnr", "lpips", "bpp")])
def test_what_cannot_be_drawn_is_refused(axes: tuple[str, str, str]) -> None:
    with pytest.raises(OptionError):
        figures.lines_of(ROWS, *axes)


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(InputError, match=r"a\.json"):
        figures.read_rows([tmp_path / "a.json"])
    (tmp_path / "b.json").write_text(json.dumps({"rows": ROWS}))
    assert figures.read_rows([tmp_path / "b.json"] * 2) == ROWS * 2


def test_the_same_rows_give_the_same_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = figures.lines_of(ROWS, "psnr", "dists", "realism")
    for name in ("a.svg", "b.svg", "c.png"):
        figures.draw(lines, "psnr", "dists", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"</svg>" in (tmp_path / "a.svg").read_bytes()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = figures.lines_of(ROWS, "psnr", "dists", "realism")
    with pytest.raises(OptionError, match=r"a\.gif"):
        figures.draw(lines, "psnr", "dists", tmp_path / "a.gif")
    with pytest.raises(InputError, match=r"missing.a\.png: cannot be written"):
        figures.draw(lines, "psnr", "dists", tmp_path / "missing" / "a.png")
