"""Extended XMP, IPTC, and what a packet says of the picture."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from pathlib import Path
from xml.etree import ElementTree

import pytest
from image_files import RGB
from PIL import Image

from unquant.images import from_arrays, image_bytes, open_image, to_picture
from unquant.images.iptc import xmp_of_iptc
from unquant.images.xmp import jpeg_segments, true_xmp, whole_xmp

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"


def packet(inner: str, attributes: str = "") -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"{attributes}>{inner}</rdf:RDF></x:xmpmeta>'
    ).encode()


PART = packet('<rdf:Description rdf:about="" a:long="value of the part"/>', ' xmlns:a="urn:a"')
GUID = hashlib.md5(PART).hexdigest().upper()


def main_packet(guid: str = GUID) -> bytes:
    note = f'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{guid}"'
    return (
        b"<?xpacket begin=''?>" + packet(f'<rdf:Description rdf:about="" {note} note="main"/>') + b"<?xpacket end='w'?>"
    )


def pieces(part: bytes = PART, step: int = 50, guid: str = GUID) -> list[tuple[str, bytes]]:
    return [
        ("APP1", EXTENSION + guid.encode() + struct.pack(">II", len(part), at) + part[at : at + step])
        for at in range(0, len(part), step)
    ]


def test_extended_xmp_is_put_together() -> None:
    for segments in (pieces(), pieces()[::-1], [("APP1", b"Exif"), *pieces(), ("APP2", pieces()[0][1])]):
        whole = whole_xmp(main_packet(), segments, "x.jpg")
        descriptions = ElementTree.fromstring(whole)[0]
        assert [one.attrib.get("note") or one.attrib["{urn:a}long"] for one in descriptions] == [
            "main",
            "value of the part",
        ]
        assert b"HasExtendedXMP" not in whole
        assert whole_xmp(whole, segments, "x.jpg") == whole


@pytest.mark.parametrize(
    ("segments", "guid"),
    [
        ([], GUID),
        (pieces()[:-1], GUID),
        (pieces()[1:], GUID),
        ([*pieces(), pieces()[0]], GUID),
        (pieces(PART + b" "), GUID),
        (pieces(b"no xml", guid=hashlib.md5(b"no xml").hexdigest()), hashlib.md5(b"no xml").hexdigest()),
        ([("APP1", EXTENSION + GUID.encode() + bytes(3))], GUID),
        ([("APP1", EXTENSION + GUID.encode() + b"\xff" * 8 + b"!")], GUID),
    ],
)
def test_damaged_extended_xmp_is_left_out_with_a_warning(segments: list[tuple[str, bytes]], guid: str) -> None:
    with pytest.warns(UserWarning, match=r"x\.jpg: extended XMP left out, it is incomplete or damaged"):
        rest = whole_xmp(main_packet(guid), segments, "x.jpg")
    assert ElementTree.fromstring(rest)[0][0].attrib["note"] == "main"
    assert b"HasExtendedXMP" not in rest


def test_extended_xmp_with_entities_is_left_out() -> None:
    part = b'<!DOCTYPE x [<!ENTITY a "b">]>' + PART
    guid = hashlib.md5(part).hexdigest()
    with pytest.warns(UserWarning, match="extended XMP left out"):
        whole_xmp(main_packet(guid), pieces(part, guid=guid), "x.jpg")


@pytest.mark.parametrize("size", [10, 65_000, 66_000, 300_000])
def test_long_packets_in_jpeg(size: int) -> None:
    long = packet(f'<rdf:Description rdf:about="" xmlns:a="urn:a" a:text="{"x" * size}"/>')
    file = image_bytes(from_arrays(RGB, xmp=long), "x.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = to_picture(open_image(io.BytesIO(file))).xmp
    assert found is not None
    assert [one.attrib["{urn:a}text"] for one in ElementTree.fromstring(found)[0] if "{urn:a}text" in one.attrib] == [
        "x" * size
    ]
    assert (found == long) == (size <= 65_000)
    segments = jpeg_segments(long)
    assert segments.count(EXTENSION) == -(-len(long) // 65_500) * (size > 65_000)
    assert (b"HasExtendedXMP" in file) == (size > 65_000)


def test_a_packet_is_made_true() -> None:
    text = b"<a tiff:Orientation='6' tiff:ImageWidth = \"9\"><exif:PixelYDimension>8</exif:PixelYDimension></a>"
    assert true_xmp(text, 30, 20) == (
        b"<a tiff:Orientation='1' tiff:ImageWidth = \"30\"><exif:PixelYDimension>20</exif:PixelYDimension></a>"
    )


def dataset(record: int, number: int, value: bytes) -> bytes:
    return bytes((0x1C, record, number)) + struct.pack(">H", len(value)) + value


IPTC = b"".join(
    (
        dataset(1, 90, b"\x1b%G"),
        dataset(2, 0, b"\0\x04"),
        dataset(2, 5, "Tür & <Tor>".encode()),
        dataset(2, 25, b"one"),
        dataset(2, 25, b"two"),
        dataset(2, 55, b"20240131"),
        dataset(2, 80, "Günter".encode("latin-1")),
        dataset(2, 120, b"a caption"),
        dataset(2, 200, b"unknown"),
    )
)


def check_iptc(xmp: bytes | None) -> None:
    assert xmp is not None
    tree = ElementTree.fromstring(xmp)
    dc = "{http://purl.org/dc/elements/1.1/}"
    texts = {
        name: [
            item.text
            for item in tree.iter()
            if item.tag == f"{{{RDF}}}li" and item in list(tree.find(f".//{dc}{name}")[0])
        ]
        for name in ("title", "subject", "creator", "description")
    }
    assert texts == {
        "title": ["Tür & <Tor>"],
        "subject": ["one", "two"],
        "creator": ["Günter"],
        "description": ["a caption"],
    }
    assert tree.find(".//{http://ns.adobe.com/photoshop/1.0/}DateCreated").text == "2024-01-31"


def test_iptc_as_xmp() -> None:
    resource = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC
    for data in (IPTC, resource, b"8BIM\x03\xed\0\0\0\0\0\x1c" + bytes(28) + resource[14:], IPTC + b"\x1c\x02\x05\xff"):
        check_iptc(xmp_of_iptc(data))
    for data in (b"", b"\x1c", dataset(2, 200, b"x"), b"\x1c\x02\x05\x00\x09short"):
        assert xmp_of_iptc(data) is None


def test_iptc_of_jpeg_and_tiff(tmp_path: Path) -> None:
    resource = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
    segment = b"\xff\xed" + struct.pack(">H", 2 + len(resource)) + resource
    Image.fromarray(RGB).save(tmp_path / "x.jpg", extra=segment)
    check_iptc(to_picture(open_image(tmp_path / "x.jpg")).xmp)
    tags = Image.Exif()
    tags[33_723] = IPTC
    Image.fromarray(RGB).save(tmp_path / "x.tif", exif=tags)
    check_iptc(to_picture(open_image(tmp_path / "x.tif")).xmp)
