"""Training photographs: tar shards read once into device memory, crops cut and augmented there.

All images lie in one uint8 tensor, each in the top left corner of a 512×512 canvas, so that a batch of crops is one
indexed read and no loader process is needed. Where to cut is drawn on the CPU, from small tensors: the device is never
waited for.
"""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from unquant.errors import ImageTooLarge, InputError, TrainingError
from unquant.images import read_rgb, readable_suffixes

__all__ = ["CANVAS", "SMALLEST", "NamedImage", "Photos", "Refreshed", "held_out", "images_of", "read_shard"]

CANVAS = 512
"""Images are cut to this many pixels from their top left corner, in each direction."""
SMALLEST = 64
"""Images with a shorter side than this are left out."""
NamedImage = tuple[str, npt.NDArray[np.uint8]]
"""An image's name and its pixels (h, w, 3); sizes differ between images."""
_HELD_OUT_OF = 32


def read_shard(path: Path) -> list[NamedImage]:
    """The images of one tar file, by name, upright in 8-bit sRGB, cut to at most 512×512; other members are skipped.

    Raises InputError naming the file, and the member that cannot be read.
    """
    return list(images_of(str(path), lambda: tarfile.open(path)))


def images_of(
    name: str,
    opened: Callable[[], AbstractContextManager[tarfile.TarFile]],
    wanted: Callable[[str], bool] = lambda member: True,
) -> Iterator[NamedImage]:
    """The images of a tar file one after the other, as `read_shard` gives them. wanted: of which members, by name.

    opened: opens the file. Raises InputError naming `name`, and the member that cannot be read.
    """
    try:
        with opened() as tar:
            for member in tar:
                if not member.isfile() or Path(member.name).suffix.lower() not in readable_suffixes():
                    continue
                if not wanted(member.name):
                    continue
                handle = tar.extractfile(member)
                assert handle is not None
                rgb = read_rgb(io.BytesIO(handle.read()), name=f"{name}: {member.name}")
                yield member.name, np.ascontiguousarray(rgb[:CANVAS, :CANVAS])
    except ImageTooLarge as e:
        raise InputError(str(e)) from e
    except (tarfile.TarError, OSError, EOFError, zlib.error) as e:
        raise InputError(f"{name}: not a readable tar file of images: {e}") from e


def held_out(name: str) -> bool:
    """Whether an image belongs to the held-out slice: one in 32, by its name, the same in every run."""
    return zlib.crc32(name.encode()) % _HELD_OUT_OF == 0


class Refreshed(NamedTuple):
    """What `Photos.refresh` found: how many shards were read, and a line for each that could not be."""

    shards: int
    problems: list[str]


@dataclass
class _Part:
    """Images of one side of the split: canvases on the device, (height, width) on the CPU, names in their shards."""

    images: UInt8[Tensor, "n 512 512 3"]
    sizes: Int[Tensor, "n 2"]
    names: list[str]


class Photos:
    """The training images of a folder of tar shards, on a device, split into a training and a held-out part.

    len() is the size of the training part. Raises TrainingError without a folder or images, InputError for a shard that
    cannot be read.
    """

    def __init__(self, folder: Path | str, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        empty = torch.zeros(0, CANVAS, CANVAS, 3, dtype=torch.uint8, device=device)
        self._parts = {part: _Part(empty, torch.zeros(0, 2, dtype=torch.long), []) for part in (False, True)}
        self._load()

    def _load(self) -> None:
        """Read what there is."""
        folder = Path(self.folder)
        # by shard: the size seen last; _READ once it is in memory
        self._seen: dict[Path, int] = {}
        self._failed: dict[Path, int] = {}
        if not folder.is_dir():
            raise TrainingError(f"{folder}: no such folder of training data (*.tar)")
        paths = sorted(folder.glob("*.tar"))
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            self._add([image for shard in pool.map(read_shard, paths) for image in shard])
        self._seen = dict.fromkeys(paths, _READ)
        if not len(self):
            raise TrainingError(f"{folder}: no images of at least {SMALLEST}×{SMALLEST} pixels in *.tar files here")

    def __len__(self) -> int:
        return self._parts[False].sizes.shape[0]

    def count(self, size: int, *, held_out: bool) -> int:
        """How many images of the training or the held-out part are large enough for crops of size×size."""
        return int((self._parts[held_out].sizes.amin(1) >= size).sum()) if self._parts[held_out].sizes.numel() else 0

    def first(self, count: int, size: int, *, held_out: bool) -> list[int]:
        """The first `count` images that are large enough for crops of size×size, fewer where there are not so many."""
        return self._eligible(size, held_out)[:count].tolist()

    def draw(self, size: int, generator: torch.Generator) -> int:
        """A random training image that is large enough for crops of size×size. Raises TrainingError where there is none."""
        eligible = self._eligible(size, held_out=False)
        if not len(eligible):
            raise TrainingError(f"{self.folder}: no training image is as large as the crop, {size}×{size} pixels")
        return int(eligible[torch.randint(len(eligible), (), generator=generator)])

    def picture(self, index: int, *, held_out: bool = False) -> npt.NDArray[np.uint8]:
        """One image, (h, w, 3)."""
        part = self._parts[held_out]
        height, width = part.sizes[index].tolist()
        return part.images[index, :height, :width].cpu().numpy()

    def name(self, index: int, *, held_out: bool = False) -> str:
        """An image's name in its shard."""
        return self._parts[held_out].names[index]

    def serial(self, index: int) -> int:
        """A number that no other training image ever has, whatever takes this one's place."""
        return index

    def advance(self, count: int) -> None:
        """So many crops were trained on: the time to take in other images, where not all are in memory."""

    def close(self) -> None:
        """Let go what reads ahead."""

    def _eligible(self, size: int, held_out: bool) -> Int[Tensor, " n"]:
        return (self._parts[held_out].sizes.amin(1) >= size).nonzero().squeeze(1)

    def refresh(self) -> Refreshed:
        """Read shards that have appeared since the last call.

        A new shard counts as complete when two calls see it at one size. One that cannot be read is reported once, and
        tried again when its size changes.
        """
        fresh, problems = 0, list[str]()
        for path in sorted(Path(self.folder).glob("*.tar")):
            try:
                size = path.stat().st_size
            except OSError:
                continue  # gone again
            known = self._seen.get(path)
            if known == _READ or self._failed.get(path) == size:
                continue
            if known != size:
                self._seen[path] = size
                continue
            try:
                self._add(read_shard(path))
            except InputError as e:
                self._failed[path] = size
                problems.append(str(e))
                continue
            self._seen[path] = _READ
            fresh += 1
        return Refreshed(fresh, problems)

    def _add(self, images: list[NamedImage]) -> None:
        for side, part in self._parts.items():
            named = [(name, a) for name, a in images if held_out(name) == side and min(a.shape[:2]) >= SMALLEST]
            if not named:
                continue
            chosen = [a for _, a in named]
            part.names += [name for name, _ in named]
            canvas = torch.zeros(len(chosen), CANVAS, CANVAS, 3, dtype=torch.uint8)
            for i, a in enumerate(chosen):
                canvas[i, : a.shape[0], : a.shape[1]] = torch.from_numpy(a)
            part.images = (
                torch.cat([part.images, canvas.to(self.device)]) if len(part.images) else canvas.to(self.device)
            )
            part.sizes = torch.cat([part.sizes, torch.tensor([a.shape[:2] for a in chosen])])

    @torch.no_grad()
    def crops(
        self, count: int, size: int, generator: torch.Generator, *, held_out: bool = False, augment: bool = True
    ) -> Float[Tensor, "b 3 s s"]:
        """Random crops (count, 3, size, size) in [0, 1], channels_last; the same for the same state of the generator.

        With `augment`, groups of crops are cut larger and area-averaged down by a factor of 0.5 to 1, and each group is
        flipped and turned by a quarter at random. generator: a CPU generator. Raises TrainingError when no image is as
        large as the crop.
        """
        groups: list[Tensor] = []
        per_group = -(-count // 4) if augment else count
        for start in range(0, count, per_group):
            n = min(per_group, count - start)
            scale = 1.0
            if augment and torch.rand((), generator=generator) < 0.5:
                scale = 0.5 + 0.5 * float(torch.rand((), generator=generator))
            group = self._cut(n, size, round(size / scale), generator, held_out)
            if augment:
                dims = [d for d in (2, 3) if torch.rand((), generator=generator) < 0.5]
                group = group.flip(dims) if dims else group
                if torch.rand((), generator=generator) < 0.5:
                    group = group.transpose(2, 3)
            groups.append(group)
        return torch.cat(groups).contiguous(memory_format=torch.channels_last)

    def _cut(self, n: int, size: int, source: int, generator: torch.Generator, held_out: bool) -> Tensor:
        """n crops of source×source, averaged down to size×size; of size×size where no image is as large as `source`."""
        part = self._parts[held_out]
        source = source if self.count(source, held_out=held_out) else size
        if not self.count(size, held_out=held_out):
            slice_name = "held-out" if held_out else "training"
            raise TrainingError(
                f"{self.folder}: none of the {part.sizes.shape[0]} {slice_name} images is as large as the crop,"
                f" {size}×{size} pixels"
            )
        eligible = (part.sizes.amin(1) >= source).nonzero().squeeze(1)
        pick = eligible[torch.randint(len(eligible), (n,), generator=generator)]
        corner = (torch.rand(n, 2, generator=generator) * (part.sizes[pick] - source + 1)).long()
        where = torch.cat([pick[:, None], corner], dim=1).to(self.device, non_blocking=True)
        span = torch.arange(source, device=self.device)
        rows = (where[:, 1:2] + span)[:, :, None]
        columns = (where[:, 2:3] + span)[:, None, :]
        cut = part.images[where[:, :1, None], rows, columns].permute(0, 3, 1, 2).float().div_(255)
        return F.interpolate(cut, size=(size, size), mode="area") if source != size else cut


_READ = -1
