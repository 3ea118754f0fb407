"""What the codecs with a latent share: images to `.unq` bytes, and back to the latent that a decoder draws from.

image ──►┤g_a├──► y ──► tiles ──►┤exact entropy coder├──► container        (encode)
image ◄──┤the family's decoder├◄── ŷ, μ, σ ◄── tiles ◄──┤exact entropy coder├◄── container   (decode)

Both go through the picture block by block: beside the 8-bit picture memory is that of a block and of a row or two of tiles.
What needs more: y is kept as a whole where a size is searched for.
"""

from __future__ import annotations

import math
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unquant.codecs.alpha import encode_alpha
from unquant.codecs.avif import enlarge
from unquant.codecs.decoder import Drawing
from unquant.codecs.forecast import foretell_encode, memory_errors
from unquant.codecs.interface import Codec
from unquant.codecs.options import DEFAULT_QUALITY, DecodeOptions, EncodeOptions, ImageSource, QIndex, QMap
from unquant.codecs.parts import (
    Beside,
    Damage,
    beside_of,
    fill_with_means,
    open_container,
    padded_part,
    part_image,
    pixels_of,
    shrunk,
    with_damage,
)
from unquant.codecs.progress import counted, unheard
from unquant.codecs.rate import largest_file, quality_to_q_index
from unquant.codecs.roi import mask_weights, q_offsets
from unquant.codecs.tiles import Latents, TileReader, encode_tiles, q_indices, read_tiles, tile_windows
from unquant.codecs.windows import Window, blocks, run_windowed
from unquant.codecs.wishes import Wishes
from unquant.coding import Tables
from unquant.container import DEFAULT_LIMITS, Container, Header, latent_size, metadata_bytes
from unquant.entropy.exact import ExactCoder
from unquant.entropy.rdoq import Rdoq
from unquant.errors import CorruptStream, OptionError, WeightsError
from unquant.families import AVIF_FAMILY
from unquant.images import Picture
from unquant.networks.common import SideInfo, log2_q_of
from unquant.networks.latent import LatentConfig, LatentModel
from unquant.nn.transforms import LATENT_STRIDE, linear_decode
from unquant.weights_file import Weights

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["AnyLatentCodec", "LatentCodec", "Work"]

C = TypeVar("C", bound=LatentConfig)
M = TypeVar("M", bound=LatentModel[Any, Any, Any])

_CONTAINER_BYTES, _TILE_BYTES = 20, 8
_GREY = 128.0
_GLANCE = 8
"""Pixels a side that are one in a first look."""


class _Plan(NamedTuple):
    """What an encode works from: the picture, the sections' bytes, and where it is needed more than once the latent,
    (1, c, h16, w16) float32."""

    picture: Picture
    alpha: bytes | None
    y: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """(h16, w16) of the latent."""
        height, width = self.picture.rgb.shape[:2]
        return latent_size(width, height)

    @property
    def overhead(self) -> int:
        """Bytes beside the coder streams, roughly."""
        return _CONTAINER_BYTES + self.metadata + (0 if self.alpha is None else len(self.alpha) + 11)

    @property
    def metadata(self) -> int:
        """Bytes of it in the file."""
        return metadata_bytes(self.picture.icc, self.picture.exif, self.picture.xmp)


class Work(NamedTuple):
    """How a picture is drawn. reads: the parts of the latent that are cut, once each. places: of the parts of the picture, in
    pixels, each of squares of 16 but for what the drawing's window cuts off. draw: their pixels, (h, w, 3), in that order.
    """

    reads: list[Window]
    places: list[Window]
    draw: Callable[[Latents], Iterator[npt.NDArray[np.uint8]]]


class LatentCodec(Codec[C, M]):
    """A codec with a latent of its own. A family's codec sets `family` and draws images from latents."""

    window: ClassVar[int] = 96
    """Side of the windows that networks run in, in latent positions."""
    rdoq_weight: ClassVar[float] = 40.0
    """Λ of the choice of symbols: what a squared step is worth in bits."""

    def __init__(self, weights: Weights, device: str | torch.device = "cpu", name: str | None = None) -> None:
        super().__init__(weights, device, name)
        arrays = {k.removeprefix("tables."): v.numpy() for k, v in weights.tensors.items() if k.startswith("tables.")}
        tables = Tables.from_arrays(arrays)
        if len(tables) != (scales := self.config.entropy.scales):
            raise WeightsError(f"tables: {len(tables)}, where the configuration has {scales} scales")
        self.exact = ExactCoder(self.model.entropy, tables, self.device)
        self.rdoq = Rdoq(tables, self.rdoq_weight)

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
            picture = self._picture(image, options)
            height, width = picture.rgb.shape[:2]
            DEFAULT_LIMITS.check_size(width, height)
            offsets = self._offsets(options, height, width)
            alpha = encode_alpha(picture.alpha) if picture.alpha is not None else None
            target = options.target(height * width)
            foretell_encode(self.family, height * width, search=target is not None).check()
            y = None if target is None else self.analyse(picture.rgb)
            plan = _Plan(picture, alpha, y)

            def steps(index: int) -> QIndex:
                return index if offsets is None else np.clip(index + offsets, low, high)

            if target is not None and y is not None:
                return largest_file(
                    lambda index: plan.overhead + self.estimate(y, steps(index)),
                    lambda index: self._encode_at(plan, steps(index), wishes),
                    target,
                    low,
                    high,
                    metadata=plan.metadata,
                )
            if options.q_index is not None:
                index = self._checked_q_index(options.q_index, plan)
                return self._encode_at(plan, steps(index) if isinstance(index, int) else index, wishes)
            quality = DEFAULT_QUALITY if options.quality is None else options.quality
            return self._encode_at(plan, steps(quality_to_q_index(quality, low, high)), wishes)

    def _offsets(self, options: EncodeOptions, height: int, width: int) -> QMap | None:
        """What is added to the q index at each position, (h16, w16); None for a step that is one. Raises OptionError."""
        size = latent_size(width, height)
        mask = self._mask(options)
        if mask is not None:
            return q_offsets(mask_weights(mask, height, width), options.roi_gain)
        if options.q_map is None:
            return None
        offsets = np.asarray(options.q_map)
        if offsets.shape != size or not np.issubdtype(offsets.dtype, np.integer):
            raise OptionError(
                f"q_map of this image must be whole numbers of shape {size}, not {offsets.dtype} {offsets.shape}"
            )
        return offsets.astype(np.int64)

    def _checked_q_index(self, q_index: QIndex, plan: _Plan) -> QIndex:
        low, high = self.q_index_range
        indices = np.asarray(q_index)
        whole = np.issubdtype(indices.dtype, np.integer) and indices.size > 0
        if not whole or indices.min() < low or indices.max() > high:
            raise OptionError(f"q_index must be whole numbers in {low}..{high}")
        if not indices.ndim:
            return int(indices)
        if indices.shape != plan.size:
            raise OptionError(f"a q_index map of this image must be of shape {plan.size}, not {indices.shape}")
        return indices

    def analyse(self, rgb: npt.NDArray[np.uint8], part: Window | None = None) -> Tensor:
        """y = g_a(x), (1, c, h16, w16) float32 on the codec's device; the image is padded by repeating its edge.

        part: of the latent, None for all of it. One that starts on a multiple of `window` has exactly the values of all.
        """
        size = latent_size(rgb.shape[1], rgb.shape[0])
        part = part or Window.whole(size)
        g_a = self.model.g_a

        def network(top: int, bottom: int, left: int, right: int) -> Tensor:
            x = torch.from_numpy(padded_part(rgb, Window(top, bottom, left, right), LATENT_STRIDE)).to(self.device)
            with self._autocast():
                return g_a(x.permute(2, 0, 1)[None].float().div_(255).contiguous(memory_format=torch.channels_last))

        out = torch.empty(1, self.config.latent, *part.size, device=self.device)
        return run_windowed(network, out, size, self.window, g_a.halo, 1, part)

    def _latent_parts(self, plan: _Plan) -> Iterator[tuple[Window, Tensor]]:
        """y by blocks of whole tiles and whole windows, so that it is the same however it is cut; with its places."""
        whole = Window.whole(plan.size)
        if plan.y is not None:
            yield whole, plan.y
            return
        parts = blocks(whole, math.lcm(self.window, self.config.tile))
        if len(parts) == 1:
            yield whole, self.analyse(plan.picture.rgb)
            return
        for part in counted(parts, "windows", len(parts)):
            with unheard():
                y = self.analyse(plan.picture.rgb, part)
            yield part, y

    def estimate(self, y: Tensor, index: QIndex) -> float:
        """Bytes of the tiles of y (1, c, h16, w16) at a q index, by cross-entropy in float32; of a map its own too."""
        bits, tiles = 8.0 * (0 if isinstance(index, int) else len(zlib.compress(_packed(index), 9))), 0
        h16, w16 = y.shape[-2:]
        log2_q = log2_q_of(torch.as_tensor(np.atleast_2d(index)[None, None], dtype=torch.float32, device=self.device))
        for place in tile_windows(h16, w16, self.config.tile):
            coded = self.model.quantise(place.cut(y), place.cut(log2_q), noise=False, rdoq=self.rdoq)
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
            q_map=None if isinstance(index, int) else _packed(index),
            realism=wishes.percent,
            steps=wishes.steps,
            seed=wishes.seed,
        )
        h_a = self.model.entropy.hyper_analysis
        tiles = encode_tiles(self.exact, h_a, header, self._latent_parts(plan), self.config.tile, self.rdoq)
        p = plan.picture
        return Container(header, tiles, alpha=plan.alpha, icc=p.icc, exif=p.exif, xmp=p.xmp).to_bytes()

    # ---- decode ------------------------------------------------------------------------------------------------------

    def _decode(self, data: bytes, options: DecodeOptions) -> PILImage.Image:
        with memory_errors(), torch.inference_mode():
            container, damage = open_container(data, allow_partial=options.allow_partial)
            header = container.header
            self._check_weights(header)
            drawing = self._drawing(Wishes.of(header), header.height, header.width, options)
            if options.glances and self._glances and self._linear is not None:
                self._check_memory(drawing)
                beside = beside_of(container, damage)
                rgb = self._glance(container, self._linear, drawing.window)
            elif drawing.reduction > 1 and self._linear is not None:
                rgb = self._small(container, self._linear, drawing, damage)
                beside = beside_of(container, damage)
            else:
                rgb, beside = self._large(container, drawing, damage)
            image = part_image(rgb, beside, (header.height, header.width), drawing.window, drawing.reduction)
            return with_damage(image, damage, LATENT_STRIDE)

    def _large(
        self, container: Container, drawing: Drawing, damage: Damage | None
    ) -> tuple[npt.NDArray[np.uint8], Beside]:
        """The picture by the family's networks, block by block, and what is beside it."""
        self._check_q(container.header)
        self._check_memory(drawing)
        wanted, reduction = drawing.window, drawing.reduction
        work = self._work(drawing, latent_size(container.header.width, container.header.height))
        latents = self._latents(container, work.reads, path=self._needs_side(drawing.steps), damage=damage)
        # a tile proves the size before anything is done that takes it, and the rest of the file before the work of drawing
        latents.prove()
        beside = beside_of(container, damage)
        parts = work.draw(latents)
        if len(work.places) == 1:
            rgb = shrunk(next(parts), reduction)
        else:
            whole = wanted.covering(reduction)
            rgb = np.empty((*whole.size, 3), np.uint8)
            for place in counted(work.places, "windows", len(work.places)):
                with unheard():
                    drawn = shrunk(next(parts), reduction)
                top, bottom, left, right = place.covering(reduction).seen_from(whole)
                rgb[top:bottom, left:right] = drawn
        if damage is not None:
            damage.tiles.sort()
        return rgb, beside

    @abstractmethod
    def _work(self, drawing: Drawing, size: tuple[int, int]) -> Work:
        """How a picture with a latent of `size` (h16, w16) is drawn."""

    @property
    def _linear(self) -> Tensor | None:
        """The linear path of g_s (c, 768), at the analysis scale; None where that alone gives no picture worth looking at."""
        return None

    @property
    def _glances(self) -> bool:
        """Whether the channels that are coded first, in slices, make a picture worth a first look."""
        return self.exact.first_channels < self.config.latent

    def _glance(self, container: Container, linear: Tensor, wanted: Window) -> npt.NDArray[np.uint8]:
        """The pixels `wanted` of a first look: the linear path of the first channels at 1/8, enlarged. Nothing is checked."""
        self._check_q(container.header)
        reader = TileReader(self.exact, container, self.config.tile)
        whole = Window.whole(latent_size(container.header.width, container.header.height))
        read = wanted.covering(LATENT_STRIDE).grown(1).within(whole)  # as far as a bicubic kernel reaches
        scale = LATENT_STRIDE // _GLANCE
        small = torch.empty(1, 3, *read.times(scale).size, device=self.device)
        numbers = reader.touched(read)
        for number in counted(numbers, "tiles", len(numbers)):
            place = reader.places[number]
            shared = place.within(read)
            y = shared.seen_from(place).cut(reader.glance(number))
            image = 0.5 + linear_decode(y, linear[: y.shape[1]], _GLANCE)
            shared.seen_from(read).times(scale).cut(small).copy_(image)
        rgb = small.clamp_(0, 1).mul_(255).round_().byte()[0].permute(1, 2, 0).cpu().contiguous().numpy()
        place = wanted.seen_from(read.times(LATENT_STRIDE))
        return enlarge(rgb, place.bottom, place.right, _GLANCE)[place.top :, place.left :].copy()

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

    def _read(self, wanted: Window, steps: int, size: tuple[int, int]) -> Window:
        """What a part of a latent of `size` (h16, w16) is drawn from in a decode of so many steps."""
        reach, whole = self._reach(steps), Window.whole(size)
        if reach is None:
            return whole
        halo, align = reach
        return wanted.grown(halo, align).within(whole)

    @abstractmethod
    def _reach(self, steps: int) -> tuple[int, int] | None:
        """How many latent positions beyond its own a pixel may depend on in a decode of so many steps, and the multiple of
        positions that a part must start and end on; None where it depends on all."""

    def _needs_side(self, steps: int) -> bool:
        """Whether a decode of so many steps reads μ and the scales."""
        return False

    def dequantise(
        self,
        container: Container,
        *,
        path: bool = True,
        window: Window | None = None,
        damage: Damage | None = None,
    ) -> SideInfo:
        """What `Latents` gives of a part, None for all. Raises CorruptStream, for q indices beyond the weights' range too."""
        window = window or Window.whole(latent_size(container.header.width, container.header.height))
        return self._latents(container, [window], path=path, damage=damage).cut(window)

    def _latents(
        self, container: Container, parts: list[Window], *, path: bool = True, damage: Damage | None = None
    ) -> Latents:
        self._check_q(container.header)
        c = self.config
        return Latents(self.exact, container, c.latent, c.tile, parts, path=path, damage=damage)

    def _check_q(self, header: Header) -> None:
        low, high = self.q_index_range
        indices = q_indices(header)
        if indices.min() < low or indices.max() > high:
            raise CorruptStream(f"q index outside {low}..{high}")


def _packed(indices: QMap) -> bytes:
    """A q map as it is in a header."""
    return indices.astype("<u2").tobytes()


AnyLatentCodec: TypeAlias = LatentCodec[Any, Any]
"""A codec of any family that has a latent of its own."""
