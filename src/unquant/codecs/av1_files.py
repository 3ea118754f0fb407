"""`.unq` and `.avif` around the same AV1 streams: one made of the other, nothing coded again. No torch.

.avif ──► OBUs, profile, EXIF, XMP, orientation, wishes ──► .unq        and back
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from unquant.codecs.alpha import decode_alpha, encode_alpha
from unquant.codecs.avif import BASE, encode_avif
from unquant.codecs.options import QUALITY_MAX, ContainerName
from unquant.codecs.wishes import Wishes
from unquant.container import Container, Header, Tile, parse, stream_crc
from unquant.container.avif import AvifFile, parse_avif
from unquant.container.avif_writer import build_avif, described
from unquant.container.obu import StillPicture, strip_temporal_delimiter
from unquant.errors import CorruptStream, UnsupportedVersion
from unquant.images import split_orientation, with_orientation

__all__ = ["avif_to_unq", "checked_streams", "coded_alpha", "header_index", "tile_holds", "unq_to_avif"]

_FAMILY: Final = "av1"


def avif_to_unq(data: bytes, stream_id: bytes, wishes: Wishes | None = None, *, metadata: bool = True) -> bytes:
    """The `.unq` file with the OBUs of an `.avif` file.

    wishes: in place of those that the file has. metadata: False leaves out EXIF and XMP, but for the orientation. Raises
    UnsupportedVersion for what a `.unq` cannot hold: grids, premultiplied alpha, a crop, headers that cannot be followed,
    colours described other than in the stream; and what `parse_avif` raises.
    """
    file = parse_avif(data)
    _check_repackable(file)
    assert file.obus is not None
    asked = Wishes.from_payload(file.uuid_payload) if wishes is None else wishes
    header = Header(
        family=_FAMILY,
        stream_id=stream_id,
        width=file.width,
        height=file.height,
        q_index=header_index(file.picture),
        realism=asked.percent,
        steps=asked.steps,
        seed=asked.seed,
    )
    head = header.to_bytes()
    streams = [strip_temporal_delimiter(s) for s in (file.obus, file.alpha) if s is not None]
    tiles = tuple(Tile(s, stream_crc(head, n, s)) for n, s in enumerate(streams))
    exif = with_orientation(file.exif if metadata else None, file.orientation)
    return Container(header, tiles, icc=file.icc, exif=exif, xmp=file.xmp if metadata else None).to_bytes()


def unq_to_avif(data: bytes) -> bytes:
    """The `.avif` file with the OBUs of a `.unq` file of the family av1, whatever its weights.

    Raises UnsupportedVersion for another family and for a base of half size, CorruptStream and what `parse` raises.
    """
    container = parse(data)
    header = container.header
    if header.family != _FAMILY:
        raise UnsupportedVersion(f"a file of the family {header.family} holds no AV1 stream to repack")
    if header.half:
        raise UnsupportedVersion("the base is coded at half size, which no AVIF viewer enlarges: it cannot be repacked")
    obus, *more = checked_streams(container)
    alpha = more[0] if more else None
    if container.alpha is not None:
        alpha = coded_alpha(decode_alpha(container.alpha, header.height, header.width), "avif")
    orientation, exif = split_orientation(container.exif)
    avif = build_avif(
        obus,
        alpha=alpha,
        icc=container.icc,
        exif=exif,
        xmp=container.xmp,
        orientation=orientation,
        uuid_payload=Wishes.of(header).to_payload(),
    )
    parse_avif(avif)  # a checksum that holds is no proof of a picture that is
    return avif


def checked_streams(container: Container) -> list[bytes]:
    """The OBUs of the picture and, if that is a tile of its own, of its alpha. Raises CorruptStream unless every checksum
    holds, and where there is a section with alpha as well."""
    if container.alpha is not None and len(container.tiles) > 1:
        raise CorruptStream("alpha twice: as an AV1 stream and as a section")
    for number in range(len(container.tiles)):
        if not tile_holds(container, number):
            raise CorruptStream(f"tile {number}: the checksum of the AV1 stream does not match")
    return [tile.stream for tile in container.tiles]


def tile_holds(container: Container, number: int) -> bool:
    """Whether the checksum of an AV1 stream holds."""
    tile = container.tiles[number]
    return stream_crc(container.header.to_bytes(), number, tile.stream) == tile.crc


def coded_alpha(alpha: npt.NDArray[np.uint8] | None, container: ContainerName) -> bytes | None:
    """Alpha (h, w) without loss: as a section of a `.unq`, or as the OBUs of an item of an `.avif`."""
    if alpha is None:
        return None
    if container == "unq":
        return encode_alpha(alpha)
    return parse_avif(encode_avif(alpha, replace(BASE, quality=QUALITY_MAX, deltaq_strength=0))).obus


def header_index(picture: StillPicture) -> int:
    """base_q_idx, 255 where the header cannot be followed so far."""
    return 255 if picture.base_q_idx is None else picture.base_q_idx


def _check_repackable(file: AvifFile) -> None:
    for refused, what in (
        (file.grid or file.obus is None, "a grid of pictures"),
        (file.has_alpha and file.alpha is None, "alpha that is no picture of its own"),
        (file.premultiplied, "premultiplied alpha"),
        (file.clap, "a crop (clap)"),
        (file.picture.base_q_idx is None, "a stream whose header cannot be followed"),
        (file.nclx is not None and file.nclx != described(file.picture), "colours described other than in the stream"),
    ):
        if refused:
            raise UnsupportedVersion(f"{what} cannot go into a .unq file as it is")
