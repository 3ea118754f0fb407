"""Many images on many machines, by Ray Data: `unquant bulk` (the extra `bulk`).

    sources ──►┤headers├──► blocks of so many pixels ──►┤actors, a codec each├──► outputs, a part of the manifest a block

What is done is in the manifest, a Parquet file of a row an image; a run that was killed goes on from it.
"""

from __future__ import annotations

from unquant.bulk.run import BATCH_PIXELS, Bulk, Summary, run
from unquant.bulk.work import Task

__all__ = ["BATCH_PIXELS", "Bulk", "Summary", "Task", "run"]
