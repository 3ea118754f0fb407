"""Shapes and types are checked while the tests run: jaxtyping's annotations, by beartype.

The hook must be in place before anything of `unquant` is imported; processes that tests start run without it. Checked is
all that computes. What checks its arguments itself, and is tested with wrong ones, is left out, and so are the commands:
typer passes None for an option that was not given.
"""

from __future__ import annotations

from jaxtyping import install_import_hook

CHECKED = ("nn", "diffusion", "entropy", "models", "weights", "train", "perceptual", "codecs.windows", "codecs.rate")
install_import_hook([f"unquant.{name}" for name in CHECKED], "beartype.beartype")
