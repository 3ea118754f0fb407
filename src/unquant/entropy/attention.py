"""Top-k attention with diamond-shaped relative positions in windows, and the transformer blocks made of it.

    x ─┬─►┤norm├──►┤film(q)├──►┤qkv├──►┤top-k attention, window by window├──►┤out├──(+)─┬─►┤norm├──►┤MLP├──(+)──► x
       └───────────────────────────────────────────────────────────────────────────────┘└───────────────┘

Qian et al. 2022, arXiv 2202.05492, section 3, pre-norm. Written for the exact path (`unquant.entropy.exact`): every
operation is continuous in its inputs, and the windows depend on nothing but the size of the latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unquant.entropy.base import positions_of
from unquant.nn.blocks import Film

__all__ = ["BUCKETS", "Block", "Sight", "Stage", "Window", "diamond_buckets", "topk_attention", "weighted", "windows"]

_REACH = 3
"""Largest L1 distance at which an offset has an entry of its own."""
_NEAR = 2 * _REACH * (_REACH + 1) + 1
BUCKETS = _NEAR + 1
"""Entries of the table of relative positions: one for each near offset, one for all others."""
_CHUNK = 1 << 19
"""Scores held at a time: queries are taken in groups of this many divided by heads and keys."""
_LN2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Sight:
    """Which positions a query may attend to; all of its window by default.

    odd: only those with odd i + j (coded in the first pass). visible: (h, w), only those where it is True.
    """

    odd: bool = False
    visible: Bool[Tensor, "h w"] | None = None


class Window(NamedTuple):
    """A rectangle of queries and the keys that they see, all of them in the rectangle.

    keys: flat positions within it, (m,), None for all. buckets: (n, m), the entry of each pair in the table of relative
    positions. allowed: (m,), False where a key is hidden; None where none is.
    """

    rows: slice
    cols: slice
    keys: Int[Tensor, " m"] | None
    buckets: Int[Tensor, "n m"]
    allowed: Bool[Tensor, " m"] | None


def diamond_buckets(down: Int[Tensor, "n m"], right: Int[Tensor, "n m"]) -> Int[Tensor, "n m"]:
    """Table entry of the offset (down, right) from query to key: 0..24 within L1 distance 3, 25 for all beyond."""
    # rows of the diamond hold 1, 3, 5, 7, 5, 3, 1 offsets: the first entry of each is a difference of squares
    above, below = down + _REACH, _REACH + 1 - down
    first = torch.where(down <= 0, above * above, _NEAR - below * below)
    distance = down.abs()
    return torch.where(distance + right.abs() <= _REACH, first + right + _REACH - distance, _NEAR)


def _edges(size: int, side: int, shifted: bool) -> list[int]:
    """Borders of windows of nearly equal size, at most `side`; shifted by half a window, the outer ones cut short."""
    step = -(-size // -(-size // side))
    inner = range(step - step // 2, size, step) if shifted and size > side else range(step, size, step)
    return [0, *inner, size]


def windows(
    height: int, width: int, side: int, sight: Sight, device: torch.device, *, shifted: bool = False
) -> list[list[Window]]:
    """The windows of a latent, in rows: one for all of it up to 2·side² positions, else of at most side × side.

    shifted: borders moved by half a window, so that blocks of both kinds in turn carry information across them.
    """
    if height * width <= 2 * side * side:
        side = max(height, width)

    known: dict[tuple[int, int, int | None], tuple[Tensor | None, Tensor]] = {}

    def pairs(h: int, w: int, parity: int | None) -> tuple[Tensor | None, Tensor]:
        keys = None if parity is None else positions_of(parity, h, w, device)
        queries = torch.arange(h * w, device=device)
        seen = queries if keys is None else keys
        down = (seen // w)[None, :] - (queries // w)[:, None]
        return keys, diamond_buckets(down, (seen % w)[None, :] - (queries % w)[:, None])

    def window(top: int, bottom: int, left: int, right: int) -> Window:
        h, w = bottom - top, right - left
        rows, cols = slice(top, bottom), slice(left, right)
        kind = h, w, (top + left) % 2 if sight.odd else None
        if kind not in known:
            known[kind] = pairs(*kind)
        keys, buckets = known[kind]
        allowed = None if sight.visible is None else sight.visible[rows, cols].flatten()
        return Window(rows, cols, keys, buckets, allowed)

    rows, cols = (_edges(size, side, shifted) for size in (height, width))
    return [[window(*down, *right) for right in pairwise(cols)] for down in pairwise(rows)]


def topk_attention(
    q: Float[Tensor, "s n e"],
    k: Float[Tensor, "s m e"],
    v: Float[Tensor, "s m f"],
    table: Float[Tensor, "p e"],
    buckets: Int[Tensor, "n m"],
    top: int,
    allowed: Bool[Tensor, " m"] | None = None,
) -> Float[Tensor, "s n f"]:
    """Attention to the `top` best keys of each query, continuous in q, k, v and table (the paper's, section 3, jumps).

    Scores are s = q·(k + table[bucket])/√e. With τ the score of key number top + 1, key j has weight
    w = max(exp(s_j − τ) − 1, 0), and the output is Σ w·v / (1 + Σ w). A key that falls out of the best has weight 0 as it
    does, so that a swap, or any tie, is harmless. The 1 in the denominator is that key's own weight, given to a value of 0:
    without it the weights of all but equal scores would be ratios of rounding errors. Where all keys tie the output is 0.
    A query with `top` keys or fewer (all of them have a place) takes τ = min s − ln 2: their weights are at least 1. Without
    a key the output is 0. s counts heads and images; allowed: see `Window`.
    """
    s, n, e = q.shape
    m = k.shape[1]
    if m == 0:
        return v.new_zeros(s, n, v.shape[2])
    q = q * e**-0.5
    parts: list[Tensor] = []
    rows = max(1, _CHUNK // (s * m))
    for start in range(0, n, rows):
        some = q[:, start : start + rows]
        # q·Eᵀ first, then one entry for each pair: n × m × e never exists
        bias = (some @ table.T).gather(2, buckets[start : start + rows].expand(s, -1, -1))
        scores = torch.baddbmm(bias, some, k.transpose(1, 2))
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -math.inf)
        parts.append(weighted(scores, v, top))
    return torch.cat(parts, dim=1)


def weighted(scores: Float[Tensor, "s r m"], v: Float[Tensor, "s m f"], top: int) -> Float[Tensor, "s r f"]:
    """The output of `topk_attention` for scores that are −∞ where a key is hidden."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    best = scores.topk(min(top + 1, scores.shape[2]), dim=2, sorted=False).values
    seen = best > -math.inf
    least = torch.where(seen, best, math.inf).amin(2, keepdim=True)
    enough = seen.all(2, keepdim=True) & (best.shape[2] > top)
    none = ~seen.any(2, keepdim=True)
    floor = torch.where(enough, least, least - _LN2).masked_fill(none, 0.0)
    # everything times exp(τ − max), so that nothing overflows; the maximum itself cancels
    most = best.detach().amax(2, keepdim=True).masked_fill(none, 0.0)
    sink = (floor - most).exp()
    weights = F.relu((scores - most).exp() - sink)
    return (weights.to(v.dtype) @ v) / (weights.sum(2, keepdim=True) + sink)


class Block(nn.Module):
    """Pre-norm transformer block on maps (b, h, w, d), its attention's input modulated by the condition.

    width: d, a multiple of heads. mlp: hidden width of the MLP in units of d. top: keys that a query attends to.
    """

    def __init__(self, width: int, heads: int, mlp: int, top: int, cond: int) -> None:
        super().__init__()
        self.heads = heads
        self.top = top
        self.norm = nn.LayerNorm(width)
        self.film = Film(cond, width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.table = nn.Parameter(torch.randn(BUCKETS, width // heads))
        self.out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, mlp * width)
        self.mlp_out = nn.Linear(mlp * width, width)

    def forward(
        self, x: Float[Tensor, "b h w d"], cond: Float[Tensor, "b e _ _"], grid: list[list[Window]]
    ) -> Float[Tensor, "b h w d"]:
        x = x + self._attention(x, cond, grid)
        return x + self.mlp_out(F.leaky_relu(self.mlp_in(self.mlp_norm(x)), 0.2))

    def _attention(
        self, x: Float[Tensor, "b h w d"], cond: Float[Tensor, "b e _ _"], grid: list[list[Window]]
    ) -> Float[Tensor, "b h w d"]:
        qkv = self.qkv(self.film(self.norm(x).movedim(-1, 1), cond).movedim(1, -1))
        rows = [torch.cat([self._attend(qkv, window) for window in row], dim=2) for row in grid]
        return self.out(torch.cat(rows, dim=1))

    def _attend(self, qkv: Float[Tensor, "b h w d3"], window: Window) -> Float[Tensor, "b hw ww d"]:
        part = qkv[:, window.rows, window.cols]
        b, h, w, _ = part.shape
        q, k, v = part.reshape(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4).flatten(1, 2)
        if window.keys is not None:
            k, v = k[:, window.keys], v[:, window.keys]
        out = topk_attention(q, k, v, self.table, window.buckets, self.top, window.allowed)
        return out.unflatten(0, (b, self.heads)).transpose(1, 2).reshape(b, h, w, -1)


class Stage(nn.Module):
    """`depth` blocks at one resolution, their windows of side `window` shifted in every other one."""

    def __init__(self, depth: int, width: int, heads: int, mlp: int, top: int, window: int, cond: int) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList([Block(width, heads, mlp, top, cond) for _ in range(depth)])

    def forward(
        self, x: Float[Tensor, "b d h w"], cond: Float[Tensor, "b e _ _"], sight: Sight | None = None
    ) -> Float[Tensor, "b d h w"]:
        h, w = x.shape[-2:]
        kinds = (False, True) if len(self.blocks) > 1 else (False,)
        grids = [windows(h, w, self.window, sight or Sight(), x.device, shifted=shifted) for shifted in kinds]
        tokens = x.movedim(1, -1)
        for number, block in enumerate(self.blocks):
            tokens = block(tokens, cond, grids[number % 2])
        return tokens.movedim(-1, 1)
