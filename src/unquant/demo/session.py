"""What the page asks for, without a server: files and pictures by their keys, encode, decode, others at the same bytes.

    photograph ──► add_photograph ──► encode ─┐
    .unq, .avif ─────────────────► add_file ──┴─► decode ──► PNG

Keys are hashes of contents. One call works at a time; the others wait. torch is imported by the first that needs a codec.
"""

from __future__ import annotations

import hashlib
import io
import threading
import warnings
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from time import perf_counter
from typing import Final, Literal

import numpy as np
from PIL import Image

from unquant.bench.subjects import anchors
from unquant.bench.subjects.search import encode_to_size
from unquant.codecs import Limits, ModelInfo, info, loaded, models
from unquant.codecs.options import DEFAULT_SEED, ContainerName, EncodeOptions
from unquant.codecs.registry import DEFAULT_MODEL, find_decoder, find_model
from unquant.demo import COFFEE, photograph_file
from unquant.errors import ImageTooLarge, InputError, ModelMissing, OptionError, UnquantError, UnquantWarning
from unquant.images import from_arrays, image_bytes, open_image, read_rgb, to_picture

__all__ = ["LIMITS", "Compared", "Drawn", "File", "Photograph", "Session"]

LIMITS: Final = Limits(max_pixels=100_000_000)
"""Of what is given to the page."""
KEPT_BYTES: Final = 2**30
"""Of files and pictures together, beyond which the oldest are forgotten."""

MAP_PIXELS: Final = 2**24
"""Of a picture whose invented detail is shown: several of it are held in floating point."""
MAP_LEVELS: Final = 32
"""Of 255, from which on that is shown opaque."""
MAP_COLOUR: Final = (255, 0, 170)


@dataclass(frozen=True, slots=True)
class Photograph:
    """A picture to be coded. key: of the file as given; picture: of it as a PNG, upright and sRGB. notes: warnings."""

    key: str
    picture: str
    name: str
    width: int
    height: int
    bytes: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A `.unq` or `.avif` file. seconds: that its encode took, None of one that was given.

    model: that decodes it. realism (0..1), steps and seed: of a decode that asks for none; None: steps of the weights.
    """

    key: str
    name: str
    model: str
    width: int
    height: int
    bytes: int
    bpp: float
    seconds: float | None
    realism: float
    steps: int | None
    seed: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A decode. picture: the key of its PNG. seconds: without loading the weights."""

    picture: str
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """Another codec's file of the same bytes, decoded. fits: False where its smallest file is larger."""

    picture: str
    title: str
    bytes: int
    bpp: float
    fits: bool


class Session:
    """The work behind one page; safe to share between threads.

    model: a name from `unquant models` or a weights file, for the page to begin with. Raises ModelMissing, WeightsError.
    """

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        first = find_model(model)
        self.models: dict[str, ModelInfo] = {first.name: first}
        for entry in models():
            self.models.setdefault(entry.name, entry)
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._keeping, self._at_work = threading.Lock(), threading.Lock()

    def content(self, key: str) -> bytes:
        """The file or PNG of a key. Raises InputError for one that is unknown or forgotten."""
        with self._keeping:
            if key not in self._kept:
                raise InputError("this picture or file is no longer kept; open it again")
            self._kept.move_to_end(key)
            return self._kept[key]

    def bundled(self) -> Photograph:
        """A photograph of the package."""
        return self.add_photograph(photograph_file(COFFEE), COFFEE)

    def add_photograph(self, data: bytes, name: str) -> Photograph:
        """Takes an image file. Raises InputError, CodecMissing, ImageTooLarge, naming `name`."""
        with self._work() as notes:
            image = open_image(io.BytesIO(data), name=name, max_pixels=LIMITS.max_pixels)
            shown = to_picture(image, keep_metadata=False)
            height, width = shown.rgb.shape[:2]
            picture = self._keep_picture(from_arrays(shown.rgb, shown.alpha))
            return Photograph(self._keep(data), picture, name, width, height, len(data), tuple(notes))

    def add_file(self, data: bytes, name: str) -> File:
        """Takes a `.unq` or `.avif` file. Raises BitstreamError and ImageTooLarge, naming `name`, and ModelMissing."""
        with self._work() as notes:
            try:
                return self._file(data, name, find_decoder(data), None, notes)
            except UnquantError as e:
                raise type(e)(f"{name}: {e}") from e

    def encode(
        self, photograph: str, name: str, model: str, *, bpp: float, effort: int | None, container: ContainerName
    ) -> File:
        """Codes a photograph at about `bpp`, from below. name: of its file, whose stem the new one takes.

        Raises OptionError (RateUnreachable among it), ImageTooLarge, ModelMissing.
        """
        data, entry = self.content(photograph), self._entry(model)
        EncodeOptions(bpp=bpp, effort=effort, container=container)  # before a codec is loaded
        with self._work() as notes:
            codec = loaded(entry)
            start = perf_counter()
            coded = codec.encode(data, bpp=bpp, effort=effort, container=container, max_pixels=LIMITS.max_pixels)
            seconds = perf_counter() - start
            return self._file(coded, f"{PurePath(name).stem or 'picture'}.{container}", entry, seconds, notes)

    def decode(
        self,
        file: str,
        model: str,
        *,
        realism: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
        preview: bool = False,
    ) -> Drawn:
        """Draws a file; arguments as of `unquant.decode`. Raises BitstreamError, ModelMissing, OptionError, ImageTooLarge."""
        data, entry = self.content(file), self._entry(model)
        with self._work() as notes:
            codec = loaded(entry)
            start = perf_counter()
            image = codec.decode(data, realism=realism, steps=steps, seed=seed, preview=preview, limits=LIMITS)
            seconds = perf_counter() - start
            return Drawn(self._keep_picture(image), seconds, tuple(notes))

    def invented(self, file: str, model: str) -> Drawn:
        """Where a decode at realism 1 invents: a picture to be laid over it, pink and the less transparent the more.

        Opaque from 32 levels of `Codec.uncertainty` on. Raises what `decode` raises, and ImageTooLarge beyond 2^24 pixels.
        """
        data, entry = self.content(file), self._entry(model)
        found = info(data)
        if found.width * found.height > MAP_PIXELS:
            raise ImageTooLarge(f"what was invented: for pictures of at most {MAP_PIXELS} pixels")
        with self._work() as notes:
            codec = loaded(entry)
            start = perf_counter()
            spread = codec.uncertainty(data, limits=LIMITS)
            seconds = perf_counter() - start
            opacity = np.rint(np.minimum(spread * (255 / MAP_LEVELS), 255)).astype(np.uint8)
            colour = np.full((*spread.shape, 3), MAP_COLOUR, np.uint8)
            return Drawn(self._keep_picture(from_arrays(colour, opacity)), seconds, tuple(notes))

    def compare(self, photograph: str, codec: Literal["avif", "jpeg"], target_bytes: int) -> Compared:
        """The photograph by another codec, in the largest file of at most `target_bytes`, or else its smallest.

        Raises OptionError where this Pillow has no such codec.
        """
        if target_bytes < 1:
            raise OptionError(f"target_bytes must be positive, got {target_bytes}")
        data = self.content(photograph)
        with self._work():
            image = Image.fromarray(read_rgb(io.BytesIO(data), max_pixels=LIMITS.max_pixels))
            found = encode_to_size(image, codec, target_bytes)
            picture = self._keep_picture(anchors.decode(found.data))
            size = len(found.data)
            bpp = 8 * size / (image.width * image.height)
            return Compared(picture, anchors.title_of(codec), size, bpp, found.fits)

    def _entry(self, model: str) -> ModelInfo:
        if model not in self.models:
            raise ModelMissing(f"no model named {model!r} is installed (installed: {', '.join(self.models)})")
        return self.models[model]

    def _file(self, data: bytes, name: str, entry: ModelInfo, seconds: float | None, notes: list[str]) -> File:
        found = info(data, max_pixels=LIMITS.max_pixels)
        self.models.setdefault(entry.name, entry)
        realism = loaded(entry).config.default_realism if found.realism is None else found.realism
        seed = DEFAULT_SEED if found.seed is None else found.seed
        size = found.width, found.height, found.bytes, found.bpp
        return File(self._keep(data), name, entry.name, *size, seconds, realism, found.steps, seed, tuple(notes))

    def _keep_picture(self, image: Image.Image) -> str:
        return self._keep(image_bytes(image, "picture.png"))

    def _keep(self, data: bytes) -> str:
        key = hashlib.blake2b(data, digest_size=16).hexdigest()
        with self._keeping:
            self._kept[key] = data
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > KEPT_BYTES:
                self._kept.popitem(last=False)
        return key

    @contextmanager
    def _work(self) -> Generator[list[str]]:
        """Alone; our own warnings are gathered in the list."""
        with self._at_work, warnings.catch_warnings():
            warnings.simplefilter("always", UnquantWarning)
            notes: list[str] = []
            others = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *args: object, **named: object) -> None:
                if issubclass(category, UnquantWarning):
                    notes.append(str(message))
                else:
                    others(message, category, *args, **named)  # pyright: ignore[reportArgumentType]

            warnings.showwarning = show
            try:
                yield notes
            except MemoryError as e:
                raise ImageTooLarge("out of memory") from e
