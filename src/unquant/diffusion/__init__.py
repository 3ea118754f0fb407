"""Reverse diffusion: schedules, parameterisations, samplers, seeded noise. All it sees of a network is its `denoise`.

In latent space, from a quantisation step to a finer one:

    schedules ──► qs, alphas ──┐
    noise ──► noise(step) ─────┤samplers├──► y at qs[-1]
    y at qs[0], denoise(y, q) ─┘

In image space, from noise to the clean image:

    schedules ──► levels ᾱ ─────────────────────────────────────┐
    network(x_t, …) ──►┤Parameterisation.to_x├──► denoise(x, ᾱ) ┤sample_ddim├──► x at ᾱ = 1

Any schedule goes with any sampler of its kind.
"""

from __future__ import annotations

from unquant.diffusion.noise import seeded_noise
from unquant.diffusion.parameterisation import Parameterisation, diffuse
from unquant.diffusion.samplers import (
    Callback,
    Denoise,
    Noise,
    sample_ancestral,
    sample_bridge,
    sample_ddim,
    sample_deterministic,
)
from unquant.diffusion.schedules import cosine_alphas, geometric, linear_alphas, randomness, subsequence, time_of

__all__ = [
    "Callback",
    "Denoise",
    "Noise",
    "Parameterisation",
    "cosine_alphas",
    "diffuse",
    "geometric",
    "linear_alphas",
    "randomness",
    "sample_ancestral",
    "sample_bridge",
    "sample_ddim",
    "sample_deterministic",
    "seeded_noise",
    "subsequence",
    "time_of",
]
