from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from unquant.bench import __main__ as command
from unquant.bench import rd
from unquant.bench.metrics import Meter
from unquant.errors import InputError, OptionError


@pytest.fixture
def folder(tmp_path: Path, picture: Image.Image) -> Path:
    """Two pictures and a file that is none."""
    path = tmp_path / "images"
    path.mkdir()
    picture.save(path / "b.png")
    picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).crop((0, 0, 100, 90)).save(path / "a.png")
    (path / "notes.txt").write_text("no image")
    return path


@pytest.fixture
def paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


PLAN = rd.Plan(bpps=(0.8, 1.6), codecs=("ratevar", "jpeg"), realisms=(0.0, 1.0))


def test_one_row_per_image_codec_and_setting(paths: list[Path], stand_in, no_metric_weights: None) -> None:
    rows = rd.measure(paths, PLAN, {"ratevar": stand_in}, Meter())
    assert len(rows) == 2 * 2 * (2 + 1)
    for row in rows:
        pixels = 192 * 180 if row.image == "b.png" else 100 * 90
        assert row.bpp == pytest.approx(8 * row.bytes / pixels)
        assert row.made.reached
        assert row.bpp <= row.made.target_bpp
        assert (row.realism is None) == (row.codec == "jpeg") == (row.made.quality is not None)
    plain, drawn = rows[0], rows[1]
    assert (plain.realism, drawn.realism, plain.bytes) == (0, 1, drawn.bytes)
    assert plain.scores.psnr > drawn.scores.psnr


def test_targets_out_of_reach_are_flagged(paths: list[Path], stand_in, no_metric_weights: None) -> None:
    rows = rd.measure(paths, replace(PLAN, bpps=(0.01,)), {"ratevar": stand_in}, Meter())
    assert not any(row.made.reached for row in rows)
    assert all(row.bpp > 0.01 for row in rows)
    assert "0 of 2" in rd.summary(rows)


def test_the_summary_averages_over_the_images(paths: list[Path], stand_in, no_metric_weights: None) -> None:
    rows = rd.measure(paths, PLAN, {"ratevar": stand_in}, Meter())
    lines = rd.summary(rows).splitlines()
    assert len(lines) == 2 + 6
    jpeg = [row for row in rows if row.codec == "jpeg" and row.made.target_bpp == 0.8]
    cells = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert cells[:4] == ["0.8 bpp", "jpeg", "–", "–"]
    assert float(cells[4]) == pytest.approx(sum(row.bpp for row in jpeg) / 2, abs=1e-4)
    assert float(cells[5]) == pytest.approx(sum(row.scores.psnr for row in jpeg) / 2, abs=0.01)
    assert float(cells[9]) == pytest.approx(sum(row.scores.gradient for row in jpeg) / 2, abs=1e-3)


def test_steps_are_for_models_at_realism_above_0(paths: list[Path], stand_in, no_metric_weights: None) -> None:
    plan = replace(PLAN, bpps=(0.8,), steps=(0, 1, 4))
    rows = rd.measure(paths[:1], plan, {"ratevar": stand_in}, Meter())
    assert [(row.realism, row.steps) for row in rows] == [(0, None), (1, 0), (1, 1), (1, 4), (None, None)]
    assert [row.setting for row in rows[:3]] == [
        "ratevar, realism 0",
        "ratevar, realism 1, 0 steps",
        "ratevar, realism 1, 1 steps",
    ]
    assert rows[1].scores.psnr < rows[2].scores.psnr < rows[3].scores.psnr == rows[0].scores.psnr
    assert [row.flat()["steps"] for row in rows] == [None, 0, 1, 4, None]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in rd.summary(rows).splitlines()]
    assert [line[3] for line in lines[2:]] == ["–", "0", "1", "4", "–"]


def test_steps_not_asked_for_are_not_passed(paths: list[Path], stand_in, monkeypatch, no_metric_weights: None) -> None:
    plain = stand_in.decode
    monkeypatch.setattr(stand_in, "decode", lambda data, *, realism: plain(data, realism=realism))
    assert len(rd.measure(paths[:1], PLAN, {"ratevar": stand_in}, Meter())) == 6


def test_a_sweep_measures_models_only_and_finds_no_violation(paths: list[Path], stand_in) -> None:
    plan = rd.Plan(bpps=(), q_indices=(90, 10, 40))
    rows = rd.measure(paths, replace(plan, codecs=("ratevar", "avif")), {"ratevar": stand_in}, None)
    assert len(rows) == 6
    assert stand_in.decoded == 0
    assert rd.violations(rows) == []


def test_a_file_that_grows_with_the_step_is_found(paths: list[Path], stand_in, monkeypatch) -> None:
    honest = stand_in.encode

    def sometimes_larger(image, *, q_index, **others) -> bytes:
        return honest(image, q_index=q_index) + bytes(5000 if q_index == 40 and image.width == 100 else 0)

    monkeypatch.setattr(stand_in, "encode", sometimes_larger)
    rows = rd.measure(paths, rd.Plan(bpps=(), codecs=("ratevar",), q_indices=(10, 40, 90)), {"ratevar": stand_in}, None)
    (found,) = rd.violations(rows)
    assert found.startswith("a.png, ratevar:")
    assert "at q index 40" in found


def test_names_and_files_that_are_none(paths: list[Path], folder: Path, stand_in) -> None:
    with pytest.raises(OptionError, match="bmp"):
        rd.measure(paths, rd.Plan(codecs=("bmp",)), {}, None)
    with pytest.raises(InputError, match=r"notes\.txt"):
        rd.measure([folder / "notes.txt"], PLAN, {"ratevar": stand_in}, None)


@pytest.fixture
def loaded(stand_in, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "load", lambda _: stand_in)
    return stand_in


def test_the_command_writes_rows_and_prints_means(
    folder: Path, tmp_path: Path, loaded, no_metric_weights: None
) -> None:
    out = tmp_path / "rd.json"
    arguments = ["rd", str(folder), "--bpp", "1,2", "--codecs", "ratevar,webp", "--realism", "1", "--out", str(out)]
    result = CliRunner().invoke(command.app, arguments)
    assert result.exit_code == 0, result.output
    assert "| 1 bpp" in result.stdout
    content = json.loads(out.read_text())
    assert len(content["rows"]) == 2 * 2 * 2
    assert content["environment"]["weights"] == {"ratevar": "stand-in"}
    assert content["rows"][0].keys() >= {
        "image",
        "codec",
        "target_bpp",
        "bytes",
        "bpp",
        "psnr",
        "lpips",
        "realism",
        "gradient",
        "steps",
    }
    assert any("UNQUANT_METRICS" in note for note in content["notes"])


def test_the_command_fails_on_a_violation(folder: Path, loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["rd", str(folder), "--q-index", "10, 40, 90", "--sizes-only"]
    assert CliRunner().invoke(command.app, arguments).exit_code == 0
    monkeypatch.setattr(loaded, "encode", lambda image, q_index, **_: bytes(100 + q_index))
    result = CliRunner().invoke(command.app, arguments)
    assert result.exit_code == 1
    assert "more than" in result.stderr


def test_the_command_refuses_what_is_no_number(folder: Path) -> None:
    assert CliRunner().invoke(command.app, ["rd", str(folder), "--bpp", "much"]).exit_code == 2


def test_an_empty_folder_is_an_input_error(tmp_path: Path, monkeypatch, capsys, loaded) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "rd", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 3
