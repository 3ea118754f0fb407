"""Larger networks from the weights of smaller ones, which compute the same at first (after Net2Net, arXiv 1511.05641)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unquant.errors import TrainingError
from unquant.nn.blocks import Film, ResBlock
from unquant.weights_file import Weights

__all__ = ["Filled", "fill", "grow", "trained_tensors"]


class Filled(NamedTuple):
    """What became of weights in a new model: how many tensors are larger or new, and whether a whole network is new, so that
    the stage begins anew.
    """

    grown: int
    fresh: bool = False


def trained_tensors(weights: Weights) -> dict[str, Tensor]:
    """The tensors of a network in float32, by name: all but the coder's tables."""
    return {name: tensor.float() for name, tensor in weights.tensors.items() if not name.startswith("tables.")}


def fill(model: nn.Module, weights: Weights) -> Filled:
    """Load weights of the very shapes into a new model. Raises TrainingError where they do not fit."""
    return Filled(grow(model, trained_tensors(weights)))


def grow(model: nn.Module, state: Mapping[str, Tensor], growing: tuple[str, ...] = ()) -> int:
    """Load `state` into a freshly initialised model whose submodules `growing` may be wider or deeper; returns how many
    tensors are larger or new.

    Channels that are new begin at random and are read by nobody; residual blocks that are new begin as the identity. So
    the model computes what the smaller one did, up to rounding, and every new weight has a gradient, at once or after the
    first step. The other submodules must have the state's shapes. Raises TrainingError where a tensor would have to
    shrink, or differs outside `growing`.
    """
    modules = dict(model.named_modules())
    target = model.state_dict()
    loaded: dict[str, Tensor] = {}
    grown = 0
    for name, fresh in target.items():
        old = state.get(name)
        if old is not None and old.shape == fresh.shape:
            loaded[name] = old.to(fresh.dtype)
            continue
        if not name.startswith(growing):
            raise TrainingError(f"{name}: {_shape(old)} in the weights, {_shape(fresh)} in the recipe's model")
        grown += 1
        if old is None:
            block, _, part = name.rpartition(".conv2.")
            identity = bool(part) and isinstance(modules.get(block), ResBlock)
            loaded[name] = torch.zeros_like(fresh) if identity else fresh
            continue
        parts = 2 if isinstance(modules.get(name.rpartition(".proj.")[0]), Film) else 1
        loaded[name] = _enlarged(name, old.to(fresh.dtype), fresh, parts)
    if lost := sorted(set(state) - set(target)):
        raise TrainingError(f"{lost[0]}: in the weights, but not in the recipe's model")
    model.load_state_dict(loaded)
    return grown


def _enlarged(name: str, old: Tensor, fresh: Tensor, parts: int) -> Tensor:
    """`fresh` with `old` in the first places of each of its `parts` along the outputs; old outputs do not read new inputs."""
    if old.ndim != fresh.ndim or any(o > f for o, f in zip(old.shape, fresh.shape, strict=True)):
        raise TrainingError(
            f"{name}: {_shape(old)} in the weights is larger than {_shape(fresh)} in the recipe's model"
        )
    out = fresh.clone().unflatten(0, (parts, -1))
    small = old.unflatten(0, (parts, -1))
    rows = small.shape[1]
    if old.ndim > 1:
        out[:, :rows] = 0
    out[tuple(slice(0, n) for n in small.shape)] = small
    return out.flatten(0, 1)


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "×".join(map(str, tensor.shape))
