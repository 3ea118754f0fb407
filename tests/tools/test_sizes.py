from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tools import __main__ as command
from tools import sizes
from tools.sizes import Size
from unquant.errors import InputError, OptionError


def row(model: str, direction: str, width: int, cpu: float, peak: int = 10**9, options: str = "") -> Size:
    return Size(model, direction, "a CPU, busy", width, 1000, options, 1.0, cpu, peak, 1)


ROWS = [
    each
    for model in ("ratevar", "cdc", "av1")
    for each in (
        row(model, "encode", 1000, 3),
        row(model, "encode", 10_000, 12, 3 * 10**9),
        row(model, "encode", 1000, 9, options="--bpp 0.2"),
        row(model, "decode", 1000, 2 + 1 + 2),
        row(model, "decode", 10_000, 2 + 10 + 20, 2 * 10**9),
        row(model, "decode", 1000, 2 + 1 + 4, options="--realism 0.5"),
        row(model, "decode", 1000, 2 + 1, options="--scale 1/8"),
    )
]


def test_a_picture_of_any_size_is_a_mirrored_photograph(tmp_path: Path) -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))
    photo.save(tmp_path / "a.png")
    found = np.asarray(sizes.picture(tmp_path / "a.png", 20, 12))
    assert found.shape == (12, 20, 3)
    assert np.array_equal(found[:5, :7], np.asarray(photo))
    assert np.array_equal(found[5:10, 7:14], np.asarray(photo)[::-1, ::-1])
    assert sizes.picture(tmp_path / "a.png", 3, 4).size == (3, 4)


def test_the_table_of_costs_is_what_the_rows_are_made_of() -> None:
    found = sizes.costs(ROWS)
    assert found["machine"] == "a CPU, busy"
    for family in found["families"].values():
        assert family["start"] == pytest.approx(2, abs=0.01)
        assert [family[name] for name in ("encode", "search", "read", "draw")] == pytest.approx([1, 7, 1, 2], abs=0.01)
        assert family["peaks"] == {"encode": [[1, 1000], [10, 3000]], "decode": [[1, 1000], [10, 2000]]}
    with pytest.raises(OptionError, match="av1: rows of two sizes"):
        sizes.costs([each for each in ROWS if each.model != "av1" or each.width == 1000])
    with pytest.raises(OptionError, match="cdc: rows of decodes"):
        sizes.costs([each for each in ROWS if each.model != "cdc" or not each.options.startswith(("--r", "--s"))])


def test_rows_go_to_a_file_a_table_and_a_plot(tmp_path: Path) -> None:
    path = tmp_path / "sizes.jsonl"
    path.write_text(sizes.lines_of(ROWS))
    assert sizes.read_sizes(path) == ROWS
    assert "| ratevar | decode --realism 0.5 |" in " ".join(sizes.table(ROWS).split())
    sizes.draw(ROWS, tmp_path / "a.svg")
    assert "core seconds a megapixel" in (tmp_path / "a.svg").read_text()
    result = CliRunner().invoke(command.app, ["costs", str(path), str(tmp_path / "costs.json")])
    assert result.exit_code == 0
    assert json.loads((tmp_path / "costs.json").read_text()) == sizes.costs(ROWS)
    path.write_text('{"model": 1}\n')
    with pytest.raises(InputError, match=r"sizes\.jsonl: no rows of sizes"):
        sizes.read_sizes(path)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory of a process is read from /proc")
def test_commands_are_measured(tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNQUANT_WEIGHTS", str(tiny_weights.parent))
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "a.png")
    found = sizes.measure("tiny", tmp_path / "a.png", (64, 48), decode=["--realism", "0"], cpu_kind="any", threads=1)
    assert [(each.direction, each.options) for each in found] == [("encode", ""), ("decode", "--realism 0")]
    for each in found:
        assert (each.width, each.height) == (64, 48)
        assert each.cpu > 0.1
        assert 5 * 10**7 < each.peak < 2 * 10**9
