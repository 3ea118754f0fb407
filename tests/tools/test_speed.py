from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tools import __main__ as command
from tools import speed
from unquant.codecs.cdc import CdcCodec
from unquant.errors import OptionError


@pytest.mark.slow
def test_warm_times_stand_beside_avif(picture: Image.Image, stand_in) -> None:
    measures = speed.warm_times(stand_in, picture, 1.0, 1)
    for measure in measures[:4]:
        assert measure.value > 0
        assert measure.ratio == pytest.approx(measure.value / measure.avif)
    assert [m.what for m in measures[4:]] == [
        *(f"decode, realism 1, {n} steps" for n in speed.FEW_STEPS),
        "one reverse step",
    ]


@pytest.mark.slow
def test_a_codec_without_reverse_network_has_no_steps(picture: Image.Image, stand_in, monkeypatch) -> None:
    decode = stand_in.decode

    def refusing(data: bytes, *, realism=None, steps=None, seed=None) -> Image.Image:
        if steps:
            raise OptionError("no reverse network")
        return decode(data, realism=realism)

    monkeypatch.setattr(stand_in, "decode", refusing)
    assert len(speed.warm_times(stand_in, picture, 1.0, 1)) == 4


@pytest.mark.slow
def test_a_codec_of_one_step_has_no_second(picture: Image.Image, stand_in, monkeypatch) -> None:
    decode = stand_in.decode

    def refusing(data: bytes, *, realism=None, steps=None, seed=None) -> Image.Image:
        if steps == 2:
            raise OptionError("steps: 0 or 1")
        return decode(data, realism=realism)

    monkeypatch.setattr(stand_in, "decode", refusing)
    assert [m.what for m in speed.warm_times(stand_in, picture, 1.0, 1)[4:]] == [
        "decode, realism 1, 0 steps",
        "decode, realism 1, 1 steps",
        "one reverse step",
    ]


@pytest.mark.slow
def test_a_step_stands_beside_one_of_the_published_size(picture: Image.Image, stand_in, tiny_cdc_weights: Path) -> None:
    assert speed.unet_times(stand_in, picture, 1) == []
    codec = CdcCodec.from_file(tiny_cdc_weights)
    ours, published, ratio = speed.unet_times(codec, picture.crop((0, 0, 40, 33)), 1)
    assert 0 < ours.value < published.value
    assert ratio.value == pytest.approx(ours.value / published.value)
    measures = speed.warm_times(codec, picture.crop((0, 0, 64, 48)), 2.0, 1)
    assert [m.what for m in measures[4:]] == [
        "decode, realism 1, 1 steps",
        "decode, realism 1, 4 steps",
        "decode, realism 1, 17 steps",
        "one reverse step",
    ]


def test_the_table_has_units_and_ratios() -> None:
    lines = speed.table([speed.Measure("decode", 0.5, avif=0.01), speed.Measure("peak memory", 900.4, "MB")])
    assert "0.500 s" in lines
    assert "50.0" in lines
    assert "900 MB" in lines


def test_the_script_of_the_fresh_process_measures(tmp_path: Path, picture: Image.Image, monkeypatch) -> None:
    """The script runs in a process whose `unquant` is a stand-in found first on the path."""
    (tmp_path / "unquant.py").write_text(
        "class Codec:\n"
        "    def encode(self, image, bpp): return b'x' * int(bpp * image.width)\n"
        "    def decode(self, data): return data\n"
        "def load(name): return Codec()\n"
    )
    (tmp_path / "torch.py").write_text("")
    picture.save(tmp_path / "picture.png")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    measures = {row.what: row for row in speed.fresh_times("ratevar", tmp_path / "picture.png", 0.5, 1)}
    assert set(measures) == {"load, torch imported", "first encode, 0.5 bpp", "first decode", "peak memory"}
    assert 5 < measures["peak memory"].value < 500


@pytest.mark.slow
def test_the_command_writes_the_figures(tmp_path: Path, picture: Image.Image, stand_in, monkeypatch) -> None:
    picture.save(tmp_path / "picture.png")
    monkeypatch.setattr(command, "load", lambda _: stand_in)
    monkeypatch.setattr(speed, "fresh_times", lambda *_: [speed.Measure("peak memory", 100, "MB")])
    monkeypatch.setattr(speed, "command_times", lambda *_: [speed.Measure("import unquant", 0.1)])
    arguments = [
        "speed",
        str(tmp_path / "picture.png"),
        "--bpp",
        "1",
        "--repeats",
        "1",
        "--out",
        str(tmp_path / "s.json"),
    ]
    result = CliRunner().invoke(command.app, [*arguments, "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert "192×180" in result.stdout
    content = json.loads((tmp_path / "s.json").read_text())
    assert len(content["measures"]) == 10
    assert content["environment"]["threads"] == 1
