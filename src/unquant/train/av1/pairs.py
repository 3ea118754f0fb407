"""Pairs of pictures for `av1`: a photograph, and what AV1 made of it (see `versions`).

Coded bytes are kept in memory and coded anew only at times; decoded pairs lie in a pool on the device, from which every batch
is cut, and a few of which are replaced at every batch by threads that run ahead of the training.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from unquant.codecs.avif import BASE
from unquant.errors import TrainingError
from unquant.networks.av1 import Coding, told
from unquant.settings import Share, settings
from unquant.shapes import Image
from unquant.train.av1.versions import Made, Version, draw_version, make_pair
from unquant.train.data import CANVAS, Photos

__all__ = ["CUT_GRID", "PairBatch", "Pairs", "PairsConfig", "fixed_pairs"]

CUT_GRID = 16
"""Crops begin at multiples of this many pixels: transforms of AV1 and levels of f lie as in a whole picture."""
_AHEAD = 2
"""Batches' worth of pairs that are made ahead."""


@settings
class PairsConfig:
    """How pairs are made. Raises OptionError naming the key that is out of range.

    pool: decoded pairs on the device. reuse: crops taken, on average, of a pair before it is replaced. files: coded versions
    kept of each photograph. refresh: share of the pairs that are coded anew though a version is kept. base: share coded with
    the codec's own options; the others draw tune, subsampling, deltaq, sharpness and speed. half: share coded at half size.
    """

    pool: PositiveInt = 256
    reuse: PositiveFloat = 8.0
    files: PositiveInt = 4
    refresh: Share = 0.1
    base: Share = 0.5
    half: Share = 0.08


class PairBatch(NamedTuple):
    """Crops of photographs and of what AV1 made of them, (b, 3, s, s) in [0, 1], and what f is told of each, (b, k)."""

    x: Image
    x_q: Image
    coding: Float[Tensor, "b k"]


class _Job(NamedTuple):
    """A pair that is being made. key: the photograph's place and the version's; serial, name: the photograph's."""

    key: tuple[int, int]
    serial: int
    name: str
    made: Future[Made]


class Pairs:
    """A pool of decoded pairs of the photographs of one side of the split, on their device.

    Same state of the generator, same batches: threads only do ahead of time what was drawn before. Raises TrainingError where
    no photograph is as large as a crop, and, then or at a later batch, naming the photograph that a thread failed on.
    """

    def __init__(self, photos: Photos, config: PairsConfig, size: int, generator: torch.Generator) -> None:
        self.photos, self.config, self.size, self.generator = photos, config, size, generator
        self._versions: dict[tuple[int, int], tuple[int, Version, bytes]] = {}
        count = config.pool
        self._pixels = torch.zeros(2, count, CANVAS, CANVAS, 3, dtype=torch.uint8, device=photos.device)
        self._sizes = torch.zeros(count, 2, dtype=torch.long)
        self._codings: list[Coding] = [Coding(0, 1.0)] * count
        self._threads = ThreadPoolExecutor(max(2, (os.cpu_count() or 2) // 2))
        self._jobs: deque[_Job] = deque()
        self._due, self._next = 0.0, 0
        try:
            for _ in range(count):
                self._submit()
            for place in range(count):
                self._take(place)
        except BaseException:
            self.close()
            raise

    def crops(self, count: int) -> PairBatch:
        """Random crops (count, 3, size, size), channels_last; then some pairs of the pool are replaced."""
        generator, size = self.generator, self.size
        pick = torch.randint(self.config.pool, (count,), generator=generator)
        steps = (self._sizes[pick] - size) // CUT_GRID + 1
        corner = (torch.rand(count, 2, generator=generator) * steps).long() * CUT_GRID
        batch = cut(self._pixels, [self._codings[i] for i in pick.tolist()], pick, corner, size)
        self._due += count / self.config.reuse
        while self._due >= 1:
            # round the pool: every pair stays equally long
            self._submit()
            if len(self._jobs) > _AHEAD * max(1, round(count / self.config.reuse)):
                self._take(self._next)
                self._next = (self._next + 1) % self.config.pool
            self._due -= 1
        return batch

    def _submit(self) -> None:
        """Draw a pair that is to be made, and let a thread make it."""
        generator, config = self.generator, self.config

        def uniform() -> float:
            return float(torch.rand((), generator=generator))

        index = self.photos.draw(self.size, generator)
        key = index, int(uniform() * config.files)
        known = self._versions.get(key)
        photo, serial = self.photos.picture(index), self.photos.serial(index)
        # of a stream another photograph may have taken the place since
        if known is not None and known[0] == serial and uniform() >= config.refresh:
            _, version, data = known
        else:
            version, data = draw_version(photo.shape[:2], self.size, config.base, config.half, uniform), None
        made = self._threads.submit(make_pair, photo, version, data)
        self._jobs.append(_Job(key, serial, self.photos.name(index), made))

    def _take(self, place: int) -> None:
        """Put the oldest pair that was asked for into a place of the pool."""
        job = self._jobs.popleft()
        try:
            made = job.made.result()
        except Exception as e:  # of a third-party encoder, too
            cause = f"no pair can be made ({type(e).__name__}: {e})"
            raise TrainingError(f"{self.photos.folder}: {job.name}: {cause}") from e
        self._versions[job.key] = job.serial, made.version, made.data
        height, width = made.x.shape[:2]
        for side, picture in zip(self._pixels, (made.x, made.x_q), strict=True):
            side[place, :height, :width] = torch.from_numpy(picture)
        self._sizes[place] = torch.tensor([height, width])
        self._codings[place] = made.coding

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def cut(pixels: Tensor, codings: Sequence[Coding], pick: Tensor, corner: Tensor, size: int) -> PairBatch:
    """Crops of size² of the pictures `pick` (n,) of (2, m, h, w, 3) uint8, from the rows and columns `corner` (n, 2) on."""
    device = pixels.device
    where = torch.cat([pick[:, None], corner], dim=1).to(device, non_blocking=True)
    span = torch.arange(size, device=device)
    rows, columns = (where[:, 1:2] + span)[:, :, None], (where[:, 2:3] + span)[:, None, :]
    both = [side[where[:, :1, None], rows, columns].permute(0, 3, 1, 2).float().div_(255) for side in pixels]
    x, x_q = (crop.contiguous(memory_format=torch.channels_last) for crop in both)
    return PairBatch(x, x_q, told(codings).to(device, non_blocking=True))


def fixed_pairs(photos: Photos, count: int, size: int, quality: int, *, held_out: bool) -> PairBatch:
    """The middle of the first `count` photographs, coded whole with the codec's own options at a quality.

    Raises TrainingError where no photograph of that side of the split is as large as a crop.
    """
    made: list[PairBatch] = []
    for index in photos.first(count, size, held_out=held_out):
        photo = photos.picture(index, held_out=held_out)
        version = Version(photo.shape[:2], (False, False), False, replace(BASE, quality=quality), half=False)
        pair = make_pair(photo, version, None)
        height, width = photo.shape[:2]
        corner = torch.tensor(
            [[(height - size) // (2 * CUT_GRID) * CUT_GRID, (width - size) // (2 * CUT_GRID) * CUT_GRID]]
        )
        pixels = torch.from_numpy(np.stack([pair.x, pair.x_q]))[:, None].to(photos.device)
        made.append(cut(pixels, [pair.coding], torch.zeros(1, dtype=torch.long), corner, size))
    if not made:
        side = "held-out" if held_out else "training"
        raise TrainingError(f"{photos.folder}: no {side} image is as large as the crop, {size}×{size} pixels")
    return PairBatch(*(torch.cat(parts) for parts in zip(*made, strict=True)))
