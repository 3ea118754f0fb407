"""Tables in Markdown pages: made from the rows they name, the rest of the page untouched; our own pages are up to date."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tools.pages import fill, filled
from unquant.bench.run.rows import Row, write_rows
from unquant.errors import InputError

ROOT = Path(__file__).parents[2]
ROW = Row(
    key="a", image="i1", image_id="f0", width=100, height=80, codec="ratevar", version="1-2-3", target_bpp=0.15,
    realism=1.0, bytes=150, scores={"psnr": 27.0, "lpips_alex": 0.2},
)  # fmt: skip
PAGE = "Before.\n\n<!-- {} -->\n{}<!-- end -->\n\nAfter.\n"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    rows = [
        ROW,
        replace(ROW, key="b", image="i2", image_id="f1", scores={"psnr": 29.0, "lpips_alex": 0.3}),
        replace(ROW, key="c", realism=0.0, scores={"psnr": 30.0, "lpips_alex": 0.5}),
        replace(ROW, key="d", codec="avif", version="1.4", realism=None, reached=False, scores={"psnr": 31.0}),
        replace(ROW, key="e", target_bpp=0.3, bytes=300, scores={"psnr": 33.0, "lpips_alex": 0.1}),
        replace(ROW, key="f", target_bpp=0.3, bytes=300, realism=0.0, scores={"psnr": 34.0, "lpips_alex": 0.2}),
    ]
    write_rows(tmp_path / "figures" / "rows.jsonl", rows)
    return tmp_path / "page.md"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_equal_bytes(page: Path) -> None:
    head = "equal-bytes figures/rows.jsonl targets=0.15 metrics=psnr,lpips_alex"
    page.write_text(PAGE.format(head, "old\nlines\n"))
    assert fill(page)
    text = page.read_text()
    assert text.startswith(f"Before.\n\n<!-- {head} -->\n| codec")
    assert text.endswith("<!-- end -->\n\nAfter.\n")
    lines = [cells(line) for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == ["codec", "target", "bpp", "PSNR, dB ↑", "LPIPS ↓"]
    assert lines[2] == ["ratevar, realism 1", "0.15 bpp", "0.150", "28.00", "0.250"]
    assert lines[3] == ["ratevar, realism 0", "0.15 bpp", "0.150", "30.00", "0.500"]
    assert lines[4] == ["AVIF", "0.15 bpp", "0.150*", "31.00", "–"]
    assert len(lines) == 5
    assert "\\* target not reached" in text
    assert "2 images; ratevar 1-2-3, AVIF 1.4." in text
    assert not fill(page)


def test_bd_rates_stand_beside_avif(page: Path) -> None:
    """A curve of twice the bytes at every value is +100% on each image; where most images have none it is a dash."""
    rows = [
        replace(ROW, key=f"{codec} {image} {rate}", codec=codec, realism=realism, image=image, image_id=image,
                target_bpp=rate, bytes=int(1000 * rate * factor), scores={"psnr": value, "dists": dists})
        for codec, realism, factor in (("avif", None, 1), ("av1", 0.0, 2), ("jpeg", None, 3))
        for image in ("i1", "i2")
        for rate, value in ((0.1, 25.0), (0.2, 27.0), (0.3, 28.0), (0.5, 29.0))
        for dists in [0.2 if codec == "jpeg" else 0.1 / rate]
    ]  # fmt: skip
    write_rows(page.parent / "figures" / "rows.jsonl", rows)
    page.write_text(PAGE.format("bd figures/rows.jsonl metrics=psnr,dists", ""))
    fill(page)
    lines = [cells(line) for line in page.read_text().splitlines() if line.startswith("|")]
    assert lines[0] == ["codec", "PSNR, dB", "DISTS"]
    assert lines[2:] == [["av1, realism 0", "+100.0 ± 0.0", "+100.0 ± 0.0"], ["JPEG", "+200.0 ± 0.0", "–"]]
    assert "2 images; AVIF 1-2-3, av1 1-2-3, JPEG 1-2-3." in page.read_text()


def test_against_reads_curves_without_the_boxes(page: Path) -> None:
    rows = [
        replace(
            ROW, key=f"{codec} {size}", codec=codec, realism=realism, bytes=size + 50, scores={"psnr": value + gain}
        )
        for codec, realism, gain in (("avif-iq-420", None, 0.0), ("av1", 0.0, 0.4))
        for size, value in ((100, 25.0), (150, 26.0), (200, 27.0), (300, 28.0))
    ]
    write_rows(page.parent / "figures" / "rows.jsonl", rows)
    page.write_text(
        PAGE.format("against figures/rows.jsonl anchor=avif-iq-420 metrics=psnr targets=0.15,0.5 boxes=50", "")
    )
    fill(page)
    lines = [cells(line) for line in page.read_text().splitlines() if line.startswith("|")]
    assert lines[0] == ["codec", "bpp", "images", "PSNR, dB ↑"]
    assert lines[2:] == [
        ["iq 4:2:0, speed 6", "0.15", "1", "26.00"],
        ["av1, realism 0", "0.15", "1", "26.40 (+0.40)"],
        ["iq 4:2:0, speed 6", "0.5", "0", "–"],
        ["av1, realism 0", "0.5", "0", "–"],
    ]
    assert "1 images; AVIF 1-2-3, av1 1-2-3." in page.read_text()


@pytest.mark.parametrize(
    "head",
    [
        "against figures/rows.jsonl metrics=psnr anchor=jxl",
        "against figures/rows.jsonl metrics=psnr anchor=ratevar distances=figures/none.json",
        "equal-bytes figures/none.jsonl metrics=psnr",
        "equal-bytes figures/rows.jsonl metrics=beauty",
        "equal-bytes figures/rows.jsonl",
        "bd figures/rows.jsonl metrics=beauty",
        "bd figures/rows.jsonl",
        "speed figures/rows.jsonl",
    ],
)
def test_a_block_that_cannot_be_made_is_named(page: Path, head: str) -> None:
    page.write_text(PAGE.format(head, "old\n"))
    with pytest.raises(InputError, match=r"page\.md|none\.jsonl"):
        fill(page)
    assert "old\n" in page.read_text()


def test_our_pages_show_what_was_measured() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    with_tables = [path for path in pages if "<!-- end -->" in path.read_text(encoding="utf-8")]
    assert ROOT / "README.md" in with_tables
    for path in with_tables:
        text = path.read_text(encoding="utf-8")
        assert filled(text, path) == text, f"{path.name}: run `make figures`"
