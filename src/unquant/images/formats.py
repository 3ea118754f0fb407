"""Formats beyond those of Pillow itself: their plug-ins, loaded when a file needs one, and formats known by name alone."""

from __future__ import annotations

import importlib
import struct
from contextlib import suppress
from typing import BinaryIO, Final, NamedTuple

from PIL import TiffImagePlugin

from unquant.container.avif import is_avif
from unquant.errors import CodecMissing, InputError

__all__ = ["EXTRA", "HEAD_BYTES", "check_known", "register_for", "register_formats"]

EXTRA: Final = "unquant[formats]"
"""What installs the plug-ins."""
HEAD_BYTES: Final = 256
"""Of a file, in which its format shows."""


class _Plugin(NamedTuple):
    package: str
    module: str
    register: str | None


_PLUGINS: Final = {
    "HEIC/HEIF": _Plugin("pillow-heif", "pillow_heif", "register_heif_opener"),
    "JPEG XL": _Plugin("pillow-jxl-plugin", "pillow_jxl", None),  # registers itself
}
_HEIF_BRANDS: Final = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())
_JXL: Final = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")
_MAGIC: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"8BPS", "PSD"),
    (b"PF\n", "PFM with colour"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"IIRO", "Olympus raw"),
    (b"IIU\0", "Panasonic raw"),
    (b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"gimp xcf", "GIMP XCF"),
    (b"AT&TFORM", "DjVu"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
)
_PHOTOMETRIC: Final = {
    0: "grey",
    1: "grey",
    2: "RGB",
    3: "a palette",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    32_803: "a camera's raw mosaic",
    34_892: "a camera's raw data",
}
_BRANDS: Final = {b"crx ": "Canon raw (CR3)", b"qt  ": "QuickTime video", b"avif": "AVIF", b"avis": "AVIF"}


def register_for(head: bytes) -> None:
    """Loads the plug-in of the format that a file begins with, where it is installed. head: `HEAD_BYTES` of the file."""
    name = _plugin_for(head)
    if name is not None:
        _register(_PLUGINS[name])


def register_formats() -> None:
    """Loads all plug-ins that are installed, so that `PIL.Image.registered_extensions` names their suffixes."""
    for plugin in _PLUGINS.values():
        _register(plugin)


def check_known(file: BinaryIO, name: str) -> None:
    """Says of a file that no plug-in opens what it is, if its first bytes tell; of a TIFF what its tags say.

    Raises CodecMissing, naming the package, where a plug-in is not installed, and InputError for all else that is known.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    plugin = _plugin_for(head)
    if plugin is not None and not _register(_PLUGINS[plugin]):
        package = _PLUGINS[plugin].package
        raise CodecMissing(f"{name}: is {plugin}, which needs {package}: pip install '{EXTRA}'")
    known = plugin or next((format_ for magic, format_ in _MAGIC if head.startswith(magic)), None)
    if known is None and head[4:8] == b"ftyp":
        known = _BRANDS.get(head[8:12], f"a video or another file of the brand {head[8:12].decode('latin-1')!r}")
    if known is None and head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        known = "WebP"
    if known == "TIFF" and (tiff := _tiff(file)) is not None:
        raise InputError(f"{name}: not an image that can be read: {tiff}")
    if known is not None:
        raise InputError(f"{name}: not an image that can be read: {known} of another kind, or with a damaged header")


def _tiff(file: BinaryIO) -> str | None:
    """What is in a TIFF file whose tags can be read."""
    with suppress(OSError, ValueError, SyntaxError, KeyError, TypeError, struct.error):
        file.seek(0)
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        kind, bits = tags.get(262), tags.get(258, (1,))
        bits_of_each = "/".join(str(n) for n in (bits if isinstance(bits, tuple) else (bits,)))
        if kind is not None:
            return f"TIFF with {_PHOTOMETRIC.get(kind, f'colours of kind {kind}')} of {bits_of_each} bits"
    return None


def _plugin_for(head: bytes) -> str | None:
    if head.startswith(_JXL):
        return "JPEG XL"
    if head[4:8] == b"ftyp" and not is_avif(head):
        brands = {
            head[8:12],
            *(head[at : at + 4] for at in range(16, min(int.from_bytes(head[:4], "big"), len(head)), 4)),
        }
        if not _HEIF_BRANDS.isdisjoint(brands):
            return "HEIC/HEIF"
    return None


def _register(plugin: _Plugin) -> bool:
    """Whether it is installed. The import is Python's to remember; to register twice changes nothing."""
    try:
        module = importlib.import_module(plugin.module)
        if plugin.register is not None:
            getattr(module, plugin.register)()
    except ImportError:
        return False
    return True
