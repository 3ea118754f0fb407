"""Lines of rows of results: one a setting, its points the means over the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from curve_rows import ROWS, row

from unquant.bench.analysis import curves
from unquant.bench.run.rows import write_rows
from unquant.errors import InputError, OptionError


def test_a_line_for_every_setting_with_means_in_order() -> None:
    lines = curves.lines_of(ROWS, "psnr", "dists", "realism")
    assert [line.name for line in lines] == ["ratevar, 0.1 bpp", "ratevar, 0.2 bpp"]
    assert lines[0].points == [pytest.approx(p) for p in [(29.0, 0.2), (28.5, 0.15), (28.0, 0.1)]]
    by_rate = curves.lines_of(ROWS, "bpp", "psnr", "bpp")
    assert [line.name for line in by_rate] == [f"ratevar, realism {rho}" for rho in ("1", "0.5", "0")]
    assert by_rate[0].points == [pytest.approx((0.1, 28)), pytest.approx((0.2, 28))]
    assert [line.variant for line in by_rate] == [0, 1, 2]


def test_versions_of_a_codec_are_never_merged() -> None:
    other = [replace(r, version="v2", scores={"psnr": 10.0, "dists": 0.5}) for r in ROWS]
    lines = curves.lines_of([*ROWS, *other], "bpp", "psnr", "bpp")
    assert [line.name for line in lines[::3]] == ["ratevar v1, realism 1", "ratevar v2, realism 1"]
    assert [y for _, y in lines[0].points] == [28, 28]
    assert [y for _, y in lines[3].points] == [10, 10]


def test_realism_0_begins_the_path_of_every_number_of_steps() -> None:
    rows = [row(0, 0.1, 0.0), row(0, 0.1, 1.0, steps=1), row(0, 0.1, 1.0, steps=4)]
    lines = curves.lines_of(rows, "psnr", "dists", "realism")
    assert [line.name for line in lines] == ["ratevar, 0.1 bpp, 1 steps", "ratevar, 0.1 bpp, 4 steps"]
    assert all(line.points[0] == (30, 0.2) for line in lines)


def test_files_asked_for_by_quality_stand_where_their_bytes_put_them() -> None:
    rows = [row(0, 0.1, None, codec="avif", target_bpp=None, quality=q, bytes=n) for q, n in ((9.0, 300), (40.0, 100))]
    (line,) = curves.lines_of(rows, "bpp", "psnr", "bpp")
    assert line.name == "AVIF"
    assert [x for x, _ in line.points] == pytest.approx([0.1, 0.3])


def test_what_a_search_found_does_not_split_a_target() -> None:
    rows = [row(i, 0.1, None, codec="avif", quality=10.0 + i, q_index=i) for i in range(3)]
    (line,) = curves.lines_of(rows, "bpp", "psnr", "bpp")
    assert line.points == [pytest.approx((0.1, 29))]


def test_rows_without_a_value_are_left_out() -> None:
    without = replace(ROWS[0], scores={"psnr": 1.0, "dists": None})
    rows = [*ROWS, without, replace(ROWS[0], realism=None)]
    assert curves.lines_of(rows, "psnr", "dists", "realism") == curves.lines_of(ROWS, "psnr", "dists", "realism")


@pytest.mark.parametrize("axes", [("psnr", "fid", "realism"), ("psnr", "dists", "codec"), ("psnr", "flip", "bpp")])
def test_what_cannot_be_drawn_is_refused(axes: tuple[str, str, str]) -> None:
    with pytest.raises(OptionError):
        curves.lines_of(ROWS, *axes)


def test_of_several_files_the_last_row_of_a_key_counts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match=r"a\.jsonl"):
        curves.read_rows([tmp_path / "a.jsonl"])
    write_rows(tmp_path / "b.jsonl", ROWS)
    write_rows(tmp_path / "c.jsonl", [replace(ROWS[0], bytes=7)])
    assert curves.read_rows([tmp_path / "b.jsonl", tmp_path / "c.jsonl"]) == [replace(ROWS[0], bytes=7), *ROWS[1:]]
