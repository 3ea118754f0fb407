"""BD-rates against exact cases and against the classic method, computed here by numpy alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unquant.bench.analysis import bd
from unquant.errors import OptionError

pytest.importorskip("bjontegaard")

RATES = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
ANCHOR = [(r, 30 + 6 * math.log10(r) + 0.4 * math.log10(r) ** 2) for r in RATES]


def classic(anchor: bd.Curve, test: bd.Curve) -> tuple[float, float]:
    """Bjøntegaard's own: one cubic polynomial through all points, integrated in closed form (VCEG-M33)."""

    def mean_gap(a: np.ndarray, b: np.ndarray, low: float, high: float) -> float:
        whole = [np.polyint(np.polyfit(points[:, 0], points[:, 1], 3)) for points in (a, b)]
        areas = [np.polyval(poly, high) - np.polyval(poly, low) for poly in whole]
        return float(areas[1] - areas[0]) / (high - low)

    by_rate = [np.array([(math.log10(r), q) for r, q in curve]) for curve in (anchor, test)]
    by_quality = [points[:, ::-1] for points in by_rate]
    results = []
    for a, b in (by_quality, by_rate):
        results.append(mean_gap(a, b, max(a[:, 0].min(), b[:, 0].min()), min(a[:, 0].max(), b[:, 0].max())))
    return (10 ** results[0] - 1) * 100, results[1]


def test_a_curve_of_a_fifth_fewer_bits_saves_exactly_a_fifth() -> None:
    delta = bd.compare(ANCHOR, [(0.8 * rate, quality) for rate, quality in ANCHOR])
    assert delta.rate == pytest.approx(-20, abs=1e-9)
    assert delta.quality is not None
    assert delta.quality > 0
    assert delta.overlap == pytest.approx(1)
    back = bd.compare([(0.8 * rate, quality) for rate, quality in ANCHOR], ANCHOR)
    assert back.rate == pytest.approx(25, abs=1e-9)


def test_a_curve_that_is_one_better_is_one_better() -> None:
    delta = bd.compare(ANCHOR, [(rate, quality + 1) for rate, quality in ANCHOR])
    assert delta.quality == pytest.approx(1, abs=1e-9)
    assert delta.rate is not None
    assert delta.rate < 0


def test_straight_lines_agree_with_the_classic_polynomial() -> None:
    anchor = [(r, 30 + 6 * math.log10(r)) for r in RATES]
    test = [(1.1 * r, 30.2 + 7 * math.log10(r)) for r in RATES]
    delta = bd.compare(anchor, test)
    assert (delta.rate, delta.quality) == pytest.approx(classic(anchor, test), abs=1e-6)


@pytest.mark.parametrize("method", ["pchip", "akima"])
def test_smooth_curves_agree_with_the_classic_polynomial(method: bd.Method) -> None:
    test = [(rate, 0.35 + 31.1 + 5.4 * math.log10(rate) + 0.7 * math.log10(rate) ** 2) for rate in RATES * 0.9]
    delta = bd.compare(ANCHOR, test, method=method)
    rate, quality = classic(ANCHOR, test)
    assert delta.rate == pytest.approx(rate, abs=0.5)
    assert delta.quality == pytest.approx(quality, abs=0.02)


def test_of_a_distance_lower_values_are_better() -> None:
    anchor = [(rate, 0.3 - 0.1 * math.log10(rate)) for rate in RATES]
    better = [(rate, value - 0.02) for rate, value in anchor]
    delta = bd.compare(anchor, better, better="lower")
    assert delta.quality == pytest.approx(-0.02, abs=1e-9)
    assert delta.rate == pytest.approx((10**-0.2 - 1) * 100, abs=1e-6)


def test_order_and_repeated_points_do_not_matter() -> None:
    test = [(0.8 * rate, quality) for rate, quality in ANCHOR]
    assert bd.compare(ANCHOR[::-1], [*test, test[0]]) == bd.compare(ANCHOR, test)


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (ANCHOR[:3], "tested curve has 3 points"),
        ([(r, q + 100) for r, q in ANCHOR], "only 0% of the qualities"),
        ([(r, q + 5.8) for r, q in ANCHOR], "only 8% of the qualities"),
        ([(r, -q) for r, q in ANCHOR], "does not rise"),
    ],
)
def test_what_cannot_be_compared_says_why(test: bd.Curve, reason: str) -> None:
    delta = bd.compare(ANCHOR, test)
    assert delta.rate is None
    assert delta.quality is None
    assert reason in delta.reason


def test_what_is_no_curve_is_refused() -> None:
    with pytest.raises(OptionError, match="'one'"):
        bd.compare(ANCHOR, ANCHOR, better="one")
    with pytest.raises(OptionError, match="above 0"):
        bd.compare(ANCHOR, [(0.0, 1.0), *ANCHOR])
    with pytest.raises(OptionError, match="finite"):
        bd.compare(ANCHOR, [*ANCHOR, (3.0, math.inf)])


def test_over_images_the_mean_of_those_that_are_defined() -> None:
    deltas = [
        bd.Delta(-10, 1, 0.8),
        bd.Delta(-30, 1, 0.6),
        bd.Delta(None, None, reason="why"),
        bd.Delta(None, None, reason="why"),
    ]
    average = bd.over_images(deltas)
    assert (average.rate, average.defined, average.total, average.reason) == (-20, 2, 4, "why")
    assert average.sigma == pytest.approx(10)
    assert average.overlap == pytest.approx(0.7)
    assert bd.over_images(deltas[2:]) == bd.Average(None, None, 0, 2, 0, "why")
