"""What a model with another entropy model takes from weights: transforms with their channels in order, networks that fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unquant.errors import TrainingError
from unquant.networks.common import log2_q_of
from unquant.networks.config import EntropyConfig
from unquant.networks.ratevar import Ratevar, RatevarConfig
from unquant.train.data import Photos
from unquant.train.growth import trained_tensors
from unquant.train.ratevar.start import keep_joint, without_reverse
from unquant.train.validation import fixed_crops, validation_indices
from unquant.weights_file import Weights

__all__ = ["adapt", "bits_of_channels", "sort_channels"]

_CROPS, _SIZE = 64, 128
_BY_OUTPUT = ("g_a.linear", "g_a.head.weight", "g_a.head.bias", "g_s.linear", "entropy.log2_std")
_BY_INPUT = ("g_s.stem.weight", "entropy.analysis.stem.weight")
"""Tensors whose first, and whose second dimension is that of the channels of y; contexts, passes and f have others."""


def adapt(model: Ratevar, weights: Weights, photos: Photos, crop: int) -> tuple[Weights, str | None]:
    """Stage 1: weights with another entropy model than the recipe's become such as fit it, and a line says what was done.

    The channels of y are put in the order of their bits, by the weights' own entropy model over training crops of at most
    `crop`² pixels, most first, as a `SlicedEntropy` wants them. Of the entropy model come the parts that fit (h_a, h_s,
    prior); the rest and a reverse network are new, and steps count from 0. Weights of the same kind of entropy model stay as
    they are. Raises TrainingError for another number of channels.
    """
    found = RatevarConfig.from_dict(weights.config)
    if _kind(found.entropy) == _kind(model.config.entropy):
        return weights, None
    keep_joint(found.reverse, model.config.reverse)
    if found.latent != model.config.latent:
        raise TrainingError(f"latent: {found.latent} in the weights, {model.config.latent} in the recipe's model")
    bits = bits_of_channels(weights, photos, crop)
    old = sort_channels(trained_tensors(weights), bits.argsort(descending=True, stable=True))
    transforms = {name: tensor for name, tensor in old.items() if name.startswith(("g_a.", "g_s."))}
    fresh = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(("entropy.", "f."))}
    taken = _fitting(fresh, old)
    note = (
        "another entropy model than in the weights: the channels are sorted by their bits;"
        f" of {len(fresh)} tensors beside g_a and g_s {len(taken)} are taken over, the rest is new"
    )
    config = replace(model.config, reverse=None).to_dict()
    return replace(weights, config=config, tensors={**transforms, **fresh, **taken}, training={}), note


def _kind(config: EntropyConfig) -> tuple[object, ...]:
    return config.slices, config.entroformer is None


@torch.no_grad()
def bits_of_channels(weights: Weights, photos: Photos, crop: int) -> Float[Tensor, " c"]:
    """Bits of each channel of y by the weights' own entropy model, at the middle step, over training crops."""
    model = Ratevar(replace(RatevarConfig.from_dict(weights.config), reverse=None))
    model.load_state_dict(without_reverse(trained_tensors(weights)))
    model = model.to(photos.device).eval()
    x = fixed_crops(photos, _CROPS, min(_SIZE, crop), held_out=False)
    log2_q = torch.full((_CROPS, 1, 1, 1), log2_q_of(validation_indices(model)[1]), device=x.device)
    return model.quantise(model.g_a(x), log2_q, noise=False).bits_y.sum((0, 2, 3)).cpu()


def sort_channels(state: Mapping[str, Tensor], order: Int[Tensor, " c"]) -> dict[str, Tensor]:
    """A model's tensors with the channels of y in another order, but for contexts, passes and f: channel i becomes that of
    number order[i]. g_s(g_a(x)) stays the same.
    """
    dimension = {**dict.fromkeys(_BY_OUTPUT, 0), **dict.fromkeys(_BY_INPUT, 1)}
    return {n: t.index_select(dimension[n], order) if n in dimension else t for n, t in state.items()}


def _fitting(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The old tensors of those parts (such as entropy.analysis) that have the same tensors in the same shapes in both."""

    def parts(state: Mapping[str, Tensor]) -> dict[str, dict[str, torch.Size]]:
        by_part: dict[str, dict[str, torch.Size]] = {}
        for name, tensor in state.items():
            by_part.setdefault(".".join(name.split(".")[:2]), {})[name] = tensor.shape
        return by_part

    known = parts(old)
    same = [shapes for part, shapes in parts(new).items() if part.startswith("entropy.") and known.get(part) == shapes]
    return {name: old[name] for shapes in same for name in shapes}
