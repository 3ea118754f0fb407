"""Analysis and synthesis transforms g_a, g_s at 1/16 of the image, each a linear (KLT) path plus a network.

    x ──►┤unshuffle 8├──►┤blocks at 1/8├──►┤unshuffle 2├──►┤blocks at 1/16├──►(+)──► y
     └───►┤unshuffle 16├──►┤P_a├───────────────────────────────────────────────┘

The synthesis runs the same way back, and its blocks at 1/8 also see the image of the linear path; a `Redraw` may follow.
With the last layer of each network at zero the pair is a working transform codec at the first step of training
(docs/design.md, "Linear paths").
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unquant.nn.blocks import WHOLE, Condition, Margins, ResBlock, resize_map, run_blocks, trim, zero_init
from unquant.nn.redraw import Redraw, RedrawNoise, RedrawSizes, fresh_noise
from unquant.shapes import Image, Latent

__all__ = ["LATENT_STRIDE", "Analysis", "Synthesis", "dct_directions", "klt_basis", "linear_decode"]

LATENT_STRIDE = 16
"""Pixels per latent position, in each direction."""
LATENT_GAIN = 16.0
"""Latent units per unit of an orthonormal transform of an image in [0, 1]."""
_HALF_STRENGTH = 6.0
"""Step at which the output of a `Redraw` counts half."""


def dct_directions(count: int) -> Float[Tensor, "c d"]:
    """The `count` lowest-frequency separable DCT-II directions of 16×16×3 patches, luminance first: (c, 768)."""
    n = LATENT_STRIDE
    k = np.arange(n)
    dct = np.cos(np.pi * (2 * k[None, :] + 1) * k[:, None] / (2 * n)) * np.sqrt(2 / n)
    dct[0] /= np.sqrt(2)
    # an orthonormal opponent colour basis; chroma frequencies count three times as high as luminance ones
    colour = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    colour /= np.linalg.norm(colour, axis=1, keepdims=True)
    cost = np.hypot(k[:, None], k[None, :]) * np.array([1, 3, 3])[:, None, None] + np.arange(3)[:, None, None]
    c, u, v = np.unravel_index(np.argsort(cost, axis=None, kind="stable")[:count], cost.shape)
    directions = np.einsum("kc,ku,kv->kcuv", colour[c], dct[u], dct[v]).reshape(count, -1)
    # from numpy, not torch: the linear paths then exist at once even under the meta device
    return torch.from_numpy(directions.astype(np.float32))


def linear_decode(y: Latent, directions: Float[Tensor, "c d"], reduction: int = 1) -> Image:
    """The image about grey of a linear path, (b, 3, h, w) float32, of y (b, c, h/16, w/16) in latent units.

    directions: (c, 768) at the analysis scale. reduction: 1, 2, 4 or 8; above 1 the mean of each square of so many pixels a
    side is one, and nothing larger is made.
    """
    side, r = LATENT_STRIDE // reduction, reduction
    with torch.autocast(y.device.type, enabled=False):
        rows = directions.float()
        if r > 1:
            rows = rows.unflatten(1, (3, side, r, side, r)).mean((3, 5)).flatten(1)
        patches = F.conv2d(y.float() / LATENT_GAIN**2, rows.T[:, :, None, None])
        return F.pixel_shuffle(patches, side)


def klt_basis(patches: Float[Tensor, "n d"], count: int) -> tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]:
    """The leading principal directions of image patches about grey: the Karhunen-Loève transform.

    patches: (n, 768), values in [0, 1], unshuffled by 16 (channel, row, column). Returns the `count` directions of largest
    second moment as rows (count, 768), orthonormal, and the standard deviation of each latent in latent units (count,).
    """
    centred = patches.double() - 0.5
    moment = centred.T @ centred / centred.shape[0]
    values, vectors = torch.linalg.eigh(moment)
    order = values.argsort(descending=True)[:count]
    return vectors[:, order].T.float().contiguous(), (values[order].clamp(min=0).sqrt() * LATENT_GAIN).float()


class Analysis(nn.Module):
    """g_a: image to latent. It never sees q: there is one y, and every rate is a coarser view of it."""

    def __init__(self, latent: int, width8: int, depth8: int, width16: int, depth16: int) -> None:
        super().__init__()
        self.linear = nn.Parameter(dct_directions(latent) * LATENT_GAIN)
        self.stem = nn.Conv2d(192, width8, 1)
        self.blocks8 = nn.ModuleList(ResBlock(width8) for _ in range(depth8))
        self.down = nn.Conv2d(4 * width8, width16, 1)
        self.blocks16 = nn.ModuleList(ResBlock(width16) for _ in range(depth16))
        self.head = nn.Conv2d(width16, latent, 1)
        zero_init(self.head)
        self.halo = -(-2 * depth8 // 2) + 2 * depth16
        """Receptive field beyond a latent position, in latent positions."""

    def start_from(self, basis: Float[Tensor, "c d"]) -> None:
        """Start the linear path from orthonormal directions (c, 768)."""
        with torch.no_grad():
            self.linear.copy_(basis * LATENT_GAIN)

    def forward(self, x: Image) -> Latent:
        """x: (b, 3, h, w) in [0, 1], h and w multiples of 16. Returns y (b, c, h/16, w/16), float32, in latent units."""
        centred = x - 0.5
        h = self.stem(F.pixel_unshuffle(centred, 8))
        for block in self.blocks8:
            h = block(h)
        h = self.down(F.pixel_unshuffle(h, 2))
        for block in self.blocks16:
            h = block(h)
        # the linear path keeps float32: y reaches ±220 and must be right to a fraction of q
        with torch.autocast(x.device.type, enabled=False):
            patches = F.pixel_unshuffle(centred.float(), LATENT_STRIDE)
            linear = F.conv2d(patches, self.linear.float()[:, :, None, None])
        return linear + LATENT_GAIN * self.head(h).float()


class Synthesis(nn.Module):
    """g_s(y_q; q, q_T, ρ): latent to image, conditioned on the noise left in its input, the file's step and realism.

    redraw: sizes of the network in pixel space that ends it, None without one.
    """

    def __init__(
        self,
        latent: int,
        width16: int,
        depth16: int,
        width8: int,
        depth8: int,
        cond: int,
        redraw: RedrawSizes | None = None,
    ) -> None:
        super().__init__()
        # held at the analysis path's scale, so that one learning rate suits both: the step of Adam does not know scales
        self.linear = nn.Parameter(dct_directions(latent) * LATENT_GAIN)
        self.condition = Condition(3, cond)
        self.stem = nn.Conv2d(latent, width16, 1)
        self.blocks16 = nn.ModuleList(ResBlock(width16, cond) for _ in range(depth16))
        self.up = nn.Conv2d(width16, 4 * width8, 1)
        self.inject = nn.Conv2d(192, width8, 1)
        self.blocks8 = nn.ModuleList(ResBlock(width8, cond) for _ in range(depth8))
        self.head = nn.Conv2d(width8, 192, 3, padding=1)
        zero_init(self.head)
        self.redraw = Redraw.of(3, redraw) if redraw is not None else None
        # how far the layers behind what the blocks at 1/8 are given look, there and at 1/16
        self._reach8 = 2 * depth8 + 1
        self._reach16 = -(-self._reach8 // 2)
        self.draft_halo = self._reach16 + 2 * depth16
        """Receptive field of `draft` beyond a latent position, in latent positions."""
        self.halo = self.draft_halo + (self.redraw.halo if self.redraw is not None else 0)
        """The same of both."""

    def start_from(self, basis: Float[Tensor, "c d"]) -> None:
        """Start the linear path from orthonormal directions (c, 768)."""
        with torch.no_grad():
            self.linear.copy_(basis * LATENT_GAIN)

    def forget_step(self) -> None:
        """Let q_T alone speak until training says otherwise, by moving the weights of q to it.

        Where q = q_T, which is all that stage 1 knows, nothing changes; a first reverse path then decodes no worse than none.
        """
        with torch.no_grad():
            weight = self.condition.first.weight
            weight[:, 1] += weight[:, 0]
            weight[:, 0] = 0

    def forward(
        self,
        y: Latent,
        log2_q: Float[Tensor, "b 1 _ _"],
        log2_q_file: Float[Tensor, "b 1 _ _"],
        realism: Float[Tensor, "b 1 _ _"],
        noise: RedrawNoise | None = None,
    ) -> Image:
        """Returns the image (b, 3, 16·h16, 16·w16), float32, not clamped.

        y: (b, c, h16, w16), latent units. log2_q, log2_q_file: log2 of the step left in y and of the file's step, each
        (b, 1, 1, 1) or (b, 1, h16, w16). realism: ρ in [0, 1], same shapes. noise: counts where there is a `Redraw`, at
        ρ > 0; None draws it by torch's default generator.
        """
        picture = self.draft(y, log2_q, log2_q_file, realism)
        if self.redraw is None:
            return picture
        h16, w16 = y.shape[-2:]
        noise = fresh_noise(y.shape[0], h16, w16, y.device) if noise is None else noise
        return self.redrawn(picture, log2_q, log2_q_file, realism, noise)

    def draft(
        self,
        y: Latent,
        log2_q: Float[Tensor, "b 1 _ _"],
        log2_q_file: Float[Tensor, "b 1 _ _"],
        realism: Float[Tensor, "b 1 _ _"],
        margins: Margins = WHOLE,
    ) -> Image:
        """The image before its `Redraw`, without the margins; else as `forward`. margins: of what is given, in latent
        positions.
        """
        h16, w16 = y.shape[-2:]
        at8, at1 = margins.times(2), margins.times(LATENT_STRIDE)
        linear = linear_decode(y, self.linear)
        cond = self.condition(torch.cat(_scalars(log2_q, log2_q_file, realism), dim=1))
        h = run_blocks(self.blocks16, self.stem(y / LATENT_GAIN), cond, margins, self._reach16)
        h = trim(F.pixel_shuffle(self.up(h), 2), at8.within(2 * self._reach16), self._reach8)
        # the finer blocks see the linear decode itself: what is left to them is a restoration of it
        h = h + self.inject(F.pixel_unshuffle(trim(linear, at1, 8 * self._reach8), 8))
        cond8 = trim(resize_map(cond, 2 * h16, 2 * w16), at8, self._reach8)
        h = run_blocks(self.blocks8, h, cond8, at8.within(self._reach8), 1)
        residual = F.pixel_shuffle(trim(self.head(F.silu(h)), at8.within(1), 0), 8)
        return 0.5 + trim(linear, at1, 0) + residual.float()

    def redrawn(
        self,
        picture: Image,
        log2_q: Float[Tensor, "b 1 _ _"],
        log2_q_file: Float[Tensor, "b 1 _ _"],
        realism: Float[Tensor, "b 1 _ _"],
        noise: RedrawNoise,
        margins: Margins = WHOLE,
    ) -> Float[Tensor, "b 3 _ _"]:
        """What the `Redraw`, which must be there, makes of a draft, without the margins; else as `forward`. margins: of what
        is given, in latent positions.
        """
        assert self.redraw is not None
        scalars = torch.cat(_scalars(log2_q, log2_q_file, realism), dim=1)
        q = torch.exp2(log2_q_file)
        # tends to the identity as the step falls
        strength = q / (q + _HALF_STRENGTH)
        return self.redraw(picture, scalars, strength, realism, *noise, margins)


def _scalars(log2_q: Tensor, log2_q_file: Tensor, realism: Tensor) -> tuple[Tensor, ...]:
    """What g_s is told, each roughly in [−1, 1]."""
    return torch.broadcast_tensors(log2_q / 3 - 1, log2_q_file / 3 - 1, 2 * realism - 1)
