"""Stage 3 of `av1`: f goes on at realism 1 with losses that see structure, and is held where it stands at realism 0.

    L = mean[ w_0·w·D ] at ρ = 0
    L = mean[ w·(D + w_C·255²·MSE of Cb and Cr + w_G·G + w_S·S + w_R·R + w_E·ES_φ + w_L·LPIPS + w_D·DISTS − w_A·e·J) ]
        at ρ = 1

w and G as in stage 1; S is 1 − SSIM of luma at a quarter of the size, R the energy of what repeats on the grid of f. Two
samples an example, through two noises, where something compares them; ES_φ is the energy score of their features
(train/structure.py). D is 255²·MSE, at ρ = 1 without a part of what the samples differ by. J is a patch discriminator that
knows x_q, off by default, watched: it judges (x̂ − x_q)/√e, with e the squared error that AV1 leaves at that step; of
pictures as they are it learns little, so small is what was lost beside what is there. What validation finds worse than
before is undone, and the weight of J halved.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from unquant.networks.av1 import Av1
from unquant.perceptual import DISTS, LPIPS
from unquant.settings import Share, settings
from unquant.shapes import Image
from unquant.train.adversary import Discriminator, adversarial_losses
from unquant.train.av1.objective import PairsObjective, redrawn, weight_of
from unquant.train.av1.pairs import PairBatch, PairsConfig
from unquant.train.objective import draw_shift, shifted
from unquant.train.structure import (
    Structure,
    StructureConfig,
    coarse_dissimilarity,
    excess_grain,
    grid_energy,
    squared,
    squared_of_chroma,
)

__all__ = ["Realism", "RealismConfig", "RealismDraw"]

_DISTS_SLACK, _GAIN_SLACK = 0.002, 0.02
"""By how much DISTS over AV1's, and PSNR at ρ = 0 in dB, may worsen before it counts."""
_SQUARED_PER_STEP = 0.16
"""255²·MSE of AV1 over ac_q: about that of training crops at every step, 2 to 13 levels of root mean square."""


@settings
class RealismConfig(StructureConfig):
    """Weights and sampling of the loss, those of `StructureConfig`. Raises OptionError naming the key that is out of range.

    mean_weight, chroma_weight, grain_weight: as in stage 1. coarse_weight: w_S. grid_weight: w_R. dists_share: fraction of
    the batches that see DISTS; it counts as if all had. realism_zero: a third or more. spread: how much of the variance of
    the samples counts as squared error at ρ = 1, from 0 (a sample may be as far from the mean as the energy score wants) to 1
    (255²·MSE of each).
    """

    mean_weight: NonNegativeFloat = 40.0
    chroma_weight: NonNegativeFloat = 0.0
    grain_weight: NonNegativeFloat = 0.0
    coarse_weight: NonNegativeFloat = 0.0
    grid_weight: NonNegativeFloat = 0.0
    energy_weight: NonNegativeFloat = 500.0
    lpips_weight: NonNegativeFloat = 500.0
    dists_weight: NonNegativeFloat = 500.0
    dists_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    vgg_crop: Annotated[int, Field(ge=32)] = 96
    realism_zero: Annotated[float, Field(ge=1 / 3, le=1)] = 0.375
    spread: Share = 1.0

    def plain(self, batch: int) -> int:
        """Images of a batch with ρ = 0: no fewer than the fraction says; one at least is left for ρ = 1."""
        return min(math.ceil(batch * self.realism_zero - 1e-6), batch - 1)


class RealismDraw(NamedTuple):
    """What one batch is trained at: the coded crops, what f is told of them, how many come first with ρ = 0.

    shift: of the feature networks' grids, as `shifted` takes it. corner: of what VGG sees of the rest. dists: whether this
    batch sees DISTS.
    """

    x_q: Image
    coding: Float[Tensor, "b k"]
    zeros: int
    shift: Int[Tensor, " 2"]
    corner: Int[Tensor, " 2"]
    dists: bool


class Realism(PairsObjective):
    """f against the original in feature space, whole f in one run.

    lpips: the feature networks by name, those that `RealismConfig.networks` names. dists: needed where it, or the adversary,
    has a weight. adversarial_weight: of the adversary now.
    """

    def __init__(
        self, model: Av1, config: RealismConfig, pairs: PairsConfig, lpips: dict[str, LPIPS], dists: DISTS | None
    ) -> None:
        judges: dict[str, LPIPS | DISTS] = {"lpips": lpips[config.networks[0]]}
        super().__init__(model, pairs, judges if dists is None else {**judges, "dists": dists})
        self.config = config
        self.structure = Structure(config, lpips, dists if config.dists_weight else None)
        self.samples = 2 if config.energy_weight or config.spread < 1 else 1
        self.companion = config.adversary(channels=3, stride=1)
        self.guarded, self.adversarial_weight = self.companion is not None, config.adversarial_weight
        self._best: dict[str, float] = {}

    def draw_of(self, pairs: PairBatch, generator: torch.Generator, device: torch.device) -> RealismDraw:
        count, size = len(pairs.x), pairs.x.shape[-1]
        shift = draw_shift(size // 16, generator).to(device)
        corner = self.structure.draw_corner(size, generator).to(device)
        dists = float(torch.rand((), generator=generator)) < self.config.dists_share
        return RealismDraw(pairs.x_q, pairs.coding, self.config.plain(count), shift, corner, dists)

    def forward(self, x: Image, draw: RealismDraw) -> dict[str, Tensor]:
        """`loss` and its parts: `left` and `left_drawn`, the shares of AV1's squared error that D keeps at ρ = 0 and ρ = 1;
        `lpips` and, with a weight, `energy`, `dists`, `chroma`, `grain`, `coarse` and `grid` of the samples; the adversary's
        `realness` and its own loss, `discriminator`.
        """
        c, zeros, count = self.config, draw.zeros, x.shape[0]
        # one pass of f over everything: plain pictures first, then the samples of each of the others
        x_q, coding = (torch.cat([t, *[t[zeros:]] * (self.samples - 1)]) for t in (draw.x_q, draw.coding))
        realism = (torch.arange(len(x_q), device=x.device) >= zeros).float().view(-1, 1, 1, 1)
        out = redrawn(self.model, x_q, coding, realism)
        plain, drawn = out[:zeros], out[zeros:]
        drawings = drawn.chunk(self.samples)
        original, base = x[zeros:], squared(draw.x_q, x)
        of_samples = torch.stack([squared(sample, original) for sample in drawings]).mean(0)
        if c.spread < 1:
            of_samples = of_samples - 0.5 * (1 - c.spread) * squared(drawings[0], drawings[1])
        error = torch.cat([squared(plain, x[:zeros]), of_samples])
        weight = weight_of(base)
        seen = [shifted(sample, draw.shift) for sample in drawings]
        parts = self.structure(seen[0], seen[-1], shifted(original, draw.shift), draw.corner, dists=draw.dists)
        parts = parts._replace(dists=parts.dists / c.dists_share)
        perceptual = c.weighed(parts)
        share = error / base.clamp(min=1e-6)
        terms = {"left_drawn": share[zeros:].mean(), "lpips": parts.lpips.mean()}
        if zeros:
            terms["left"] = share[:zeros].mean()
        if c.energy_weight:
            terms["energy"] = parts.energy.mean()
        if c.dists_weight:
            terms["dists"] = parts.dists.mean()
        beside = {
            "chroma": (c.chroma_weight, squared_of_chroma),
            "grain": (c.grain_weight, excess_grain),
            "coarse": (c.coarse_weight, coarse_dissimilarity),
            "grid": (c.grid_weight, grid_energy),
        }
        for name, (factor, distance) in beside.items():
            if factor:
                found = torch.stack([distance(sample, original) for sample in drawings]).mean(0)
                perceptual = perceptual + factor * found
                terms[name] = found.mean()
        judged = torch.zeros((), device=x.device)
        if isinstance(self.companion, Discriminator):
            known, expected = draw.x_q[zeros:], _SQUARED_PER_STEP * draw.coding[zeros:, -1]
            scale = 255 * expected.rsqrt().view(-1, 1, 1, 1)
            details = [scale * (picture - known) for picture in (original, *drawings)]
            realness, judged = adversarial_losses(self.companion, details[0], torch.cat(details[1:]), 2 * known - 1)
            perceptual = perceptual + self.adversarial_weight * expected * realness.view(self.samples, -1).mean(0)
            terms |= {"realness": -realness.mean(), "discriminator": judged}
        mean = (c.mean_weight - 1) * (weight * error)[:zeros].sum() / count
        loss = (weight * error).mean() + mean + (weight[zeros:] * perceptual).sum() / count + judged
        return {"loss": loss, **terms}

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = [{"params": list(self.model.parameters()), "lr_scale": 1.0}]
        return [*groups, self.config.adversary_group(self.companion)] if self.companion is not None else groups

    def worsened(self, row: dict[str, float]) -> str | None:
        found = {"dists": row["dists"], "gain": row["gain"]}
        best, reason = self._best or found, None
        # turned round, so that what is not a number counts as worse
        if not found["dists"] <= best["dists"] + _DISTS_SLACK:
            reason = f"DISTS over AV1's is {found['dists']:.4f} and was {best['dists']:.4f}"
        elif not found["gain"] >= best["gain"] - _GAIN_SLACK:
            reason = f"PSNR at realism 0 over AV1's is {found['gain']:.3f} dB and was {best['gain']:.3f}"
        if reason is None:
            self._best = {"dists": min(found["dists"], best["dists"]), "gain": max(found["gain"], best["gain"])}
            return None
        self.adversarial_weight /= 2
        return f"{reason}: the adversary's weight is {self.adversarial_weight:g} from here on"

    def memory(self) -> dict[str, float]:
        return {**self._best, "adversarial_weight": self.adversarial_weight}

    def remember(self, memory: dict[str, float]) -> None:
        self._best = {name: memory[name] for name in ("dists", "gain") if name in memory}
        self.adversarial_weight = memory.get("adversarial_weight", self.adversarial_weight)

    def notes(self) -> dict[str, Any]:
        return {"spread": self.config.spread, **self.config.notes()}
