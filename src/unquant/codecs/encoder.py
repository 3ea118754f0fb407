"""What encodes images for the files of one weights file: options, images and regions, read alike for every family.

No torch.
"""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO, Unpack, cast, overload

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from unquant.codecs.decoder import Weighted
from unquant.codecs.options import (
    DEFAULT_ROI_GAIN,
    DEFAULT_SEED,
    ContainerName,
    EncodeKeywords,
    EncodeOptions,
    ImageSource,
    QIndex,
    QMap,
    Source,
)
from unquant.codecs.wishes import Wishes
from unquant.container import pixel_limit
from unquant.errors import OptionError, OptionTypeError
from unquant.images import ImageInput, Picture, open_image, to_picture

__all__ = ["Encoder"]


class Encoder(Weighted):
    """Encodes images to files that its weights draw."""

    def _computing(self) -> AbstractContextManager[None]:
        """What an encode, and a decode, runs in."""
        return nullcontext()

    @overload
    def encode(  # pyright: ignore[reportOverlappingOverload]  # an image may be of any other type
        self, image: list[Any] | tuple[Any, ...], **options: Unpack[EncodeKeywords]
    ) -> list[bytes]: ...
    @overload
    def encode(self, image: ImageSource, **options: Unpack[EncodeKeywords]) -> bytes: ...

    def encode(
        self,
        image: ImageSource | Sequence[ImageSource],
        *,
        quality: float | None = None,
        bpp: float | None = None,
        target_bytes: int | None = None,
        q_index: QIndex | None = None,
        roi: ImageSource | None = None,
        roi_gain: float = DEFAULT_ROI_GAIN,
        q_map: QMap | None = None,
        metadata: bool = True,
        realism: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
        effort: int | None = None,
        container: ContainerName = "unq",
        max_pixels: int | None = None,
    ) -> bytes | list[bytes]:
        """Encode an image, or a list of images one by one, to the bytes of `.unq` files.

        image: PIL.Image of any mode, numpy (h, w, 3) uint8, torch (3, h, w) float in [0, 1], or an image file: its bytes, its
        path or a binary stream; see `unquant.images`.
        At most one of:
        quality: 0..100, default 40; geometric in the step, or libavif's (av1). bpp: target bits per pixel, of the whole file.
        target_bytes: target size of the whole file. q_index: the step itself, q = 2^(q_index/64); an int, or an integer array
        (⌈h/16⌉, ⌈w/16⌉) for a step that differs across the image (not av1).
        roi: a region of interest, a grey image (or an array of bool) that is scaled to the picture: where it is white the
        step is that of what is black over roi_gain, 1/4..4, for as many bytes as are asked for (docs/usage.md). q_map in its
        place: what is added to the q index of each position, an integer array (⌈h/16⌉, ⌈w/16⌉) (not av1).
        metadata: False to leave out EXIF and XMP. realism: ρ in [0, 1], steps: of the reverse path, seed: of its noise; what
        a decoder shall use by default, written to the file where it differs from the weights' own. av1 alone: effort 1..9,
        what time the encoder may take, default 4; container: "unq", or "avif" for a standard file.
        max_pixels: of the picture, width times height, in place of 2^28.

        Targets are met from below. One above the highest rate gives the highest rate and an UnquantWarning; one below the
        lowest raises RateUnreachable, which names the smallest size. Raises OptionError, InputError, ImageTooLarge.
        """
        options = EncodeOptions(
            quality=quality,
            bpp=bpp,
            target_bytes=target_bytes,
            q_index=q_index,
            roi=roi,
            roi_gain=roi_gain,
            q_map=q_map,
            metadata=metadata,
            realism=realism,
            steps=steps,
            seed=seed,
            effort=effort,
            container=container,
            max_pixels=max_pixels,
        )
        with pixel_limit(max_pixels), self._computing():
            if isinstance(image, list | tuple):
                return [self._encode(one, options) for one in image]
            return self._encode(cast(ImageSource, image), options)

    @staticmethod
    def _picture(image: ImageSource, options: EncodeOptions) -> Picture:
        """The picture to be coded."""
        return to_picture(Encoder._opened(image), keep_metadata=options.metadata)

    @staticmethod
    def _opened(image: ImageSource) -> ImageInput:
        """An image, from a file where it is one."""
        if isinstance(image, bytes | bytearray | memoryview):
            image = io.BytesIO(image)
        if isinstance(image, io.TextIOBase):
            raise OptionTypeError("image: expected a binary stream, not one of text")
        if isinstance(image, str | os.PathLike) or hasattr(image, "read"):
            return open_image(cast("str | os.PathLike[str] | BinaryIO", image))
        return cast(ImageInput, image)

    @staticmethod
    def _mask(options: EncodeOptions) -> UInt8[np.ndarray, "a b"] | None:
        """The region of interest, 255 within; None without one."""
        if options.roi is None:
            return None
        given = options.roi
        if isinstance(given, np.ndarray) and given.dtype == bool:
            given = given.astype(np.uint8) * 255
        rgb = to_picture(Encoder._opened(given), keep_metadata=False).rgb
        return np.asarray(Image.fromarray(rgb).convert("L"))

    @abstractmethod
    def _encode(self, image: ImageSource, options: EncodeOptions) -> bytes:
        """One image as the bytes of one file."""

    def _wishes(self, options: EncodeOptions) -> Wishes:
        """What a file is to ask of its decoder: what differs from the defaults of the weights."""
        if options.steps is not None:
            self._check_steps(options.steps)
            if options.steps == 0:
                raise OptionError("a file cannot ask for 0 steps: ask for realism 0, the plain decode")
        percent = None if options.realism is None else round(100 * options.realism)
        given = percent, *(None if n is None else int(n) for n in (options.steps, options.seed))
        defaults = round(100 * self._default_realism), self._default_steps, DEFAULT_SEED
        return Wishes(*(None if g == d else g for g, d in zip(given, defaults, strict=True)))

    @property
    @abstractmethod
    def _default_steps(self) -> int | None:
        """Steps of a decode for which nobody asks otherwise; None where there is nothing to step through."""

    def repack(
        self,
        data: Source,
        *,
        metadata: bool = True,
        realism: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
    ) -> bytes:
        """An `.avif` file as a `.unq` file or the other way round, nothing coded again. Raises OptionError for a family whose
        streams are not those of an `.avif`."""
        raise OptionError(f"models of the family {self.family} repack no .avif")
