"""Anything that a user passes as an image, as 8-bit sRGB plus what travels beside it; and back to files.

    path ──► open_image ──► PIL.Image ┐
    numpy (h, w[, c]) ────────────────┼─► to_picture ──► Picture ──► codec ──► from_arrays ──► PIL.Image ──► image_bytes
    torch (c, h, w) ──────────────────┘

Every failure on the way is one of `unquant.errors`; no exception of Pillow leaves this package.
"""

from __future__ import annotations

from unquant.images.checks import MAX_PIXELS, without_pillows_limit
from unquant.images.files import FORMATS, frame_count, image_bytes, image_size, open_image, pixel_count, read_rgb
from unquant.images.formats import register_formats
from unquant.images.kinds import has_picture_magic, is_of_format, names_picture, readable_suffixes, why_unread
from unquant.images.metadata import metadata_of_part
from unquant.images.orientation import split_orientation, with_orientation
from unquant.images.picture import ImageInput, Picture, from_arrays, metadata_info, to_picture
from unquant.images.profiles import described_profile

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "ImageInput",
    "Picture",
    "described_profile",
    "frame_count",
    "from_arrays",
    "has_picture_magic",
    "image_bytes",
    "image_size",
    "is_of_format",
    "metadata_info",
    "metadata_of_part",
    "names_picture",
    "open_image",
    "pixel_count",
    "read_rgb",
    "readable_suffixes",
    "register_formats",
    "split_orientation",
    "to_picture",
    "why_unread",
    "with_orientation",
    "without_pillows_limit",
]
