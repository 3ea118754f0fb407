"""How far a picture is from its original, by many metrics, on 8-bit RGB at full resolution.

    original ──►┤features, once├──┐
    picture ───►┤features├────────┴──►┤compare├──► a score for each metric, None where it cannot be measured

A metric is an entry of `table.METRICS` and a file with its loader; all else reads that table. What is missing (a library,
weights, pixels enough for five scales) is noted, and the other scores go on. Importing this package loads neither torch nor a
network; a `Meter` does. Distances between sets of pictures are in `sets`.

Not here: BRISQUE and NIQE. The packages that have them need torchvision or download weights when they run, or score by a
model of their own behind OpenCV and a libsvm to compile (`brisque` 0.2), with values that no paper's can be held against.
"""

from __future__ import annotations

from unquant.bench.metrics.meter import Meter
from unquant.bench.metrics.table import DEFAULT, FAST, METRICS, SETS, MetricInfo

__all__ = ["DEFAULT", "FAST", "METRICS", "SETS", "Meter", "MetricInfo"]
