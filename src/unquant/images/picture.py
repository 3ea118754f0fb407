"""The picture that codecs code: from PIL images, arrays and tensors, and back to PIL images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from unquant.errors import OptionError, OptionTypeError
from unquant.images.checks import check_size, typed_errors
from unquant.images.colour import split_alpha, to_srgb, unless_opaque
from unquant.images.metadata import kept_exif, kept_xmp, load_pixels, parsed_exif, resolution_of
from unquant.images.numbers import U8, array_to_8_bit, tensor_to_8_bit
from unquant.images.orientation import transpose_of
from unquant.images.profiles import space_of
from unquant.images.tiff import EXIF_PREFIX

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ImageInput", "Picture", "from_arrays", "metadata_info", "to_picture"]

ImageInput: TypeAlias = "Image.Image | npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | Tensor"
"""PIL image, numpy (h, w) or (h, w, 1 | 3 | 4), or torch (1 | 3 | 4, h, w) in [0, 1]."""


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """An upright 8-bit sRGB picture and what travels beside it.

    rgb: (h, w, 3) uint8, contiguous. alpha: (h, w) uint8, 0 transparent to 255 opaque, or None where all is opaque.
    icc: a profile that describes `rgb`; None stands for sRGB, and `to_picture` always gives None.
    exif: a TIFF structure (without the `Exif\\0\\0` prefix of JPEG) whose orientation, if any, is 1. xmp: the packet.
    """

    rgb: U8
    alpha: U8 | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None


def to_picture(image: ImageInput, *, keep_metadata: bool = True) -> Picture:
    """Converts to 8-bit sRGB: profile applied, EXIF orientation applied, alpha apart.

    image, one of
    - PIL image of any mode; of an animation the frame it stands at: the first, unless the caller sought another.
      16-bit modes (I;16*, and I with values 0..65535) become round(v·255/65535); F must lie in [0, 1].
    - numpy (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of uint8, or of uint16 (converted as above), sRGB.
    - torch floating point (1 | 3 | 4, h, w) in [0, 1], sRGB. torch is not imported for the other kinds.

    keep_metadata: False drops EXIF and XMP. A profile that cannot be used is ignored with an UnquantWarning, and so is
    broken EXIF. Colours under transparent pixels are left as they are.

    Raises OptionError (a shape or value range other than the above), OptionTypeError (another type), InputError (an image
    file that was opened but turns out damaged), ImageTooLarge (more than MAX_PIXELS pixels).
    """
    if isinstance(image, Image.Image):
        return _from_pil(image, keep_metadata)
    if isinstance(image, np.ndarray):
        return _from_channels(array_to_8_bit(image))
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(image, torch.Tensor):
        return _from_channels(tensor_to_8_bit(image))
    raise OptionTypeError(f"image: expected a PIL image, a numpy array or a torch tensor, not {type(image).__name__}")


def from_arrays(
    rgb: U8, alpha: U8 | None = None, icc: bytes | None = None, exif: bytes | None = None, xmp: bytes | None = None
) -> Image.Image:
    """The PIL image, RGB or RGBA, with "icc_profile", "exif", "dpi" and "xmp" in `.info`. Arguments as in `Picture`.

    `image_bytes` writes all three. With Pillow's own `save`, pass them: `im.save(p, exif=im.info["exif"])`.
    Raises OptionError if shapes or types are not those of `Picture`.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0 or rgb.dtype != np.uint8:
        raise OptionError(f"rgb: expected (h, w, 3) of uint8, not {rgb.shape} of {rgb.dtype}")
    if alpha is not None and (alpha.shape != rgb.shape[:2] or alpha.dtype != np.uint8):
        raise OptionError(f"alpha: expected {rgb.shape[:2]} of uint8, not {alpha.shape} of {alpha.dtype}")
    image = Image.fromarray(rgb if alpha is None else np.dstack([rgb, alpha]))
    image.info.update(metadata_info(icc, exif, xmp))
    return image


def metadata_info(icc: bytes | None, exif: bytes | None, xmp: bytes | None) -> dict[str, Any]:
    """What a PIL image has in `.info` of a `Picture`: "icc_profile", "exif" (with its prefix), "xmp" and "dpi"."""
    prefixed = EXIF_PREFIX + exif if exif and not exif.startswith(EXIF_PREFIX) else exif
    dpi = resolution_of(exif) if exif else None
    info = {"icc_profile": icc, "exif": prefixed, "xmp": xmp, "dpi": dpi}
    return {key: value for key, value in info.items() if value}


def _from_pil(image: Image.Image, keep_metadata: bool) -> Picture:
    name = str(getattr(image, "filename", "") or "image")
    check_size(name, image.height, image.width)
    with typed_errors(name):
        load_pixels(image)
        exif = parsed_exif(image, name)
        colour, alpha = split_alpha(image)
        # a PNG is turned by its chunk eXIf alone, not by EXIF in a text
        transpose = None if image.format == "PNG" and "exif" not in image.info else transpose_of(exif)
        if transpose is not None:
            colour = colour.transpose(transpose)
            alpha = None if alpha is None else np.array(Image.fromarray(alpha).transpose(transpose))
        rgb = to_srgb(colour, space_of(image, exif, name), name)
        if not keep_metadata:
            return Picture(rgb, unless_opaque(alpha))
        size = {"width": rgb.shape[1], "height": rgb.shape[0]}
        kept = kept_exif(image, exif, transpose, name, **size), kept_xmp(image, name, **size)
        return Picture(rgb, unless_opaque(alpha), None, *kept)


def _from_channels(values: U8) -> Picture:
    channels = values.shape[2]
    rgb = np.repeat(values, 3, axis=2) if channels == 1 else np.require(values[:, :, :3], requirements=["C", "W"])
    alpha = np.array(values[:, :, 3]) if channels == 4 else None
    return Picture(rgb, unless_opaque(alpha))
