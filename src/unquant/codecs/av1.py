"""The `av1` codec: AV1 codes the picture, and a network reverses its quantiser when decoding.

    x ──►┤libaom├──► OBUs ──► .unq or .avif                                                       (encode)
    x̂ ◄──┤f(·; q, ρ, ξ)├◄── x_q ◄──┤any AV1 decoder├◄── OBUs                                     (decode)

Realism ρ is the line (1−ρ)·x̂_0 + ρ·x̂_1 between f's two ends; 0 steps give x_q, AV1's own picture. Files of other programs are
redrawn as well: f is told what their headers say. Where AV1 was lossless the picture is returned as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PILImage
from torch import Tensor

from unquant.codecs.alpha import decode_alpha
from unquant.codecs.arguments import memory_errors, target_size
from unquant.codecs.av1_files import (
    avif_to_unq,
    checked_streams,
    coded_alpha,
    header_index,
    unq_to_avif,
    with_orientation,
)
from unquant.codecs.avif import BASE, AvifOptions, decode_avif, encode_avif, enlarge, reduce, require_avif
from unquant.codecs.interface import DEFAULT_QUALITY, Codec, Drawing, Wishes
from unquant.codecs.rate import QUALITY_MAX, nominal_base_q_idx, search_q_index, slack
from unquant.codecs.windows import run_windowed
from unquant.container import DEFAULT_LIMITS, Container, Header, Tile, parse, stream_crc
from unquant.container.avif import is_avif, parse_avif
from unquant.container.avif_writer import build_avif
from unquant.container.obu import StillPicture, parse_obus, strip_temporal_delimiter
from unquant.diffusion.noise import seeded_noise
from unquant.diffusion.samplers import sample_deterministic
from unquant.errors import CorruptStream, OptionError, RateUnreachable
from unquant.images import Picture, from_arrays, to_picture
from unquant.models.av1 import Av1, Av1Config, Coding, told
from unquant.nn.redraw import COARSE_NOISE, FINE_NOISE, REDRAW_STRIDE

__all__ = ["DEFAULT_EFFORT", "Av1Codec"]

DEFAULT_EFFORT: Final = 4
"""libaom's speed 6; an effort e is the speed 10 − e."""
_COARSE, _FINE = 0, 1
"""Streams of the seeded noise."""
# one quality for each of libavif's 64 quantisers, which are ((100 − quality)·63 + 50) // 100
_QUALITIES: Final = sorted({((QUALITY_MAX - q) * 63 + 50) // 100: q for q in range(QUALITY_MAX + 1)}.values())
_MOST_STRENGTH: Final = 50
"""Of deltaq, up to which a file is filled: more of it costs quality."""
_NEAR_SRGB: Final = (1, 2, 5, 6)
"""Primaries (H.273) that are sRGB's, unspecified, or so close that viewers make no difference."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What an encode works from. colour and alpha are coded apart; wishes go into the file."""

    picture: Picture
    options: AvifOptions
    wishes: Wishes
    container: str
    alpha: bytes | None

    @property
    def pixels(self) -> int:
        return self.picture.rgb.shape[0] * self.picture.rgb.shape[1]


class _Base(NamedTuple):
    """One coded picture: its OBUs and what their headers say; half: of half size."""

    obus: bytes
    picture: StillPicture
    half: bool


class _Opened(NamedTuple):
    """A file to be drawn: the picture that AV1 gives, what f is told of it, and what travels beside it."""

    rgb: npt.NDArray[np.uint8]
    coding: Coding
    header: Header
    alpha: npt.NDArray[np.uint8] | None
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    grey: bool


class Av1Codec(Codec[Av1Config, Av1]):
    """A loaded `av1` model. steps of a decode: 1, or 0 for AV1's own picture, which is also the preview."""

    family = "av1"
    window = 96
    """Side of the windows that f runs in, in positions of 16 pixels."""

    @property
    def _default_steps(self) -> int | None:
        return 1

    def _check_steps(self, steps: int, lowest: int = 0, highest: int = 1) -> None:
        super()._check_steps(steps, lowest, highest)

    def _steps_of(self, asked: int | None, realism: float, *, preview: bool) -> int:
        # a file may ask for the steps of later weights
        return min(1, (0 if preview else 1) if asked is None else asked)

    # ---- encode ------------------------------------------------------------------------------------------------------

    def _encode(  # pyright: ignore[reportIncompatibleMethodOverride]  # a family's own options
        self,
        image: Any,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        target_bytes: int | None = None,
        q_index: object = None,
        metadata: bool = True,
        realism: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
        effort: int | None = None,
        container: str = "unq",
    ) -> bytes:
        require_avif()
        if q_index is not None:
            raise OptionError("q_index: AV1 chooses its steps itself; give a quality or a size")
        given = (("quality", quality), ("bpp", bpp), ("target_bytes", target_bytes))
        chosen = [name for name, value in given if value is not None]
        if len(chosen) > 1:
            raise OptionError(f"{' and '.join(chosen)} exclude each other")
        if container not in ("unq", "avif"):
            raise OptionError(f"container: unq or avif, not {container!r}")
        effort = DEFAULT_EFFORT if effort is None else effort
        if isinstance(effort, bool) or not isinstance(effort, int) or not 1 <= effort <= 9:
            raise OptionError(f"effort must be a whole number in 1..9, got {effort!r}")
        wishes = self._wishes(realism, steps, seed)
        with memory_errors():
            picture = to_picture(image, keep_metadata=metadata)
            DEFAULT_LIMITS.check_size(picture.rgb.shape[1], picture.rgb.shape[0])
            options = replace(BASE, speed=10 - effort)
            plan = _Plan(picture, options, wishes, container, coded_alpha(picture.alpha, container))
            if bpp is not None or target_bytes is not None:
                return self._encode_to_size(plan, target_size(bpp, target_bytes, plan.pixels))
            quality = DEFAULT_QUALITY if quality is None else quality
            if not (isinstance(quality, int | float) and 0 <= quality <= QUALITY_MAX):
                raise OptionError(f"quality must lie in 0..{QUALITY_MAX}, got {quality!r}")
            return self._file(plan, _code(picture.rgb, replace(options, quality=round(quality))))

    def _file(self, plan: _Plan, base: _Base) -> bytes:
        p = plan.picture
        if plan.container == "avif":
            payload = plan.wishes.to_payload()
            return build_avif(base.obus, alpha=plan.alpha, exif=p.exif, xmp=p.xmp, uuid_payload=payload)
        height, width = p.rgb.shape[:2]
        header = Header(
            self.family, self.stream_id, width, height, header_index(base.picture), None, *plan.wishes, base.half
        )
        tile = Tile(base.obus, stream_crc(header.to_bytes(), 0, base.obus))
        return Container(header, (tile,), alpha=plan.alpha, icc=p.icc, exif=p.exif, xmp=p.xmp).to_bytes()

    def _encode_to_size(self, plan: _Plan, target: int) -> bytes:
        """The largest file of at most `target` bytes: by quality, then by deltaq-strength; below all those at half size."""
        files: dict[tuple[int, int, bool], bytes] = {}
        small: list[npt.NDArray[np.uint8]] = []

        def at(quality: int, strength: int, half: bool) -> bytes:
            key = quality, strength, half
            if key not in files:
                options = replace(plan.options, quality=quality, deltaq_strength=strength)
                if half and not small:
                    small.append(reduce(plan.picture.rgb))
                files[key] = self._file(plan, _code(small[0] if half else plan.picture.rgb, options, half=half))
            return files[key]

        strength = plan.options.deltaq_strength or 0
        half = False
        if len(at(_QUALITIES[0], strength, False)) > target:
            # AV1 at half size wins only where there is no file of full size; viewers would show it small
            half = plan.container == "unq"
            if not half or len(at(_QUALITIES[0], strength, True)) > target:
                smallest = min(len(data) for data in files.values())
                raise RateUnreachable(
                    f"the smallest file of this image is {smallest} bytes, the target is {target}", smallest
                )
        top = len(_QUALITIES) - 1

        def quality_at(index: int) -> int:
            return _QUALITIES[top - index]

        index = search_q_index(lambda i: len(at(quality_at(i), strength, half)), target, 0, top)
        self._fill(lambda q, s: at(q, s, half), [quality_at(i) for i in (index, max(index - 1, 0))], strength, target)
        data = max((data for data in files.values() if len(data) <= target), key=len)
        if index == 0 and target - len(data) > slack(target):
            warnings.warn(f"the target of {target} bytes is above the highest rate: {len(data)} bytes", stacklevel=4)
        return data

    def _fill(self, at: Callable[[int, int], bytes], qualities: list[int], strength: int, target: int) -> None:
        """Make files between two neighbouring qualities, until one is close below the target."""
        fits, above = qualities
        if fits == above or target - len(at(fits, strength)) <= slack(target):
            return
        # deltaq grows a file by up to 15%; the next quality without it is 3% smaller than with it
        if len(at(above, 0)) <= target:
            quality, low, high = above, 0, strength
        else:
            quality, low, high = fits, strength, _MOST_STRENGTH
        while high - low > 1:
            middle = (low + high) // 2
            size = len(at(quality, middle))
            low, high = (middle, high) if size <= target else (low, middle)
            if 0 <= target - size <= slack(target):
                return

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
        require_avif()
        self._check_asked(realism, steps, seed, preview)
        with memory_errors(), torch.inference_mode():
            opened = self._open_avif(data) if is_avif(data) else self._open_unq(data)
            drawing = self._drawing(opened.header, realism, steps, seed, preview)
            rgb = self._draw(opened.rgb, opened.coding, drawing)
            image = from_arrays(rgb, opened.alpha, opened.icc, opened.exif, opened.xmp)
            if not opened.grey:
                return image
            grey = image.convert("LA").convert("RGBA") if opened.alpha is not None else image.convert("L")
            grey.info.update(image.info)
            return grey

    def _open_unq(self, data: bytes) -> _Opened:
        container = parse(data)
        header = container.header
        self._check_weights(header)
        obus, *more = checked_streams(container)
        picture = parse_obus(obus)
        height, width = header.height, header.width
        if header.half:
            height, width = -(-height // 2), -(-width // 2)
        if (picture.width, picture.height) != (width, height):
            raise CorruptStream(
                f"the header tells of {width}×{height} coded pixels, the AV1 stream of {picture.width}×{picture.height}"
            )
        if header_index(picture) != header.q_index:
            raise CorruptStream(f"base_q_idx {header.q_index} in the header, {picture.base_q_idx} in the AV1 stream")
        # through the same checks as a foreign file
        avif = build_avif(obus, alpha=more[0] if more else None)
        parse_avif(avif)
        rgb, alpha = decode_avif(avif)
        if header.half:
            rgb = enlarge(rgb, header.height, header.width)
        if container.alpha is not None:
            alpha = decode_alpha(container.alpha, header.height, header.width)
        coding = _coding(picture, len(obus), header.width * header.height, half=header.half)
        return _Opened(rgb, coding, header, alpha, container.icc, container.exif, container.xmp, picture.mono)

    def _open_avif(self, data: bytes) -> _Opened:
        file = parse_avif(data)
        if file.picture.film_grain:
            warnings.warn("film grain, which AV1 adds when decoding, is redrawn like any other detail", stacklevel=5)
        if file.clap:
            warnings.warn("the crop that the file asks for (clap) is not applied", stacklevel=5)
        if file.icc is None and file.colour.primaries not in _NEAR_SRGB:
            warnings.warn(
                f"colours of other primaries than sRGB's (code {file.colour.primaries}), without a profile that could say"
                " so: handed out as they are",
                stacklevel=5,
            )
        rgb, alpha = decode_avif(data)
        if rgb.shape[:2] != (file.height, file.width):
            raise CorruptStream(f"AVIF of {file.width}×{file.height} decodes to {rgb.shape[1]}×{rgb.shape[0]} pixels")
        # as in a .unq: f is told the same of the same stream
        size = file.coded_bytes if file.obus is None else len(strip_temporal_delimiter(file.obus))
        coding = _coding(file.picture, size, file.width * file.height, grid=file.grid)
        wishes = Wishes.from_payload(file.uuid_payload)
        header = Header(
            self.family, self.stream_id, file.width, file.height, coding.base_q_idx, None, *wishes, half=False
        )
        exif = with_orientation(file.exif, file.orientation)
        return _Opened(rgb, coding, header, alpha, file.icc, exif, file.xmp, file.picture.mono)

    def _draw(self, rgb: npt.NDArray[np.uint8], coding: Coding, drawing: Drawing) -> npt.NDArray[np.uint8]:
        """(1−ρ)·x̂_0 + ρ·x̂_1 as (h, w, 3) uint8, from AV1's picture (h, w, 3)."""
        if drawing.steps == 0 or coding.base_q_idx == 0:
            return rgb
        height, width = rgb.shape[:2]
        h16, w16 = -(-height // REDRAW_STRIDE), -(-width // REDRAW_STRIDE)
        edge = (0, h16 * REDRAW_STRIDE - height), (0, w16 * REDRAW_STRIDE - width), (0, 0)
        plane = torch.from_numpy(np.pad(rgb, edge, mode="edge")).permute(2, 0, 1)[None]
        table = told([coding]).to(self.device)
        realism = drawing.realism
        ends = [end for end, counts in ((0.0, realism < 1), (1.0, realism > 0)) if counts]
        schedule = torch.tensor([coding.step / 8 / 255, 0.0], device=self.device)

        def noise(stream: int, channels: int, scale: int, place: tuple[int, int, int, int]) -> Tensor:
            top, bottom, left, right = (scale * side for side in place)
            size = bottom - top, right - left
            return seeded_noise(drawing.seed, 0, channels, *size, stream=stream, top=top, left=left).to(self.device)

        def network(top: int, bottom: int, left: int, right: int) -> Tensor:
            place, s = (top, bottom, left, right), REDRAW_STRIDE
            part = plane[..., top * s : bottom * s, left * s : right * s].to(self.device).float().div_(255)
            part = part.contiguous(memory_format=torch.channels_last)
            coarse = torch.zeros(1, COARSE_NOISE, 2 * (bottom - top), 2 * (right - left), device=self.device)
            fine = torch.zeros(1, FINE_NOISE, 8 * (bottom - top), 8 * (right - left), device=self.device)
            if realism > 0:
                coarse, fine = noise(_COARSE, COARSE_NOISE, 2, place), noise(_FINE, FINE_NOISE, 8, place)

            def drawn(end: float) -> Tensor:
                def denoise(x_q: Tensor, q: Tensor) -> Tensor:
                    with self._autocast():
                        rho = torch.full((1, 1, 1, 1), end, device=self.device)
                        return self.model(x_q, table, rho, coarse, fine)

                return sample_deterministic(denoise, part, schedule).clamp_(0, 1)

            pictures = [drawn(end) for end in ends]
            x = pictures[0] if len(pictures) == 1 else torch.lerp(pictures[0], pictures[1], realism)
            return x.mul_(255).round_().byte()

        out = torch.empty(1, 3, h16 * REDRAW_STRIDE, w16 * REDRAW_STRIDE, dtype=torch.uint8, device=self.device)
        run_windowed(network, out, (h16, w16), self.window, self.model.f.halo, REDRAW_STRIDE)
        return out[0, :, :height, :width].permute(1, 2, 0).cpu().contiguous().numpy()

    # ---- the same stream in the other container ----------------------------------------------------------------------

    def repack(
        self,
        data: bytes,
        *,
        metadata: bool = True,
        realism: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
    ) -> bytes:
        """An `.avif` file as a `.unq` file or the other way round: the same OBUs, nothing is coded again.

        EXIF, XMP, profile, alpha, orientation (as EXIF's tag in a `.unq`) and what the file asks of a decoder go along.
        Of a `.unq` file that is made, metadata=False leaves out EXIF and XMP but for the orientation, and realism, steps
        and seed, if any is given, are asked in place of what the `.avif` does.
        Raises UnsupportedVersion for what the other container cannot hold (a grid, premultiplied alpha, a crop, colours
        described other than in the stream; a base of half size), and what `decode` raises for a file that is damaged.
        """
        if not is_avif(data):
            return unq_to_avif(data)
        unasked = realism is None and steps is None and seed is None
        wishes = None if unasked else self._wishes(realism, steps, seed)
        return avif_to_unq(data, self.stream_id, wishes, metadata=metadata)


def _code(rgb: npt.NDArray[np.uint8], options: AvifOptions, *, half: bool = False) -> _Base:
    file = parse_avif(encode_avif(rgb, options))
    assert file.obus is not None
    return _Base(strip_temporal_delimiter(file.obus), file.picture, half)


def _coding(picture: StillPicture, size: int, pixels: int, *, half: bool = False, grid: bool = False) -> Coding:
    bpp = 8 * size / pixels
    index = picture.base_q_idx
    if index is None or (grid and index > 0):  # the cells of a grid may differ
        index = nominal_base_q_idx(bpp)
    return Coding(index, bpp, picture.using_qmatrix, picture.delta_q_present, picture.chroma, half)
