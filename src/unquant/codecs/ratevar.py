"""The `ratevar` codec: the decoder reverses the quantisation in latent space, then draws the image in one pass.

    x̂_1 ◄──┤g_s(·; q_end, q_T, 1)├◄──┤reverse path├◄── ŷ, μ, σ
    x̂_0 ◄──┤g_s(·; q_T, q_T, 0)├◄── ŷ

or, with a reverse network that was trained jointly, both by way of it:

    x̂_ρ ◄──┤g_s(·; q_T, q_T, ρ)├◄──┤reverse path, ρ├◄── ŷ, μ, σ

Realism ρ is the line (1−ρ)·x̂_0 + ρ·x̂_1 between the two; x̂_0 is the plain decode.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.decoder import Drawing
from unquant.codecs.latent import LatentCodec
from unquant.codecs.parts import pixels_of
from unquant.codecs.windows import Window, redraw_noise, run_windowed
from unquant.container import MAX_STEPS
from unquant.diffusion.noise import seeded_noise
from unquant.errors import OptionError
from unquant.networks.common import SideInfo
from unquant.networks.ratevar import Ratevar, RatevarConfig
from unquant.nn.transforms import LATENT_STRIDE

__all__ = ["REDRAW_STREAM", "RatevarCodec"]

REDRAW_STREAM = 2
"""Of the seeded noise, after those of the reverse path."""


class RatevarCodec(LatentCodec[RatevarConfig, Ratevar]):
    """A loaded `ratevar` model. steps of a decode: 0 leaves the reverse path out (any weights), 1 and more need weights that
    have a reverse network. At realism 0 only one that was trained jointly is run; of such a preview is one step.
    """

    family = "ratevar"

    @property
    def _default_steps(self) -> int | None:
        return self.config.reverse.steps if self.config.reverse else None

    def _check_steps(self, steps: int, lowest: int = 0, highest: int = MAX_STEPS) -> None:
        super()._check_steps(steps, lowest, highest)
        if steps and self.config.reverse is None:
            raise OptionError(f"the weights {self.name} have no reverse network for {steps} steps")

    def _steps_of(self, asked: int | None, realism: float, *, preview: bool) -> int:
        reverse = self.config.reverse
        if reverse is None or (realism == 0 and not reverse.joint):
            # a file may ask for steps that other weights of its stream id have no network for
            return 0
        return (1 if preview else reverse.steps) if asked is None else asked

    def _needs_side(self, steps: int) -> bool:
        return steps > 0

    @property
    def _linear(self) -> Tensor:
        return self.model.g_s.linear

    def _reach(self, steps: int) -> tuple[int, int]:
        halo, f = self.model.g_s.halo, self.model.f
        return (halo + steps * f.halo, f.align) if steps and f is not None else (halo, 1)

    def _draw(self, side: SideInfo, drawing: Drawing, read: Window) -> npt.NDArray[np.uint8]:
        side = side._replace(log2_q_file=read.cut(side.log2_q_file))
        y_file, log2_q_file, realism = side.y_file, side.log2_q_file, drawing.realism
        wanted = [end for end, share in ((0.0, 1 - realism), (1.0, realism)) if share > 0]
        reversed_ends = wanted if self.config.joint else [1.0]
        ends = [
            (*self._reverse(side, drawing, read, end), end)
            if drawing.steps and end in reversed_ends
            else (y_file, log2_q_file, end)
            for end in wanted
        ]
        del side, y_file  # planes as large as y
        return self._synthesise(ends, log2_q_file, drawing, read)

    def _reverse(self, side: SideInfo, drawing: Drawing, read: Window, end: float) -> tuple[Tensor, Tensor]:
        """The latent at the end of the reverse path, and log2 of the step left in it. end: ρ that a joint f is told."""
        f = self.model.f
        assert f is not None
        told = torch.full((1, 1, 1, 1), end, device=self.device) if self.config.joint else None
        corner = {"top": read.top, "left": read.left}

        def noise(stream: int, step: int, channels: int) -> Tensor:
            return seeded_noise(drawing.seed, step, channels, *read.size, stream=stream, **corner).to(self.device)

        def denoise(y: Tensor, log2_q: Tensor, side: SideInfo, xi: Tensor | None) -> Tensor:
            def window(top: int, bottom: int, left: int, right: int) -> Tensor:
                cut = Window(top, bottom, left, right).cut
                with self._autocast():
                    part = SideInfo(*(cut(plane) for plane in side))
                    return f(cut(y), cut(log2_q), part, None if xi is None else cut(xi), told)

            return run_windowed(window, torch.empty_like(y), read.size, self.window, f.halo, 1)

        return self.model.reverse(side, noise, steps=drawing.steps, network=denoise)

    def _synthesise(
        self, ends: list[tuple[Tensor, Tensor, float]], log2_q_file: Tensor, drawing: Drawing, read: Window
    ) -> npt.NDArray[np.uint8]:
        """(1−ρ)·x̂_0 + ρ·x̂_1, the pixels that are wanted. ends: y, log2 q and 0 or 1 of those of the two that count."""
        g_s = self.model.g_s

        def network(top: int, bottom: int, left: int, right: int) -> Tensor:
            cut = Window(top, bottom, left, right).cut
            place = Window(top + read.top, bottom + read.top, left + read.left, right + read.left)
            seed = drawing.seed if drawing.realism > 0 else None
            noise = redraw_noise(seed, place, self.device, REDRAW_STREAM) if g_s.redraw is not None else None
            decoded: list[Tensor] = []
            for y, log2_q, end in ends:
                part = cut(y).contiguous(memory_format=torch.channels_last)
                rho = torch.full((1, 1, 1, 1), end, device=self.device)
                with self._autocast():
                    decoded.append(g_s(part, cut(log2_q), cut(log2_q_file), rho, noise).clamp_(0, 1))
            x = decoded[0] if len(decoded) == 1 else torch.lerp(decoded[0], decoded[1], drawing.realism)
            return x.mul_(255).round_().byte()

        part = drawing.window.covering(LATENT_STRIDE)
        covered = part.times(LATENT_STRIDE)
        out = torch.empty(1, 3, *covered.size, dtype=torch.uint8, device=self.device)
        run_windowed(network, out, read.size, self.window, g_s.halo, LATENT_STRIDE, part.seen_from(read))
        return pixels_of(out, covered, drawing.window)
