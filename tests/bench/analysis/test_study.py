"""The report's numbers are those of its rows."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
from bench_rows import Measured

from unquant.bench.analysis import bd
from unquant.bench.analysis.study import Study

pytest.importorskip("bjontegaard")


def test_the_best_at_a_size_is_the_best_mean_of_those_who_met_it(bench: Measured) -> None:
    study = Study(bench.rows)
    best = study.best("lpips_alex", "0.3 bpp")
    assert best is not None
    rows = [row for row in bench.rows if row.target == "0.3 bpp" and row.realism == 1]
    assert best.setting.name == "ratevar, realism 1"
    assert best.value == pytest.approx(fmean(row.scores["lpips_alex"] or 0 for row in rows))
    assert best.images == 3
    fidelity = study.best("psnr", "0.3 bpp")
    assert fidelity is not None
    assert fidelity.setting.name == "AVIF"
    # who is larger than asked for on one image does not count there, nor is that image compared
    worst = min(rows, key=lambda row: row.scores["lpips_alex"] or 0)
    less = [replace(row, reached=False) if row.key == worst.key else row for row in bench.rows]
    fewer = Study(less).best("lpips_alex", "0.3 bpp")
    assert fewer is not None
    assert fewer.images == 2
    assert fewer.value == pytest.approx(fmean(row.scores["lpips_alex"] or 0 for row in rows if row.key != worst.key))
    alone = [replace(row, reached=row.codec == "ratevar") for row in bench.rows]
    assert Study(alone).best("psnr", "0.3 bpp") is None


def test_bd_rates_are_means_of_one_an_image(bench: Measured) -> None:
    study = Study(bench.rows)
    found = study.bd_rate(study.models[0], "lpips_alex")
    assert found is not None
    assert study.reference is not None

    def curve(codec: str, image: str) -> list[tuple[float, float]]:
        rows = [row for row in bench.rows if (row.codec, row.image) == (codec, image) and row.realism in (None, 1)]
        return [(row.bpp, row.scores["lpips_alex"] or 0) for row in rows]

    deltas = [bd.compare(curve("avif", i), curve("ratevar", i), better="lower") for i in study.images.values()]
    assert found.per_image.rate == pytest.approx(fmean(delta.rate or 0 for delta in deltas))
    assert found.per_image.rate < 0
    assert found.of_means.rate is not None
    assert study.bd_rate(study.reference, "psnr") is None
    assert study.bd_rate(study.models[0], "gradient") is None


def test_differences_are_of_equal_bytes(bench: Measured) -> None:
    study = Study(bench.rows)
    first = study.differences(study.models[0])[0]
    pairs = [
        (ours.scores["psnr"] or 0) - (theirs.scores["psnr"] or 0)
        for ours in bench.rows
        for theirs in bench.rows
        if ours.image == theirs.image == first.image and ours.target == theirs.target
        if ours.realism == 1 and theirs.codec == "avif" and ours.reached and theirs.reached
    ]
    assert first.targets == len(pairs)
    assert first.scores["psnr"] == pytest.approx(fmean(pairs))
    ranks = [each.scores["lpips_alex"] for each in study.differences(study.models[0])]
    assert ranks == sorted(ranks)


def test_times_are_ratios_within_one_environment(bench: Measured) -> None:
    study = Study(bench.rows)
    seconds = study.seconds(study.models[0])
    assert (seconds.encode_ratio, seconds.decode_ratio) == pytest.approx((3, 20))
    assert seconds.encode == pytest.approx(0.99)
    moved = Study([replace(row, environment="other") if row.codec == "avif" else row for row in bench.rows])
    assert moved.seconds(moved.models[0]).encode_ratio is None


def test_what_a_family_was_trained_for_is_known(bench: Measured) -> None:
    assert Study(bench.rows).trained_for == {"ratevar": ["lpips_alex", "dists"]}
