"""Which files are pictures, by their names; first bytes are asked only where there is no suffix."""

from __future__ import annotations

import mimetypes
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from PIL import Image, ImageFile

from unquant.errors import CodecMissing, InputError, UnquantError
from unquant.images.formats import check_known, register_formats

__all__ = ["has_picture_magic", "is_of_format", "names_picture", "readable_suffixes", "why_unread"]

# what cameras and programs write as pictures, for which the image library has no suffix or needs a plugin or a program
_UNREAD: Final = (
    ".3fr .arw .cr2 .cr3 .crw .dng .emf .eps .erf .exr .hdr .heic .heics .heif .heifs .hif .iiq .jxl .jxr .kdc .kra .mef"
    " .mrw .nef .nrw .orf .ora .palm .pef .raf .raw .rw2 .rwl .sr2 .srf .srw .svg .svgz .wdp .wmf .x3f .xcf"
)
_OTHERS: Final = frozenset(_UNREAD.split())
_OWN: Final = "UNQ"  # where `register_opener` has made it known
_MAGIC: Final = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"8BPS", b"\0\0\0\x0cJXL ", b"\xff\x0a")
_HEIF: Final = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"hevc")


@cache
def readable_suffixes() -> frozenset[str]:
    """The suffixes of picture files that the installed image library opens, asked of it; in lower case, with the dot."""
    Image.init()
    register_formats()
    found = {".mpo"}  # opened as JPEG, which it is
    for suffix, kind in Image.registered_extensions().items():
        factory = Image.OPEN.get(kind, (None, None))[0]
        if (
            kind == _OWN
            or factory is None
            or (isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile))
        ):
            continue
        if (_mime(suffix) or "image/").startswith("image/"):
            found.add(suffix)
    return frozenset(found)


def names_picture(path: Path) -> bool:
    """Whether a name is that of a picture, readable or not."""
    suffix = path.suffix.lower()
    if suffix in readable_suffixes() or suffix in _OTHERS:
        return True
    return (_mime(suffix) or "").startswith("image/")


def why_unread(path: Path) -> UnquantError:
    """The error for a picture, by its name, of a kind that is not read; where a plug-in would read it, one that says so."""
    with suppress(InputError, OSError), path.open("rb") as file:
        try:
            check_known(file, str(path))
        except CodecMissing as error:
            return error
    return InputError(f"{path}: an image of a kind ({path.suffix}) that cannot be read")


def has_picture_magic(head: bytes) -> bool:
    """Whether a file that begins so (12 bytes) is one of the common pictures."""
    boxed = head[4:8] == b"ftyp" and head[8:12] in _HEIF
    return head.startswith(_MAGIC) or boxed or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def is_of_format(head: bytes, kind: str) -> bool:
    """Whether a file that begins so (16 bytes) is of a format, by Pillow's name of it."""
    Image.init()
    register_formats()
    accept = Image.OPEN[kind][1] if kind in Image.OPEN else None
    return accept is not None and accept(head) is True


@cache
def _mime(suffix: str) -> str | None:
    return mimetypes.MimeTypes().guess_type(f"x{suffix}", strict=False)[0]  # without the tables of the system
