"""Decodes as the codec makes them, in any setting, and the steps at which pictures meet rates."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unquant.bench.tuning.setting import Setting
from unquant.codecs.options import DEFAULT_SEED
from unquant.codecs.rate import search_q_index
from unquant.codecs.ratevar import REDRAW_STREAM
from unquant.codecs.windows import Window, redraw_noise
from unquant.diffusion.noise import seeded_noise
from unquant.errors import OptionError
from unquant.networks.common import SideInfo, log2_q_of
from unquant.networks.ratevar import Ratevar
from unquant.shapes import Image, Latent

__all__ = ["Decoded", "decode", "log2_q_at", "rate_indices"]


def log2_q_at(index: int) -> Float[Tensor, "1 1 1 1"]:
    """log2 q of a q index, for one picture."""
    return torch.full((1, 1, 1, 1), log2_q_of(index))


@torch.no_grad()
def rate_indices(model: Ratevar, pictures: Sequence[Image], bpps: Iterable[float]) -> list[int]:
    """For each rate the finest q index at which the pictures take no more bits per pixel of all of them.

    By cross-entropy, without containers; the rate falls as the index grows. pictures: (1, 3, h, w) each. Raises OptionError
    for a rate that is not positive, and for one that is out of reach.
    """
    targets = list(bpps)
    if not targets or not all(0 < target < math.inf for target in targets):
        raise OptionError(f"bpp: positive numbers, one at least, not {targets}")
    latents = [model.g_a(x) for x in pictures]
    pixels = sum(x.shape[-2] * x.shape[-1] for x in pictures)

    @functools.cache
    def bits(index: int) -> float:
        coded = (model.quantise(y, log2_q_at(index), noise=False) for y in latents)
        return sum(float(c.bits_y.sum() + c.bits_z.sum()) for c in coded)

    low, high = model.config.q_index_min, model.config.q_index_max
    for target in targets:
        if bits(high) > target * pixels:
            raise OptionError(f"bpp: {target:g} is out of reach, the coarsest step takes {bits(high) / pixels:.3f}")
    return [search_q_index(bits, target * pixels, low, high) for target in targets]


class Decoded(NamedTuple):
    """The latent at the end of the path (latent units), and the picture of it (not clamped)."""

    y: Latent
    picture: Image


@torch.no_grad()
def decode(model: Ratevar, side: SideInfo, setting: Setting) -> Decoded:
    """One decode as the codec makes it, with its default seed, but in float32. The path needs a reverse network."""
    reverse = setting.reverse
    height, width = side.y_file.shape[-2:]
    redrawn = None
    if model.g_s.redraw is not None:
        redrawn = redraw_noise(DEFAULT_SEED, Window.whole((height, width)), side.y_file.device, REDRAW_STREAM)

    def noise(stream: int, step: int, channels: int) -> Tensor:
        return seeded_noise(DEFAULT_SEED, step, channels, height, width, stream=stream)

    def end(realism: float) -> Decoded:
        rho, y, log2_q = torch.full((1, 1, 1, 1), realism), side.y_file, side.log2_q_file
        if reverse is not None and (realism > 0 or reverse.joint):
            y, log2_q = model.reverse(side, noise, config=reverse, realism=rho if reverse.joint else None)
        return Decoded(y, model.g_s(y, log2_q, side.log2_q_file, rho, redrawn))

    if setting.realism in (0, 1):
        return end(setting.realism)
    plain, drawn = end(0.0), end(1.0)
    return Decoded(drawn.y, torch.lerp(plain.picture.clamp(0, 1), drawn.picture.clamp(0, 1), setting.realism))
