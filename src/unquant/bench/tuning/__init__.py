"""How the reverse path of `ratevar` is best driven: figures of any way to sample, on pictures, and a search over them.

    weights, pictures ──►┤search.tune├──► the best Setting and a table of figures ──►┤write_tuned├──► weights

What changes is configuration alone: no network is trained, files that exist keep decoding.
"""

from __future__ import annotations

from unquant.bench.tuning.judge import markdown
from unquant.bench.tuning.search import run_tuning

__all__ = ["markdown", "run_tuning"]
