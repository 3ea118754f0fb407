"""Reverse diffusion in latent space: schedules, samplers, seeded noise. All it sees of a network is `denoise(y, q)`.

    schedules ──► qs, alphas ──┐
    noise ──► noise(step) ─────┤samplers├──► y at qs[-1]
    y at qs[0], denoise(y, q) ─┘

Any schedule goes with any sampler.
"""

from __future__ import annotations

from unquant.diffusion.noise import seeded_noise
from unquant.diffusion.samplers import (
    Callback,
    Denoise,
    Noise,
    sample_ancestral,
    sample_bridge,
    sample_deterministic,
)
from unquant.diffusion.schedules import geometric, randomness

__all__ = [
    "Callback",
    "Denoise",
    "Noise",
    "geometric",
    "randomness",
    "sample_ancestral",
    "sample_bridge",
    "sample_deterministic",
    "seeded_noise",
]
