"""What the codecs of all families share: images to `.unq` bytes, and back to the latent that a decoder draws from.

image ──►┤g_a├──► y ──► tiles ──►┤exact entropy coder├──► container        (encode)
image ◄──┤the family's decoder├◄── ŷ, μ, σ ◄── tiles ◄──┤exact entropy coder├◄── container   (decode)
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.alpha import decode_alpha, encode_alpha
from unquant.codecs.arguments import (
    memory_errors,
    target_size,
)
from unquant.codecs.interface import DEFAULT_QUALITY, Codec, Drawing, Wishes
from unquant.codecs.rate import quality_to_q_index, search_q_index, slack
from unquant.codecs.windows import run_windowed
from unquant.coding import Tables
from unquant.container import DEFAULT_LIMITS, Container, Header, Tile, latent_size, parse, symbols_crc
from unquant.entropy.exact import ExactCoder
from unquant.errors import (
    CorruptStream,
    ImageTooLarge,
    OptionError,
    RateUnreachable,
)
from unquant.images import Picture, from_arrays, to_picture
from unquant.models.cdc import Cdc, CdcConfig
from unquant.models.common import Q_INDEX_OCTAVE, SideInfo, log2_q_of
from unquant.models.ratevar import Ratevar, RatevarConfig
from unquant.nn.transforms import LATENT_STRIDE
from unquant.weights import Weights

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["AnyLatentCodec", "LatentCodec"]

C = TypeVar("C", bound=RatevarConfig | CdcConfig)
M = TypeVar("M", bound=Ratevar | Cdc)

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


class LatentCodec(Codec[C, M]):
    """A codec with a latent of its own. A family's codec sets `family` and draws images from latents."""

    window: ClassVar[int] = 96
    """Side of the windows that networks run in, in latent positions."""

    def __init__(self, weights: Weights, device: str | torch.device = "cpu", name: str | None = None) -> None:
        super().__init__(weights, device, name)
        arrays = {k.removeprefix("tables."): v.numpy() for k, v in weights.tensors.items() if k.startswith("tables.")}
        self.exact = ExactCoder(self.model.entropy, Tables.from_arrays(arrays), self.device)

    @property
    def q_index_range(self) -> tuple[int, int]:
        """Finest (most bytes) and coarsest q index."""
        return self.config.q_index_min, self.config.q_index_max

    # ---- encode ------------------------------------------------------------------------------------------------------

    def _encode(  # pyright: ignore[reportIncompatibleMethodOverride]  # a family's own options
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
        effort: int | None = None,
        container: str = "unq",
    ) -> bytes:
        if effort is not None or container != "unq":
            raise OptionError(f"{self.name}: effort and the container avif are for the family av1 alone")
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
        log2_q = torch.full((1, 1, 1, 1), log2_q_of(index), device=self.device)
        for rows, columns in self._tiles(*plan.y.shape[-2:]):
            coded = self.model.quantise(plan.y[..., rows, columns], log2_q, noise=False)
            bits += float(coded.bits_y.sum() + coded.bits_z.sum())
            tiles += 1
        return bits / 8 + plan.overhead + _TILE_BYTES * tiles

    def _encode_to_size(self, plan: _Plan, target: int, wishes: Wishes) -> bytes:
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
        while index > low and target - len(data) > slack(target):
            finer = self._encode_at(plan, index - 1, wishes)
            if len(finer) > target:
                break
            index, data = index - 1, finer
        if index == low and target - len(data) > slack(target):
            warnings.warn(f"the target of {target} bytes is above the highest rate: {len(data)} bytes", stacklevel=4)
        return data

    def _encode_at(self, plan: _Plan, index: int | npt.NDArray[np.integer[Any]], wishes: Wishes) -> bytes:
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
        return log2_q_of(torch.from_numpy(indices).to(self.device, torch.float64)[None, None])

    # ---- decode ------------------------------------------------------------------------------------------------------

    def _decode(  # pyright: ignore[reportIncompatibleMethodOverride]  # a family's own options
        self,
        data: bytes,
        *,
        realism: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
        preview: bool = False,
    ) -> PILImage.Image:
        self._check_asked(realism, steps, seed, preview)
        with memory_errors(), torch.inference_mode():
            container = parse(data)
            header = container.header
            self._check_weights(header)
            drawing = self._drawing(header, realism, steps, seed, preview)
            # not kept here: the planes are as large as y, and the callee lets go of them
            rgb = self._draw(self._dequantise(container, path=self._needs_side(drawing.steps)), drawing)
            alpha = None
            if container.alpha is not None:
                alpha = decode_alpha(container.alpha, header.height, header.width)
            return from_arrays(rgb, alpha, container.icc, container.exif, container.xmp)

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


AnyLatentCodec: TypeAlias = LatentCodec[Any, Any]
"""A codec of any family that has a latent of its own."""
