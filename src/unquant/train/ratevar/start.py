"""What later stages take from the weights that they start from: the model, and the reverse network if it is the recipe's."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from unquant.errors import TrainingError
from unquant.models.ratevar import Ratevar, RatevarConfig
from unquant.models.reverse import ReverseConfig
from unquant.train.growth import Filled, grow, trained_tensors
from unquant.train.recipe import Recipe
from unquant.weights_file import Weights

__all__ = ["fill_codec", "fill_realism", "fill_reverse", "realism_config", "reverse_config"]


def _same_network(stored: ReverseConfig | None, wanted: ReverseConfig | None) -> bool:
    """Whether two configurations are of the same reverse network, however it is sampled."""
    names = ("training", "width", "depth", "noise_channels", "side")
    return all(getattr(stored, name, None) == getattr(wanted, name, None) for name in names)


def _wanted(recipe: Recipe) -> ReverseConfig | None:
    assert isinstance(recipe.model, RatevarConfig)
    return recipe.model.reverse


def reverse_config(recipe: Recipe, weights: Weights) -> RatevarConfig:
    """Of stage 2: the model of the weights, with the recipe's reverse network where it has one."""
    found = RatevarConfig.from_dict(weights.config)
    return replace(found, reverse=_wanted(recipe) or found.reverse)


def realism_config(recipe: Recipe, weights: Weights) -> RatevarConfig:
    """Of stage 3: the same, but the networks must be one, only driven in another way. Raises TrainingError."""
    wanted, found = _wanted(recipe), RatevarConfig.from_dict(weights.config).reverse
    if found is None and wanted is None:
        raise TrainingError("these weights have no reverse network, and the recipe has no table [model.reverse]")
    if None not in (wanted, found) and not _same_network(found, wanted):
        raise TrainingError("another reverse network than that of the recipe's [model.reverse]")
    return reverse_config(recipe, weights)


def fill_codec(model: Ratevar, weights: Weights) -> Filled:
    """Stage 1: g_a and g_s may have grown. A reverse network that the recipe does not have is left to the later stages, which
    need a new one then.
    """
    state = trained_tensors(weights)
    if model.f is None:
        state = _without_reverse(state)
    return Filled(grow(model, state, ("g_a.", "g_s.")))


def fill_reverse(model: Ratevar, weights: Weights) -> Filled:
    """Stage 2: the reverse network of the weights, or a new one, which returns its input, for another shape or training."""
    state = trained_tensors(weights)
    fresh = not _same_network(RatevarConfig.from_dict(weights.config).reverse, model.config.reverse)
    if fresh:
        new = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("f.")}
        state = {**_without_reverse(state), **new}
    return Filled(grow(model, state), fresh)


def fill_realism(model: Ratevar, weights: Weights) -> Filled:
    """Stage 3: the same; g_s, new to it, forgets what it has learnt of the step that is left."""
    filled = fill_reverse(model, weights)
    if int(weights.training.get("stage", 1)) < 3:
        model.g_s.forget_step()
    return filled


def _without_reverse(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("f.")}
