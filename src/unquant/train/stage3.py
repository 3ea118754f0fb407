"""Stage 3: f and g_s together through the shipped sampler, with losses that see structure (docs/reverse-path.md).

g_a and the entropy model stay as they are, so that every file made before still decodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unquant.errors import OptionError, TrainingError
from unquant.models.ratevar import Q_INDEX_OCTAVE, Ratevar
from unquant.models.reverse import SideInfo
from unquant.nn.transforms import LATENT_STRIDE
from unquant.perceptual import DISTS, LPIPS
from unquant.shapes import Image
from unquant.train.adversary import Discriminator, adversarial_losses
from unquant.train.data import Photos
from unquant.train.objective import Objective, draw_log2_q, draw_shift, encode_frozen, shifted, shifted_side
from unquant.train.stage2 import energy_score
from unquant.train.validation import fixed_crops, fixed_noise, psnr_of, save_samples, validation_indices

__all__ = ["Stage3", "Stage3Config", "feature_energy_score"]


@dataclass(frozen=True, slots=True)
class Stage3Config:
    """Weights and sampling of the stage-3 loss.

    Per image, times √λ with λ = lambda0/q_T²: 255²·MSE of the mean decode, and at ρ = 1 energy_weight·energy score in
    feature space + lpips_weight·LPIPS + dists_weight·DISTS − adversarial_weight·D, D a patch discriminator that knows ŷ_T.
    nets: feature networks of the first two, "alex", "vgg" or "alex vgg". vgg_crop: side of the part of each crop that VGG
    sees, for it costs more than all the rest. group: channels that the score takes as one vector, 0 for all. pool: side of
    the pooled blocks of positions. discriminator_width: channels of D's first layer. realism_zero: fraction of a batch with
    ρ = 0, the rest has ρ = 1. q_map: fraction of batches whose step differs across the image. reverse_lr, discriminator_lr:
    learning rates of f and of D over that of g_s, which is trained already. reverse: False leaves f out and trains g_s
    alone in the same way: the control that tells what f is worth.
    """

    lambda0: float = 0.12
    energy_weight: float = 300.0
    lpips_weight: float = 1500.0
    dists_weight: float = 0.0
    nets: str = "alex vgg"
    vgg_crop: int = 64
    group: int = 1
    pool: int = 4
    adversarial_weight: float = 0.0
    discriminator_width: int = 48
    discriminator_lr: float = 1.0
    realism_zero: float = 0.25
    q_map: float = 0.0625
    reverse_lr: float = 1.0
    reverse: bool = True

    def __post_init__(self) -> None:
        if not self.lambda0 > 0:
            raise OptionError(f"lambda0: above 0, not {self.lambda0}")
        if not self.networks or set(self.networks) - {"alex", "vgg"}:
            raise OptionError(f"nets: alex, vgg or both, not {self.nets!r}")
        for name in ("energy_weight", "lpips_weight", "dists_weight", "adversarial_weight", "group"):
            if not getattr(self, name) >= 0:
                raise OptionError(f"{name}: 0 or more, not {getattr(self, name)}")
        if self.group and 64 % self.group:  # every tap of both networks has a multiple of 64 channels
            raise OptionError(f"group: 0 or a divisor of 64, not {self.group}")
        if self.vgg_crop < 32 or self.pool < 1:
            raise OptionError("vgg_crop: at least 32, and pool: at least 1")
        for name in ("realism_zero", "q_map"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name}: in 0..1, not {getattr(self, name)}")
        for name in ("reverse_lr", "discriminator_lr", "discriminator_width"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name}: above 0, not {getattr(self, name)}")

    @property
    def networks(self) -> tuple[str, ...]:
        """The feature networks by name."""
        return tuple(self.nets.split())


def feature_energy_score(
    first: Sequence[Tensor], second: Sequence[Tensor], target: Sequence[Tensor], group: int, pool: int
) -> Tensor:
    """The energy score between features of two samples and of the original, mean over the taps: (b,).

    Each argument: features (b, c, h, w) by tap, as `LPIPS.extract` gives them, weighed by the roots of LPIPS' heads. Taken
    per position and, added to that, over the means of pool×pool positions. group: channels per norm, 0 for all of a tap;
    a norm over many channels rewards noise in any of them, up to the right sum.
    """
    total = target[0].new_zeros(target[0].shape[0])
    for triple in zip(first, second, target, strict=True):
        channels = triple[0].shape[1]
        groups = max(1, channels // group) if group else 1
        views = [list(triple)]
        if min(triple[0].shape[-2:]) >= pool > 1:
            views.append([F.avg_pool2d(t, pool) for t in triple])
        for view in views:
            parts = [t.unflatten(1, (groups, -1)) for t in view]
            # the norms are root mean squares: back to the length of unit vectors
            total = total + math.sqrt(channels) * energy_score(*parts)
    return total / len(target)


class Draw(NamedTuple):
    """The conditions of one batch: log2 q_T, and how many images come first with ρ = 0.

    shift: of the grid of all feature networks, as `shifted` takes it. corner: of what VGG sees of the rest, (2,).
    """

    log2_q: Tensor
    zeros: int
    shift: Tensor
    corner: Tensor


class Stage3(Objective[Ratevar]):
    """Realism: the decoder as it is shipped, against the original, in feature space.

    lpips: the feature networks by name, those that `Stage3Config.networks` names. dists: needed where it has a weight.
    """

    stage = 3

    def __init__(
        self, model: Ratevar, config: Stage3Config, lpips: dict[str, LPIPS], dists: DISTS | None = None
    ) -> None:
        super().__init__(model)
        if model.f is None:
            raise TrainingError("stage 3 trains f and g_s together: the weights it starts from need a reverse network")
        if not model.f.config.noise_channels:
            raise TrainingError("stage 3 needs samples: a reverse network of the training energy")
        self.config, self.q_map = config, config.q_map
        self.lpips, self.dists = torch.nn.ModuleDict(lpips), dists
        if config.adversarial_weight:
            self.companion = Discriminator(model.config.latent, config.discriminator_width)
        model.requires_grad_(False)
        model.f.requires_grad_(config.reverse)
        model.g_s.requires_grad_(True)

    def draw(
        self, batch: int, latent_size: int, generator: torch.Generator, device: torch.device, q_map: float | None = None
    ) -> Draw:
        c = self.config
        log2_q = draw_log2_q(batch, latent_size, self.model.config, self.q_map if q_map is None else q_map, generator)
        zeros = min(round(batch * c.realism_zero), batch - 1)  # a batch of plain decodes alone has nothing to score
        shift = draw_shift(latent_size, generator)
        free = max(0, shifted_side(LATENT_STRIDE * latent_size) - c.vgg_crop)
        corner = torch.randint(0, free + 1, (2,), generator=generator)
        return Draw(log2_q.to(device), zeros, shift.to(device), corner.to(device))

    def forward(self, x: Image, draw: Draw) -> dict[str, Tensor]:
        c, zeros = self.config, draw.zeros
        _, side = encode_frozen(self.model, x, draw.log2_q)
        plain = SideInfo(*(part[:zeros] for part in side))
        drawn = SideInfo(*(part[zeros:] for part in side))
        samples = 2 if c.reverse else 1  # without noise both would be the same
        several = SideInfo(*(torch.cat([part] * samples) for part in drawn))
        y, log2_q_end = self._latents(self.model, several)
        realism = (torch.arange(zeros + len(y), device=x.device) >= zeros).float().view(-1, 1, 1, 1)
        # one pass of g_s over everything: plain decodes first, then the samples of each of the others
        out = self.model.g_s(
            torch.cat([plain.y_file, y]),
            torch.cat([plain.log2_q_file, log2_q_end]),
            torch.cat([plain.log2_q_file, several.log2_q_file]),
            realism,
        )
        decoded, drawings = out[:zeros], out[zeros:].chunk(samples)
        first, second = drawings[0], drawings[-1]
        original = x[zeros:]
        squared = torch.cat([_squared(decoded, x[:zeros]), self._squared_of_mean(first, second, original)])
        root_lambda = math.sqrt(c.lambda0) * torch.exp2(-draw.log2_q).mean((1, 2, 3))
        seen = shifted(first, draw.shift)
        other = seen if first is second else shifted(second, draw.shift)
        energy, lpips, dists = self._compare(seen, other, shifted(original, draw.shift), draw.corner)
        perceptual = c.energy_weight * energy + c.lpips_weight * lpips + c.dists_weight * dists
        means = {"energy": energy.mean(), "lpips": lpips.mean()}
        judged = torch.zeros((), device=x.device)
        if isinstance(self.companion, Discriminator):
            realness, judged = adversarial_losses(self.companion, original, out[zeros:], drawn.y_file)
            perceptual = perceptual + c.adversarial_weight * realness.view(samples, -1).mean(0)
            means |= {"realness": -realness.mean(), "discriminator": judged}
        loss = (root_lambda * squared).mean() + (root_lambda[zeros:] * perceptual).sum() / x.shape[0] + judged
        if zeros:
            means["distortion"] = squared[:zeros].mean()
        if self.dists is not None:
            means["dists"] = dists.mean()
        return {"loss": loss, **means, "distortion_drawn": squared[zeros:].mean()}

    def _latents(self, model: Ratevar, side: SideInfo) -> tuple[Tensor, Tensor]:
        """What g_s decodes at ρ = 1, with fresh noise, and log2 of the step left in it."""
        if not self.config.reverse:
            return side.y_file, side.log2_q_file
        b, _, h, w = side.y_file.shape

        def noise(stream: int, step: int, channels: int) -> Tensor:
            return torch.randn(b, channels, h, w, device=side.y_file.device)

        return model.reverse(side, noise)

    @staticmethod
    def _squared_of_mean(first: Tensor, second: Tensor, x: Tensor) -> Tensor:
        """255²·(squared error of the samples' mean), without bias: it does not punish that samples differ."""
        return 0.5 * (_squared(first, x) + _squared(second, x) - _squared(first, second))

    def _compare(self, first: Image, second: Image, x: Image, corner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The energy score in feature space, the samples' LPIPS (means over the networks) and their DISTS: (b,) each."""
        c, samples = self.config, 1 if first is second else 2
        energy, lpips, dists = (torch.zeros(x.shape[0], device=x.device) for _ in range(3))
        part = [first, second, x]
        if c.vgg_crop < x.shape[-1]:
            # by indices on the device: a compiled graph must not depend on where the corner lies
            span = torch.arange(c.vgg_crop, device=x.device)
            rows, columns = (corner[0] + span)[:, None], corner[1] + span
            part = [t[..., rows, columns] for t in part]
        for name, network in self.lpips.items():
            assert isinstance(network, LPIPS)
            one, other, target = _features(network, part if name == "vgg" else [first, second, x], samples)
            lpips = lpips + 0.5 * (network.compare(one, target) + network.compare(other, target)) / len(self.lpips)
            roots = [head.clamp(min=0).sqrt() for head in network.heads]
            weighed = [[tap * root for tap, root in zip(taps, roots, strict=True)] for taps in (one, other, target)]
            score = feature_energy_score(weighed[0], weighed[1], weighed[2], c.group, c.pool)
            energy = energy + score / len(self.lpips)
        if self.dists is not None:
            one, other, target = _features(self.dists, part, samples)
            dists = 0.5 * (self.dists.compare(one, target) + self.dists.compare(other, target))
        return energy, lpips, dists

    @torch.no_grad()
    def validate(self, model: Ratevar, photos: Photos, size: int, count: int) -> dict[str, float]:
        """At three steps N: `psnr_N` at ρ = 0; `energy_N`, `lpips_N` (mean over the networks) and, where it is trained
        for, `dists_N` at ρ = 1; `loss`: the mean of their weighted sum.
        """
        c, row, losses = self.config, dict[str, float](), list[float]()
        with fixed_noise(photos.device):
            x = fixed_crops(photos, count, size, held_out=True)
            corner = torch.full((2,), max(0, size - c.vgg_crop) // 2, device=x.device)
            for q_index in validation_indices(model):
                log2_q = torch.full((count, 1, 1, 1), q_index / Q_INDEX_OCTAVE, device=x.device)
                _, side = encode_frozen(model, x, log2_q)
                plain = model.g_s(side.y_file, log2_q, log2_q, torch.zeros_like(log2_q)).clamp(0, 1)
                row[f"psnr_{q_index}"] = psnr_of((plain - x).square().mean((1, 2, 3)))
                one = torch.ones_like(log2_q)
                samples: list[Tensor] = []
                for _ in range(2):
                    y, end = self._latents(model, side)
                    samples.append(model.g_s(y, end, log2_q, one).clamp(0, 1))
                energy, lpips, dists = (float(t.mean()) for t in self._compare(samples[0], samples[1], x, corner))
                row |= {f"energy_{q_index}": energy, f"lpips_{q_index}": lpips}
                if self.dists is not None:
                    row[f"dists_{q_index}"] = dists
                losses.append(c.energy_weight * energy + c.lpips_weight * lpips + c.dists_weight * dists)
        return {**row, "loss": sum(losses) / len(losses)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = [{"params": list(self.model.g_s.parameters()), "lr_scale": 1.0}]
        if self.config.reverse and self.model.f is not None:
            groups.append({"params": list(self.model.f.parameters()), "lr_scale": self.config.reverse_lr})
        if self.companion is not None:
            # no momentum, as Zhang et al. 2019 (arXiv 1805.08318): what it judges changes all the time
            judge = {"params": list(self.companion.parameters()), "lr_scale": self.config.discriminator_lr}
            groups.append({**judge, "betas": (0.0, 0.9)})
        return groups

    def save_samples(self, model: Ratevar, photos: Photos, size: int, path: Path) -> None:
        save_samples(model, photos, size, path, reverse=self.config.reverse)

    def notes(self) -> dict[str, Any]:
        c = self.config
        return {
            "lambda0": c.lambda0,
            "lpips": f"{c.nets} {c.lpips_weight:g}" if c.lpips_weight else None,
            "energy": f"{c.nets} {c.energy_weight:g}" if c.energy_weight else None,
            "dists": c.dists_weight or None,
            "adversarial": c.adversarial_weight or None,
        }


def _features(network: LPIPS | DISTS, triple: Sequence[Tensor], samples: int) -> tuple[list[Tensor], ...]:
    """Features of two samples (the same ones where samples is 1) and of the original, which need no gradient."""
    with torch.no_grad():
        target = network.extract(triple[2])
    features = network.extract(torch.cat(list(triple[:samples])))
    halves = [[part.chunk(samples)[i] for part in features] for i in (0, samples - 1)]
    return halves[0], halves[1], target


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """255²·MSE of each image: (b,)."""
    return (a - b).square().mean((1, 2, 3)) * 255.0**2
