"""Distances of network features, LPIPS and DISTS, at full resolution; the networks are in `unquant.perceptual`.

The features of a reference stay in memory: about 0.5 KB a pixel for each network on VGG16, 0.02 KB for AlexNet.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from unquant.bench.metrics.base import Metric, Score, to_tensor, weights_version
from unquant.perceptual import (
    DISTS,
    DISTS_FILE,
    LPIPS,
    LPIPS_FILES,
    Network,
    find_weights,
    load_dists,
    load_lpips,
)

__all__ = ["CUT", "dists", "lpips_alex", "lpips_alex_cut", "lpips_vgg"]

DISTS_SMALLEST = 16
CUT = 6
"""Pixels: between two lines of AlexNet's grids, which are 4, 8 and 16 wide."""


def _metric(network: LPIPS | DISTS, version: str, smallest: int, cut: int = 0) -> Metric:
    # VGG16 is a third faster with the channels last
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def extract(image: Image.Image) -> list[Tensor]:
        pixels = to_tensor(image)[..., cut:, cut:]
        return network.extract(pixels.contiguous(memory_format=torch.channels_last))

    @torch.inference_mode()
    def against(reference: Image.Image) -> Score:
        target = extract(reference)

        @torch.inference_mode()
        def score(image: Image.Image) -> float:
            # the sum of float32 terms can fall a rounding below the 0 of equal pictures
            return max(0.0, float(network.compare(target, extract(image))))

        return score

    return Metric(version, against, smallest + cut)


def _lpips(net: Network, directory: Path | None, cut: int = 0) -> Metric:
    network = load_lpips(net, directory)
    version = weights_version(find_weights(LPIPS_FILES[net], directory))
    return _metric(network, f"{version} cut {cut}" if cut else version, network.smallest, cut)


def lpips_alex(directory: Path | None = None) -> Metric:
    """LPIPS v0.1 on AlexNet; ≥ 0, 0 for equal pictures. Raises ModelMissing, WeightsError."""
    return _lpips("alex", directory)


def lpips_alex_cut(directory: Path | None = None) -> Metric:
    """The same without the first `CUT` rows and columns of both pictures.

    A decoder that was trained against the same network on a fixed grid of pixels is flattered by its values there; these
    tell by how much. Raises ModelMissing, WeightsError.
    """
    return _lpips("alex", directory, CUT)


def lpips_vgg(directory: Path | None = None) -> Metric:
    """LPIPS v0.1 on VGG16; ≥ 0, 0 for equal pictures. Raises ModelMissing, WeightsError."""
    return _lpips("vgg", directory)


def dists(directory: Path | None = None) -> Metric:
    """DISTS; ≥ 0, 0 for equal pictures. Raises ModelMissing, WeightsError."""
    network = load_dists(directory)
    files = [find_weights(name, directory) for name in (DISTS_FILE, LPIPS_FILES["vgg"])]
    return _metric(network, weights_version(*files), DISTS_SMALLEST)
