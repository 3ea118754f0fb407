from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from unquant.bench.analysis import published
from unquant.errors import InputError

TABLE = """codec,dataset,bpp,psnr,ms_ssim,lpips_alex,dists,fid,kid,source
MS-ILLM,clic2020,0.03462125360965729,27.88009452819824,0.8980119228363037,0.1136709526181221,0.0856,6.27,-4.37e-05,illm/results.csv
VTM,kodak,0.11249542236328125,28.493021754424603,0.9176909327507019,,,,,"InterDigitalInc/CompressAI, vtm.json"
"CDC (third-party plot script, low trust)",kodak,0.1829,,,0.0774,0.0514,31.8,,third-party plot script
"""
SHARED = Path(__file__).parents[4] / "shared" / "anchors" / "published.csv"


def write(folder: Path, text: str) -> Path:
    path = folder / "points.csv"
    path.write_text(text, "utf-8")
    return path


def test_every_value_is_kept_and_blanks_are_not_values(tmp_path: Path) -> None:
    first, vtm, cdc = published.read_points(write(tmp_path, TABLE))
    assert (first.codec, first.dataset, first.bpp) == ("MS-ILLM", "clic2020", 0.03462125360965729)
    assert first.scores["kid"] == -4.37e-05
    assert dict(vtm.scores) == {"psnr": 28.493021754424603, "ms_ssim": 0.9176909327507019}
    assert vtm.source == "InterDigitalInc/CompressAI, vtm.json"
    assert list(cdc.scores) == ["lpips_alex", "dists", "fid"]
    assert [point.low_trust for point in (first, vtm, cdc)] == [False, False, True]


def test_a_metric_more_is_a_metric_more(tmp_path: Path) -> None:
    (point,) = published.read_points(write(tmp_path, "source,flip,bpp,dataset,codec\nx,0.1,0.2,kodak,a\n\n"))
    assert dict(point.scores) == {"flip": 0.1}


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("codec,dataset,psnr\n", r"line 1: .*no column bpp, source"),
        ("codec,dataset,bpp,psnr,psnr,source\n", r"line 1: .*twice"),
        (TABLE + "VTM,kodak,0.1,28\n", r"line 5: 10 fields expected, got 4"),
        (TABLE + "VTM,kodak,0.1,2x,,,,,,me\n", r"line 5: psnr is not a number: '2x'"),
        (TABLE + "VTM,kodak,0.1,nan,,,,,,me\n", r"line 5: psnr is not a number"),
        (TABLE + "VTM,kodak,0,1,,,,,,me\n", r"line 5: bpp is not above 0"),
        (TABLE + "VTM,kodak,0.1,1,,,,,,\n", r"line 5: no source"),
        (TABLE + 'VTM,"kodak" x,0.1,1,,,,,,me\n', r"line 5: not a CSV file"),
        ("", r"line 1: .*no column codec"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(InputError, match=r"points\.csv, " + cause):
        published.read_points(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv: .*No such file"):
        published.read_points(tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.csv"):
        published.read_points(tmp_path / "binary.csv")


def test_data_sets_are_known_by_the_names_of_their_images() -> None:
    assert published.dataset_of(["kodim01", "kodim24"]) == "kodak"
    assert published.dataset_of(["0801", "0900"]) == "div2k"
    assert published.dataset_of(["kodim01", "coffee"]) is None
    assert published.dataset_of(["kodim25"]) is None
    assert published.dataset_of([]) is None


def test_no_value_of_the_collected_table_is_lost() -> None:
    path = Path(os.environ.get("UNQUANT_PUBLISHED", SHARED))
    if not path.is_file():
        pytest.skip("the collected table is not here; UNQUANT_PUBLISHED names it")
    points = published.read_points(path)
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(points) == len(lines) > 0
    for point, line in zip(points, lines, strict=True):
        head = {"codec": point.codec, "dataset": point.dataset, "source": point.source}
        assert head == {name: line.pop(name) for name in head}
        assert {"bpp": point.bpp, **point.scores} == {name: float(text) for name, text in line.items() if text}
    assert any(point.low_trust for point in points)
