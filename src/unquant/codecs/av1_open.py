"""Files that hold an AV1 picture, `.unq` or any `.avif`, opened: AV1's own picture, and what the network is told of it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unquant.codecs.av1_files import checked_streams, header_index, tile_holds
from unquant.codecs.av1_rate import nominal_base_q_idx
from unquant.codecs.avif import decode_avif, enlarge
from unquant.codecs.parts import Damage, beside_of
from unquant.codecs.wishes import Wishes
from unquant.container import Container
from unquant.container.avif import Nclx, parse_avif
from unquant.container.avif_writer import build_avif, described
from unquant.container.obu import StillPicture, parse_obus, strip_temporal_delimiter
from unquant.errors import CorruptStream, warn
from unquant.images import described_profile, with_orientation
from unquant.networks.coding import Coding

__all__ = ["Opened", "open_avif", "open_unq"]


class Opened(NamedTuple):
    """A file to be drawn: the picture that AV1 gives, (h, w, 3) uint8, what f is told of it, and what travels beside it.

    wishes: what the file asks of its decoder. alpha: (h, w) uint8. grey: AV1 has coded no colour.
    """

    rgb: npt.NDArray[np.uint8]
    coding: Coding
    wishes: Wishes
    alpha: npt.NDArray[np.uint8] | None
    icc: bytes | None
    exif: bytes | None
    xmp: bytes | None
    grey: bool


def open_unq(container: Container, damage: Damage | None = None) -> Opened:
    """The picture in a `.unq` file of the family. Raises CorruptStream, and what decoding AV1 raises.

    damage: takes alpha that is damaged, which is then left out.
    """
    header = container.header
    if damage is not None and len(container.tiles) > 1 and not tile_holds(container, 1):
        damage.notes.append("the AV1 stream of alpha is damaged")
        container = replace(container, tiles=container.tiles[:1])
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
    plane = beside_of(container, damage).alpha
    rgb, alpha = decode_avif(avif)
    if header.half:
        rgb = enlarge(rgb, header.height, header.width)
    coding = _coding(picture, len(obus), header.width * header.height, half=header.half)
    icc = _profile(container.icc, described(picture), grey=picture.mono)
    return Opened(
        rgb,
        coding,
        Wishes.of(header),
        alpha if plane is None else plane,
        icc,
        container.exif,
        container.xmp,
        picture.mono,
    )


def open_avif(data: bytes) -> Opened:
    """The picture in any `.avif` file, with an UnquantWarning for what of it is not followed. Raises BitstreamError."""
    file = parse_avif(data)
    if file.picture.film_grain:
        warn("film grain, which AV1 adds when decoding, is redrawn like any other detail")
    if file.clap:
        warn("the crop that the file asks for (clap) is not applied")
    rgb, alpha = decode_avif(data)
    if rgb.shape[:2] != (file.height, file.width):
        raise CorruptStream(f"AVIF of {file.width}×{file.height} decodes to {rgb.shape[1]}×{rgb.shape[0]} pixels")
    # as in a .unq: f is told the same of the same stream
    size = file.coded_bytes if file.obus is None else len(strip_temporal_delimiter(file.obus))
    coding = _coding(file.picture, size, file.width * file.height, grid=file.grid)
    wishes = Wishes.from_payload(file.uuid_payload)
    exif = with_orientation(file.exif, file.orientation)
    icc = _profile(file.icc, file.colour, grey=file.picture.mono)
    return Opened(rgb, coding, wishes, alpha, icc, exif, file.xmp, file.picture.mono)


def _profile(icc: bytes | None, colour: Nclx, *, grey: bool) -> bytes | None:
    """The profile, or one that says what the code points do, which formats other than AVIF do not hold."""
    return icc or described_profile(colour.primaries, colour.transfer, "AV1 picture", gray=grey)


def _coding(picture: StillPicture, size: int, pixels: int, *, half: bool = False, grid: bool = False) -> Coding:
    bpp = 8 * size / pixels
    index = picture.base_q_idx
    if index is None or (grid and index > 0):  # the cells of a grid may differ
        index = nominal_base_q_idx(bpp)
    return Coding(index, bpp, picture.using_qmatrix, picture.delta_q_present, picture.chroma, half)
