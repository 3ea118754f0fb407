"""The `ratevar` codec: the decoder reverses the quantisation in latent space, then draws the image in one pass.

    x̂_1 ◄──┤g_s(·; q_end, q_T, 1)├◄──┤reverse path├◄── ŷ, μ, σ
    x̂_0 ◄──┤g_s(·; q_T, q_T, 0)├◄── ŷ

or, with a reverse network that was trained jointly, both by way of it:

    x̂_ρ ◄──┤g_s(·; q_T, q_T, ρ)├◄──┤reverse path, ρ├◄── ŷ, μ, σ

Realism ρ is the line (1−ρ)·x̂_0 + ρ·x̂_1 between the two; x̂_0 is the plain decode.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.decoder import Drawing
from unquant.codecs.latent import LatentCodec, Work
from unquant.codecs.parts import pixels_of
from unquant.codecs.tiles import Latents
from unquant.codecs.windows import Kept, Window, blocks, margins_of, redraw_noise, run_windowed
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
    rdoq_weight = 100.0

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
        halo, f = self.model.g_s.draft_halo, self.model.f
        return (halo + steps * f.halo, f.align) if steps and f is not None else (halo, 1)

    def _work(self, drawing: Drawing, size: tuple[int, int]) -> Work:
        """The drafts of g_s are made by blocks, each once; the last network looks beyond a block, so that it follows its
        reach behind them.
        """
        redraw, whole = self.model.g_s.redraw, Window.whole(size)
        reach = redraw.halo if redraw is not None else 0
        covered = drawing.window.covering(LATENT_STRIDE)
        around = covered.grown(reach).within(whole)
        drafts = blocks(around, self.window, even=True)
        behind = (_behind(draft, reach, around, covered) for draft in drafts)
        parts = [part for part in behind if min(part.size) > 0]
        reads = [self._read(draft, drawing.steps, size) for draft in drafts]
        places = [part.times(LATENT_STRIDE).within(drawing.window) for part in parts]

        def draw(latents: Latents) -> Iterator[npt.NDArray[np.uint8]]:
            def draft(block: Window) -> Tensor:
                read = reads[drafts.index(block)]
                return self._draft(latents.cut(read), drawing, block, read)

            seen = [part.grown(reach).within(whole) for part in parts]
            kept = Kept(draft, drafts, seen, LATENT_STRIDE)
            for part, read, place in zip(parts, seen, places, strict=True):
                drawn = self._finish(kept.cut(read), latents.log2_q, drawing, part, read)
                yield pixels_of(drawn, part.times(LATENT_STRIDE), place)

        return Work(reads, places, draw)

    @staticmethod
    def _ends(drawing: Drawing) -> list[float]:
        """Those of the realism that count."""
        return [end for end, share in ((0.0, 1 - drawing.realism), (1.0, drawing.realism)) if share > 0]

    def _is_reversed(self, drawing: Drawing, end: float) -> bool:
        """Whether the reverse path leads to an end of the realism."""
        return drawing.steps > 0 and (end == 1 or self.config.joint)

    def _draft(self, side: SideInfo, drawing: Drawing, place: Window, read: Window) -> Tensor:
        """What g_s makes of a block of the latent before its last network, at each end of the realism: (ends, 3, 16·h, 16·w).

        side: of what is read for the block, but for the map of steps, which is the whole picture's.
        """
        side = side._replace(log2_q_file=read.cut(side.log2_q_file))
        log2_q_file, g_s = side.log2_q_file, self.model.g_s
        latents = [
            (*self._reverse(side, drawing, read, end), end)
            if self._is_reversed(drawing, end)
            else (side.y_file, log2_q_file, end)
            for end in self._ends(drawing)
        ]
        del side  # planes as large as y
        inner = place.grown(g_s.draft_halo).within(read)
        cut, margins = inner.seen_from(read).cut, margins_of(place, inner)
        drafts: list[Tensor] = []
        for y, log2_q, end in latents:
            y = cut(y).contiguous(memory_format=torch.channels_last)
            rho = torch.full((1, 1, 1, 1), end, device=self.device)
            with self._autocast():
                drafts.append(g_s.draft(y, cut(log2_q), cut(log2_q_file), rho, margins))
        return torch.cat(drafts)

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

            # with its halo, what a block reads for one step fits into one window
            return run_windowed(window, torch.empty_like(y), read.size, 2 * self.window, f.halo, 1)

        return self.model.reverse(side, noise, steps=drawing.steps, network=denoise)

    def _finish(self, drafts: Tensor, log2_q: Tensor, drawing: Drawing, place: Window, read: Window) -> Tensor:
        """(1−ρ)·x̂_0 + ρ·x̂_1, (1, 3, 16·h, 16·w) uint8 of a part of the latent. drafts: of what is read for it. log2_q: of the
        whole file.
        """
        g_s, rho = self.model.g_s, drawing.realism
        if g_s.redraw is not None:
            log2_q = read.cut(log2_q)
            noise = redraw_noise(drawing.seed if rho > 0 else None, read, self.device, REDRAW_STREAM)
            pictures: list[Tensor] = []
            for end, draft in zip(self._ends(drawing), drafts.split(1), strict=True):
                left = self.model.log2_q_left(log2_q) if self._is_reversed(drawing, end) else log2_q
                told = torch.full((1, 1, 1, 1), end, device=self.device)
                with self._autocast():
                    pictures.append(g_s.redrawn(draft, left, log2_q, told, noise, margins_of(place, read)).clamp_(0, 1))
        else:
            pictures = [draft.clamp_(0, 1) for draft in drafts.split(1)]
        x = pictures[0] if len(pictures) == 1 else torch.lerp(pictures[0], pictures[1], rho)
        return x.mul_(255).round_().byte()


def _behind(block: Window, reach: int, blocks: Window, wanted: Window) -> Window:
    """A block `reach` further up and to the left, but where `blocks`, what all of them cover, ends; of what is wanted."""
    top, bottom, left, right = block
    return Window(
        wanted.top if top == blocks.top else top - reach,
        wanted.bottom if bottom == blocks.bottom else bottom - reach,
        wanted.left if left == blocks.left else left - reach,
        wanted.right if right == blocks.right else right - reach,
    ).within(wanted)
