"""The `av1` codec: AV1 codes the picture (`av1_encode`), and a network reverses its quantiser when decoding.

    x ──►┤libaom├──► OBUs ──► .unq or .avif                                                       (encode)
    x̂ ◄──┤f(·; q, ρ, ξ)├◄── x_q ◄──┤any AV1 decoder├◄── OBUs                                     (decode)

Realism ρ is the line (1−ρ)·x̂_0 + ρ·x̂_1 between f's two ends; 0 steps give x_q, AV1's own picture. Files of other programs are
redrawn as well: f is told what their headers say. Where AV1 was lossless the picture is returned as it is.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.av1_decode import Av1Decoder
from unquant.codecs.av1_encode import Av1Encoder
from unquant.codecs.decoder import Drawing
from unquant.codecs.forecast import memory_errors
from unquant.codecs.interface import Codec
from unquant.codecs.parts import padded_part, pixels_of
from unquant.codecs.windows import Window, margins_of, redraw_noise, windows
from unquant.diffusion.samplers import sample_deterministic
from unquant.networks.av1 import Av1, Av1Config, Coding, told
from unquant.nn.redraw import REDRAW_STRIDE

__all__ = ["Av1Codec"]


class Av1Codec(Av1Encoder, Av1Decoder, Codec[Av1Config, Av1]):
    """A loaded `av1` model. steps of a decode: 1, or 0 for AV1's own picture, which is also the preview."""

    # ---- decode ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _guarded(self) -> Generator[None]:
        with memory_errors(), torch.inference_mode():
            yield

    def _draw(self, rgb: npt.NDArray[np.uint8], coding: Coding, drawing: Drawing) -> npt.NDArray[np.uint8]:
        """(1−ρ)·x̂_0 + ρ·x̂_1, the pixels that are wanted as (h, w, 3) uint8, from AV1's whole picture."""
        height, width = rgb.shape[:2]
        h16, w16 = -(-height // REDRAW_STRIDE), -(-width // REDRAW_STRIDE)
        table = told([coding]).to(self.device)
        realism = drawing.realism
        ends = [end for end, counts in ((0.0, realism < 1), (1.0, realism > 0)) if counts]
        schedule = torch.tensor([coding.step / 8 / 255, 0.0], device=self.device)

        def network(place: Window, read: Window) -> Tensor:
            x_q = torch.from_numpy(padded_part(rgb, read, REDRAW_STRIDE)).to(self.device)
            x_q = x_q.permute(2, 0, 1)[None].float().div_(255).contiguous(memory_format=torch.channels_last)
            noise = redraw_noise(drawing.seed if realism > 0 else None, read, self.device, 0)
            margins = margins_of(place, read)
            inner = place.seen_from(read).times(REDRAW_STRIDE).cut(x_q)

            def drawn(end: float) -> Tensor:
                # the path is of one step, and its state x_q without the margins
                def denoise(state: Tensor, q: Tensor) -> Tensor:
                    with self._autocast():
                        rho = torch.full((1, 1, 1, 1), end, device=self.device)
                        return self.model(x_q, table, rho, *noise, margins)

                return sample_deterministic(denoise, inner, schedule).clamp_(0, 1)

            pictures = [drawn(end) for end in ends]
            x = pictures[0] if len(pictures) == 1 else torch.lerp(pictures[0], pictures[1], realism)
            return x.mul_(255).round_().byte()

        part = drawing.window.covering(REDRAW_STRIDE)
        covered = part.times(REDRAW_STRIDE)
        out = torch.empty(1, 3, *covered.size, dtype=torch.uint8, device=self.device)
        for place, read in windows((h16, w16), self.window, self.model.f.halo, part):
            place.seen_from(part).times(REDRAW_STRIDE).cut(out).copy_(network(place, read))
        return pixels_of(out, covered, drawing.window)
