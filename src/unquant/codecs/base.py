"""What the codecs of all families share: images to `.unq` bytes, and back to the latent that a decoder draws from.

image ──►┤g_a├──► y ──► tiles ──►┤exact entropy coder├──► container        (encode)
image ◄──┤the family's decoder├◄── ŷ, μ, σ ◄── tiles ◄──┤exact entropy coder├◄── container   (decode)
"""

from __future__ import annotations

import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeAlias, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.alpha import decode_alpha, encode_alpha
from unquant.codecs.arguments import (
    checked_seed,
    checked_unit,
    fast_precision,
    memory_errors,
    target_size,
    usable_device,
)
from unquant.codecs.images import Picture, from_arrays, to_picture
from unquant.codecs.rate import quality_to_q_index, search_q_index
from unquant.codecs.windows import run_windowed
from unquant.coding import Tables
from unquant.container import DEFAULT_LIMITS, MAX_STEPS, Container, Header, Tile, latent_size, parse, symbols_crc
from unquant.entropy.exact import ExactCoder
from unquant.errors import (
    CorruptStream,
    ImageTooLarge,
    ModelMissing,
    OptionError,
    RateUnreachable,
    WeightsError,
)
from unquant.models.families import Config, Model, family_of
from unquant.models.ratevar import Q_INDEX_OCTAVE
from unquant.models.reverse import SideInfo
from unquant.nn.transforms import LATENT_STRIDE
from unquant.weights import Weights, read_weights

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["DEFAULT_QUALITY", "DEFAULT_SEED", "AnyCodec", "Drawing", "LatentCodec"]

C = TypeVar("C", bound=Config)
M = TypeVar("M", bound=Model)

DEFAULT_QUALITY = 40
"""Quality of an encode that names no rate."""
DEFAULT_SEED = 0
"""Seed of the noise of a decode that names none."""
_CONTAINER_BYTES, _TILE_BYTES = 20, 8


class _Plan(NamedTuple):
    """What an encode works from: the picture, its latent (1, c, h16, w16) float32, and the sections' bytes."""

    picture: Picture
    alpha: bytes | None
    y: Tensor

    @property
    def overhead(self) -> int:
        """Bytes beside the coder streams, roughly."""
        sections = (self.alpha, self.picture.icc, self.picture.exif, self.picture.xmp)
        return _CONTAINER_BYTES + sum(len(s) + 11 for s in sections if s is not None)


class Drawing(NamedTuple):
    """How a latent is to be drawn: realism ρ, steps, seed, and the picture's size in pixels."""

    realism: float
    steps: int
    seed: int
    height: int
    width: int


class _Wishes(NamedTuple):
    """What a file asks of its decoder, None where it leaves that to the weights: per cent of realism, steps, seed."""

    percent: int | None
    steps: int | None
    seed: int | None


class LatentCodec(ABC, Generic[C, M]):
    """A loaded model on one device; safe to share between threads.

    weights_id: names the weights file in reports. stream_id: the four bytes in the header of every file it writes.
    A family's codec sets `family` and draws images from latents.
    """

    family: ClassVar[str]
    window: ClassVar[int] = 96
    """Side of the windows that networks run in, in latent positions."""
    config: C
    model: M

    def __init__(self, weights: Weights, device: str | torch.device = "cpu", name: str | None = None) -> None:
        if weights.family != self.family:
            raise WeightsError(f"weights of the family {weights.family!r}, not {self.family}")
        family = family_of(self.family)
        self.config = cast(C, family.config.from_dict(weights.config))
        self.name = name or self.family
        self.weights_id, self.stream_id = weights.weights_id, weights.stream_id
        self.device = usable_device(device)
        state = {k: v.float() for k, v in weights.tensors.items() if not k.startswith("tables.")}
        arrays = {k.removeprefix("tables."): v.numpy() for k, v in weights.tensors.items() if k.startswith("tables.")}
        try:
            with torch.device("meta"):
                model = cast(M, family.model(self.config))
            model.load_state_dict(state, assign=True)
        except (RuntimeError, ValueError) as e:  # a negative width raises either
            raise WeightsError(f"weights do not fit their configuration: {e}") from None
        model = model.eval().requires_grad_(False)
        self.exact = ExactCoder(model.entropy, Tables.from_arrays(arrays), self.device)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._precision = fast_precision(self.device)
        self._lock = threading.Lock()

    @classmethod
    def from_file(cls, path: Path, device: str | torch.device = "cpu") -> Self:
        """Load a weights file. Raises ModelMissing or WeightsError."""
        return cls(read_weights(path), device, name=path.stem)

    @property
    def q_index_range(self) -> tuple[int, int]:
        """Finest (most bytes) and coarsest q index."""
        return self.config.q_index_min, self.config.q_index_max

    # ---- encode ------------------------------------------------------------------------------------------------------

    @overload
    def encode(  # pyright: ignore[reportOverlappingOverload]  # an image may be of any other type
        self, image: list[Any] | tuple[Any, ...], **options: Any
    ) -> list[bytes]: ...
    @overload
    def encode(self, image: Any, **options: Any) -> bytes: ...

    def encode(self, image: Any, **options: Any) -> bytes | list[bytes]:
        """Encode an image, or a list of images one by one, to the bytes of `.unq` files.

        image: PIL.Image of any mode, numpy (h, w, 3) uint8, or torch (3, h, w) float in [0, 1]; see `codecs.images`.
        At most one of:
        quality: 0..100, geometric in the step, default 40. bpp: target bits per pixel of the whole file.
        target_bytes: target size of the whole file. q_index: the step itself, q = 2^(q_index/64); an int, or an integer array
        (⌈h/16⌉, ⌈w/16⌉) for a step that differs across the image.
        metadata: False to leave out EXIF and XMP. realism: ρ in [0, 1], steps: of the reverse path, seed: of its noise; what
        a decoder shall use by default, written to the file where it differs from the weights' own.

        Targets are met from below. One above the highest rate gives the highest rate and a warning; one below the lowest
        raises RateUnreachable, which names the smallest size. Raises OptionError, ImageTooLarge.
        """
        if isinstance(image, list | tuple):
            return [self._encode(one, **options) for one in image]  # pyright: ignore[reportUnknownVariableType]
        return self._encode(image, **options)

    def _encode(
        self,
        image: Any,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        target_bytes: int | None = None,
        q_index: int | npt.NDArray[np.integer[Any]] | None = None,
        metadata: bool = True,
        realism: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
    ) -> bytes:
        chosen = [
            n
            for n, v in (("quality", quality), ("bpp", bpp), ("target_bytes", target_bytes), ("q_index", q_index))
            if v is not None
        ]
        if len(chosen) > 1:
            raise OptionError(f"{' and '.join(chosen)} exclude each other")
        wishes = self._wishes(realism, steps, seed)
        low, high = self.q_index_range
        with memory_errors(), torch.inference_mode():
            plan = self._plan(to_picture(image, keep_metadata=metadata))
            height, width = plan.picture.rgb.shape[:2]
            if bpp is not None or target_bytes is not None:
                target = target_size(bpp, target_bytes, height * width)
                return self._encode_to_size(plan, target, wishes)
            if q_index is None:
                index = quality_to_q_index(DEFAULT_QUALITY if quality is None else quality, low, high)
                return self._encode_at(plan, index, wishes)
            indices = np.asarray(q_index)
            whole = np.issubdtype(indices.dtype, np.integer) and indices.size > 0
            if not whole or indices.min() < low or indices.max() > high:
                raise OptionError(f"q_index must be whole numbers in {low}..{high}")
            if indices.ndim and indices.shape != plan.y.shape[-2:]:
                raise OptionError(
                    f"a q_index map of this image must be of shape {tuple(plan.y.shape[-2:])}, not {indices.shape}"
                )
            return self._encode_at(plan, indices if indices.ndim else int(indices), wishes)

    def _wishes(self, realism: float | None, steps: int | None, seed: int | None) -> _Wishes:
        percent = None if realism is None else round(100 * checked_unit("realism", realism))
        if steps is not None:
            self._check_steps(steps)
            if steps == 0:
                raise OptionError("a file cannot ask for 0 steps: ask for realism 0, the plain decode")
        defaults = round(100 * self.config.default_realism), self._default_steps, DEFAULT_SEED
        given = percent, None if steps is None else int(steps), checked_seed(seed)
        return _Wishes(*(None if g == d else g for g, d in zip(given, defaults, strict=True)))

    @property
    @abstractmethod
    def _default_steps(self) -> int | None:
        """Steps of a decode for which nobody asks otherwise; None where there is nothing to step through."""

    def _check_steps(self, steps: int, lowest: int = 0, highest: int = MAX_STEPS) -> None:
        """Raises OptionError for a number of steps that these weights cannot be decoded with."""
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or not lowest <= steps <= highest:
            raise OptionError(f"steps must be a whole number in {lowest}..{highest}, got {steps!r}")

    def _plan(self, picture: Picture) -> _Plan:
        alpha = encode_alpha(picture.alpha) if picture.alpha is not None else None
        return _Plan(picture, alpha, self._analyse(picture.rgb))

    def _analyse(self, rgb: npt.NDArray[np.uint8]) -> Tensor:
        """y = g_a(x), (1, c, h16, w16) float32 on the codec's device; the image is padded by repeating its edge."""
        height, width = rgb.shape[:2]
        limits = DEFAULT_LIMITS
        if max(height, width) > limits.max_dimension or height * width > limits.max_pixels:
            raise ImageTooLarge(f"an image of {width}×{height} is beyond the limits of the format")
        h16, w16 = latent_size(width, height)
        padded = np.pad(rgb, ((0, h16 * LATENT_STRIDE - height), (0, w16 * LATENT_STRIDE - width), (0, 0)), mode="edge")
        plane = torch.from_numpy(padded).permute(2, 0, 1)[None]
        g_a = self.model.g_a

        def network(top: int, bottom: int, left: int, right: int) -> Tensor:
            s = LATENT_STRIDE
            part = plane[..., top * s : bottom * s, left * s : right * s].to(self.device).float().div_(255)
            with self._autocast():
                return g_a(part.contiguous(memory_format=torch.channels_last))

        out = torch.empty(1, self.config.latent, h16, w16, device=self.device)
        return run_windowed(network, out, (h16, w16), self.window, g_a.halo, 1)

    def _tiles(self, h16: int, w16: int) -> Iterator[tuple[slice, slice]]:
        tile = self.config.tile
        for top in range(0, h16, tile):
            for left in range(0, w16, tile):
                yield slice(top, min(top + tile, h16)), slice(left, min(left + tile, w16))

    def _estimate(self, plan: _Plan, index: int) -> float:
        """Bytes of the file at a q index, by cross-entropy in float32."""
        bits, tiles = 0.0, 0
        log2_q = torch.full((1, 1, 1, 1), index / Q_INDEX_OCTAVE, device=self.device)
        for rows, columns in self._tiles(*plan.y.shape[-2:]):
            coded = self.model.quantise(plan.y[..., rows, columns], log2_q, noise=False)
            bits += float(coded.bits_y.sum() + coded.bits_z.sum())
            tiles += 1
        return bits / 8 + plan.overhead + _TILE_BYTES * tiles

    def _encode_to_size(self, plan: _Plan, target: int, wishes: _Wishes) -> bytes:
        low, high = self.q_index_range
        index = search_q_index(lambda i: self._estimate(plan, i), target, low, high)
        data = self._encode_at(plan, index, wishes)
        # the estimate errs by a few bytes: step until the file fits, or until a finer step would not
        while len(data) > target and index < high:
            index += 1
            data = self._encode_at(plan, index, wishes)
        if len(data) > target:
            raise RateUnreachable(
                f"the smallest file of this image is {len(data)} bytes, the target is {target}", len(data)
            )
        slack = max(0.02 * target, 16)
        while index > low and target - len(data) > slack:
            finer = self._encode_at(plan, index - 1, wishes)
            if len(finer) > target:
                break
            index, data = index - 1, finer
        if index == low and target - len(data) > slack:
            warnings.warn(f"the target of {target} bytes is above the highest rate: {len(data)} bytes", stacklevel=4)
        return data

    def _encode_at(self, plan: _Plan, index: int | npt.NDArray[np.integer[Any]], wishes: _Wishes) -> bytes:
        height, width = plan.picture.rgb.shape[:2]
        q_map = None if isinstance(index, int) else index.astype("<u2").tobytes()
        nominal = index if isinstance(index, int) else round(float(index.mean()))
        header = Header(self.family, self.stream_id, width, height, nominal, q_map, *wishes)
        log2_q = self._log2_q(header)
        tiles: list[Tile] = []
        for number, (rows, columns) in enumerate(self._tiles(*plan.y.shape[-2:])):
            step = log2_q if log2_q.numel() == 1 else log2_q[..., rows, columns]
            v = plan.y[..., rows, columns].double() * torch.exp2(-step)
            z = self.model.entropy.hyper_analysis(v.float(), step.float())
            coded = self.exact.encode(v, z, step)
            tiles.append(Tile(coded.stream, symbols_crc(header.to_bytes(), number, coded.symbols)))
        p = plan.picture
        return Container(header, tuple(tiles), alpha=plan.alpha, icc=p.icc, exif=p.exif, xmp=p.xmp).to_bytes()

    def _log2_q(self, header: Header) -> Tensor:
        """log2 q of a header, float64: (1, 1, 1, 1), or (1, 1, h16, w16) for a map."""
        if header.q_map is None:
            indices = np.full((1, 1), header.q_index, dtype=np.int64)
        else:
            h16, w16 = latent_size(header.width, header.height)
            indices = np.frombuffer(header.q_map, dtype="<u2").astype(np.int64).reshape(h16, w16)
        return torch.from_numpy(indices).to(self.device, torch.float64)[None, None] / Q_INDEX_OCTAVE

    # ---- decode ------------------------------------------------------------------------------------------------------

    @overload
    def decode(self, data: list[bytes] | tuple[bytes, ...], **options: Any) -> list[PILImage.Image]: ...
    @overload
    def decode(self, data: bytes, **options: Any) -> PILImage.Image: ...

    def decode(self, data: bytes | Sequence[bytes], **options: Any) -> PILImage.Image | list[PILImage.Image]:
        """Decode the bytes of a `.unq` file, or a list of such, to RGB (or RGBA) images.

        realism: ρ in [0, 1]; 0 is the decode of lowest distortion, 1 the most realistic. steps: of the reverse path, see the
        family's codec. seed: of its noise, in 0..2^64−1; one seed gives one image. Each None: the file's own default, or
        that of the weights. preview: realism 0, as fast as it can be had unless steps are given.
        Raises BitstreamError, ModelMissing (the file needs other weights), OptionError, ImageTooLarge.
        """
        if isinstance(data, list | tuple):
            return [self._decode(one, **options) for one in data]
        return self._decode(bytes(data), **options)  # pyright: ignore[reportArgumentType]

    def _decode(
        self,
        data: bytes,
        *,
        realism: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
        preview: bool = False,
    ) -> PILImage.Image:
        if preview and realism:
            raise OptionError("preview is the plain decode: it excludes a realism above 0")
        if steps is not None:
            self._check_steps(steps)
        checked_seed(seed)
        if realism is not None:
            checked_unit("realism", realism)
        with memory_errors(), torch.inference_mode():
            container = parse(data)
            header = container.header
            if header.family != self.family or header.stream_id != self.stream_id:
                raise ModelMissing(
                    f"this file needs {header.family} weights with stream id {header.stream_id.hex()}; loaded are"
                    f" {self.name} weights with {self.stream_id.hex()}"
                )
            if preview:
                realism = 0.0
            elif realism is None:
                realism = self.config.default_realism if header.realism is None else header.realism / 100
            chosen = seed if seed is not None else DEFAULT_SEED if header.seed is None else header.seed
            if steps is None and not preview:
                steps = header.steps or None
            wanted = self._steps_of(steps, realism, preview=preview)
            drawing = Drawing(realism, wanted, chosen, header.height, header.width)
            # not kept here: the planes are as large as y, and the callee lets go of them
            rgb = self._draw(self._dequantise(container, path=self._needs_side(wanted)), drawing)
            alpha = None
            if container.alpha is not None:
                alpha = decode_alpha(container.alpha, header.height, header.width)
            return from_arrays(rgb, alpha, container.icc, container.exif, container.xmp)

    @abstractmethod
    def _steps_of(self, asked: int | None, realism: float, *, preview: bool) -> int:
        """Steps of a decode at a realism. asked: by the caller or else, but for a preview, by the file."""

    def _needs_side(self, steps: int) -> bool:
        """Whether a decode of so many steps reads μ and the scales."""
        return False

    @abstractmethod
    def _draw(self, side: SideInfo, drawing: Drawing) -> npt.NDArray[np.uint8]:
        """The picture (height, width, 3) of a latent; `side` may be taken apart."""

    def _dequantise(self, container: Container, *, path: bool = True) -> SideInfo:
        """ŷ and what it was decoded with, float32. Raises CorruptStream unless every tile's checksum holds.

        path: False where no reverse path follows: μ and the scales, which nothing else reads, are then single zeros.
        """
        header = container.header
        h16, w16 = latent_size(header.width, header.height)
        log2_q = self._log2_q(header)
        low, high = self.q_index_range
        if not (low <= float(log2_q.min()) * Q_INDEX_OCTAVE and float(log2_q.max()) * Q_INDEX_OCTAVE <= high):
            raise CorruptStream(f"q index outside {low}..{high}")
        places = list(self._tiles(h16, w16))
        if len(places) != len(container.tiles):
            raise CorruptStream(f"{len(container.tiles)} tiles where {len(places)} are needed")
        plane = 1, self.config.latent, h16, w16
        y_hat = torch.empty(plane, device=self.device)
        mu, t = (torch.zeros(plane if path else (1, 1, 1, 1), device=self.device) for _ in range(2))
        for number, ((rows, columns), tile) in enumerate(zip(places, container.tiles, strict=True)):
            step = log2_q if log2_q.numel() == 1 else log2_q[..., rows, columns]
            decoded = self.exact.decode(tile.stream, (rows.stop - rows.start, columns.stop - columns.start), step)
            if symbols_crc(header.to_bytes(), number, decoded.symbols) != tile.crc:
                raise CorruptStream(f"tile {number}: the checksum of the symbols does not match")
            y_hat[..., rows, columns] = (decoded.v_hat * torch.exp2(step)).float()
            if path:
                mu[..., rows, columns], t[..., rows, columns] = decoded.mu.float(), decoded.t.float()
        return SideInfo(y_hat, log2_q.float(), mu, t)

    def _autocast(self) -> torch.autocast:
        enabled = self._precision is not torch.float32
        return torch.autocast(self.device.type, dtype=self._precision if enabled else None, enabled=enabled)


AnyCodec: TypeAlias = LatentCodec[Any, Any]
"""A codec of any family."""
