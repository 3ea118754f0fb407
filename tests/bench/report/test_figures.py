"""Figures of curves: the same lines give the same bytes, and on a page everything tells what it is."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from curve_rows import ROWS

from unquant.bench.analysis import curves
from unquant.bench.report import figures, looks
from unquant.bench.subjects.anchors import ANCHORS
from unquant.errors import InputError, OptionError
from unquant.families import FAMILIES


def test_a_codec_has_one_colour_and_the_known_ones_differ() -> None:
    known = [*FAMILIES, *(name for name, anchor in ANCHORS.items() if anchor.look)]
    assert len({looks.colour(name) for name in known}) == len({looks.marker(name) for name in known}) == len(known)
    assert looks.colour("mine") == looks.colour("mine")


def test_the_same_rows_give_the_same_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = curves.lines_of(ROWS, "bpp", "dists", "bpp")
    for name in ("a.svg", "b.svg", "c.png"):
        figures.draw(lines, "bpp", "dists", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"</svg>" in (tmp_path / "a.svg").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = curves.lines_of(ROWS, "psnr", "dists", "realism")
    with pytest.raises(OptionError, match=r"a\.gif"):
        figures.draw(lines, "psnr", "dists", tmp_path / "a.gif")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file.a\.png: cannot be written"):
        figures.draw(lines, "psnr", "dists", tmp_path / "file" / "a.png")


def test_on_a_page_every_point_tells_what_it_is_and_ids_are_its_own() -> None:
    pytest.importorskip("matplotlib")
    lines = curves.lines_of(ROWS, "bpp", "dists", "bpp")
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
    line = curves.Line("x", [(0.1, 1.0), (0.2, 2.0)], "CDC", kind="published")
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
    line = curves.Line("x", [(float(n), 0.2) for n in steps], "x")
    text = figures.svg([line], "steps", name="n", alt="")
    ticks = re.findall(r"<text[^>]*>([^<]+)</text>", text)
    assert (ticks[:3] == ["1", "4", "200"]) is logarithmic
