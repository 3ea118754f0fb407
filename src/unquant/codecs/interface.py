"""What a codec of any family is to its callers: loaded weights, encode to bytes, decode to an image."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Self,
    TypeAlias,
    TypeVar,
    Unpack,
    cast,
    overload,
)

import numpy as np
import torch
from jaxtyping import Float

from unquant.codecs.decoder import Decoder, Drawing
from unquant.codecs.device import check_process, fast_precision, one_thread, survive_fork, usable_device
from unquant.codecs.encoder import Encoder
from unquant.codecs.forecast import memory_errors
from unquant.codecs.options import (
    DEFAULT_SEEDS,
    DecodeKeywords,
    DecodeOptions,
    Region,
    Source,
    checked_seeds,
)
from unquant.codecs.sources import file_bytes
from unquant.container import Limits, decode_limit, limits_within, pixel_limit
from unquant.errors import OptionError, WeightsError
from unquant.families import family_of
from unquant.networks.common import Config, Model
from unquant.weights_file import Weights, read_weights

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["AnyCodec", "Codec", "Drawing"]

C = TypeVar("C", bound=Config)
M = TypeVar("M", bound=Model[Any])


class Codec(Encoder, Decoder, Generic[C, M]):
    """A loaded model on one device; safe to share between threads, and on the CPU with forked processes, which compute in one
    thread each.

    name: of the weights file. weights_id: names the weights file in reports. stream_id: the four bytes in the header of every
    `.unq` file it writes.
    """

    family: ClassVar[str]
    config: C
    model: M

    def __init__(self, weights: Weights, device: str | torch.device = "cpu", name: str | None = None) -> None:
        if weights.family != self.family:
            raise WeightsError(f"weights of the family {weights.family!r}, not {self.family}")
        family = family_of(self.family)
        self.config = cast(C, family.load("config").from_dict(weights.config))
        self.name = name or self.family
        self.weights_id, self.stream_id = weights.weights_id, weights.stream_id
        self.device = usable_device(device)
        self._process = os.getpid()
        survive_fork()
        state = {k: v.float() for k, v in weights.tensors.items() if not k.startswith("tables.")}
        try:
            with torch.device("meta"):
                model = cast(M, family.load("model")(self.config))
            model.load_state_dict(state, assign=True)
        except (RuntimeError, ValueError) as e:
            cause = " ".join(str(e).split())
            raise WeightsError(f"weights do not fit their configuration: {cause:.300}") from None
        model = model.eval().requires_grad_(False)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.precision = fast_precision(self.device)
        """What networks outside the exact path run in: bfloat16 where that is fast, else float32."""
        self.deterministic = False

    def make_deterministic(self) -> Self:
        """From now on this codec computes in float32 and in one thread: on one machine, with one installation, equal files
        and pictures whatever the number of threads. Raises OptionError on another device than the CPU.
        """
        if self.device.type != "cpu":
            raise OptionError(f"deterministic: for the CPU alone, not {self.device}")
        self.precision, self.deterministic = torch.float32, True
        return self

    def _computing(self) -> AbstractContextManager[None]:
        check_process(self.device, self._process)
        return one_thread() if self.deterministic else nullcontext()

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Self:
        """Load a weights file. Raises ModelMissing, WeightsError, and ImageTooLarge for lack of memory."""
        path = Path(path)
        with memory_errors(f"the weights {path}"):
            weights = read_weights(path)
            try:
                return cls(weights, device, name=path.stem)
            except WeightsError as e:
                raise WeightsError(f"{path}: {e}") from None

    def __repr__(self) -> str:
        return f"<{self.family} codec {self.name!r}, weights {self.weights_id}, on {self.device}>"

    # ---- decode ------------------------------------------------------------------------------------------------------

    @overload
    def decode(
        self, data: list[Source] | tuple[Source, ...], **options: Unpack[DecodeKeywords]
    ) -> list[PILImage.Image]: ...
    @overload
    def decode(self, data: Source, **options: Unpack[DecodeKeywords]) -> PILImage.Image: ...

    def decode(
        self,
        data: Source | Sequence[Source],
        *,
        realism: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
        preview: bool = False,
        region: Region | None = None,
        scale: float = 1,
        allow_partial: bool = False,
        max_pixels: int | None = None,
        limits: Limits | None = None,
    ) -> PILImage.Image | list[PILImage.Image]:
        """Decode a `.unq` file (av1: an `.avif` file as well), or a list of such, to RGB (or RGBA) images.

        data: its bytes, its path, or a binary stream of it.
        realism: ρ in [0, 1]; 0 is the decode of lowest distortion, 1 the most realistic. steps: of the reverse path, see the
        family's codec. seed: of its noise, in 0..2^64−1; one seed gives one image. Each None: the file's own default, or
        that of the weights. preview: a first look, as fast as it can be had, at full size: AV1's own picture
        (av1); the linear path at 1/8 of the channels that are coded first, enlarged, which no checksum guards (ratevar, with
        weights that code in slices); one step to realism 0 (others, and where steps are given).
        region: (x, y, width, height), the part that is wanted, in pixels of the picture as coded, before any orientation
        that EXIF asks for: its pixels as in the whole picture, within rounding. No tiles are decoded, and checked, but those
        that it needs. scale: 1/2, 1/4 or 1/8 for a small picture of ⌈scale·width⌉ × ⌈scale·height⌉ pixels: the mean of each
        square of pixels of the linear path (ratevar), AV1's own picture (av1) or the preview (cdc); of a region, of the
        squares that it touches. Realism is then 0, whatever the file asks.
        allow_partial: of a damaged `.unq` what is whole is decoded, and what is not stands in `image.info["damage"]`, a tuple
        of lines, missing where all is whole. A damaged tile is filled with the mean of those around it, or grey; alpha and
        metadata that are damaged are left out. A file without one whole tile is an error still.
        max_pixels: of the picture, width times height, in place of 2^27. limits: all that a file may ask for, the
        memory that is foretold among it, in place of the default ones.
        Raises BitstreamError, ModelMissing (the file needs other weights), OptionError, InputError, ImageTooLarge.
        """
        options = DecodeOptions(
            realism=realism,
            steps=steps,
            seed=seed,
            preview=preview,
            region=region,
            scale=scale,
            allow_partial=allow_partial,
            max_pixels=max_pixels,
            limits=limits,
        )
        if steps is not None:
            self._check_steps(steps)
        with limits_within(limits), pixel_limit(max_pixels), decode_limit(), self._computing():
            if isinstance(data, list | tuple):
                return [self._decode(file_bytes(one), options) for one in data]
            return self._decode(file_bytes(cast(Source, data)), options)

    @abstractmethod
    def _decode(self, data: bytes, options: DecodeOptions) -> PILImage.Image:
        """The picture of one file."""

    def uncertainty(
        self,
        data: Source,
        *,
        seeds: int = DEFAULT_SEEDS,
        region: Region | None = None,
        max_pixels: int | None = None,
        limits: Limits | None = None,
    ) -> Float[np.ndarray, "h w"]:
        """Where a decode at realism 1 invents: a spread for each pixel of the picture (of the region), float32 levels of 255.

        The deviation among the pictures of the seeds 0 … seeds − 1, plus the distance of their mean from the picture at
        realism 0; each is a root mean square over the three colours. It ranks places and is no bound: what the bytes do not
        tell at all it does not know (docs/usage.md). It takes seeds + 1 decodes.
        seeds: 1 or more; of 1 the deviation is 0. The rest, the size and what is raised: as of `decode`.
        """
        checked_seeds(seeds)
        data = file_bytes(data)

        def drawn(realism: float, seed: int) -> Float[np.ndarray, "h w 3"]:
            image = self.decode(data, realism=realism, seed=seed, region=region, max_pixels=max_pixels, limits=limits)
            return np.asarray(image.convert("RGB"), np.float32)

        plain = drawn(0, 0)
        # sums of differences: small numbers, exact in float32
        total, squares = np.zeros_like(plain), np.zeros_like(plain)
        for seed in range(seeds):
            away = drawn(1, seed) - plain
            total += away
            squares += away**2
        mean = total / seeds
        variance = np.maximum(squares / seeds - mean**2, 0)
        return np.sqrt(variance.mean(2)) + np.sqrt((mean**2).mean(2))

    @property
    def _default_realism(self) -> float:
        return self.config.default_realism

    def _autocast(self) -> torch.autocast:
        enabled = self.precision is not torch.float32
        return torch.autocast(self.device.type, dtype=self.precision if enabled else None, enabled=enabled)


AnyCodec: TypeAlias = Codec[Any, Any]
"""A codec of any family."""
