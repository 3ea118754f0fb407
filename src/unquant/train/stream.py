"""Training photographs beyond memory: tar shards read on and on, from a folder or an object store.

The part that is trained on is a ring of so many images on the device. What is drawn comes from all of it; for every few
crops that are drawn the oldest image makes way for the next one of the shards, which threads read and decode ahead.
"""

from __future__ import annotations

import tarfile
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count as numbers
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from unquant.errors import InputError, TrainingError
from unquant.places import Place
from unquant.train.data import CANVAS, SMALLEST, NamedImage, Photos, Refreshed, held_out, images_of

__all__ = ["AHEAD", "HELD_OUT", "READERS", "REUSE", "Part", "Stream"]

REUSE = 8
"""Crops that are taken of an image, on average, before another takes its place."""
READERS = 4
"""Shards that are read side by side."""
AHEAD = 16
"""Images that each of them has decoded before they are wanted."""
HELD_OUT = 64
"""Images of the held-out slice at most."""
_REQUEST = 4 * 2**20
"""Bytes that an object store is asked for at a time."""


class Part(NamedTuple):
    """A process of several, counted from 0."""

    rank: int
    of: int


class Stream(Photos):
    """The training images of a folder of tar shards, a path or a URL, of which `images` are on the device at a time.

    Each process, and each of its readers, has shards of its own, in every epoch others; their order follows from `seed` and
    the number of the epoch, and what is drawn from the seed alone, whatever the threads do. The held-out part is of the
    first shards by name and stays; the first process alone has one. smallest: side of the images that are taken. Raises
    TrainingError without shards enough or images, CodecMissing without pyarrow. A shard that cannot be read is reported
    once, by `refresh`; what it had before it broke is used, and it is tried again in every epoch.
    """

    def __init__(
        self, folder: str, device: torch.device, images: int, smallest: int, seed: tuple[int, int], part: Part
    ) -> None:
        self._place, self._images, self._seed, self._part = Place.named(folder), images, seed, part
        self._smallest = max(SMALLEST, smallest)
        self._readers: list[_Reader] = []
        self._problems: list[str] = []
        self._reported: set[str] = set()
        self._barren: set[str] = set()
        self._serials = [0] * images
        self._placed, self._turn, self._due = 0, 0, 0.0
        super().__init__(folder, device)

    def _load(self) -> None:
        self._shards = [self._place.child(name) for name, _ in self._place.files() if name.endswith(".tar")]
        if len(self._shards) < self._part.of:
            raise TrainingError(
                f"{self.folder}: {len(self._shards)} shards (*.tar) here; each process needs one at least, and there are"
                f" {self._part.of}"
            )
        if self._part.rank == 0:
            self._add(self._held_out())
        readers = min(READERS, len(self._shards) // self._part.of)
        begin, step = self._part.rank * readers, self._part.of * readers
        self._readers = [_Reader(self._read(begin + i, step)) for i in range(readers)]
        try:
            self._fill()
        except BaseException:
            self.close()
            raise

    def _held_out(self) -> list[NamedImage]:
        found: list[NamedImage] = []
        for shard in self._shards:
            try:
                for name, image in images_of(shard.uri, lambda shard=shard: _opened(shard), held_out):
                    if min(image.shape[:2]) >= self._smallest:
                        found.append((name, image))
                    if len(found) == HELD_OUT:
                        return found
            except InputError as e:
                self._report(shard, e)
        return found

    def _fill(self) -> None:
        """Fill the ring, with what one epoch has where that is less."""
        part = self._parts[False]
        part.images = torch.zeros(self._images, CANVAS, CANVAS, 3, dtype=torch.uint8, device=self.device)
        part.sizes = torch.zeros(self._images, 2, dtype=torch.long)
        part.names = [""] * self._images
        going = deque(self._readers)
        while going and self._placed < self._images:
            image = going[0].take()
            if image is None:
                going.popleft()
                continue
            self._put(image)
            going.rotate(-1)
        if not self._placed:  # all shards of the epoch are broken or empty
            self._put(self._take())
        if self._placed < self._images:
            self._images = self._placed
            part.images, part.sizes = part.images[: self._images].clone(), part.sizes[: self._images].clone()
            del part.names[self._images :]

    def _read(self, begin: int, step: int) -> Iterator[NamedImage | None]:
        """The training images of every `step`th shard from `begin` on, epoch by epoch, None at the end of each."""
        for epoch in numbers():
            order = np.random.default_rng([*self._seed, epoch]).permutation(len(self._shards))
            for shard in (self._shards[i] for i in order[begin::step]):
                found = 0
                try:
                    for name, image in images_of(
                        shard.uri, lambda shard=shard: _opened(shard), lambda name: not held_out(name)
                    ):
                        if min(image.shape[:2]) >= self._smallest:
                            found += 1
                            yield name, image
                except InputError as e:
                    self._report(shard, e)
                if found:
                    self._barren.discard(shard.uri)
                else:
                    self._barren.add(shard.uri)
            if len(self._barren) == len(self._shards):
                raise TrainingError(
                    f"{self.folder}: none of the {len(self._shards)} shards has a readable training image of at least"
                    f" {self._smallest}×{self._smallest} pixels"
                )
            yield None

    def _report(self, shard: Place, error: InputError) -> None:
        if shard.uri not in self._reported:
            self._reported.add(shard.uri)
            self._problems.append(str(error))

    def _take(self) -> NamedImage:
        """The next image of the readers in turn."""
        while True:
            image = self._readers[self._turn].take()
            self._turn = (self._turn + 1) % len(self._readers)
            if image is not None:
                return image

    def _put(self, image: NamedImage) -> None:
        """Put an image into the oldest place of the ring."""
        part, place = self._parts[False], self._placed % self._images
        part.names[place], pixels = image
        height, width = pixels.shape[:2]
        part.images[place, :height, :width] = torch.from_numpy(pixels)
        part.sizes[place] = torch.tensor([height, width])
        self._serials[place] = self._placed
        self._placed += 1

    def picture(self, index: int, *, held_out: bool = False) -> npt.NDArray[np.uint8]:
        """One image, (h, w, 3); a copy, as another may take its place."""
        return super().picture(index, held_out=held_out).copy()

    def serial(self, index: int) -> int:
        """A number that no other training image ever has."""
        return self._serials[index]

    def advance(self, count: int) -> None:
        """So many crops were trained on: take in the next images. Raises TrainingError where the shards have none."""
        self._due += count / REUSE
        while self._due >= 1:
            self._put(self._take())
            self._due -= 1

    def refresh(self) -> Refreshed:
        """A line for each shard that could not be read since the last call, once each; new shards are not looked for."""
        problems, self._problems = self._problems, []
        return Refreshed(0, problems)

    def close(self) -> None:
        """Let the threads go."""
        for reader in self._readers:
            reader.close()


class _Reader:
    """A thread that runs ahead in an endless row of images."""

    def __init__(self, images: Iterator[NamedImage | None]) -> None:
        self._images, self._thread = images, ThreadPoolExecutor(1)
        self._ahead: deque[Future[NamedImage | None]] = deque()
        for _ in range(AHEAD):
            self._ahead.append(self._thread.submit(next, images))

    def take(self) -> NamedImage | None:
        """The next one. Raises what reading it raised."""
        image = self._ahead.popleft().result()
        self._ahead.append(self._thread.submit(next, self._images))
        return image

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _opened(shard: Place) -> Generator[tarfile.TarFile]:
    """A tar file from its beginning to its end, as an object store gives it best. Raises InputError."""
    with shard.stream() as file, tarfile.open(fileobj=file, mode="r|*", bufsize=_REQUEST) as tar:
        yield tar
