"""Stage 2: the reverse network f in latent space, with g_a, g_s and the entropy model frozen (docs/reverse-path.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor

from unquant.errors import TrainingError
from unquant.networks.common import SideInfo, log2_q_of
from unquant.networks.ratevar import Ratevar
from unquant.networks.reverse import Reverse
from unquant.settings import Share, settings
from unquant.shapes import Image, Latent
from unquant.train.data import Photos
from unquant.train.energy import latent_energy_score
from unquant.train.objective import Objective, draw_log2_q
from unquant.train.ratevar.validation import save_samples
from unquant.train.validation import fixed_crops, fixed_noise, validation_indices

__all__ = ["Stage2", "Stage2Config", "noisy_state"]


@settings
class Stage2Config:
    """Sampling of the stage-2 loss; which loss is `training` of the reverse network's configuration.

    at_file: fraction of a batch whose state is ŷ_T itself (q = q_T), the start of every path; in the others log q is uniform
    between the model's finest step and q_T. group: channels that the energy score takes as one vector; block: side of the
    blocks of positions that it takes as one vector beside the single positions. q_map: fraction of batches whose step
    differs across the image.
    """

    at_file: Share = 0.5
    group: PositiveInt = 16
    block: PositiveInt = 4
    q_map: Share = 0.125


def noisy_state(y: Latent, side: SideInfo, log2_q: Tensor, training: str, tau: Tensor) -> Latent:
    """A state y_q with step q ≤ q_T left in it; ŷ_T itself where q = q_T.

    mse: y + q·u with fresh u in U(−½, ½) (Han et al. 2025). bridge, energy: the process pinned at y and ŷ_T, with
    w = (q/q_T)²: y + w·(ŷ_T − y) + q·τ·sqrt(1 − w)·n. Latents in latent units, tau in steps.
    """
    q = torch.exp2(log2_q)
    w = torch.exp2(2 * (log2_q - side.log2_q_file))
    if training == "mse":
        state = y + q * (torch.rand_like(y) - 0.5)
    else:
        noise = torch.randn_like(y) * tau
        state = y + w * (side.y_file - y) + q * (1 - w).clamp(min=0).sqrt() * noise
    return torch.where(w >= 1, side.y_file, state)


class Draw(NamedTuple):
    """The conditions of one batch: log2 of the file's step and of the step left in the state."""

    log2_q_file: Tensor
    log2_q: Tensor


class Stage2(Objective[Ratevar]):
    """The loss of f alone: its training is that of the model's configuration."""

    def __init__(self, model: Ratevar, config: Stage2Config) -> None:
        super().__init__(model)
        if model.f is None:
            raise TrainingError("stage 2 trains the reverse network: the recipe needs a table [model.reverse]")
        if model.config.joint:
            raise TrainingError("a reverse network of the training joint is trained by stage 1, with the codec")
        if model.config.latent % config.group:
            raise TrainingError(
                f"[stage2] group: {config.group} does not divide the {model.config.latent} channels of y"
            )
        self.config, self.q_map = config, config.q_map
        model.requires_grad_(False)
        model.f.requires_grad_(True)

    def draw(
        self, batch: int, latent_size: int, generator: torch.Generator, device: torch.device, q_map: float | None = None
    ) -> Draw:
        share = self.q_map if q_map is None else q_map
        model = self.model.config
        file = draw_log2_q(batch, latent_size, model, share, generator)
        u = torch.rand(batch, 1, 1, 1, generator=generator)
        u[torch.randperm(batch, generator=generator)[: round(batch * self.config.at_file)]] = 1.0
        low = log2_q_of(model.q_index_min)
        return Draw(file.to(device), (low + u * (file - low)).to(device))

    def forward(self, x: Image, draw: Draw) -> dict[str, Tensor]:
        f = self.model.f
        assert f is not None
        y, side = self.model.encode(x, draw.log2_q_file)
        loss, estimate = self._loss(f, y, side, draw.log2_q)
        with torch.no_grad():
            error = ((estimate - y).square() * torch.exp2(-2 * draw.log2_q)).mean()
        return {"loss": loss.mean(), "error": error}

    def _loss(self, f: Reverse, y: Latent, side: SideInfo, log2_q: Tensor) -> tuple[Float[Tensor, " b"], Latent]:
        """The loss of each image, and one estimate."""
        with torch.no_grad():
            state = noisy_state(y, side, log2_q, f.config.training, f.tau(side))
        inverse = torch.exp2(-log2_q)
        if f.config.training != "energy":
            estimate = f(state, log2_q, side, None)
            return ((estimate - y) * inverse).square().mean((1, 2, 3)), estimate
        b, _, h, w = y.shape
        # both draws in one pass: twice the batch costs less than two passes
        xi = torch.randn(2 * b, f.config.noise_channels, h, w, device=y.device)
        twice = SideInfo(*(torch.cat([part, part]) for part in side))
        both = f(torch.cat([state, state]), torch.cat([log2_q, log2_q]), twice, xi)
        first, second = (part * inverse for part in both.chunk(2))
        return latent_energy_score(first, second, y * inverse, self.config.group, self.config.block), both[:b]

    @torch.no_grad()
    def validate(self, model: Ratevar, photos: Photos, size: int, count: int) -> dict[str, float]:
        """At three steps, for the first step from ŷ_T: `explained_N`, the share of ‖y − ŷ_T‖² that f removes, and
        `variance_N`, ‖f − ŷ_T‖² over ‖y − ŷ_T‖² (1 for a sample of the right energy); `loss`: the mean of the stage's loss.
        """
        f = model.f
        assert f is not None
        row, losses = dict[str, float](), list[float]()
        with fixed_noise(photos.device):
            x = fixed_crops(photos, count, size, held_out=True)
            for q_index in validation_indices(model):
                log2_q = torch.full((count, 1, 1, 1), log2_q_of(q_index), device=x.device)
                y, side = model.encode(x, log2_q)
                loss, estimate = self._loss(f, y, side, log2_q)
                lost = (y - side.y_file).square().sum()
                row[f"explained_{q_index}"] = float(1 - (estimate - y).square().sum() / lost)
                row[f"variance_{q_index}"] = float((estimate - side.y_file).square().sum() / lost)
                losses.append(float(loss.mean()))
        return {**row, "loss": sum(losses) / len(losses)}

    def save_samples(self, model: Ratevar, photos: Photos, size: int, path: Path) -> None:
        save_samples(model, photos, size, path, reverse=True)

    def notes(self) -> dict[str, Any]:
        f = self.model.f
        assert f is not None
        return {"training": f.config.training}
