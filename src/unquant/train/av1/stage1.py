"""Training of f of `av1` on pairs of pictures; its stage 1: f alone, at every step of AV1's quantiser, at ρ = 0 and ρ = 1.

    L = mean[ w_0·w·255²·MSE ] at ρ = 0,   mean[ w·(255²·MSE + w_L·LPIPS + w_D·DISTS) ] at ρ = 1,   w = 1/(255²·MSE(x_q) + 4)

w makes an image count by the share of its error that is taken away, so that all rates are learnt alike. The noise of ρ = 1 is
in from the first step on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unquant.errors import OptionError
from unquant.models.av1 import Av1
from unquant.nn.redraw import COARSE_NOISE, FINE_NOISE
from unquant.perceptual import DISTS, LPIPS
from unquant.shapes import Image
from unquant.train.av1.pairs import PairBatch, Pairs, PairsConfig, fixed_pairs
from unquant.train.data import Photos
from unquant.train.objective import Objective, draw_shift, shifted
from unquant.train.structure import squared
from unquant.train.validation import fixed_noise, psnr_of, save_rows

__all__ = ["PairsObjective", "RedrawConfig", "RedrawDraw", "RedrawStage", "redrawn", "weight_of"]

_FLOOR = 4.0
"""Squared error in levels² below which an image does not count for more."""
_VALIDATION_QUALITIES = (8, 18, 35)
"""About 0.1, 0.2 and 0.5 bits per pixel."""
_OFF_GRID = 6


@dataclass(frozen=True, slots=True)
class RedrawConfig:
    """Weights and sampling of the loss.

    mean_weight: w_0, without which the gradients of LPIPS drown those of ρ = 0. lpips_weight: w_L, network lpips_net; 0
    trains realism 0 alone. dists_weight: w_D, in dists_share of the batches on dists_crops squares of dists_size pixels; 0
    leaves DISTS out. realism_zero: fraction of a batch with ρ = 0. Raises OptionError.
    """

    mean_weight: float = 6.0
    lpips_weight: float = 1000.0
    lpips_net: str = "alex"
    dists_weight: float = 0.0
    dists_share: float = 0.25
    dists_crops: int = 2
    dists_size: int = 128
    realism_zero: float = 0.4

    def __post_init__(self) -> None:
        for name in ("mean_weight", "lpips_weight", "dists_weight"):
            if not getattr(self, name) >= 0:
                raise OptionError(f"{name}: 0 or more, not {getattr(self, name)}")
        for name in ("dists_share", "realism_zero"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name}: in 0..1, not {getattr(self, name)}")
        if self.lpips_net not in ("alex", "vgg"):
            raise OptionError(f"lpips_net: alex or vgg, not {self.lpips_net!r}")
        if self.dists_crops < 1 or self.dists_size < 32:
            raise OptionError("dists_crops: at least 1, dists_size: at least 32")


class RedrawDraw(NamedTuple):
    """What one batch is trained at: the coded crops, what f is told of them, ρ (b, 1, 1, 1), the ρ = 0 images first.

    shift: of the feature networks' grids, as `shifted` takes it. dists: whether this batch sees DISTS.
    """

    x_q: Image
    coding: Float[Tensor, "b k"]
    realism: Float[Tensor, "b 1 1 1"]
    zeros: int
    shift: Int[Tensor, " 2"]
    dists: bool


def redrawn(model: Av1, x_q: Image, coding: Float[Tensor, "b k"], realism: Float[Tensor, "b 1 1 1"]) -> Image:
    """f of coded crops with noise of the default generator; not clamped."""
    b, _, h, w = x_q.shape
    coarse = torch.randn(b, COARSE_NOISE, h // 8, w // 8, device=x_q.device)
    fine = torch.randn(b, FINE_NOISE, h // 2, w // 2, device=x_q.device)
    return model(x_q, coding, realism, coarse, fine)


def weight_of(base: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """w of images from AV1's 255²·MSE."""
    return 1 / (base + _FLOOR)


class PairsObjective(Objective[Av1]):
    """What the stages of `av1` share: batches of a pool of pairs, and validation beside AV1 itself.

    judges: distances that validation measures at ρ = 1, by name.
    """

    q_map = 0.0

    def __init__(self, model: Av1, pairs: PairsConfig, judges: dict[str, LPIPS | DISTS]) -> None:
        super().__init__(model)
        self.pairs_config, self.judges = pairs, nn.ModuleDict(judges)
        self._pairs: Pairs | None = None
        self._fixed: dict[tuple[bool, int], PairBatch] = {}
        self._base: dict[tuple[str, int], float] = {}

    def crops(self, photos: Photos, count: int, size: int, generator: torch.Generator) -> PairBatch:
        """`count` training crops of size×size, from a pool that is made at the first call."""
        if self._pairs is None:
            self._pairs = Pairs(photos, self.pairs_config, size, generator)
        return self._pairs.crops(count)

    def close(self) -> None:
        if self._pairs is not None:
            self._pairs.close()

    @torch.no_grad()
    def validate(self, model: Av1, photos: Photos, size: int, count: int) -> dict[str, float]:
        """At three qualities Q: `bpp_Q`, `gain_Q` and `gain1_Q`, PSNR at ρ = 0 and ρ = 1 over AV1's in dB, and of every
        judge the mean at ρ = 1 over that of AV1, off the grid.

        `loss`: means over Q of the share of the squared error that is left at ρ = 0 and of the judges' ratios, summed. `gain`
        and the judges without a Q: means over the three. `gap`: gain at ρ = 0 of held-out over that of training crops, dB.
        """
        row: dict[str, float] = {}
        left: list[float] = []
        gaps: list[float] = []
        for quality in _VALIDATION_QUALITIES:
            pair = self._fixed_pair(photos, size, count, quality, held_out=True)
            gain = _gain(pair, _decoded(model, pair, 0.0))
            seen = self._fixed_pair(photos, size, count, quality, held_out=False)
            gaps.append(gain - _gain(seen, _decoded(model, seen, 0.0)))
            left.append(10 ** (-gain / 10))
            row |= {f"bpp_{quality}": float(torch.exp2(3 * pair.coding[:, 1] - 2).mean()), f"gain_{quality}": gain}
            if self.judges:
                drawn = _decoded(model, pair, 1.0)
                row[f"gain1_{quality}"] = _gain(pair, drawn)
                for name in self.judges:
                    if (name, quality) not in self._base:
                        self._base[name, quality] = self._distance(name, pair.x_q, pair.x)
                    row[f"{name}_{quality}"] = self._distance(name, drawn, pair.x) / self._base[name, quality]
        for name in ("gain", *self.judges):
            row[name] = _mean([row[f"{name}_{quality}"] for quality in _VALIDATION_QUALITIES])
        loss = _mean(left) + sum(row[name] for name in self.judges)
        return {**row, "loss": loss, "gap": _mean(gaps)}

    def _distance(self, name: str, x_hat: Image, x: Image) -> float:
        pairs = zip(x_hat.split(4), x.split(4), strict=True)
        cut = ([picture[..., _OFF_GRID:, _OFF_GRID:] for picture in pair] for pair in pairs)
        return float(torch.cat([self.judges[name](*pair) for pair in cut]).mean())

    def _fixed_pair(self, photos: Photos, size: int, count: int, quality: int, *, held_out: bool) -> PairBatch:
        key = held_out, quality
        if key not in self._fixed:
            self._fixed[key] = fixed_pairs(photos, count, size, quality, held_out=held_out)
        return self._fixed[key]

    @torch.no_grad()
    def save_samples(self, model: Av1, photos: Photos, size: int, path: Path) -> None:
        """Four held-out crops a row: the originals, then AV1, ρ = 0 and ρ = 1 at three qualities, lowest first."""
        rows: list[Image] = []
        for quality in _VALIDATION_QUALITIES:
            pair = PairBatch(*(t[:4] for t in self._fixed_pair(photos, size, 4, quality, held_out=True)))
            rows += [] if rows else [pair.x]
            rows += [pair.x_q, _decoded(model, pair, 0.0), _decoded(model, pair, 1.0)]
        save_rows(rows, path)


class RedrawStage(PairsObjective):
    """Stage 1: all of f in one run."""

    def __init__(
        self, model: Av1, config: RedrawConfig, pairs: PairsConfig, lpips: LPIPS | None, dists: DISTS | None
    ) -> None:
        super().__init__(model, pairs, {"lpips": lpips} if lpips is not None else {})
        self.config, self.lpips, self.dists = config, lpips, dists

    def batch(
        self,
        photos: Photos,
        count: int,
        size: int,
        generator: torch.Generator,
        device: torch.device,
        q_map: float | None = None,
    ) -> tuple[Image, RedrawDraw]:
        pairs = self.crops(photos, count, size, generator)
        zeros = round(count * self.config.realism_zero) if self.lpips is not None else count
        realism = (torch.arange(count) >= zeros).float().view(-1, 1, 1, 1).to(device)
        shift = draw_shift(size // 16, generator).to(device)
        dists = self.dists is not None and float(torch.rand((), generator=generator)) < self.config.dists_share
        return pairs.x, RedrawDraw(pairs.x_q, pairs.coding, realism, zeros, shift, dists)

    def forward(self, x: Image, draw: RedrawDraw) -> dict[str, Tensor]:
        """`loss` and its parts: `left`, the share of AV1's squared error that is left at ρ = 0, and `lpips` at ρ = 1."""
        x_hat = redrawn(self.model, draw.x_q, draw.coding, draw.realism)
        c, zeros, count = self.config, draw.zeros, x.shape[0]
        error, base = squared(x_hat, x), squared(draw.x_q, x)
        weight = weight_of(base)
        loss = (weight * error).mean() + (c.mean_weight - 1) * (weight * error)[:zeros].sum() / count
        terms: dict[str, Tensor] = {}
        if zeros:
            # AV1 may have been lossless
            terms["left"] = error[:zeros].sum() / base[:zeros].sum().clamp(min=1e-6)
        if self.lpips is not None and zeros < count:
            seen = [shifted(picture[zeros:], draw.shift) for picture in (x_hat, x)]
            distance = self.lpips(*seen)
            loss = loss + c.lpips_weight * (weight[zeros:] * distance).sum() / count
            terms["lpips"] = distance.mean()
            if draw.dists:
                assert self.dists is not None
                n, side = c.dists_crops, min(c.dists_size, seen[0].shape[-1])
                distance = self.dists(*(picture[:n, :, :side, :side] for picture in seen))
                # one batch in so many, and a few of its crops, speak for all at ρ = 1
                share = (count - zeros) / count / len(distance) / c.dists_share
                loss = loss + c.dists_weight * share * (weight[zeros : zeros + n] * distance).sum()
        return {"loss": loss, **terms}

    def notes(self) -> dict[str, Any]:
        c = self.config
        return {"lpips_net": c.lpips_net, "lpips_weight": c.lpips_weight, "dists_weight": c.dists_weight}


def _decoded(model: Av1, pair: PairBatch, realism: float) -> Image:
    out: list[Image] = []
    with fixed_noise(pair.x.device):
        for x_q, coding in zip(pair.x_q.split(4), pair.coding.split(4), strict=True):
            rho = torch.full((len(x_q), 1, 1, 1), realism, device=x_q.device)
            out.append(redrawn(model, x_q, coding, rho).clamp(0, 1))
    return torch.cat(out)


def _gain(pair: PairBatch, x_hat: Image) -> float:
    """PSNR of a decode over that of AV1, mean in dB."""
    errors = [(picture - pair.x).square().mean((1, 2, 3)) for picture in (x_hat, pair.x_q)]
    return psnr_of(errors[0]) - psnr_of(errors[1])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
