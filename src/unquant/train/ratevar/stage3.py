"""Stage 3: f and g_s together through the shipped sampler, with losses that see structure (docs/reverse-path.md).

g_a and the entropy model stay as they are, so that every file made before still decodes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import PositiveFloat
from torch import Tensor

from unquant.errors import TrainingError
from unquant.networks.common import SideInfo, log2_q_of
from unquant.networks.ratevar import Ratevar
from unquant.nn.transforms import LATENT_GAIN, LATENT_STRIDE
from unquant.perceptual import DISTS, LPIPS
from unquant.settings import Share, settings
from unquant.shapes import Image
from unquant.train.adversary import Discriminator, adversarial_losses
from unquant.train.data import Photos
from unquant.train.objective import Objective, draw_log2_q, draw_shift, shifted
from unquant.train.ratevar.validation import save_samples
from unquant.train.structure import Structure, StructureConfig, squared, squared_of_mean
from unquant.train.validation import fixed_crops, fixed_noise, psnr_of, validation_indices

__all__ = ["Stage3", "Stage3Config"]


@settings
class Stage3Config(StructureConfig):
    """Weights and sampling of the stage-3 loss. Raises OptionError naming the key that is out of range.

    Per image, times √λ with λ = lambda0/q_T²: 255²·MSE of the mean decode, and at ρ = 1 the terms of `StructureConfig`, whose
    discriminator knows ŷ_T. q_map: fraction of batches whose step differs across the image. reverse_lr: learning rate of f
    over that of g_s, which is trained already. reverse: False leaves f out and trains g_s alone in the same way: the control
    that tells what f is worth; a joint f stays where it is, untrained. Without effect where there is none.
    """

    lambda0: PositiveFloat = 0.12
    q_map: Share = 0.0625
    reverse_lr: PositiveFloat = 1.0
    reverse: bool = True


_SAMPLES = "stage 3 needs samples: a reverse network of the training energy"


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

    def __init__(
        self, model: Ratevar, config: Stage3Config, lpips: dict[str, LPIPS], dists: DISTS | None = None
    ) -> None:
        super().__init__(model)
        self.trains_f, joint = config.reverse and model.f is not None, model.config.joint
        self.reverse = self.trains_f and not joint
        if model.g_s.redraw is None and (model.f is None or joint):
            raise TrainingError(f"{_SAMPLES}, or weights whose g_s ends in a redraw")
        if self.reverse and model.f is not None and not model.f.config.noise_channels:
            raise TrainingError(_SAMPLES)
        self.config, self.q_map = config, config.q_map
        # without noise both would be the same
        self.samples = 2 if self.reverse or model.g_s.redraw is not None else 1
        self.structure = Structure(config, lpips, dists)
        self.companion = config.adversary(model.config.latent, LATENT_STRIDE)
        model.requires_grad_(False)
        if model.f is not None:
            model.f.requires_grad_(self.trains_f)
        model.g_s.requires_grad_(True)

    def draw(
        self, batch: int, latent_size: int, generator: torch.Generator, device: torch.device, q_map: float | None = None
    ) -> Draw:
        c = self.config
        log2_q = draw_log2_q(batch, latent_size, self.model.config, self.q_map if q_map is None else q_map, generator)
        shift = draw_shift(latent_size, generator)
        corner = self.structure.draw_corner(LATENT_STRIDE * latent_size, generator)
        return Draw(log2_q.to(device), c.plain(batch), shift.to(device), corner.to(device))

    def forward(self, x: Image, draw: Draw) -> dict[str, Tensor]:
        c, zeros = self.config, draw.zeros
        _, side = self.model.encode(x, draw.log2_q)
        known = side.y_file[zeros:]
        ends = (torch.arange(x.shape[0], device=x.device) >= zeros).float().view(-1, 1, 1, 1)
        # a joint f knows nothing of samples: once for each image
        side = side._replace(y_file=self.model.restored(side, ends))
        plain = SideInfo(*(part[:zeros] for part in side))
        drawn = SideInfo(*(part[zeros:] for part in side))
        samples = self.samples
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
        distortion = torch.cat([squared(decoded, x[:zeros]), squared_of_mean(first, second, original)])
        root_lambda = math.sqrt(c.lambda0) * torch.exp2(-draw.log2_q).mean((1, 2, 3))
        seen = shifted(first, draw.shift)
        other = seen if first is second else shifted(second, draw.shift)
        terms = self.structure(seen, other, shifted(original, draw.shift), draw.corner)
        perceptual = c.weighed(terms)
        means = {"lpips": terms.lpips.mean()}
        if c.energy_weight:
            means["energy"] = terms.energy.mean()
        judged = torch.zeros((), device=x.device)
        if isinstance(self.companion, Discriminator):
            realness, judged = adversarial_losses(
                self.companion, 2 * original - 1, 2 * out[zeros:] - 1, known / LATENT_GAIN
            )
            perceptual = perceptual + c.adversarial_weight * realness.view(samples, -1).mean(0)
            means |= {"realness": -realness.mean(), "discriminator": judged}
        loss = (root_lambda * distortion).mean() + (root_lambda[zeros:] * perceptual).sum() / x.shape[0] + judged
        if zeros:
            means["distortion"] = distortion[:zeros].mean()
        if self.structure.dists is not None:
            means["dists"] = terms.dists.mean()
        return {"loss": loss, **means, "distortion_drawn": distortion[zeros:].mean()}

    def _latents(self, model: Ratevar, side: SideInfo) -> tuple[Tensor, Tensor]:
        """What g_s decodes at ρ = 1, with fresh noise, and log2 of the step left in it."""
        if not self.reverse:
            return side.y_file, side.log2_q_file
        b, _, h, w = side.y_file.shape

        def noise(stream: int, step: int, channels: int) -> Tensor:
            return torch.randn(b, channels, h, w, device=side.y_file.device)

        return model.reverse(side, noise)

    @torch.no_grad()
    def validate(self, model: Ratevar, photos: Photos, size: int, count: int) -> dict[str, float]:
        """At three steps N: `psnr_N` at ρ = 0; `lpips_N` (mean over the networks) and, where they are trained for,
        `energy_N` and `dists_N` at ρ = 1; `loss`: the mean of their weighted sum.
        """
        c, row, losses = self.config, dict[str, float](), list[float]()
        with fixed_noise(photos.device):
            x = fixed_crops(photos, count, size, held_out=True)
            corner = torch.full((2,), max(0, size - c.vgg_crop) // 2, device=x.device)
            for q_index in validation_indices(model):
                log2_q = torch.full((count, 1, 1, 1), log2_q_of(q_index), device=x.device)
                _, side = model.encode(x, log2_q)
                zero, one = torch.zeros_like(log2_q), torch.ones_like(log2_q)
                plain = model.g_s(model.restored(side, zero), log2_q, log2_q, zero).clamp(0, 1)
                row[f"psnr_{q_index}"] = psnr_of((plain - x).square().mean((1, 2, 3)))
                side = side._replace(y_file=model.restored(side, one))
                samples: list[Tensor] = []
                for _ in range(2):
                    y, end = self._latents(model, side)
                    samples.append(model.g_s(y, end, log2_q, one).clamp(0, 1))
                terms = self.structure(samples[0], samples[1], x, corner)
                row[f"lpips_{q_index}"] = float(terms.lpips.mean())
                if c.energy_weight:
                    row[f"energy_{q_index}"] = float(terms.energy.mean())
                if self.structure.dists is not None:
                    row[f"dists_{q_index}"] = float(terms.dists.mean())
                losses.append(float(c.weighed(terms).mean()))
        return {**row, "loss": sum(losses) / len(losses)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = [{"params": list(self.model.g_s.parameters()), "lr_scale": 1.0}]
        if self.trains_f and self.model.f is not None:
            groups.append({"params": list(self.model.f.parameters()), "lr_scale": self.config.reverse_lr})
        if self.companion is not None:
            groups.append(self.config.adversary_group(self.companion))
        return groups

    def save_samples(self, model: Ratevar, photos: Photos, size: int, path: Path) -> None:
        save_samples(model, photos, size, path, reverse=self.reverse)

    def notes(self) -> dict[str, Any]:
        return {"lambda0": self.config.lambda0, **self.config.notes()}
