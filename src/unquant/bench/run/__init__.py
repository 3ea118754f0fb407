"""Measures: what to, on which images, and where the results are kept."""
