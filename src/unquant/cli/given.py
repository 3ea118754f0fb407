"""Metadata that a user gives in files, in place of what an image has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from unquant.cli.batch import read_bytes
from unquant.errors import InputError, OptionError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ExifFile", "Given", "IccFile", "Strip", "XmpFile", "read_given"]

_PANEL: Final = "Metadata"

Strip = Annotated[
    bool,
    typer.Option(
        "--strip", "--no-metadata", help="Leave out the image's EXIF, XMP and resolution.", rich_help_panel=_PANEL
    ),
]
ExifFile = Annotated[
    Path | None,
    typer.Option(
        "--exif",
        metavar="FILE",
        help="EXIF in place of the image's, as a TIFF structure. It does not turn the image, whose own does.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
XmpFile = Annotated[
    Path | None,
    typer.Option(
        "--xmp", metavar="FILE", help="XMP in place of the image's.", show_default=False, rich_help_panel=_PANEL
    ),
]
IccFile = Annotated[
    Path | None,
    typer.Option(
        "--icc",
        metavar="FILE",
        help="The profile that the image's colours are in, in place of its own; they are converted to sRGB.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True)
class Given:
    """What is given, each None where the image's own counts. exif: a TIFF structure, without prefix. icc: of `open_image`."""

    exif: bytes | None = None
    xmp: bytes | None = None
    icc: bytes | None = None

    def __bool__(self) -> bool:
        return self != Given()

    def described(self, image: Image.Image, *, metadata: bool) -> Image.Image:
        """The image upright in 8-bit sRGB with what is given, and unless `metadata` is False with its own beside that."""
        from unquant.images import from_arrays, to_picture, with_orientation

        picture = to_picture(image, keep_metadata=metadata)
        exif = picture.exif if self.exif is None else with_orientation(self.exif, 1)
        return from_arrays(picture.rgb, picture.alpha, None, exif, picture.xmp if self.xmp is None else self.xmp)

    def in_file(self, data: bytes) -> bytes:
        """The `.unq` file with what is given; its orientation stays. Raises OptionError for a profile."""
        from unquant.container import parse
        from unquant.images import with_orientation
        from unquant.images.orientation import orientation_of

        if self.icc is not None:
            raise OptionError("--icc: the colours of an AVIF file that is repacked are not converted")
        container = parse(data)
        if self.exif is not None:
            container = replace(container, exif=with_orientation(self.exif, orientation_of(container.exif) or 1))
        if self.xmp is not None:
            container = replace(container, xmp=self.xmp)
        return container.to_bytes()


def read_given(exif: Path | None, xmp: Path | None, icc: Path | None) -> Given:
    """What the files hold. Raises InputError for one that cannot be read or is not what it should be."""
    if exif is xmp is icc is None:
        return Given()
    from unquant.images.given import checked_exif, checked_icc, checked_xmp

    checks = ((exif, checked_exif), (xmp, checked_xmp), (icc, checked_icc))
    return Given(*(None if path is None else check(_bytes_of(path), str(path)) for path, check in checks))


def _bytes_of(path: Path) -> bytes:
    from unquant.container import DEFAULT_LIMITS

    data = read_bytes(path, DEFAULT_LIMITS.max_section)
    if len(data) > DEFAULT_LIMITS.max_section:
        raise InputError(f"{path}: more than {DEFAULT_LIMITS.max_section} bytes, which no file of ours holds")
    return data
