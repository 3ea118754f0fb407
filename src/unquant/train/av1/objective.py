"""What the stages of `av1` share: f of pairs, their weight in a loss, and validation beside AV1 itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unquant.networks.av1 import Av1
from unquant.nn.redraw import REDRAW_STRIDE, fresh_noise
from unquant.perceptual import DISTS, LPIPS
from unquant.shapes import Image
from unquant.train.av1.pairs import PairBatch, Pairs, PairsConfig, fixed_pairs
from unquant.train.data import Photos
from unquant.train.objective import Objective
from unquant.train.validation import fixed_noise, psnr_of, save_rows

__all__ = ["VALIDATION_QUALITIES", "PairsObjective", "redrawn", "weight_of"]

_FLOOR = 4.0
"""Squared error in levels² below which an image does not count for more."""
VALIDATION_QUALITIES = (8, 18, 35)
"""About 0.1, 0.2 and 0.5 bits per pixel."""
_OFF_GRID = 6


def redrawn(model: Av1, x_q: Image, coding: Float[Tensor, "b k"], realism: Float[Tensor, "b 1 1 1"]) -> Image:
    """f of coded crops with noise of the default generator; not clamped."""
    b, _, h, w = x_q.shape
    return model(x_q, coding, realism, *fresh_noise(b, h // REDRAW_STRIDE, w // REDRAW_STRIDE, x_q.device))


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

    def draw_of(self, pairs: PairBatch, generator: torch.Generator, device: torch.device) -> Any:
        """What a batch of pairs is trained at."""
        raise NotImplementedError

    def batch(
        self,
        photos: Photos,
        count: int,
        size: int,
        generator: torch.Generator,
        device: torch.device,
        q_map: float | None = None,
    ) -> tuple[Image, Any]:
        """As `Objective.batch`; a map of steps is AV1's own affair."""
        pairs = self.crops(photos, count, size, generator)
        return pairs.x, self.draw_of(pairs, generator, device)

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
        for quality in VALIDATION_QUALITIES:
            pair = self.fixed_pair(photos, size, count, quality, held_out=True)
            gain = _gain(pair, _decoded(model, pair, 0.0))
            seen = self.fixed_pair(photos, size, count, quality, held_out=False)
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
            row[name] = _mean([row[f"{name}_{quality}"] for quality in VALIDATION_QUALITIES])
        loss = _mean(left) + sum(row[name] for name in self.judges)
        return {**row, "loss": loss, "gap": _mean(gaps)}

    def _distance(self, name: str, x_hat: Image, x: Image) -> float:
        pairs = zip(x_hat.split(4), x.split(4), strict=True)
        cut = ([picture[..., _OFF_GRID:, _OFF_GRID:] for picture in pair] for pair in pairs)
        return float(torch.cat([self.judges[name](*pair) for pair in cut]).mean())

    def fixed_pair(self, photos: Photos, size: int, count: int, quality: int, *, held_out: bool) -> PairBatch:
        key = held_out, quality
        if key not in self._fixed:
            self._fixed[key] = fixed_pairs(photos, count, size, quality, held_out=held_out)
        return self._fixed[key]

    @torch.no_grad()
    def save_samples(self, model: Av1, photos: Photos, size: int, path: Path) -> None:
        """Four held-out crops a row: the originals, then AV1, ρ = 0 and ρ = 1 at three qualities, lowest first."""
        rows: list[Image] = []
        for quality in VALIDATION_QUALITIES:
            pair = PairBatch(*(t[:4] for t in self.fixed_pair(photos, size, 4, quality, held_out=True)))
            rows += [] if rows else [pair.x]
            rows += [pair.x_q, _decoded(model, pair, 0.0), _decoded(model, pair, 1.0)]
        save_rows(rows, path)


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
