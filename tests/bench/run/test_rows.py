"""Rows of results survive their file; a cut last line costs that row alone; anything else is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from unquant.bench.run.rows import Row, read_rows, write_rows
from unquant.errors import InputError

ROW = Row(
    key="a", image="kodim01", image_id="f0", width=768, height=512, codec="ratevar", version="1-2-3", target_bpp=0.15,
    q_index=200, realism=1.0, bytes=7372, encode_s=0.5, scores={"psnr": 27.0, "lpips_alex": None},
)  # fmt: skip


def test_rows_come_back_and_the_last_of_one_key_counts(tmp_path: Path) -> None:
    other = replace(ROW, key="b", codec="avif", realism=None, reached=False)
    newer = replace(ROW, scores={"psnr": 28.0})
    write_rows(tmp_path / "rows.jsonl", [ROW, other, newer])
    assert read_rows(tmp_path / "rows.jsonl") == [newer, other]
    assert ROW.flat()["bpp"] == pytest.approx(8 * 7372 / 768 / 512)
    assert (ROW.target, ROW.setting) == ("0.15 bpp", "ratevar, realism 1")


def test_what_is_not_finite_becomes_null() -> None:
    assert replace(ROW, scores={"psnr": float("inf")}).flat()["psnr"] is None


def test_a_cut_last_line_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, [ROW, replace(ROW, key="b")])
    whole = path.read_text()
    path.write_text(whole[:-30])
    assert [row.key for row in read_rows(path)] == ["a"]
    path.write_text(whole[:50] + "\n" + whole)
    with pytest.raises(InputError, match=r"rows\.jsonl, line 1: not a row"):
        read_rows(path)
    with pytest.raises(InputError, match=r"none\.jsonl: rows of results cannot be read"):
        read_rows(tmp_path / "none.jsonl")
