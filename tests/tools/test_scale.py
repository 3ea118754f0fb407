from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tools import scale
from tools.pages import filled
from tools.scale import Scale
from unquant.errors import InputError

ROOT = Path(__file__).parents[2]
COFFEE = ROOT / "src" / "unquant" / "demo" / "coffee.png"


def row(how: str, cpu: float, options: str = "-q 40", images: int = 100, width: int = 144) -> Scale:
    worker, actors = ((0, 0), 0.0) if how == "encode" else ((400, 410), cpu - 5)
    return Scale(how, images, width, 128, options, 2, "a CPU", 30.0, cpu, actors, (200, 210), worker, (900, 910))


def test_small_photographs_are_parts_of_large_ones(tmp_path: Path) -> None:
    for name in "ab":
        scale.crops(COFFEE, tmp_path / name, 5, (48, 40))
    files = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in files] == [f"{n:06}.jpg" for n in range(5)]
    assert len({path.read_bytes() for path in files}) == 5
    assert all(path.read_bytes() == (tmp_path / "b" / path.name).read_bytes() for path in files)
    with Image.open(files[0]) as image:
        assert (image.format, image.size) == ("JPEG", (48, 40))


def test_rows_go_to_a_file_and_a_table(tmp_path: Path) -> None:
    rows = [row("encode", 9), row("bulk", 10), row("encode", 11), row("bulk", 15), row("bulk", 20, "-q 50", 50)]
    rows.append(row("bulk", 6, width=96))
    path = tmp_path / "scale.jsonl"
    path.write_text(scale.lines_of(rows), "utf-8")
    assert scale.read_scale(path) == rows
    page = filled("<!-- scale scale.jsonl -->\n<!-- end -->", tmp_path / "page.md").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in page[3:7]]
    assert cells[0] == ["encode -q 40 -j 2", "144×128", "100", "2", "100.0", "–", "1.00", "30", "200 → 210", "–"]
    assert cells[1][:7] == ["bulk -q 40 -j 2", "144×128", "100", "2", "125.0", "75.0", "0.80"]
    assert cells[1][7:] == ["30", "200 → 210", "400 → 410"]
    assert cells[2][:7] == ["bulk -q 40 -j 2", "96×128", "100", "1", "60.0", "10.0", "–"]
    assert cells[3][:7] == ["bulk -q 50 -j 2", "144×128", "50", "1", "400.0", "300.0", "–"]
    assert page[-2] == "a CPU."
    path.write_text("{}\n", "utf-8")
    with pytest.raises(InputError, match=r"scale\.jsonl: no rows"):
        scale.read_scale(path)


@pytest.mark.slow
@pytest.mark.usefixtures("shipped_av1_weights")
def test_core_seconds_and_memory_of_a_command(tmp_path: Path) -> None:
    scale.crops(COFFEE, tmp_path, 3, (48, 40))
    found = scale.measure("encode", tmp_path, options=["-q", "40"], jobs=2, cpu_kind="a CPU")
    assert (found.how, found.images, found.width, found.height) == ("encode", 3, 48, 40)
    assert 0.3 < found.cpu < 100
    assert found.driver[1] >= 100
    assert found.all[1] >= found.driver[1]
    with pytest.raises(InputError, match="exit code 2"):
        scale.measure("encode", tmp_path, options=["-q", "4000"], jobs=2, cpu_kind="a CPU")
