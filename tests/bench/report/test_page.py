"""The report as a file: complete, self-contained, and with the numbers of its rows."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from bench_rows import TARGETS, Measured

from unquant.bench.analysis.study import Study
from unquant.bench.report import pictures, tables
from unquant.bench.report.page import write_report
from unquant.bench.report.pictures import views_of
from unquant.bench.run.rows import Row
from unquant.errors import InputError, OptionError

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
pytest.importorskip("bjontegaard")

PUBLISHED = """codec,dataset,bpp,psnr,ms_ssim,lpips_alex,dists,fid,kid,source
MS-ILLM,kodak,0.3,29.63,0.9598,0.145,0.116,,,illm/results.csv
MS-ILLM,kodak,0.7,33.21,0.9837,0.118,0.103,,,illm/results.csv
VTM,kodak,0.9,37.4,0.9887,,,,,CompressAI results
HiFiC,clic2020,0.3,30.1,0.96,0.15,,,,hific/data.csv
"CDC (low trust)",kodak,0.5,,,0.12,0.1,10.7,,third-party plot script
"""
PLACE = {"place": {"cpu": "Some CPU", "threads": 2, "versions": {"torch": "2.6", "pillow": None}}}


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("points") / "points.csv"
    path.write_text(PUBLISHED, "utf-8")
    return path


@pytest.fixture(scope="module")
def text(bench: Measured, points: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    write(bench, out, published=points, distances=distances(), environments=PLACE)
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return out.read_text("utf-8")


def write(bench: Measured, out: Path, rows: list[Row] | None = None, **more: Any) -> str:
    write_report(out, bench.rows if rows is None else rows, original=bench.original, picture=bench.picture, **more)
    return out.read_text("utf-8")


def distances() -> dict[str, Any]:
    entries = [
        {"kind": "KD-VGG16", "target": f"{t:g} bpp", "setting": setting, "value": 0.01 / t, "sigma": 0.002}
        for t in TARGETS
        for setting in ("ratevar, realism 1", "avif")
    ]
    return {"images": 3, "patches": 24, "distances": entries, "differences": [{"target": "0.3 bpp", "difference": 0.5}]}


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, name: str) -> Iterator[dict[str, str | None]]:
        return (attrs for tag, attrs in self.found if tag == name)


@pytest.mark.slow
def test_the_file_needs_nothing_else(text: str) -> None:
    for tag, attrs in Tags(text).found:
        for name in ("src", "href"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    assert "url(http" not in text
    assert "@import" not in text
    assert len(text) < 15_000_000


def test_only_its_own_script_may_run(text: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (policy,) = (str(m["content"]) for m in Tags(text).of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy
    assert not any(name.startswith("on") for _, attrs in Tags(text).found for name in attrs)


def test_pictures_and_charts_have_words_and_the_page_a_language(text: str) -> None:
    tags = Tags(text)
    assert next(tags.of("html"))["lang"] == "en"
    assert all(img.get("alt") for img in tags.of("img"))
    charts = [svg for svg in tags.of("svg") if svg.get("class") == "chart"]
    assert len(charts) == 5 + 1 + 1  # metrics, set distance, plane
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in charts)
    ids = [attrs["id"] for _, attrs in tags.found if attrs.get("id")]
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes(bench: Measured, tmp_path: Path) -> None:
    rows = [row for row in bench.rows if row.image == "kodim01"]
    assert write(bench, tmp_path / "a.html", rows) == write(bench, tmp_path / "b.html", rows[::-1])


def test_every_metric_has_a_chart_with_every_curve(text: str) -> None:
    for key in ("psnr", "ms_ssim", "lpips_alex", "dists", "gradient", "set0"):
        (chart,) = re.findall(rf'data-of="metric" data-part="{key}">(.*?)</figure>', text, re.DOTALL)
        series = set(re.findall(r'data-series="([^"]+)"', chart))
        models = {"ratevar, realism 1"} if key == "set0" else {f"ratevar, realism {rho}" for rho in ("1", "0.5", "0")}
        assert {*models, "AVIF"} <= series
        assert f'value="{key}"' in text
    assert chart.count('id="c-set0-s0-bars"') == 1


def test_published_points_of_the_data_set_stand_in_the_charts(text: str) -> None:
    (chart,) = re.findall(r'data-part="lpips_alex">(.*?)</figure>', text, re.DOTALL)
    assert 'data-series="MS-ILLM" data-kind="published"' in chart
    assert 'data-series="CDC (low trust)" data-kind="low trust"' in chart
    assert "0.3 bits per pixel, LPIPS (AlexNet) 0.145; published: illm/results.csv" in chart
    assert "published, low trust: third-party plot script" in chart
    assert "VTM" not in chart
    assert 'data-toggle="VTM"' in text
    assert "HiFiC" not in text  # of another data set
    assert "means over all 24 images of kodak, the curves over 3" in text


@pytest.mark.slow
def test_published_points_of_other_data_sets_are_not_mixed_in(bench: Measured, points: Path, tmp_path: Path) -> None:
    rows = [replace(row, image=f"photo{row.image}") for row in bench.rows if row.image == "kodim01"]
    text = write(bench, tmp_path / "r.html", rows, published=points)
    assert "MS-ILLM" not in text
    assert "no data set known by their names" in text


@pytest.fixture
def small_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "CROP", 96)


@pytest.mark.slow
@pytest.mark.usefixtures("small_crops")
def test_what_does_not_fit_or_cannot_be_read_is_named(bench: Measured, tmp_path: Path) -> None:
    study = Study(bench.rows)
    views, _ = views_of(study, bench.original, bench.picture)
    some, more = views_of(study, bench.original, bench.picture, budget=views[0].weight + 10)
    assert [view.image for view in some] == ["kodim01"]
    assert len(more) == 2
    assert "to keep this file small" in more[0]
    lost = bench.rows[0].key
    decodes = {key: image for key, image in bench.pictures.items() if key != lost}
    originals = {key: image for key, image in bench.originals.items() if key != "id-kodim02"}
    text = write(Measured(bench.rows, originals, decodes), tmp_path / "r.html")
    assert f"No picture: {lost}: gone" in text
    assert "kodim02 is not shown: id-kodim02: gone." in text


@pytest.mark.slow
def test_versions_stay_apart_and_names_are_escaped(bench: Measured, tmp_path: Path) -> None:
    rows = [row for row in bench.rows if row.image == "kodim01"]
    other = [
        replace(row, key=row.key + "'", version="<b>new</b>", scores={"psnr": 1.0}) for row in rows if row.realism == 1
    ]
    text = write(bench, tmp_path / "r.html", [*rows, *other])
    assert "ratevar 8f00d1ce, realism 1" in text
    assert "ratevar &lt;b&gt;new&lt;/b&gt;, realism 1" in text
    assert "<b>new</b>" not in text


def test_a_bd_rate_that_is_none_says_why(bench: Measured) -> None:
    table = tables.bd_table(Study(row for row in bench.rows if row.target_bpp != 0.6))
    assert table is not None
    cell = table.groups[0][1][0][1]
    assert cell.text == "–"
    assert "has 3 points, 4 needed" in cell.small


def test_where_it_was_measured_is_said(text: str) -> None:
    assert "Measured on Some CPU, 2 threads." in text


def test_what_was_trained_for_is_said(text: str) -> None:
    assert "ratevar was trained with LPIPS (AlexNet) and DISTS as a loss" in text
    assert "PSNR, MS-SSIM and Gradient energy" in text
    assert "ratevar, realism 1: best in LPIPS (AlexNet) †, DISTS † and Gradient energy." in text


def test_the_command_asks_for_the_same(text: str) -> None:
    (command,) = re.findall(r"<pre><code>(.*?)</code></pre>", text)
    assert command == (
        "unquant bench IMAGES --codecs ratevar,avif,jpeg --at-bpp 0.15,0.3,0.6,1.2 --realism 0,0.5,1 "
        "--published points.csv --metrics psnr,ms_ssim,lpips_alex,dists,gradient"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("small_crops")
@pytest.mark.parametrize("codecs", [{"ratevar"}, {"avif", "jpeg"}, {"jpeg"}])
def test_any_codecs_make_a_report(bench: Measured, tmp_path: Path, codecs: set[str]) -> None:
    rows = [row for row in bench.rows if row.codec in codecs]
    text = write(bench, tmp_path / "r.html", rows)
    assert "Pictures at equal bytes" in text
    assert ("BD-rate against AVIF" in text) is ("avif" in codecs)


def test_sizes_alone_make_a_report(bench: Measured, tmp_path: Path) -> None:
    rows = [
        replace(row, scores={}, realism=None, target_bpp=None, quality=None, q_index=i)
        for i, row in enumerate(bench.rows[:6])
    ]
    text = write(bench, tmp_path / "r.html", rows)
    assert "q index 3" in text
    assert "--q-index 0,1,2,3,4,5 --metrics none" in text


@pytest.mark.slow
def test_what_is_no_report_is_refused(bench: Measured, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"r\.html"):
        write(bench, tmp_path / "r.html", [])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"r\.html: cannot be written"):
        write(bench, tmp_path / "file" / "r.html", [row for row in bench.rows if row.image == "kodim01"])
    with pytest.raises(InputError, match=r"none\.csv"):
        write(bench, tmp_path / "r.html", published=tmp_path / "none.csv")
    assert not (tmp_path / "r.html").exists()
