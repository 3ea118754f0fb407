"""Samplers of the reverse path, one per file: from a latent at qs[0] to one at qs[-1], by `denoise(y, q)` alone.
`sample_ddim` is that of images: from alphas[0] to the clean image, by `denoise(x, ᾱ)` alone.

sample_deterministic   the ODE; exact for noise of any shape as steps grow; no noise of its own
sample_ancestral       the SDE with a randomness in [0, 1] per step, which leaves the noise level as it is
sample_bridge          the SDE pinned at both ends, the clean and the dequantised latent
sample_ddim            the ODE of a variance-preserving process; no noise of its own
"""

from __future__ import annotations

from unquant.diffusion.samplers.ancestral import sample_ancestral
from unquant.diffusion.samplers.bridge import sample_bridge
from unquant.diffusion.samplers.common import Callback, Denoise, Noise
from unquant.diffusion.samplers.ddim import sample_ddim
from unquant.diffusion.samplers.deterministic import sample_deterministic

__all__ = ["Callback", "Denoise", "Noise", "sample_ancestral", "sample_bridge", "sample_ddim", "sample_deterministic"]
