"""The smallest .avif file around the OBUs of a picture that strict readers accept (see avif.py for the sources)."""

from __future__ import annotations

from typing import Final, NamedTuple

from unquant.container.isobmff import box, full_box
from unquant.container.limits import DEFAULT_LIMITS
from unquant.container.obu import StillPicture, parse_obus, strip_temporal_delimiter
from unquant.container.varint import checked_int
from unquant.errors import CorruptStream, OptionError

__all__ = ["ALPHA_URNS", "UUID", "XMP_TYPE", "Nclx", "build_avif", "configuration", "described"]

UUID: Final = bytes.fromhex("4ea7de807e6344ea88a015a8f357d86c")
"""The extended type of unquant's own `uuid` box; what it holds is the codec's business."""

ALPHA_URNS: Final = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
XMP_TYPE: Final = b"application/rdf+xml"

# EXIF orientation to quarter turns anticlockwise, then axis of mirroring: 0 exchanges top and bottom
_TURNS: Final = {1: (0, None), 2: (0, 1), 3: (2, None), 4: (0, 0), 5: (1, 0), 6: (3, None), 7: (3, 0), 8: (1, None)}


class Nclx(NamedTuple):
    """A colour description as code points of H.273, 2 for unspecified."""

    primaries: int
    transfer: int
    matrix: int
    full_range: bool


def build_avif(
    colour: bytes,
    *,
    alpha: bytes | None = None,
    premultiplied: bool = False,
    nclx: Nclx | None = None,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    orientation: int = 1,
    uuid_payload: bytes | None = None,
) -> bytes:
    """A standard .avif file around the OBUs of a picture, with as few bytes as strict readers allow.

    colour, alpha: OBUs with or without temporal delimiter; their headers give every property, alpha (its luma) must have
    the picture's size. nclx: only where it differs from what the sequence header says. exif: a TIFF structure. xmp: the
    packet. orientation: EXIF's, 1..8, written as irot and imir. uuid_payload: a box of type `UUID` at the end. Raises
    CorruptStream (OBUs that are damaged or do not fit together), OptionError (orientation, premultiplied without alpha)
    and ImageTooLarge where a reader would refuse the file.
    """
    checked_int("orientation", orientation, 1, 8)
    if premultiplied and alpha is None:
        raise OptionError("premultiplied: there is no alpha")
    writer = _Writer(parse_obus(colour), orientation)
    writer.add_picture(strip_temporal_delimiter(colour), writer.picture, nclx=nclx, icc=icc)
    if alpha is not None:
        alpha_picture = parse_obus(alpha)
        if (alpha_picture.width, alpha_picture.height) != (writer.picture.width, writer.picture.height):
            raise CorruptStream(
                f"alpha of {alpha_picture.width}x{alpha_picture.height}, "
                f"picture of {writer.picture.width}x{writer.picture.height}"
            )
        item = writer.add_picture(strip_temporal_delimiter(alpha), alpha_picture, auxiliary=True)
        writer.refer(b"auxl", item, 1)
        if premultiplied:
            writer.refer(b"prem", 1, item)
    if exif is not None:
        writer.refer(b"cdsc", writer.add_item(b"Exif", bytes(4) + exif), 1)
    if xmp is not None:
        writer.refer(b"cdsc", writer.add_item(b"mime", xmp, XMP_TYPE + b"\0"), 1)
    data = writer.file()
    if uuid_payload is not None:
        data += box(b"uuid", UUID, uuid_payload)
    DEFAULT_LIMITS.check_size(writer.picture.width, writer.picture.height)
    DEFAULT_LIMITS.check_file(len(data))
    return data


class _Writer:
    """The items of a file; the first one is the picture."""

    def __init__(self, picture: StillPicture, orientation: int) -> None:
        self.picture = picture
        self.turns = _TURNS[orientation]
        self.infos: list[bytes] = []
        self.payloads: list[bytes] = []
        self.properties: list[bytes] = []
        self.associations: list[bytes] = []
        self.references: list[bytes] = []

    def add_item(self, kind: bytes, payload: bytes, tail: bytes = b"") -> int:
        """The number of the item, from 1."""
        self.payloads.append(payload)
        item = len(self.payloads)
        self.infos.append(full_box(b"infe", _u16(item), _u16(0), kind, b"\0", tail, version=2))
        return item

    def add_picture(
        self,
        obus: bytes,
        picture: StillPicture,
        *,
        auxiliary: bool = False,
        nclx: Nclx | None = None,
        icc: bytes | None = None,
    ) -> int:
        item = self.add_item(b"av01", obus)
        channels = 1 if picture.mono else 3
        angle, axis = self.turns
        used = [
            self._property(full_box(b"ispe", picture.width.to_bytes(4, "big"), picture.height.to_bytes(4, "big"))),
            self._property(full_box(b"pixi", bytes((channels,)), bytes((picture.bit_depth,)) * channels)),
            self._property(box(b"av1C", configuration(picture)), essential=True),
        ]
        if nclx is not None and nclx != described(picture):
            values = map(_u16, nclx[:3])
            used.append(self._property(box(b"colr", b"nclx", *values, bytes((nclx.full_range << 7,)))))
        if icc is not None:
            used.append(self._property(box(b"colr", b"prof", icc)))
        if auxiliary:
            used.append(self._property(full_box(b"auxC", ALPHA_URNS[0], b"\0")))
        if angle:
            used.append(self._property(box(b"irot", bytes((angle,))), essential=True))
        if axis is not None:
            used.append(self._property(box(b"imir", bytes((axis,))), essential=True))
        self.associations.append(_u16(item) + bytes((len(used), *used)))
        return item

    def _property(self, data: bytes, *, essential: bool = False) -> int:
        """Its association: the index, from 1, and a bit for essential ones. The same property is written once."""
        if data not in self.properties:
            self.properties.append(data)
        return self.properties.index(data) + 1 | essential << 7

    def refer(self, kind: bytes, source: int, target: int) -> None:
        self.references.append(box(kind, _u16(source), _u16(1), _u16(target)))

    def file(self) -> bytes:
        head = box(b"ftyp", b"avif", bytes(4), b"avif", b"mif1", b"miaf")
        start = len(head) + len(self._meta(0)) + 8
        return head + self._meta(start) + box(b"mdat", *self.payloads)

    def _meta(self, start: int) -> bytes:
        """The meta box where the items' data begins at byte `start` of the file."""
        locations: list[bytes] = []
        for item, payload in enumerate(self.payloads, 1):
            locations.append(
                _u16(item) + _u16(0) + _u16(1) + start.to_bytes(4, "big") + len(payload).to_bytes(4, "big")
            )
            start += len(payload)
        parts = [
            full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
            full_box(b"pitm", _u16(1)),
            full_box(b"iloc", b"\x44\x00", _u16(len(locations)), *locations),
            full_box(b"iinf", _u16(len(self.infos)), *self.infos),
        ]
        if self.references:
            parts.append(full_box(b"iref", *self.references))
        table = full_box(b"ipma", len(self.associations).to_bytes(4, "big"), *self.associations)
        parts.append(box(b"iprp", box(b"ipco", *self.properties), table))
        return full_box(b"meta", *parts)


def configuration(picture: StillPicture) -> bytes:
    """The body of av1C, without OBUs of its own."""
    form = (
        picture.tier << 7
        | (picture.bit_depth > 8) << 6
        | (picture.bit_depth == 12) << 5
        | picture.mono << 4
        | picture.subsampling_x << 3
        | picture.subsampling_y << 2
        | picture.chroma_sample_position
    )
    return bytes((0x81, picture.profile << 5 | picture.level, form, 0))


def described(picture: StillPicture) -> Nclx:
    return Nclx(picture.primaries, picture.transfer, picture.matrix, picture.full_range)


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")
