"""What the tests of tuning have in common beside fixtures."""

from __future__ import annotations

from dataclasses import replace

from unquant.networks.reverse import ReverseConfig

__all__ = ["BUSY", "INDEX", "START"]

START = ReverseConfig(training="energy", width=16, noise_channels=2)
"""The reverse network of the fixtures' model."""
INDEX = 200
BUSY = replace(START, steps=2, alpha_first=0.5, alpha_last=0.25, tau="constant", project=False)
"""No option without an effect."""
