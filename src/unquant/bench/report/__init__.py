"""The report of a benchmark, and figures of curves."""
