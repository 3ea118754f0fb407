"""What the codecs with a latent share: images to `.unq` bytes, and back to the latent that a decoder draws from.

image ──►┤g_a├──► y ──► tiles ──►┤exact entropy coder├──► container        (encode)
image ◄──┤the family's decoder├◄── ŷ, μ, σ ◄── tiles ◄──┤exact entropy coder├◄── container   (decode)
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.alpha import encode_alpha
from unquant.codecs.device import memory_errors
from unquant.codecs.interface import Codec, Drawing
from unquant.codecs.options import DEFAULT_QUALITY, DecodeOptions, EncodeOptions, ImageSource, QIndex
from unquant.codecs.parts import (
    Damage,
    beside_of,
    fill_with_means,
    open_container,
    part_image,
    pixels_of,
    shrunk,
    with_damage,
)
from unquant.codecs.rate import largest_file, quality_to_q_index
from unquant.codecs.tiles import decode_tiles, encode_tiles, q_indices, read_tiles, tile_windows
from unquant.codecs.windows import Window, run_windowed
from unquant.codecs.wishes import Wishes
from unquant.coding import Tables
from unquant.container import DEFAULT_LIMITS, Container, Header, latent_size, metadata_bytes
from unquant.entropy.exact import ExactCoder
from unquant.entropy.rdoq import Rdoq
from unquant.errors import CorruptStream, ImageTooLarge, OptionError, WeightsError
from unquant.families import AVIF_FAMILY
from unquant.images import Picture
from unquant.networks.common import SideInfo, log2_q_of
from unquant.networks.latent import LatentConfig, LatentModel
from unquant.nn.transforms import LATENT_STRIDE, linear_decode
from unquant.weights_file import Weights

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["AnyLatentCodec", "LatentCodec"]

C = TypeVar("C", bound=LatentConfig)
M = TypeVar("M", bound=LatentModel[Any, Any, Any])

_CONTAINER_BYTES, _TILE_BYTES = 20, 8
_GREY = 128.0


class _Plan(NamedTuple):
    """What an encode works from: the picture, its latent (1, c, h16, w16) float32, and the sections' bytes."""

    picture: Picture
    alpha: bytes | None
    y: Tensor

    @property
    def overhead(self) -> int:
        """Bytes beside the coder streams, roughly."""
        return _CONTAINER_BYTES + self.metadata + (0 if self.alpha is None else len(self.alpha) + 11)

    @property
    def metadata(self) -> int:
        """Bytes of it in the file."""
        return metadata_bytes(self.picture.icc, self.picture.exif, self.picture.xmp)


class LatentCodec(Codec[C, M]):
    """A codec with a latent of its own. A family's codec sets `family` and draws images from latents."""

    window: ClassVar[int] = 96
    """Side of the windows that networks run in, in latent positions."""

    def __init__(self, weights: Weights, device: str | torch.device = "cpu", name: str | None = None) -> None:
        super().__init__(weights, device, name)
        arrays = {k.removeprefix("tables."): v.numpy() for k, v in weights.tensors.items() if k.startswith("tables.")}
        tables = Tables.from_arrays(arrays)
        if len(tables) != (scales := self.config.entropy.scales):
            raise WeightsError(f"tables: {len(tables)}, where the configuration has {scales} scales")
        self.exact = ExactCoder(self.model.entropy, tables, self.device)
        self.rdoq = Rdoq(tables)

    @property
    def q_index_range(self) -> tuple[int, int]:
        """Finest (most bytes) and coarsest q index."""
        return self.config.q_index_min, self.config.q_index_max

    # ---- encode ------------------------------------------------------------------------------------------------------

    def _encode(self, image: ImageSource, options: EncodeOptions) -> bytes:
        if options.effort is not None or options.container != "unq":
            raise OptionError(f"{self.name}: effort and the container avif are for the family {AVIF_FAMILY.name} alone")
        wishes = self._wishes(options)
        low, high = self.q_index_range
        with memory_errors(), torch.inference_mode():
            plan = self._plan(self._picture(image, options))
            height, width = plan.picture.rgb.shape[:2]
            target = options.target(height * width)
            if target is not None:
                return largest_file(
                    lambda index: plan.overhead + self.estimate(plan.y, index),
                    lambda index: self._encode_at(plan, index, wishes),
                    target,
                    low,
                    high,
                    metadata=plan.metadata,
                )
            if options.q_index is not None:
                return self._encode_at(plan, self._checked_q_index(options.q_index, plan), wishes)
            quality = DEFAULT_QUALITY if options.quality is None else options.quality
            return self._encode_at(plan, quality_to_q_index(quality, low, high), wishes)

    def _checked_q_index(self, q_index: QIndex, plan: _Plan) -> QIndex:
        low, high = self.q_index_range
        indices = np.asarray(q_index)
        whole = np.issubdtype(indices.dtype, np.integer) and indices.size > 0
        if not whole or indices.min() < low or indices.max() > high:
            raise OptionError(f"q_index must be whole numbers in {low}..{high}")
        if not indices.ndim:
            return int(indices)
        if indices.shape != plan.y.shape[-2:]:
            shape = tuple(plan.y.shape[-2:])
            raise OptionError(f"a q_index map of this image must be of shape {shape}, not {indices.shape}")
        return indices

    def _plan(self, picture: Picture) -> _Plan:
        alpha = encode_alpha(picture.alpha) if picture.alpha is not None else None
        return _Plan(picture, alpha, self.analyse(picture.rgb))

    def analyse(self, rgb: npt.NDArray[np.uint8]) -> Tensor:
        """y = g_a(x), (1, c, h16, w16) float32 on the codec's device; the image is padded by repeating its edge."""
        height, width = rgb.shape[:2]
        limits = DEFAULT_LIMITS
        if max(height, width) > limits.max_dimension or height * width > limits.pixels:
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

    def estimate(self, y: Tensor, index: int) -> float:
        """Bytes of the tiles of y (1, c, h16, w16) at a q index, by cross-entropy in float32."""
        bits, tiles = 0.0, 0
        h16, w16 = y.shape[-2:]
        log2_q = torch.full((1, 1, 1, 1), log2_q_of(index), device=self.device)
        for place in tile_windows(h16, w16, self.config.tile):
            coded = self.model.quantise(place.cut(y), log2_q, noise=False, rdoq=self.rdoq)
            bits += float(coded.bits_y.sum() + coded.bits_z.sum())
            tiles += 1
        return bits / 8 + _TILE_BYTES * tiles

    def _encode_at(self, plan: _Plan, index: QIndex, wishes: Wishes) -> bytes:
        height, width = plan.picture.rgb.shape[:2]
        header = Header(
            family=self.family,
            stream_id=self.stream_id,
            width=width,
            height=height,
            q_index=index if isinstance(index, int) else round(float(index.mean())),
            q_map=None if isinstance(index, int) else index.astype("<u2").tobytes(),
            realism=wishes.percent,
            steps=wishes.steps,
            seed=wishes.seed,
        )
        h_a = self.model.entropy.hyper_analysis
        tiles = encode_tiles(self.exact, h_a, header, plan.y, self.config.tile, self.rdoq)
        p = plan.picture
        return Container(header, tiles, alpha=plan.alpha, icc=p.icc, exif=p.exif, xmp=p.xmp).to_bytes()

    # ---- decode ------------------------------------------------------------------------------------------------------

    def _decode(self, data: bytes, options: DecodeOptions) -> PILImage.Image:
        with memory_errors(), torch.inference_mode():
            container, damage = open_container(data, allow_partial=options.allow_partial)
            header = container.header
            self._check_weights(header)
            drawing = self._drawing(Wishes.of(header), header.height, header.width, options)
            if drawing.reduction > 1 and self._linear is not None:
                rgb = self._small(container, self._linear, drawing, damage)
                beside = beside_of(container, damage)
            else:
                read = self._read(drawing, latent_size(header.width, header.height))
                needs_side = self._needs_side(drawing.steps)
                sides = [self.dequantise(container, path=needs_side, window=read, damage=damage)]
                beside = beside_of(
                    container, damage
                )  # after the tiles have proved the size, before the work of drawing
                # not kept here: the planes are as large as y, and the callee lets go of them
                rgb = shrunk(self._draw(sides.pop(), drawing, read), drawing.reduction)
            image = part_image(rgb, beside, (header.height, header.width), drawing.window, drawing.reduction)
            return with_damage(image, damage, LATENT_STRIDE)

    @property
    def _linear(self) -> Tensor | None:
        """The linear path of g_s (c, 768), at the analysis scale; None where that alone gives no picture worth looking at."""
        return None

    def _small(
        self, container: Container, linear: Tensor, drawing: Drawing, damage: Damage | None
    ) -> npt.NDArray[np.uint8]:
        """The picture at a reduced size, by the linear path g_s.linear, tile by tile."""
        self._check_q(container.header)
        scale = LATENT_STRIDE // drawing.reduction
        read = drawing.window.covering(LATENT_STRIDE)
        covered = read.times(scale)
        out = torch.empty(1, 3, *covered.size, dtype=torch.uint8, device=self.device)
        for place, tile in read_tiles(self.exact, container, self.config.tile, read, damage):
            shared = place.within(read)
            image = 0.5 + linear_decode(shared.seen_from(place).cut(tile.y_file), linear, drawing.reduction)
            shared.times(scale).seen_from(covered).cut(out).copy_(image.clamp_(0, 1).mul_(255).round_())
        if damage is not None:
            holes = [place.within(read).times(scale).seen_from(covered) for _, place in damage.tiles]
            fill_with_means(out, holes, self.config.tile * scale, _GREY)
        return pixels_of(out, covered, drawing.window.covering(drawing.reduction))

    def _read(self, drawing: Drawing, size: tuple[int, int]) -> Window:
        """The part of a latent of `size` (h16, w16) that the pixels to be drawn depend on."""
        reach, whole = self._reach(drawing.steps), Window.whole(size)
        if reach is None:
            return whole
        halo, align = reach
        return drawing.window.covering(LATENT_STRIDE).grown(halo, align).within(whole)

    @abstractmethod
    def _reach(self, steps: int) -> tuple[int, int] | None:
        """How many latent positions beyond its own a pixel may depend on in a decode of so many steps, and the multiple of
        positions that a part must start and end on; None where it depends on all."""

    def _needs_side(self, steps: int) -> bool:
        """Whether a decode of so many steps reads μ and the scales."""
        return False

    @abstractmethod
    def _draw(self, side: SideInfo, drawing: Drawing, read: Window) -> npt.NDArray[np.uint8]:
        """The pixels of the drawing's window, (h, w, 3). side: of the part `read` of the latent; it may be taken apart."""

    def dequantise(
        self,
        container: Container,
        *,
        path: bool = True,
        window: Window | None = None,
        damage: Damage | None = None,
    ) -> SideInfo:
        """What `decode_tiles` gives. Raises CorruptStream for steps that these weights do not have as well."""
        self._check_q(container.header)
        channels, side = self.config.latent, self.config.tile
        return decode_tiles(self.exact, container, channels, side, path=path, window=window, damage=damage)

    def _check_q(self, header: Header) -> None:
        low, high = self.q_index_range
        indices = q_indices(header)
        if indices.min() < low or indices.max() > high:
            raise CorruptStream(f"q index outside {low}..{high}")


AnyLatentCodec: TypeAlias = LatentCodec[Any, Any]
"""A codec of any family that has a latent of its own."""
