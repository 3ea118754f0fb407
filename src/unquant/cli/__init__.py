"""The command line `unquant`: argument parsing and presentation, and nothing else.

    arguments ──►┤paths.plan├──► jobs ──►┤batch.Batch├──► codec, one file at a time ──► files, JSON lines, exit code

Data and JSON go to the standard output, everything else to the standard error. What a command needs is imported when
it runs, so that `--help` and `info` never load torch. The exit codes are `exits.Code`.
"""

from __future__ import annotations

from unquant.cli.app import main

__all__ = ["main"]
