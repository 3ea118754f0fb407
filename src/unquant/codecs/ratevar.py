"""The `ratevar` codec: images to `.unq` bytes and back.

image ──►┤g_a├──► y ──► tiles ──►┤exact entropy coder├──► container          (encode)
x̂_1 ◄──┤g_s(·; q_end, q_T, 1)├◄──┤reverse path├◄── ŷ, μ, σ ◄── tiles ◄──┤exact entropy coder├◄── container   (decode)
x̂_0 ◄──┤g_s(·; q_T, q_T, 0)├◄── ŷ

Realism ρ is the line (1−ρ)·x̂_0 + ρ·x̂_1 between the two; x̂_0 is the plain decode.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.alpha import decode_alpha, encode_alpha
from unquant.codecs.images import Picture, from_arrays, to_picture
from unquant.codecs.rate import quality_to_q_index, search_q_index
from unquant.codecs.windows import run_windowed
from unquant.coding import Tables
from unquant.container import DEFAULT_LIMITS, MAX_STEPS, Container, Header, Tile, latent_size, parse, symbols_crc
from unquant.diffusion.noise import seeded_noise
from unquant.entropy.exact import ExactCoder
from unquant.errors import (
    CorruptStream,
    ImageTooLarge,
    ModelMissing,
    OptionError,
    RateUnreachable,
    WeightsError,
)
from unquant.models.ratevar import Q_INDEX_OCTAVE, Ratevar, RatevarConfig
from unquant.models.reverse import SideInfo
from unquant.nn.transforms import LATENT_STRIDE
from unquant.weights import Weights, read_weights

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["DEFAULT_QUALITY", "RatevarCodec"]

DEFAULT_QUALITY = 40
"""Quality of an encode that names no rate."""
DEFAULT_SEED = 0
"""Seed of the noise of a decode that names none."""
_WINDOW = 96
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


class _Wishes(NamedTuple):
    """What a file asks of its decoder, None where it leaves that to the weights: per cent of realism, steps, seed."""

    percent: int | None
    steps: int | None
    seed: int | None


class RatevarCodec:
    """A loaded `ratevar` model on one device; safe to share between threads.

    weights_id: names the weights file in reports. stream_id: the four bytes in the header of every file it writes.
    """

    def __init__(self, weights: Weights, device: str | torch.device = "cpu", name: str = "ratevar") -> None:
        if weights.family != "ratevar":
            raise WeightsError(f"weights of the family {weights.family!r}, not ratevar")
        self.config = RatevarConfig.from_dict(weights.config)
        self.name, self.weights_id, self.stream_id = name, weights.weights_id, weights.stream_id
        self.device = _device(device)
        state = {k: v.float() for k, v in weights.tensors.items() if not k.startswith("tables.")}
        arrays = {k.removeprefix("tables."): v.numpy() for k, v in weights.tensors.items() if k.startswith("tables.")}
        try:
            with torch.device("meta"):
                self.model = Ratevar(self.config)
            self.model.load_state_dict(state, assign=True)
        except (RuntimeError, ValueError) as e:  # a negative width raises either
            raise WeightsError(f"weights do not fit their configuration: {e}") from None
        self.model = self.model.eval().requires_grad_(False)
        self.exact = ExactCoder(self.model.entropy, Tables.from_arrays(arrays), self.device)
        self.model = self.model.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._precision = _fast_precision(self.device)
        self._lock = threading.Lock()

    @classmethod
    def from_file(cls, path: Path, device: str | torch.device = "cpu") -> RatevarCodec:
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
        with _memory_errors(), torch.inference_mode():
            plan = self._plan(to_picture(image, keep_metadata=metadata))
            height, width = plan.picture.rgb.shape[:2]
            if bpp is not None or target_bytes is not None:
                target = _target(bpp, target_bytes, height * width)
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
        percent = None if realism is None else round(100 * _unit("realism", realism))
        reverse = self.config.reverse
        if steps is not None:
            self._check_steps(steps)
            if steps == 0:
                raise OptionError("a file cannot ask for 0 steps: ask for realism 0, the plain decode")
        defaults = round(100 * self.config.default_realism), reverse.steps if reverse else None, DEFAULT_SEED
        given = percent, None if steps is None else int(steps), _check_seed(seed)
        return _Wishes(*(None if g == d else g for g, d in zip(given, defaults, strict=True)))

    def _check_steps(self, steps: int) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or not 0 <= steps <= MAX_STEPS:
            raise OptionError(f"steps must be a whole number in 0..{MAX_STEPS}, got {steps!r}")
        if steps and self.config.reverse is None:
            raise OptionError(f"the weights {self.name} have no reverse network for {steps} steps")

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
        return run_windowed(network, out, (h16, w16), _WINDOW, g_a.halo, 1)

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
        header = Header("ratevar", self.stream_id, width, height, nominal, q_map, *wishes)
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

        realism: ρ in [0, 1]; 0 is the decode of lowest distortion, 1 the most realistic. steps: of the reverse path, 0 to
        leave it out (any weights), 1 and more with weights that have a reverse network. seed: of its noise, in 0..2^64−1; one
        seed gives one image. Each None: the file's own default, or that of the weights. preview: the plain decode,
        realism 0.
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
        _check_seed(seed)
        if realism is not None:
            _unit("realism", realism)
        with _memory_errors(), torch.inference_mode():
            container = parse(data)
            header = container.header
            if header.family != "ratevar" or header.stream_id != self.stream_id:
                raise ModelMissing(
                    f"this file needs {header.family} weights with stream id {header.stream_id.hex()}; loaded are"
                    f" {self.name} weights with {self.stream_id.hex()}"
                )
            if preview:
                realism = 0.0
            elif realism is None:
                realism = self.config.default_realism if header.realism is None else header.realism / 100
            reverse, wanted = self.config.reverse, 0
            if reverse is not None and realism > 0:
                # a file may ask for steps that other weights of its stream id have no network for
                wanted = (header.steps or reverse.steps) if steps is None else steps
            side = self._dequantise(container, path=wanted > 0)
            y_file, log2_q_file = side.y_file, side.log2_q_file
            ends = [(y_file, log2_q_file, 0.0)] if realism < 1 else []
            if wanted:
                chosen = seed if seed is not None else DEFAULT_SEED if header.seed is None else header.seed
                ends.append((*self._reverse(side, wanted, chosen), 1.0))
            elif realism > 0:
                ends.append((y_file, log2_q_file, 1.0))
            del side, y_file  # planes as large as y
            rgb = self._synthesise(ends, log2_q_file, realism, header.height, header.width)
            alpha = None
            if container.alpha is not None:
                alpha = decode_alpha(container.alpha, header.height, header.width)
            return from_arrays(rgb, alpha, container.icc, container.exif, container.xmp)

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

    def _reverse(self, side: SideInfo, steps: int, seed: int) -> tuple[Tensor, Tensor]:
        """The latent at the end of the reverse path, and log2 of the step left in it."""
        f = self.model.f
        assert f is not None
        h16, w16 = side.y_file.shape[-2:]

        def noise(stream: int, step: int, channels: int) -> Tensor:
            return seeded_noise(seed, step, channels, h16, w16, stream=stream).to(self.device)

        def denoise(y: Tensor, log2_q: Tensor, side: SideInfo, xi: Tensor | None) -> Tensor:
            def window(top: int, bottom: int, left: int, right: int) -> Tensor:
                def cut(plane: Tensor) -> Tensor:
                    return plane if plane.shape[-2:] == (1, 1) else plane[..., top:bottom, left:right]

                with self._autocast():
                    part = SideInfo(*(cut(plane) for plane in side))
                    return f(cut(y), cut(log2_q), part, None if xi is None else cut(xi))

            return run_windowed(window, torch.empty_like(y), (h16, w16), _WINDOW, f.halo, 1)

        return self.model.reverse(side, noise, steps=steps, network=denoise)

    def _synthesise(
        self, ends: list[tuple[Tensor, Tensor, float]], log2_q_file: Tensor, realism: float, height: int, width: int
    ) -> npt.NDArray[np.uint8]:
        """(1−ρ)·x̂_0 + ρ·x̂_1 as (height, width, 3) uint8. ends: y, log2 q and 0 or 1 of those of the two that count."""
        g_s = self.model.g_s

        def network(top: int, bottom: int, left: int, right: int) -> Tensor:
            def cut(plane: Tensor) -> Tensor:
                return plane if plane.shape[-2:] == (1, 1) else plane[..., top:bottom, left:right]

            decoded: list[Tensor] = []
            for y, log2_q, end in ends:
                part = cut(y).contiguous(memory_format=torch.channels_last)
                rho = torch.full((1, 1, 1, 1), end, device=self.device)
                with self._autocast():
                    decoded.append(g_s(part, cut(log2_q), cut(log2_q_file), rho).clamp_(0, 1))
            x = decoded[0] if len(decoded) == 1 else torch.lerp(decoded[0], decoded[1], realism)
            return x.mul_(255).round_().byte()

        h16, w16 = ends[0][0].shape[-2:]
        out = torch.empty(1, 3, h16 * LATENT_STRIDE, w16 * LATENT_STRIDE, dtype=torch.uint8, device=self.device)
        run_windowed(network, out, (h16, w16), _WINDOW, g_s.halo, LATENT_STRIDE)
        return out[0, :, :height, :width].permute(1, 2, 0).cpu().contiguous().numpy()

    def _autocast(self) -> torch.autocast:
        enabled = self._precision is not torch.float32
        return torch.autocast(self.device.type, dtype=self._precision if enabled else None, enabled=enabled)


def _device(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as e:
        raise OptionError(f"device {device!r} cannot be used: {str(e).splitlines()[0]}") from None
    return chosen


def _fast_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it natively, else float32. Only g_a, g_s and f use it, never the exact path."""
    if device.type == "cpu":
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return torch.bfloat16 if supported is not None and supported() else torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


@contextmanager
def _memory_errors() -> Generator[None]:
    try:
        yield
    except MemoryError as e:
        raise ImageTooLarge("not enough memory for this image") from e
    except torch.OutOfMemoryError as e:
        raise ImageTooLarge("not enough memory on the device for this image") from e
    except RuntimeError as e:
        # the CPU allocator has no error type of its own
        if "DefaultCPUAllocator" not in str(e):
            raise
        raise ImageTooLarge("not enough memory for this image") from e


def _unit(name: str, value: float) -> float:
    if not (isinstance(value, int | float) and 0 <= value <= 1):
        raise OptionError(f"{name} must lie in 0..1, got {value!r}")
    return float(value)


def _check_seed(seed: int | None) -> int | None:
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64):
        raise OptionError(f"seed must be a whole number in 0..2^64-1, got {seed!r}")
    return None if seed is None else int(seed)


def _target(bpp: float | None, target_bytes: int | None, pixels: int) -> int:
    if target_bytes is not None:
        if isinstance(target_bytes, bool) or not isinstance(target_bytes, int) or target_bytes <= 0:
            raise OptionError(f"target_bytes must be a positive whole number, got {target_bytes!r}")
        return target_bytes
    if not (isinstance(bpp, int | float) and 0 < bpp < float("inf")):
        raise OptionError(f"bpp must be positive, got {bpp!r}")
    return int(bpp * pixels / 8)
