"""What the third stages compare pictures by: LPIPS, the energy score of its features, DISTS, and an adversary's settings.

Two samples x̂, x̂' of an example against its original x: AlexNet sees whole crops, networks of VGG's features a part of each,
for they cost more than all the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from unquant.errors import OptionError
from unquant.perceptual import DISTS, LPIPS
from unquant.settings import Share, settings
from unquant.shapes import Image
from unquant.train.adversary import Discriminator
from unquant.train.energy import feature_energy_score
from unquant.train.objective import shifted_side

__all__ = [
    "Structure",
    "StructureConfig",
    "StructureTerms",
    "coarse_dissimilarity",
    "excess_grain",
    "grid_energy",
    "squared",
    "squared_of_chroma",
    "squared_of_mean",
]


@settings
class StructureConfig:
    """Weights and sampling of a loss that sees structure. Raises OptionError naming the key that is out of range.

    energy_weight, lpips_weight, dists_weight: next to 255²·MSE at ρ = 1, as is adversarial_weight·(−D), D a patch
    discriminator. nets: feature networks of the first two, "alex", "vgg" or "alex vgg". vgg_crop: side of the part of each
    crop that VGG sees. group: channels that the score takes as one vector, 0 for all. pool: side of the pooled blocks of
    positions. discriminator_width: channels of D's first layer; discriminator_lr: its learning rate over the recipe's.
    realism_zero: fraction of a batch with ρ = 0, the rest has ρ = 1.
    """

    energy_weight: NonNegativeFloat = 300.0
    lpips_weight: NonNegativeFloat = 1500.0
    dists_weight: NonNegativeFloat = 0.0
    nets: str = "alex vgg"
    vgg_crop: Annotated[int, Field(ge=32)] = 64
    group: NonNegativeInt = 1
    pool: PositiveInt = 4
    adversarial_weight: NonNegativeFloat = 0.0
    discriminator_width: PositiveInt = 32
    discriminator_lr: PositiveFloat = 1.0
    realism_zero: Share = 0.25

    def __post_init__(self) -> None:
        if not self.networks or set(self.networks) - {"alex", "vgg"}:
            raise OptionError(f"nets: alex, vgg or both, not {self.nets!r}")
        if self.group and 64 % self.group:  # every tap of both networks has a multiple of 64 channels
            raise OptionError(f"group: 0 or a divisor of 64, not {self.group}")

    @property
    def networks(self) -> tuple[str, ...]:
        """The feature networks by name."""
        return tuple(self.nets.split())

    def plain(self, batch: int) -> int:
        """Images of a batch with ρ = 0; one at least is left for ρ = 1."""
        return min(round(batch * self.realism_zero), batch - 1)

    def weighed(self, terms: StructureTerms) -> Tensor:
        """The weighted sum of the three, (b,)."""
        return self.energy_weight * terms.energy + self.lpips_weight * terms.lpips + self.dists_weight * terms.dists

    def adversary_group(self, discriminator: nn.Module) -> dict[str, Any]:
        """How the optimizer takes D: without momentum (Zhang et al. 2019, arXiv 1805.08318), for what it judges changes."""
        return {"params": list(discriminator.parameters()), "lr_scale": self.discriminator_lr, "betas": (0.0, 0.9)}

    def adversary(self, channels: int, stride: int) -> Discriminator | None:
        """D, where it has a weight, for conditions of so many channels at 1/stride."""
        return Discriminator(channels, self.discriminator_width, stride) if self.adversarial_weight else None

    def notes(self) -> dict[str, Any]:
        """What the export's metadata shall say of the loss."""
        return {
            "lpips": f"{self.nets} {self.lpips_weight:g}" if self.lpips_weight else None,
            "energy": f"{self.nets} {self.energy_weight:g}" if self.energy_weight else None,
            "dists": self.dists_weight or None,
            "adversarial": self.adversarial_weight or None,
        }


class StructureTerms(NamedTuple):
    """Of each example, (b,): the energy score in feature space, the samples' LPIPS (means over the networks), their DISTS."""

    energy: Tensor
    lpips: Tensor
    dists: Tensor


class Structure(nn.Module):
    """The comparison itself. lpips: the networks that the configuration names. dists: None leaves DISTS at 0."""

    def __init__(self, config: StructureConfig, lpips: dict[str, LPIPS], dists: DISTS | None) -> None:
        super().__init__()
        self.config, self.lpips, self.dists = config, nn.ModuleDict(lpips), dists

    def draw_corner(self, size: int, generator: torch.Generator) -> Int[Tensor, " 2"]:
        """Where VGG's part begins in crops of size² pixels after `shifted`."""
        free = max(0, shifted_side(size) - self.config.vgg_crop)
        return torch.randint(0, free + 1, (2,), generator=generator)

    def forward(
        self, first: Image, second: Image, x: Image, corner: Int[Tensor, " 2"], *, dists: bool = True
    ) -> StructureTerms:
        """Two samples (one given twice counts once) against the original; corner: of the part that VGG sees. The score is
        computed where it has a weight, DISTS where it has one and is asked for; 0 elsewhere.
        """
        c, whole = self.config, [first, x] if first is second else [first, second, x]
        energy, lpips, distance = (torch.zeros(x.shape[0], device=x.device) for _ in range(3))
        part = whole
        if c.vgg_crop < x.shape[-1]:
            # by indices on the device: a compiled graph must not depend on where the corner lies
            span = torch.arange(c.vgg_crop, device=x.device)
            rows, columns = (corner[0] + span)[:, None], corner[1] + span
            part = [t[..., rows, columns] for t in whole]
        for name, network in self.lpips.items():
            assert isinstance(network, LPIPS)
            *samples, target = _features(network, part if name == "vgg" else whole)
            lpips = lpips + _distance(network, samples, target) / len(self.lpips)
            if c.energy_weight:
                roots = [head.clamp(min=0).sqrt() for head in network.heads]
                compared = samples[0], samples[-1], target
                weighed = [[tap * root for tap, root in zip(taps, roots, strict=True)] for taps in compared]
                score = feature_energy_score(weighed[0], weighed[1], weighed[2], c.group, c.pool)
                energy = energy + score / len(self.lpips)
        if self.dists is not None and dists:
            *samples, target = _features(self.dists, part)
            distance = _distance(self.dists, samples, target)
        return StructureTerms(energy, lpips, distance)


def squared(a: Image, b: Image) -> Float[Tensor, " b"]:
    """255²·MSE of each image."""
    return (a - b).square().mean((1, 2, 3)) * 255.0**2


def squared_of_chroma(a: Image, b: Image) -> Float[Tensor, " b"]:
    """255²·MSE of each image's Cb and Cr (ITU-R BT.601, full range)."""
    apart = a - b
    luma, red, blue = _luma(apart)[:, 0], apart[:, 0], apart[:, 2]
    chroma = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402])
    return chroma.square().mean((0, 2, 3)) * 255.0**2


def coarse_dissimilarity(drawn: Image, x: Image) -> Float[Tensor, " b"]:
    """1 − SSIM (Wang et al. 2004) of luma at a quarter of the size, where SSIMULACRA 2 looks most: what is drawn may add
    detail, not change what lies under it. Sides of 24 pixels at least.
    """
    # its variances are differences of large numbers, which bfloat16 would drown
    with torch.autocast(x.device.type, enabled=False):
        one, other = (F.avg_pool2d(_luma(picture.float()), 4) for picture in (drawn, x))
        found = structural_similarity_index_measure(one, other, data_range=1.0, reduction="none")
        assert isinstance(found, Tensor)  # a tuple where maps are asked for
        return 1 - found


def excess_grain(drawn: Image, x: Image) -> Float[Tensor, " b"]:
    """How far local energies of what is drawn are above the original's: squared octaves, means over bands and places.

    Of luma in three orientations at two scales (Haar), in windows of 16×16 pixels, each with a quarter of a squared level
    added. Related to Wasserstein distortion (Qiu et al. 2024, arXiv 2310.03629), which compares local deviations of features;
    here what is missing costs nothing: to be punished for it a network fills with noise what it cannot know.
    """
    luma = _luma(255 * torch.cat([drawn, x]))
    excess: list[Tensor] = []
    for scale in (1, 2):
        # differences of neighbours, not a convolution, whose bfloat16 would drown them
        small = F.avg_pool2d(luma, scale)
        across, along = small[..., :-1] - small[..., 1:], small[..., :-1] + small[..., 1:]
        bands = [along[..., :-1, :] - along[..., 1:, :], across[..., :-1, :] + across[..., 1:, :]]
        bands += [across[..., :-1, :] - across[..., 1:, :]]
        energies = F.avg_pool2d((0.5 * torch.cat(bands, 1)).square(), 16 // scale, 8 // scale)
        one, other = torch.log2(energies + 0.25 / scale**2).chunk(2)
        excess.append((one - other).relu().square().mean((1, 2, 3)))
    return torch.stack(excess).mean(0)


def grid_energy(drawn: Image, x: Image, period: int = 16, blocks: int = 4) -> Float[Tensor, " b"]:
    """Squared levels of the texture that a drawn picture repeats from block to block of period×period pixels, in its error.

    The mean over blocks×blocks neighbouring blocks, less its own mean over a block: of an error that knows no grid 1/blocks²
    of the energy is left. Related to checkerboard artefacts (Odena et al. 2016, Distill), but that it is learnt: a network at
    1/period of the picture finds a texture that distances of features reward nearly everywhere. Sides that `period` divides,
    of `blocks` blocks at least.
    """
    # a mean of large numbers that cancel out
    with torch.autocast(x.device.type, enabled=False):
        error = 255 * (drawn.float() - x.float())
        count, planes, height, width = error.shape
        rows, columns = height // period, width // period
        places = error.view(count, planes, rows, period, columns, period).permute(0, 1, 3, 5, 2, 4)
        repeated = F.avg_pool2d(places.reshape(count, -1, rows, columns), blocks, blocks // 2)
        repeated = repeated.view(count, planes, period**2, -1)
        return (repeated - repeated.mean(2, keepdim=True)).square().mean((1, 2, 3))


def _luma(planes: Image) -> Float[Tensor, "b 1 h w"]:
    """Y of R, G and B (ITU-R BT.601)."""
    return 0.299 * planes[:, :1] + 0.587 * planes[:, 1:2] + 0.114 * planes[:, 2:]


def squared_of_mean(first: Image, second: Image, x: Image) -> Float[Tensor, " b"]:
    """255²·(squared error of the samples' mean), without bias: it does not punish that samples differ."""
    return 0.5 * (squared(first, x) + squared(second, x) - squared(first, second))


def _features(network: LPIPS | DISTS, pictures: Sequence[Tensor]) -> list[list[Tensor]]:
    """Features of each sample and, last, of the original, which need no gradient."""
    *drawn, x = pictures
    with torch.no_grad():
        target = network.extract(x)
    parts = [part.chunk(len(drawn)) for part in network.extract(torch.cat(drawn))]
    return [*(list(sample) for sample in zip(*parts, strict=True)), target]


def _distance(network: LPIPS | DISTS, samples: Sequence[list[Tensor]], target: list[Tensor]) -> Float[Tensor, " b"]:
    """The mean over the samples, by their features."""
    return torch.stack([network.compare(sample, target) for sample in samples]).mean(0)
