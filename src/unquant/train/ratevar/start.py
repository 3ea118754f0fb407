"""What later stages take from the weights that they start from: the model, and the reverse network if it is the recipe's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from unquant.codecs.registry import SHIPPED_FOLDER
from unquant.errors import TrainingError
from unquant.networks.ratevar import Ratevar, RatevarConfig
from unquant.networks.reverse import ReverseConfig
from unquant.train.growth import Filled, grow, trained_tensors
from unquant.train.recipe import Recipe
from unquant.weights_file import Weights, read_weights

__all__ = [
    "fill_codec",
    "fill_realism",
    "fill_reverse",
    "keep_joint",
    "realism_config",
    "reverse_config",
    "without_reverse",
]


def _same_network(stored: ReverseConfig | None, wanted: ReverseConfig | None) -> bool:
    """Whether two configurations are of the same reverse network, however it is sampled."""
    names = ("training", "width", "depth", "noise_channels", "side")
    return all(getattr(stored, name, None) == getattr(wanted, name, None) for name in names)


def _wanted(recipe: Recipe) -> ReverseConfig | None:
    assert isinstance(recipe.model, RatevarConfig)
    return recipe.model.reverse


def keep_joint(found: ReverseConfig | None, wanted: ReverseConfig | None) -> None:
    """Raises TrainingError where weights have a joint reverse network, without which their g_s draws nothing right, and
    another or none is to take its place.
    """
    if found is not None and found.joint and not _same_network(found, wanted):
        sizes = f"width = {found.width}, depth = {found.depth}, side = {str(found.side).lower()}"
        raise TrainingError(
            f'their reverse network is part of every decode: [model.reverse] must be training = "joint", {sizes}'
        )


def reverse_config(recipe: Recipe, weights: Weights) -> RatevarConfig:
    """Of stage 2: the model of the weights, with the recipe's reverse network where it has one. Raises TrainingError."""
    found, wanted = RatevarConfig.from_dict(weights.config), _wanted(recipe)
    keep_joint(found.reverse, wanted or found.reverse)
    return replace(found, reverse=wanted or found.reverse)


def realism_config(recipe: Recipe, weights: Weights) -> RatevarConfig:
    """Of stage 3: the same, but the networks must be one, only driven in another way. Raises TrainingError."""
    wanted, found = _wanted(recipe), RatevarConfig.from_dict(weights.config).reverse
    if None not in (wanted, found) and not _same_network(found, wanted):
        raise TrainingError("another reverse network than that of the recipe's [model.reverse]")
    return reverse_config(recipe, weights)


_REDRAW = "g_s.redraw."
_BLOCK = re.compile(r"(g_s\.blocks(?:8|16))\.(\d+)\.")


def fill_codec(model: Ratevar, weights: Weights) -> Filled:
    """Stage 1: g_a and g_s may have grown, and residual blocks of g_s gone, the last ones. A reverse network that the recipe
    does not have is left to the later stages, which need a new one then. A `Redraw` that the weights do not have is that of
    the package's `av1`, where its sizes are the same. A joint f is that of the weights, or a new one, which returns its
    input; another must not take the place of one that is there.
    """
    state = _without_surplus_blocks(model, trained_tensors(weights))
    found, wanted, new = RatevarConfig.from_dict(weights.config).reverse, model.config.reverse, 0
    keep_joint(found, wanted)
    if wanted is None:
        state = without_reverse(state)
    elif wanted.joint and not _same_network(found, wanted):
        fresh = _fresh_reverse(model)
        state, new = {**without_reverse(state), **fresh}, len(fresh)
    if model.g_s.redraw is not None and not any(name.startswith(_REDRAW) for name in state):
        state |= _redraw_of_av1(model.g_s.redraw.state_dict())
    return Filled(grow(model, state, ("g_a.", "g_s.")) + new)


def _without_surplus_blocks(model: Ratevar, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    depths = {"g_s.blocks8": len(model.g_s.blocks8), "g_s.blocks16": len(model.g_s.blocks16)}

    def surplus(name: str) -> bool:
        found = _BLOCK.match(name)
        return found is not None and int(found[2]) >= depths[found[1]]

    return {name: tensor for name, tensor in state.items() if not surplus(name)}


def _redraw_of_av1(fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of g_s.redraw that draw as f of `av1` does, told AV1's numbers for a picture of step q_T; none where the sizes
    differ.

    Measured (docs/training-log.md): a picture of step q has the errors that AV1 makes at log2 ac_q = log2 q + 5.3, and the
    codec's bits a pixel are 2^(2.84 − 1.337·log2 q).
    """
    state = {
        name.removeprefix("f."): tensor
        for name, tensor in trained_tensors(read_weights(SHIPPED_FOLDER / "av1.safetensors")).items()
    }
    weight = state["condition.first.weight"]  # of log2 ac_q / 3 − 7/3, log2 bpp / 3 + 2/3, flags, 2ρ − 1: see `told`
    step, bits, matrices, deltas, realism = (weight[:, i : i + 1] for i in (0, 1, 2, 3, 7))
    state["condition.first.weight"] = torch.cat([torch.zeros_like(step), step - 1.337 * bits, realism], dim=1)
    state["condition.first.bias"] = (
        state["condition.first.bias"] + (0.433 * step + 0.277 * bits + matrices + deltas)[:, 0, 0, 0]
    )
    if any(tensor.shape != state[name].shape for name, tensor in fresh.items()):
        return {}
    return {_REDRAW + name: tensor for name, tensor in state.items()}


def fill_reverse(model: Ratevar, weights: Weights) -> Filled:
    """Stage 2: the reverse network of the weights, or a new one, which returns its input, for another shape or training."""
    state = trained_tensors(weights)
    fresh = not _same_network(RatevarConfig.from_dict(weights.config).reverse, model.config.reverse)
    if fresh:
        state = {**without_reverse(state), **_fresh_reverse(model)}
    return Filled(grow(model, state), fresh)


def fill_realism(model: Ratevar, weights: Weights) -> Filled:
    """Stage 3: the same; g_s, new to it, forgets what it has learnt of the step that is left."""
    filled = fill_reverse(model, weights)
    if int(weights.training.get("stage", 1)) < 3:
        model.g_s.forget_step()
    return filled


def _fresh_reverse(model: Ratevar) -> dict[str, Tensor]:
    """The first weights of a new model's reverse network, which returns its input."""
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith("f.")}


def without_reverse(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of all but the reverse network."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("f.")}
