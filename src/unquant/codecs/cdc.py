"""The `cdc` codec: the decoder is a diffusion of pixels, conditioned on the latent, in a few DDIM steps.

    x̂_1 ◄──┤DDIM, f(·; ρ = 1) from γ·noise├◄──┐
    x̂_0 ◄──┤DDIM, f(·; ρ = 0) from 0      ├◄──┤context├◄── ŷ

Realism ρ is the line (1−ρ)·x̂_0 + ρ·x̂_1 between the two. Yang & Mandt, arXiv 2209.06950.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.interface import Drawing
from unquant.codecs.latent import LatentCodec
from unquant.codecs.parts import pixels_of
from unquant.codecs.windows import Window, run_windowed, run_windows
from unquant.container import MAX_STEPS
from unquant.diffusion.noise import seeded_noise
from unquant.networks.cdc import Cdc, CdcConfig
from unquant.networks.common import SideInfo
from unquant.nn.compressor import Context
from unquant.nn.transforms import LATENT_STRIDE

__all__ = ["CdcCodec"]


class CdcCodec(LatentCodec[CdcConfig, Cdc]):
    """A loaded `cdc` model. steps of a decode: of DDIM, 1 and more; a preview takes one step to realism 0.

    f and g_s run in windows as if the picture were one piece, unless f has global attention: then it is one piece. Memory
    grows with the pixels, by 150 to 300 bytes each at the default size.
    """

    family = "cdc"

    @property
    def _default_steps(self) -> int | None:
        return self.config.steps

    def _check_steps(self, steps: int, lowest: int = 1, highest: int = MAX_STEPS) -> None:
        super()._check_steps(steps, lowest, min(highest, self.config.train_steps))

    def _steps_of(self, asked: int | None, realism: float, *, preview: bool) -> int:
        if asked is None:
            return 1 if preview else self.config.steps
        # a file may ask for more steps than other weights of its stream id have noise levels
        return min(asked, self.config.train_steps)

    def _reach(self, steps: int) -> tuple[int, int] | None:
        f = self.model.f
        if f.halo is None or f.align is None:
            return None
        return self.model.g_s.halo + steps * f.halo, f.align

    def _draw(self, side: SideInfo, drawing: Drawing, read: Window) -> npt.NDArray[np.uint8]:
        context, log2_q = self._context(side.y_file), side.log2_q_file
        del side  # planes as large as y
        covered, start = read.times(LATENT_STRIDE), None
        if drawing.realism > 0:
            start = seeded_noise(drawing.seed, 0, 3, *covered.size, top=covered.top, left=covered.left).to(self.device)
        ends = [(0.0, None)] if drawing.realism < 1 else []
        ends += [(1.0, start)] if drawing.realism > 0 else []
        images = [
            self.model.sample(context, log2_q, end, noise, steps=drawing.steps, network=self._denoise).clamp_(0, 1)
            for end, noise in ends
        ]
        x = images[0] if len(images) == 1 else torch.lerp(images[0], images[1], drawing.realism)
        return pixels_of(x.mul_(255).round_().byte(), covered, drawing.window)

    def _context(self, y: Tensor) -> Context:
        """g_s(ŷ), in windows."""
        g_s, stride = self.model.g_s, self.model.g_s.stride
        h16, w16 = y.shape[-2:]
        widths = self.config.compressor.maps
        scales = [LATENT_STRIDE // (stride << i) for i in range(len(widths))]
        planes = [
            torch.empty(1, width, h16 * scale, w16 * scale, dtype=self.precision, device=self.device)
            for width, scale in zip(widths, scales, strict=True)
        ]
        if g_s.linear is not None:
            planes.append(torch.empty(1, 3, h16 * LATENT_STRIDE, w16 * LATENT_STRIDE, device=self.device))
            scales.append(LATENT_STRIDE)

        def network(top: int, bottom: int, left: int, right: int) -> list[Tensor]:
            part = y[..., top:bottom, left:right].contiguous(memory_format=torch.channels_last)
            with self._autocast():
                maps, base, _ = g_s(part)
            return [*maps] if base is None else [*maps, base]

        run_windows(network, planes, scales, (h16, w16), self.window, g_s.halo)
        base = planes.pop() if g_s.linear is not None else None
        return Context(tuple(planes), base, stride)

    def _denoise(self, x_t: Tensor, time: Tensor, context: Context, told: Tensor) -> Tensor:
        """f in windows, as if the picture were one piece; with global attention it is one."""
        f, s = self.model.f, LATENT_STRIDE
        size = (x_t.shape[-2] // s, x_t.shape[-1] // s)

        def network(top: int, bottom: int, left: int, right: int) -> Tensor:
            part = x_t[..., top * s : bottom * s, left * s : right * s].contiguous(memory_format=torch.channels_last)
            with self._autocast():
                return f(part, time, context.window(top, bottom, left, right), told)

        window, halo = max(size), 0
        if f.halo is not None and f.align is not None:
            window, halo = max(self.window // f.align, 1) * f.align, f.halo
        return run_windowed(network, torch.empty_like(x_t), size, window, halo, s)
