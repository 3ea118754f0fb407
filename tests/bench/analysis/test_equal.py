"""Comparison at equal bytes: curves of a known form are read exactly where both codecs cover the rate, and only there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest

from unquant.bench.analysis.equal import RATES, against, at_rate, equal_table, sets_against
from unquant.bench.run.rows import Row
from unquant.errors import OptionError

PIXELS = 100 * 80
DENSE = tuple(60 * 1.1**k for k in range(30))  # bytes: 0.06 to 0.95 bpp


def psnr(size: float) -> float:
    return 20 + 3 * math.log2(size / 50)


def lpips(size: float) -> float:
    return 0.8 - 0.1 * math.log(size / 50)


def rows_of(
    codec: str,
    sizes: Iterable[float],
    *,
    image: str = "a",
    gain: float = 0.0,
    ratio: float = 1.0,
    realism: float | None = None,
) -> list[Row]:
    """A codec whose PSNR is `gain` above a curve straight in log bytes, and whose LPIPS is `ratio` of such a one."""
    return [
        Row(
            key=f"{codec} {realism} {image} {size}",
            image=image,
            image_id=image,
            width=100,
            height=80,
            codec=codec,
            version="1",
            quality=0,
            realism=realism,
            bytes=round(size),
            scores={"psnr": psnr(round(size)) + gain, "lpips_alex": ratio * lpips(round(size))},
        )
        for size in sizes
    ]


@pytest.mark.parametrize("rate", [75, 150, 333.3])
def test_a_curve_straight_in_log_bytes_is_read_exactly(rate: float) -> None:
    assert at_rate({size: psnr(size) for size in DENSE}, rate) == pytest.approx(psnr(rate), abs=1e-9)


def test_a_bent_curve_is_read_closely_and_its_points_exactly() -> None:
    curve = {size: -1000 / size for size in DENSE}
    assert at_rate(curve, 200.0) == pytest.approx(-5, abs=0.01)
    assert at_rate(curve, DENSE[7]) == curve[DENSE[7]]


def test_nothing_is_read_outside_of_a_curve_nor_in_its_gaps() -> None:
    curve = {100.0: 1.0, 150.0: 2.0, 310.0: 3.0, 600.0: 4.0}
    assert at_rate(curve, 99) is None
    assert at_rate(curve, 601) is None
    assert at_rate(curve, 200) is None  # 310 is more than twice 150
    assert at_rate(curve, 400) is not None
    assert at_rate({}, 100) is None
    with pytest.raises(OptionError, match="above 0"):
        at_rate(curve, 0)


def test_the_fill_of_the_sizes_does_not_matter() -> None:
    """A coarse anchor whose files end well below a target is no worse for it."""
    coarse, fine = rows_of("avif", (70, 104, 148, 220, 330, 640)), rows_of("av1", DENSE, gain=0.25, ratio=0.6)
    for bpp in RATES:
        found = against([*coarse, *fine], "av1", "avif", "psnr", bpp)
        assert found.difference == pytest.approx(0.25, abs=1e-6)
        assert found.anchor == pytest.approx(psnr(bpp * PIXELS / 8), abs=1e-6)
        assert against([*fine, *coarse], "av1", "avif", "lpips_alex", bpp).ratio == pytest.approx(0.6)


def test_only_images_that_both_cover_are_in_the_means() -> None:
    rows = [
        *rows_of("avif", DENSE),
        *rows_of("av1", DENSE, gain=1),
        *rows_of("avif", DENSE, image="b", gain=7),
        *rows_of("av1", (400, 500, 600), image="b", gain=10),
        *rows_of("avif", DENSE, image="c"),
    ]
    low, high = (against(rows, "av1", "avif", "psnr", bpp) for bpp in (0.15, 0.5))
    assert (low.images, high.images) == (1, 2)
    assert (low.difference, high.difference) == (pytest.approx(1), pytest.approx(2))
    none = against(rows, "av1", "avif", "psnr", 2)
    assert (none.images, none.ours, none.difference, none.ratio) == (0, None, None, None)
    assert against(rows, "av1", "avif", "dists", 0.15).images == 0


def test_images_of_other_sizes_are_read_at_their_own_bytes() -> None:
    small = rows_of("avif", DENSE) + rows_of("av1", DENSE)
    large = [
        replace(row, key=f"{row.key} large", image_id="b", width=200, height=160, bytes=4 * row.bytes) for row in small
    ]
    both = against([*small, *large], "av1", "avif", "psnr", 0.2)
    assert both.images == 2
    assert both.ours == pytest.approx(psnr(200), abs=1e-6)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table() -> None:
    rows = [
        *rows_of("avif", DENSE),
        *rows_of("av1", DENSE, realism=0.0, gain=0.2),
        *rows_of("av1", DENSE, realism=1.0, gain=-0.1, ratio=0.6),
        *rows_of("webp", DENSE, gain=-1),
    ]
    table = equal_table(rows, "avif", ["psnr", "lpips_alex"], ours=["av1"], rates=(0.2, 5), names={"avif": "AVIF"})
    head, _, *lines = map(cells, table.splitlines())
    assert head == ["codec", "bpp", "images", "PSNR, dB ↑", "LPIPS (AlexNet) ↓"]
    assert lines == [
        ["AVIF", "0.2", "1", "26.00", "0.661"],
        ["av1, realism 0", "0.2", "1", "26.20 (+0.20)", "0.661 (×1.00)"],
        ["av1, realism 1", "0.2", "1", "25.90 (-0.10)", "0.397 (×0.60)"],
        ["AVIF", "5", "0", "–", "–"],
        ["av1, realism 0", "5", "0", "–", "–"],
        ["av1, realism 1", "5", "0", "–", "–"],
    ]
    # a metric that nobody has empties its own column alone
    (line,) = [cells(line) for line in equal_table(rows, "avif", ["psnr", "dists"], rates=(0.2,)).splitlines()[-1:]]
    assert line == ["webp", "0.2", "1", "25.00 (-1.00)", "–"]
    everyone = equal_table(rows, "avif", ["psnr"], rates=(0.2,))
    assert [cells(line)[0] for line in everyone.splitlines()[2:]] == [
        "avif",
        "av1, realism 0",
        "av1, realism 1",
        "webp",
    ]
    with pytest.raises(OptionError, match="no results of 'heic'; there are avif, av1, webp"):
        equal_table(rows, "heic", ["psnr"])


def test_distances_between_sets_are_read_at_the_mean_rate_of_their_files() -> None:
    rows, distances = [], []
    for codec, factor in (("avif", 1.0), ("av1", 0.5)):
        for target in (0.1, 0.16, 0.25):
            # two images, at half and at twice the rate: the mean of their logarithms is the target
            rows += [
                replace(row, key=f"{row.key} {target}", target_bpp=target)
                for image, size in (("a", 500 * target), ("b", 2000 * target))
                for row in rows_of(codec, [size], image=image)
            ]
            value = factor * (0.02 - 0.005 * math.log(target))
            distances.append({"kind": "KD-VGG16", "target": f"{target:g} bpp", "setting": codec, "value": value})
    distances.append({"kind": "FD-VGG16", "target": "0.1 bpp", "setting": "avif", "value": None})
    found = sets_against(rows, {"distances": distances}, "av1", "avif", "KD-VGG16", 0.2)
    assert found.anchor == pytest.approx(0.02 - 0.005 * math.log(0.2), rel=1e-3)
    assert found.ratio == pytest.approx(0.5)
    assert found.images == 2
    assert sets_against(rows, {"distances": distances}, "av1", "avif", "KD-VGG16", 0.3).ours is None
    assert sets_against(rows, {"distances": distances}, "av1", "avif", "FD-VGG16", 0.2).ours is None
    table = equal_table(rows, "avif", [], rates=(0.2,), distances={"distances": distances})
    head, _, avif, av1 = map(cells, table.splitlines())
    assert head == ["codec", "bpp", "images", "KD-VGG16 ×1000 ↓", "FD-VGG16 ↓"]
    assert avif[3:] == ["28.05", "–"]
    assert av1[3:] == ["14.02 (×0.50)", "–"]
