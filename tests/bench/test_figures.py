from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from unquant.bench import figures
from unquant.bench.rows import Row, write_rows
from unquant.errors import InputError, OptionError


def row(number: int, bpp: float, rho: float | None, **more: object) -> Row:
    values: dict[str, object] = {
        "key": f"{number}-{bpp}-{rho}-{more}",
        "image": f"image{number}",
        "image_id": str(number),
        "width": 100,
        "height": 80,
        "codec": "ratevar",
        "version": "v1",
        "target_bpp": bpp,
        "realism": rho,
        "bytes": int(bpp * 1000),
        "scores": {"psnr": 30 - (rho or 0) - number, "dists": 0.2 - (rho or 0) / 10},
    }
    return Row(**(values | more))  # type: ignore[arg-type]


ROWS = [row(i, bpp, rho) for bpp in (0.1, 0.2) for rho in (1.0, 0.0, 0.5) for i in (0, 2)]


def test_a_line_for_every_setting_with_means_in_order() -> None:
    lines = figures.lines_of(ROWS, "psnr", "dists", "realism")
    assert [line.name for line in lines] == ["ratevar, 0.1 bpp", "ratevar, 0.2 bpp"]
    assert lines[0].points == [pytest.approx(p) for p in [(29.0, 0.2), (28.5, 0.15), (28.0, 0.1)]]
    by_rate = figures.lines_of(ROWS, "bpp", "psnr", "bpp")
    assert [line.name for line in by_rate] == [f"ratevar, realism {rho}" for rho in ("1", "0.5", "0")]
    assert by_rate[0].points == [pytest.approx((0.1, 28)), pytest.approx((0.2, 28))]
    assert [line.variant for line in by_rate] == [0, 1, 2]


def test_versions_of_a_codec_are_never_merged() -> None:
    other = [replace(r, version="v2", scores={"psnr": 10.0, "dists": 0.5}) for r in ROWS]
    lines = figures.lines_of([*ROWS, *other], "bpp", "psnr", "bpp")
    assert [line.name for line in lines[::3]] == ["ratevar v1, realism 1", "ratevar v2, realism 1"]
    assert [y for _, y in lines[0].points] == [28, 28]
    assert [y for _, y in lines[3].points] == [10, 10]


def test_realism_0_begins_the_path_of_every_number_of_steps() -> None:
    rows = [row(0, 0.1, 0.0), row(0, 0.1, 1.0, steps=1), row(0, 0.1, 1.0, steps=4)]
    lines = figures.lines_of(rows, "psnr", "dists", "realism")
    assert [line.name for line in lines] == ["ratevar, 0.1 bpp, 1 steps", "ratevar, 0.1 bpp, 4 steps"]
    assert all(line.points[0] == (30, 0.2) for line in lines)


def test_files_asked_for_by_quality_stand_where_their_bytes_put_them() -> None:
    rows = [row(0, 0.1, None, codec="avif", target_bpp=None, quality=q, bytes=n) for q, n in ((9.0, 300), (40.0, 100))]
    (line,) = figures.lines_of(rows, "bpp", "psnr", "bpp")
    assert line.name == "AVIF"
    assert [x for x, _ in line.points] == pytest.approx([0.1, 0.3])


def test_what_a_search_found_does_not_split_a_target() -> None:
    rows = [row(i, 0.1, None, codec="avif", quality=10.0 + i, q_index=i) for i in range(3)]
    (line,) = figures.lines_of(rows, "bpp", "psnr", "bpp")
    assert line.points == [pytest.approx((0.1, 29))]


def test_rows_without_a_value_are_left_out() -> None:
    without = replace(ROWS[0], scores={"psnr": 1.0, "dists": None})
    rows = [*ROWS, without, replace(ROWS[0], realism=None)]
    assert figures.lines_of(rows, "psnr", "dists", "realism") == figures.lines_of(ROWS, "psnr", "dists", "realism")


@pytest.mark.parametrize("axes", [("psnr", "fid", "realism"), ("psnr", "dists", "codec"), ("psnr", "flip", "bpp")])
def test_what_cannot_be_drawn_is_refused(axes: tuple[str, str, str]) -> None:
    with pytest.raises(OptionError):
        figures.lines_of(ROWS, *axes)


def test_of_several_files_the_last_row_of_a_key_counts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("[1]\n")
    with pytest.raises(InputError, match=r"a\.jsonl"):
        figures.read_rows([tmp_path / "a.jsonl"])
    write_rows(tmp_path / "b.jsonl", ROWS)
    write_rows(tmp_path / "c.jsonl", [replace(ROWS[0], bytes=7)])
    assert figures.read_rows([tmp_path / "b.jsonl", tmp_path / "c.jsonl"]) == [replace(ROWS[0], bytes=7), *ROWS[1:]]


def test_a_codec_has_one_colour_and_the_known_ones_differ() -> None:
    known = ["ratevar", "cdc", "avif", "webp", "jpeg", "jxl", "heic"]
    assert len({figures.colour(name) for name in known}) == len({figures.marker(name) for name in known}) == len(known)
    assert figures.colour("mine") == figures.colour("mine")


def test_the_same_rows_give_the_same_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = figures.lines_of(ROWS, "bpp", "dists", "bpp")
    for name in ("a.svg", "b.svg", "c.png"):
        figures.draw(lines, "bpp", "dists", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"</svg>" in (tmp_path / "a.svg").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = figures.lines_of(ROWS, "psnr", "dists", "realism")
    with pytest.raises(OptionError, match=r"a\.gif"):
        figures.draw(lines, "psnr", "dists", tmp_path / "a.gif")
    with pytest.raises(InputError, match=r"missing.a\.png: cannot be written"):
        figures.draw(lines, "psnr", "dists", tmp_path / "missing" / "a.png")


def test_on_a_page_every_point_tells_what_it_is_and_ids_are_its_own() -> None:
    pytest.importorskip("matplotlib")
    lines = figures.lines_of(ROWS, "bpp", "dists", "bpp")
    lines[0] = lines[0]._replace(name="a <b> & c", sigmas=[0.01, 0.01])
    texts = [figures.svg(lines, "bpp", name=name, alt='"quoted"', labels=["end", "", ""]) for name in ("one", "two")]
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in texts]
    assert not ids[0] & ids[1]
    for text, own in zip(texts, ids, strict=True):
        assert {name for pair in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text) for name in pair if name} <= own
    root = ElementTree.fromstring(texts[0])
    groups = [element for element in root.iter() if element.get("data-series") == "a <b> & c"]
    assert {str(group.get("id")).split("-")[-1] for group in groups} == {"line", "bars", "label"}
    titles = [title.text or "" for group in groups for title in group.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 2
    assert titles[0].startswith("a <b> & c; 0.1 bpp: bits per pixel 0.1, DISTS 0.1; mean of 2 images")
    assert root.get("aria-label") == '"quoted"'


def test_low_trust_is_drawn_hollow() -> None:
    pytest.importorskip("matplotlib")
    line = figures.Line("x", [(0.1, 1.0), (0.2, 2.0)], "CDC", kind="published")
    for hollow, each in ((False, line), (True, line._replace(kind="low trust"))):
        assert ("fill: none" in figures.swatch(each)) is hollow
        root = ElementTree.fromstring(figures.svg([each], "bpp", name="n", alt=""))
        (group,) = (element for element in root.iter() if element.get("data-series"))
        markers = [element.get("style", "") for element in group.iter("{http://www.w3.org/2000/svg}use")]
        assert len(markers) == 2
        assert all(("fill: none" in style or "fill-opacity: 0" in style) is hollow for style in markers)


@pytest.mark.parametrize(("steps", "logarithmic"), [((1, 4, 200), True), ((1, 2, 4), False), ((0, 1, 200), False)])
def test_many_steps_stand_on_a_logarithmic_axis(steps: tuple[int, ...], logarithmic: bool) -> None:
    pytest.importorskip("matplotlib")
    line = figures.Line("x", [(float(n), 0.2) for n in steps], "x")
    text = figures.svg([line], "steps", name="n", alt="")
    ticks = re.findall(r"<text[^>]*>([^<]+)</text>", text)
    assert (ticks[:3] == ["1", "4", "200"]) is logarithmic
