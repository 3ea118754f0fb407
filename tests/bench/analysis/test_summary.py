"""Means, gaps, and what is said beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unquant.bench.analysis.summary import footnotes, means, table, violations
from unquant.bench.run.rows import Row

ROW = Row(
    key="0", image="a", image_id="a", width=100, height=80, codec="ratevar", version="1", target_bpp=0.5, q_index=100,
    realism=0.0, bytes=500, encode_s=1.0, scores={"psnr": 30.0, "dists": 0.2},
)  # fmt: skip
JPEG = replace(ROW, codec="jpeg", realism=None, q_index=None, quality=9.0, bytes=400)


def other(row: Row, **changes: object) -> Row:
    return replace(row, image="b", image_id="b", **changes)


def test_means_are_over_the_images_of_a_setting() -> None:
    rows = [ROW, replace(ROW, realism=1.0), JPEG, other(ROW, bytes=300, encode_s=None, scores={"psnr": 34.0})]
    plain, drawn, jpeg = means(rows)
    assert (plain.target, plain.setting, plain.n) == ("0.5 bpp", "ratevar, realism 0", 2)
    assert plain.bpp == pytest.approx(8 * 400 / 8000)
    assert plain.scores == {"psnr": 32.0, "dists": 0.2}
    assert plain.measured == {"psnr": 2, "dists": 1}
    assert (plain.encode_s, plain.decode_s) == (1.0, None)
    assert (plain.missing, drawn.missing, jpeg.missing) == ((), ("b",), ("b",))
    assert means([]) == []


def test_the_table_has_the_columns_that_are_needed() -> None:
    lines = table([JPEG], ["psnr", "flip"]).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["target", "codec", "bpp", "PSNR, dB", "FLIP"]
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["0.5 bpp", "jpeg", "0.4000", "30.00", "–"]
    lines = table([JPEG, replace(ROW, realism=1.0, steps=2)], []).splitlines()
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == ["0.5 bpp", "ratevar", "1", "2", "0.5000"]


def test_distances_between_sets_are_columns() -> None:
    found = [
        {"kind": kind, "target": "0.5 bpp", "setting": setting, "value": value}
        for kind, setting, value in (("KD-VGG16", "jpeg", 0.01234), ("FID", "jpeg", 7.5), ("KID", "jpeg", None))
    ]
    lines = table([JPEG, ROW], [], {"distances": found}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["target", "codec", "realism", "bpp", "KD-VGG16 ×1000", "FID"]
    assert cells[2][4:] == ["12.34", "7.50"]
    assert cells[3][4:] == ["–", "–"]


def test_footnotes_say_what_was_missed() -> None:
    rows = [
        ROW,
        replace(ROW, realism=1.0),
        replace(JPEG, reached=False, bytes=900),
        other(ROW),
        other(ROW, realism=1.0),
    ]
    notes = footnotes(rows)
    assert notes == [
        "* target not reached, the smallest file counts: jpeg at 0.5 bpp (1 of 1)",
        "° images missing: jpeg at 0.5 bpp (b)",
    ]
    assert "0.9000*°" in table(rows, [])
    assert footnotes([ROW, other(ROW, scores={"psnr": 1.0, "dists": None})]) == [
        "means of some images only: dists of ratevar, realism 0 at 0.5 bpp (1 of 2)"
    ]
    small = replace(ROW, bytes=440)
    assert footnotes([small, replace(small, target_bpp=0.9), replace(small, realism=1.0)]) == [
        "more than 10% below the target: ratevar at 0.5 bpp (1 of 1), ratevar at 0.9 bpp (1 of 1)"
    ]
    assert footnotes([ROW, other(ROW)]) == []


def test_a_file_that_grows_with_the_step_is_found() -> None:
    rows = [replace(ROW, target_bpp=None, q_index=q, bytes=size) for q, size in ((90, 80), (10, 200), (40, 70))]
    assert violations(rows) == ["a, ratevar: 80 bytes at q index 90, more than 70 at 40"]
    assert violations([*rows[1:], JPEG]) == []
