"""Metadata that a user gives as bytes, checked to be what it should be."""

from __future__ import annotations

import io
from xml.etree import ElementTree

from PIL import ImageCms

from unquant.errors import InputError
from unquant.images.tiff import EXIF_PREFIX, Tiff

__all__ = ["checked_exif", "checked_icc", "checked_xmp"]


def checked_exif(data: bytes, name: str) -> bytes:
    """EXIF as a TIFF structure without prefix. Raises InputError, naming the file."""
    data = data.removeprefix(EXIF_PREFIX)
    try:
        tiff = Tiff(data)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if not tiff.first:
        raise InputError(f"{name}: EXIF: its first directory is empty, or damaged")
    return data


def checked_xmp(data: bytes, name: str) -> bytes:
    """An XMP packet in UTF-8, as it is. Raises InputError, naming the file."""
    try:
        if b"<!DOCTYPE" in data:
            raise InputError(f"{name}: XMP: a document type, which no packet has")
        tree = ElementTree.fromstring(data.decode("utf-8-sig").strip("\0 \r\n\t"))
    except (UnicodeDecodeError, ElementTree.ParseError) as error:
        raise InputError(f"{name}: XMP: not an XML packet in UTF-8: {error}") from None
    if tree.tag not in ("{adobe:ns:meta/}xmpmeta", "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}RDF"):
        raise InputError(f"{name}: XMP: begins with {tree.tag}, not with x:xmpmeta or rdf:RDF")
    return data


def checked_icc(data: bytes, name: str) -> bytes:
    """An ICC profile. Raises InputError, naming the file."""
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(data))
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{name}: not a colour profile: {error}") from None
    return data
