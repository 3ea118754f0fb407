"""The report's pictures are the very pixels of the decodes, of images chosen fairly."""

from __future__ import annotations

import base64
import io

import pytest
from bench_rows import Measured
from PIL import Image, ImageChops

from unquant.bench.analysis.study import Study
from unquant.bench.report import pictures
from unquant.bench.report.pictures import busiest, choose, data_uri, views_of


@pytest.fixture
def small_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "CROP", 96)


@pytest.mark.usefixtures("small_crops")
def test_crops_are_the_very_pixels_of_the_decodes(bench: Measured) -> None:
    study = Study(bench.rows)
    views, notes = views_of(study, bench.original, bench.picture)
    assert not notes
    assert {view.image for view in views} == {"kodim01", "kodim02", "kodim03"}
    for view in views:
        assert view.crop == (96, 96)
        original = bench.originals[f"id-{view.image}"]
        left, top, right, bottom = busiest(original, view.crop[0])
        assert same(view.original, original.crop((left, top, right, bottom)))
        assert list(view.panels) == ["0.15 bpp", "0.3 bpp", "0.6 bpp", "1.2 bpp"]
        for target, panels in view.panels.items():
            assert [panel.name for panel in panels] == [setting.name for setting in study.settings]
            for setting, panel in zip(study.settings, panels, strict=True):
                row = study.at(setting, target)[f"id-{view.image}"]
                assert same(panel.uri, bench.pictures[row.key].crop((left, top, right, bottom)))
                assert (panel.bytes, panel.reached) == (row.bytes, row.reached)
                assert ("PSNR", f"{row.scores['psnr']:.2f}") in panel.scores


def same(uri: str, expected: Image.Image) -> bool:
    with Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,")))) as image:
        return image.size == expected.size and ImageChops.difference(image.convert("RGB"), expected).getbbox() is None


def test_the_busiest_part_is_shown() -> None:
    image = Image.new("RGB", (200, 150), (90, 90, 90))
    image.paste(Image.effect_noise((40, 40), 120).convert("RGB"), (130, 20))
    left, top, right, bottom = busiest(image, 48)
    assert (right - left, bottom - top) == (48, 48)
    assert left <= 130 and right >= 170 and top <= 20 and bottom >= 60  # noqa: PT018
    assert busiest(image, 500) == (0, 0, 200, 150)


def test_best_and_worst_come_first(bench: Measured) -> None:
    study = Study(bench.rows)
    assert [study.images[chosen.image_id] for chosen in choose(study)] == ["kodim01", "kodim03", "kodim02"]
    assert [chosen.why.split(":")[0] for chosen in choose(study)] == ["best of 3", "worst of 3", "number 2 of 3"]


def test_a_lossless_data_uri() -> None:
    image = Image.effect_noise((31, 17), 90).convert("RGB")
    assert same(data_uri(image), image)
