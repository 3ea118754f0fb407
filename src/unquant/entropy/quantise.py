"""Quantising a latent and counting its bits in the networks' own precision: training, and the search for a rate.

    y ──►┤/q├──► v ──►┤round(v − μ)├──► k ──►┤+ μ├──► v̂;   bits of z and y by cross-entropy, or by the noise surrogate

What a file holds is decided elsewhere, in exact arithmetic (`unquant.entropy.exact`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unquant.entropy.base import EntropyModel, Group
from unquant.entropy.gaussian import gaussian_bits, round_ste
from unquant.entropy.rdoq import Rdoq
from unquant.shapes import Hyper, Latent, QMap

__all__ = ["EntropyOutput", "quantise"]


class EntropyOutput(NamedTuple):
    """What the entropy model makes of a latent: cross-entropies in bits, and the dequantised latent in units of q.

    mu: means in steps, t: scales as grid coordinates, below −½ where nothing is coded; of y.
    """

    bits_y: Float[Tensor, "b c h16 w16"]
    bits_z: Float[Tensor, "b m h64 w64"]
    v_hat: Latent
    z_hat: Hyper
    mu: Latent
    t: Latent


def quantise(
    entropy: EntropyModel,
    y: Latent,
    log2_q: QMap,
    *,
    noise: bool,
    hidden: Int[Tensor, " n"] | None = None,
    rdoq: Rdoq | None = None,
) -> EntropyOutput:
    """Quantise y with step q and count bits, in the networks' own precision (training, rate search).

    Symbols are round(y/q − μ), straight-through in the gradient. With `noise` the bits are those of y/q − μ + U(−½, ½)
    (the training surrogate, an upper bound on average), the gradient of σ being that of the symbols' own bits; without
    it they are the bits of the symbols, 0 where σ is below the lowest table. log2_q: (b, 1, 1, 1) or (b, 1, h16, w16).
    hidden: positions (flat, ascending) of the second group in place of the checkerboard's, the first has the others; for
    random-mask pretraining. Raises OptionError where the model has no `masked_params`. rdoq: chooses the symbols of y, as
    in a file: for the rate search; training and its validation round.
    """
    grid = entropy.grid
    size = (y.shape[-2], y.shape[-1])
    v = y * torch.exp2(-log2_q)
    cond = entropy.condition_of(log2_q)

    def code(value: Tensor, mu: Tensor, t: Tensor, rdoq: Rdoq | None = None) -> tuple[Tensor, Tensor]:
        mu, t = mu.float(), t.float().clamp(max=grid.count - 1)
        offset = value.float() - mu
        k = round_ste(offset)
        if rdoq is not None:
            k = rdoq(offset, k, t.round().clamp(min=-1).long())
        # an uncoded position decodes to its mean: there the mean learns from the distortion, and y does not
        v_hat = torch.where(t >= -0.5, k, torch.zeros_like(k)) + mu
        if not noise:
            bits = gaussian_bits(k, grid.sigma(t.round()))
            return v_hat, torch.where(t >= -0.5, bits, torch.zeros_like(bits))
        # y and μ learn from the noise surrogate, σ from the likelihood of the symbols: fitted to the surrogate,
        # scales of symbols that are nearly always 0 come out far too wide
        surrogate = gaussian_bits(offset + torch.rand_like(offset) - 0.5, grid.sigma(t.detach().clamp(min=0)))
        likelihood = gaussian_bits(k.detach(), grid.sigma(t))
        return v_hat, surrogate + likelihood - likelihood.detach()

    z = entropy.hyper_analysis(v, log2_q)
    prior = entropy.hyper_prior(cond, (z.shape[-2], z.shape[-1]))
    z_hat, bits_z = code(z, *prior)
    features = entropy.hyper_synthesis(z_hat, cond, size)

    b, c = y.shape[:2]
    v_hat = torch.zeros(b, c, size[0] * size[1], device=y.device, dtype=torch.float32)
    bits_y, all_mu, all_t = (torch.zeros_like(v_hat) for _ in range(3))
    for number, group in enumerate(entropy.groups):
        if hidden is None:
            positions = group.positions(size, y.device)
        else:
            positions = hidden if number else _others(hidden, size[0] * size[1])
        if not len(positions):  # of a single position all is in the second half of the checkerboard
            continue
        known = v_hat.unflatten(2, size)
        if hidden is not None and number:
            params = entropy.masked_params(features, known, cond, log2_q, hidden)
        else:
            params = entropy.group_params(number, features, known, cond, log2_q, positions)
        decoded, bits = code(v.flatten(2)[:, group.channels, positions, None], *params, rdoq)
        v_hat = _put(v_hat, decoded, group, positions)
        bits_y = _put(bits_y, bits, group, positions)
        all_mu = _put(all_mu, params.mu.detach().float(), group, positions)
        all_t = _put(all_t, params.t.detach().float(), group, positions)
    planes = (plane.unflatten(2, size) for plane in (bits_y, v_hat, all_mu, all_t))
    bits_y, v_hat, all_mu, all_t = planes
    return EntropyOutput(bits_y, bits_z, v_hat, z_hat, all_mu, all_t.round().clamp(-1, grid.count - 1))


def _put(
    plane: Float[Tensor, "b c hw"], values: Float[Tensor, "b g n 1"], group: Group, positions: Int[Tensor, " n"]
) -> Float[Tensor, "b c hw"]:
    """`plane` with the values of a group in their places."""
    part = plane[:, group.channels].index_copy(2, positions, values[..., 0])
    return plane.slice_scatter(part, 1, group.channels.start, group.channels.stop)


def _others(hidden: Int[Tensor, " n"], count: int) -> Int[Tensor, " m"]:
    """The flat positions of `count` that are not hidden, ascending."""
    # a stable sort of the mask rather than nonzero, whose length a compiled graph could not know
    mask = torch.zeros(count, dtype=torch.long, device=hidden.device).index_fill(0, hidden, 1)
    return mask.argsort(stable=True)[: count - len(hidden)]
