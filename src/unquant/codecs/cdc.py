"""The `cdc` codec: the decoder is a diffusion of pixels, conditioned on the latent, in a few DDIM steps.

    x̂_1 ◄──┤DDIM, f(·; ρ = 1) from γ·noise├◄──┐
    x̂_0 ◄──┤DDIM, f(·; ρ = 0) from 0      ├◄──┤context├◄── ŷ

Realism ρ is the line (1−ρ)·x̂_0 + ρ·x̂_1 between the two. Yang & Mandt, arXiv 2209.06950.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.decoder import Drawing
from unquant.codecs.latent import LatentCodec, Work
from unquant.codecs.parts import pixels_of
from unquant.codecs.progress import counted
from unquant.codecs.tiles import Latents
from unquant.codecs.windows import Window, blocks
from unquant.container import MAX_STEPS
from unquant.diffusion.noise import seeded_noise
from unquant.networks.cdc import Cdc, CdcConfig
from unquant.networks.common import SideInfo
from unquant.nn.compressor import Context
from unquant.nn.transforms import LATENT_STRIDE

__all__ = ["CdcCodec"]


class CdcCodec(LatentCodec[CdcConfig, Cdc]):
    """A loaded `cdc` model. steps of a decode: of DDIM, 1 and more; a preview takes one step to realism 0.

    f and g_s run in windows as if the picture were one piece, unless f has global attention: then it is one piece. A decode
    of more than one step keeps x_t of the whole picture, 12 bytes a pixel (24 for a realism between 0 and 1), and ŷ.
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

    def _work(self, drawing: Drawing, size: tuple[int, int]) -> Work:
        wanted = drawing.window
        covered = wanted.covering(LATENT_STRIDE)
        # every step but the last needs more than its block; with one, a block needs as much as a window
        alone = drawing.steps == 1 and self.model.f.halo is not None
        parts = blocks(covered, self.window) if alone else [covered]
        reads = [self._read(part, drawing.steps, size) for part in parts]
        places = [part.times(LATENT_STRIDE).within(wanted) for part in parts]

        def draw(latents: Latents) -> Iterator[npt.NDArray[np.uint8]]:
            for read, place in zip(reads, places, strict=True):
                yield self._draw(latents.cut(read), drawing._replace(window=place), read)

        return Work(reads, places, draw)

    def _draw(self, side: SideInfo, drawing: Drawing, read: Window) -> npt.NDArray[np.uint8]:
        """The pixels of the drawing's window, (h, w, 3). side: of the part `read` of the latent."""
        model, realism, s = self.model, drawing.realism, LATENT_STRIDE
        halo, align, window = 0, 1, max(read.size)
        if model.f.halo is not None and model.f.align is not None:
            halo, align = model.f.halo, model.f.align
            window = max(self.window // align, 1) * align
        covered = drawing.window.covering(s)
        out = torch.empty(1, 3, *covered.times(s).size, dtype=torch.uint8, device=self.device)
        ends = [end for end, share in ((0.0, 1 - realism), (1.0, realism)) if share > 0]
        states = [_State(read, self._start(drawing.seed, end)) for end in ends]
        levels = model.levels(drawing.steps)
        near, context = None, None
        for step in range(drawing.steps):
            left = drawing.steps - 1 - step
            wanted = covered.grown(left * halo, align).within(read) if halo else read
            places = blocks(wanted, window, by_rows=True)
            for place in counted(places, "windows", len(places)):
                if place.left == wanted.left:
                    row = Window(place.top, place.bottom, wanted.left, wanted.right)
                    for state in states:
                        state.enter(step, row, row.grown(halo, align).within(read))
                around = place.grown(halo, align).within(read)
                if around != near or context is None:  # a picture of one window has the same in every step
                    near, context = around, self._context(side.y_file, around, read)
                alphas = levels[step : step + 2]
                images: list[Tensor] = []
                for end, state in zip(ends, states, strict=True):
                    x_t = state.seen(around)
                    x = model.advance(context, side.log2_q_file, end, x_t, alphas, network=self._denoise)
                    x = place.seen_from(around).times(s).cut(x)
                    if left:
                        state.put(place, x)
                    else:
                        images.append(((x + 1) / 2).clamp_(0, 1))
                if images:
                    image = images[0] if len(images) == 1 else torch.lerp(images[0], images[1], realism)
                    shared = place.within(covered)
                    drawn = shared.seen_from(place).times(s).cut(image.mul_(255).round_())
                    shared.seen_from(covered).times(s).cut(out).copy_(drawn)
        return pixels_of(out, covered.times(s), drawing.window)

    def _start(self, seed: int, end: float) -> Callable[[Window], Tensor]:
        """What DDIM starts from at an end of the realism, by parts of the latent."""

        def start(part: Window) -> Tensor:
            place = part.times(LATENT_STRIDE)
            if end == 0:
                return torch.zeros(1, 3, *place.size, device=self.device)
            noise = seeded_noise(seed, 0, 3, *place.size, top=place.top, left=place.left)
            return (self.config.gamma * end * noise).to(self.device)

        return start

    def _context(self, y: Tensor, part: Window, read: Window) -> Context:
        """g_s(ŷ) of a part of the latent. y: of the part `read`."""
        around = part.grown(self.model.g_s.halo).within(read)
        with self._autocast():
            maps, base, stride = self.model.g_s(
                around.seen_from(read).cut(y).contiguous(memory_format=torch.channels_last)
            )
        whole = Context(tuple(plane.to(self.precision) for plane in maps), base, stride)
        return whole.window(*part.seen_from(around))

    def _denoise(self, x_t: Tensor, time: Tensor, context: Context, told: Tensor) -> Tensor:
        with self._autocast():
            return self.model.f(x_t.contiguous(memory_format=torch.channels_last), time, context, told)


class _State:
    """x_t of the part `read` of a latent, that of one step taking the place of that before, row of windows by row.

    start: x_t before the first step, by parts, so that no plane is kept for it.
    """

    def __init__(self, read: Window, start: Callable[[Window], Tensor]) -> None:
        self._read, self._start = read, start
        self._plane = self._old = torch.empty(0)
        self._step, self._row, self._around = -1, read, read

    def enter(self, step: int, row: Window, around: Window) -> None:
        """The next row of windows, from above, in a step. around: what it is made from, of which a copy is kept."""
        if step == 0:
            old = self._start(around)
        else:
            old = around.seen_from(self._read).times(LATENT_STRIDE).cut(self._plane)
            if step == self._step:  # the rows above have taken the step already
                above = Window(around.top, self._row.bottom, around.left, around.right).seen_from(self._around)
                kept = above.times(LATENT_STRIDE).cut(self._old)
                old = torch.cat([kept, old[..., kept.shape[-2] :, :]], dim=-2)
            else:
                old = old.clone()
        self._old, self._step, self._row, self._around = old, step, row, around

    def seen(self, part: Window) -> Tensor:
        """x_t before the step, of a part of what is around the row."""
        return part.seen_from(self._around).times(LATENT_STRIDE).cut(self._old)

    def put(self, part: Window, x: Tensor) -> None:
        """x_t after the step, of a part of the row."""
        if not self._plane.numel():
            self._plane = x.new_empty(1, 3, *self._read.times(LATENT_STRIDE).size)
        part.seen_from(self._read).times(LATENT_STRIDE).cut(self._plane).copy_(x)
