"""A reverse network of random weights for a tiny model."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch

from unquant.networks.ratevar import Ratevar, RatevarConfig
from unquant.networks.reverse import ReverseConfig
from unquant.weights_file import Weights

REVERSE = ReverseConfig(width=16, noise_channels=2, steps=2)


def with_reverse(weights: Weights, reverse: ReverseConfig) -> Weights:
    """The weights with a reverse network of random ones, its last layer among them."""
    config = weights.config | {"reverse": asdict(reverse)}
    f = Ratevar(RatevarConfig.from_dict(config)).f
    assert f is not None
    generator = torch.Generator().manual_seed(3)
    tensors = {
        f"f.{name}": torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5
        for name, tensor in f.state_dict().items()
    }
    return replace(weights, config=config, tensors=weights.tensors | tensors)
