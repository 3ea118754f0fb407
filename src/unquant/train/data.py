"""Training photographs: tar shards read once into device memory, crops cut and augmented there.

All images lie in one uint8 tensor, each in the top left corner of a 512×512 canvas, so that a batch of crops is one
indexed read and no loader process is needed.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image as PILImage
from torch import Tensor

from unquant.errors import InputError, TrainingError

__all__ = ["CANVAS", "Photos", "read_shard"]

CANVAS = 512
_HELD_OUT_OF = 32


def read_shard(path: Path) -> list[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    """The images of one tar file, by name, as RGB arrays cut to at most 512×512. Raises InputError naming the file."""
    images: list[tuple[str, UInt8[np.ndarray, "h w 3"]]] = []
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                handle = tar.extractfile(member) if member.isfile() else None
                if handle is None:
                    continue
                with PILImage.open(io.BytesIO(handle.read())) as im:
                    images.append((member.name, np.asarray(im.convert("RGB"))[:CANVAS, :CANVAS]))
    except (tarfile.TarError, OSError, ValueError, SyntaxError) as e:
        raise InputError(f"{path}: not a readable tar file of images: {e}") from e
    return images


def held_out(name: str) -> bool:
    """Whether an image belongs to the held-out slice: one in 32, by its name, the same in every run."""
    return zlib.crc32(name.encode()) % _HELD_OUT_OF == 0


class Photos:
    """The training images of a folder of tar shards, on a device, split into a training and a held-out part."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self._seen: dict[Path, int] = {}
        self._images: dict[bool, Tensor] = {}
        self._sizes: dict[bool, Tensor] = {}
        if not folder.is_dir():
            raise TrainingError(f"{folder}: no such folder of training data (*.tar)")
        self.refresh()
        if not len(self):
            raise TrainingError(f"{folder}: no images in *.tar files here")

    def __len__(self) -> int:
        return self._images[False].shape[0] if False in self._images else 0

    def refresh(self) -> int:
        """Read shards that have appeared since the last call; returns how many.

        A shard counts as complete when two calls, or its first call at start-up, see it at one size; one that cannot be
        read is tried again at the next call.
        """
        first = not self._seen
        fresh = 0
        for path in sorted(self.folder.glob("*.tar")):
            size = path.stat().st_size
            known = self._seen.get(path)
            if known == -1:
                continue
            if known != size and not first:
                self._seen[path] = size
                continue
            try:
                images = read_shard(path)
            except InputError:
                if first:
                    raise
                self._seen[path] = size
                continue
            self._seen[path] = -1
            fresh += 1
            self._add(images)
        return fresh

    def _add(self, images: list[tuple[str, UInt8[np.ndarray, "h w 3"]]]) -> None:
        for part in (False, True):
            chosen = [a for name, a in images if held_out(name) == part and min(a.shape[:2]) >= 64]
            if not chosen:
                continue
            canvas = torch.zeros(len(chosen), CANVAS, CANVAS, 3, dtype=torch.uint8)
            for i, a in enumerate(chosen):
                canvas[i, : a.shape[0], : a.shape[1]] = torch.from_numpy(a.copy())
            sizes = torch.tensor([a.shape[:2] for a in chosen], device=self.device)
            canvas = canvas.to(self.device)
            if part in self._images:
                canvas = torch.cat([self._images[part], canvas])
                sizes = torch.cat([self._sizes[part], sizes])
            self._images[part], self._sizes[part] = canvas, sizes

    def crops(
        self, count: int, size: int, generator: torch.Generator, *, held_out: bool = False, augment: bool = True
    ) -> Float[Tensor, "b 3 s s"]:
        """Random crops (count, 3, size, size) in [0, 1], channels_last.

        With `augment`, groups of crops are cut larger and area-averaged down by a factor of 0.5 to 1, and each group is
        flipped and turned by a quarter at random. generator: a CPU generator.
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
        if held_out not in self._images:
            raise TrainingError(f"{self.folder}: too few images for a held-out slice")
        smallest = self._sizes[held_out].amin(1)
        eligible = (smallest >= source).nonzero().squeeze(1)
        if not len(eligible):
            source = size
            eligible = (smallest >= size).nonzero().squeeze(1)
            if not len(eligible):
                raise TrainingError(f"{self.folder}: no image is as large as the crop size {size}")
        pick = eligible[torch.randint(len(eligible), (n,), generator=generator).to(self.device)]
        room = self._sizes[held_out][pick] - source + 1
        corner = (torch.rand(n, 2, generator=generator).to(self.device) * room).long()
        span = torch.arange(source, device=self.device)
        rows = (corner[:, :1] + span)[:, :, None]
        columns = (corner[:, 1:] + span)[:, None, :]
        cut = self._images[held_out][pick[:, None, None], rows, columns].permute(0, 3, 1, 2).float().div_(255)
        return F.interpolate(cut, size=(size, size), mode="area") if source != size else cut
