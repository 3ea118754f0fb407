"""A picture for the codecs' own tests, and a tiny codec with a reverse network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from unquant.codecs.latent import AnyLatentCodec
    from unquant.codecs.ratevar import RatevarCodec


@pytest.fixture(scope="session")
def picture(photo: Image.Image) -> Image.Image:
    """Latents of 9×13: several tiles, an odd size."""
    return photo.crop((120, 80, 320, 220))


@pytest.fixture(scope="session")
def reverse_weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_weights` with a reverse network."""
    from reversing import REVERSE, with_reverse

    from unquant.weights_file import read_weights, write_weights

    path = tmp_path_factory.mktemp("weights") / "reverse.safetensors"
    weights = with_reverse(read_weights(tiny_weights), REVERSE)
    write_weights(path, weights.family, weights.config, weights.tensors, {"purpose": "tests only"})
    return path


@pytest.fixture(scope="session")
def drawing(reverse_weights: Path) -> RatevarCodec:
    """The codec of `reverse_weights`, in float32 throughout; tests must leave it as it is."""
    import torch

    from unquant.codecs.ratevar import RatevarCodec

    codec = RatevarCodec.from_file(reverse_weights)
    codec.precision = torch.float32
    return codec


@pytest.fixture
def single(either_weights: Path) -> AnyLatentCodec:
    """A codec in float32 throughout: bfloat16 would round what windows and blocks leave the same."""
    import torch

    import unquant

    codec = unquant.load(str(either_weights))
    codec.precision = torch.float32
    return codec
