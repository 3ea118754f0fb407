"""AV1 codes the picture: the half of the family `av1` that needs no network. No torch.

x ──►┤libaom├──► OBUs ──► .unq or .avif
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from unquant.codecs.av1_decode import Av1Weights
from unquant.codecs.av1_files import avif_to_unq, coded_alpha, header_index, unq_to_avif
from unquant.codecs.av1_rate import base_q_idx_of, largest_file
from unquant.codecs.avif import BASE, AvifOptions, encode_avif, reduce, require_avif
from unquant.codecs.encoder import Encoder
from unquant.codecs.forecast import foretell_encode, memory_errors
from unquant.codecs.options import DEFAULT_QUALITY, ContainerName, EncodeOptions, ImageSource, Source
from unquant.codecs.progress import tell
from unquant.codecs.roi import mask_weights, rate_guide
from unquant.codecs.sources import file_bytes
from unquant.codecs.wishes import Wishes
from unquant.container import DEFAULT_LIMITS, Container, Header, Tile, metadata_bytes, stream_crc
from unquant.container.avif import is_avif, parse_avif
from unquant.container.avif_writer import build_avif
from unquant.container.obu import StillPicture, ac_q, strip_temporal_delimiter
from unquant.errors import OptionError, WeightsError
from unquant.images import Picture
from unquant.weights_header import read_header

__all__ = ["Av1Encoder", "Av1FileEncoder"]

_DEFAULT_EFFORT: Final = 4
"""libaom's speed 6; an effort e is the speed 10 − e."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What an encode works from. colour and alpha are coded apart; wishes go into the file. mask: the region of interest, 255
    within, and gain of the step there; None for a step by the contents alone."""

    picture: Picture
    options: AvifOptions
    wishes: Wishes
    container: ContainerName
    alpha: bytes | None
    mask: npt.NDArray[np.uint8] | None
    gain: float

    @property
    def pixels(self) -> int:
        return self.picture.rgb.shape[0] * self.picture.rgb.shape[1]

    @property
    def metadata(self) -> int:
        """Bytes of it in the file; nothing is deflated in an `.avif`, which has no form for that."""
        p = self.picture
        if self.container == "avif":
            return sum(len(data) for data in (p.icc, p.exif, p.xmp) if data is not None)
        return metadata_bytes(p.icc, p.exif, p.xmp)


class _Base(NamedTuple):
    """One coded picture: its OBUs and what their headers say; half: of half size."""

    obus: bytes
    picture: StillPicture
    half: bool


class Av1Encoder(Av1Weights, Encoder):
    """An encoder of the family."""

    @property
    def _default_steps(self) -> int | None:
        return 1

    def _encode(self, image: ImageSource, options: EncodeOptions) -> bytes:
        require_avif()
        if options.q_index is not None:
            raise OptionError("q_index: AV1 chooses its steps itself; give a quality or a size")
        if options.q_map is not None:
            raise OptionError("q_map: AV1 chooses its steps itself; give a region of interest (roi)")
        wishes = self._wishes(options)
        with memory_errors():
            picture = self._picture(image, options)
            height, width = picture.rgb.shape[:2]
            DEFAULT_LIMITS.check_size(width, height)
            foretell_encode(self.family, height * width, search=options.target(height * width) is not None).check()
            base = replace(BASE, speed=10 - (_DEFAULT_EFFORT if options.effort is None else options.effort))
            alpha = coded_alpha(picture.alpha, options.container)
            mask = self._mask(options)
            if mask is not None:
                base = replace(base, deltaq_strength=0)
            plan = _Plan(picture, base, wishes, options.container, alpha, mask, options.roi_gain)
            target = options.target(plan.pixels)
            if target is not None:
                return self._encode_to_size(plan, target)
            quality = DEFAULT_QUALITY if options.quality is None else options.quality
            tell("AV1", 0)  # libaom does not say how far it is
            return self._file(plan, _code(plan, picture.rgb, replace(base, quality=round(quality))))

    def _file(self, plan: _Plan, base: _Base) -> bytes:
        p, wishes = plan.picture, plan.wishes
        if plan.container == "avif":
            payload = wishes.to_payload()
            return build_avif(base.obus, alpha=plan.alpha, exif=p.exif, xmp=p.xmp, uuid_payload=payload)
        height, width = p.rgb.shape[:2]
        header = Header(
            family=self.family,
            stream_id=self.stream_id,
            width=width,
            height=height,
            q_index=header_index(base.picture),
            realism=wishes.percent,
            steps=wishes.steps,
            seed=wishes.seed,
            half=base.half,
        )
        tile = Tile(base.obus, stream_crc(header.to_bytes(), 0, base.obus))
        return Container(header, (tile,), alpha=plan.alpha, icc=p.icc, exif=p.exif, xmp=p.xmp).to_bytes()

    def _encode_to_size(self, plan: _Plan, target: int) -> bytes:
        small: list[npt.NDArray[np.uint8]] = []

        def file_at(quality: int, strength: int, half: bool) -> bytes:
            if half and not small:
                small.append(reduce(plan.picture.rgb))
            options = replace(plan.options, quality=quality, deltaq_strength=strength)
            return self._file(plan, _code(plan, small[0] if half else plan.picture.rgb, options, half=half))

        # viewers of an .avif would show one of half size small
        may_halve = plan.container == "unq"
        strength = plan.options.deltaq_strength or 0
        return largest_file(file_at, target, strength, may_halve=may_halve, metadata=plan.metadata)

    # ---- the same stream in the other container ----------------------------------------------------------------------

    def repack(
        self,
        data: Source,
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
        data = file_bytes(data)
        if not is_avif(data):
            return unq_to_avif(data)
        unasked = realism is None and steps is None and seed is None
        wishes = None if unasked else self._wishes(EncodeOptions(realism=realism, steps=steps, seed=seed))
        return avif_to_unq(data, self.stream_id, wishes, metadata=metadata)


class Av1FileEncoder(Av1Encoder):
    """Encodes like `Av1Codec`, and takes no more of the weights than their header. Safe to share between threads and with
    forked processes.

    path: of the weights file. Raises ModelMissing, WeightsError.
    """

    def __init__(self, path: Path) -> None:
        header = read_header(path)
        if header.family != self.family:
            raise WeightsError(f"{path}: weights of the family {header.family!r}, not {self.family}")
        try:
            self._realism = header.default_realism
        except WeightsError as e:
            raise WeightsError(f"{path}: damaged weights file: {e}") from None
        self.name, self.stream_id = path.stem, bytes.fromhex(header.hashes["stream"][:8])

    @property
    def _default_realism(self) -> float:
        return self._realism


def _code(plan: _Plan, rgb: npt.NDArray[np.uint8], options: AvifOptions, *, half: bool = False) -> _Base:
    """The picture of a plan, at the size of `rgb`. deltaq_strength evens a guide, which takes bytes as well."""
    guide = None
    if plan.mask is not None:
        step, even = ac_q(base_q_idx_of(options.quality)) / 8, (options.deltaq_strength or 0) / 100
        guide = rate_guide(rgb, mask_weights(plan.mask, *rgb.shape[:2]), plan.gain, step, even)
    file = parse_avif(encode_avif(rgb, options, guide=guide))
    assert file.obus is not None
    return _Base(strip_temporal_delimiter(file.obus), file.picture, half)
