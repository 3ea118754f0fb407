"""Anything that a user passes as an image, as 8-bit sRGB plus what travels beside it; and back to files.

    path ──► open_image ──► PIL.Image ┐
    numpy (h, w[, c]) ────────────────┼─► to_picture ──► Picture ──► codec ──► from_arrays ──► PIL.Image ──► save_image
    torch (c, h, w) ──────────────────┘

Every failure on the way is one of `unquant.errors`; no exception of Pillow leaves this module.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import struct
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from unquant.container import DEFAULT_LIMITS
from unquant.errors import ImageTooLarge, InputError, OptionError, UnquantError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MAX_PIXELS",
    "ImageInput",
    "Picture",
    "atomic_write_bytes",
    "exif_with_orientation",
    "from_arrays",
    "image_bytes",
    "open_image",
    "save_image",
    "to_picture",
]

U8: TypeAlias = npt.NDArray[np.uint8]
ImageInput: TypeAlias = "Image.Image | npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | Tensor"
"""PIL image, numpy (h, w) or (h, w, 1 | 3 | 4), or torch (1 | 3 | 4, h, w) in [0, 1]."""

MAX_PIXELS: Final = DEFAULT_LIMITS.max_pixels

_EXIF_PREFIX: Final = b"Exif\x00\x00"
_ORIENTATION: Final = int(ExifTags.Base.Orientation)
_XMP_TIFF_TAG: Final = 700
# tags of the first directory that describe the picture; the others describe the layout of the file it came from
_DESCRIPTIVE_TAGS: Final = frozenset(
    [0x010D, 0x010E, 0x010F, 0x0110, 0x0112, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x8298, *range(0x9C9B, 0x9CA0)]
)
_XMP_ORIENTATION: Final = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[0-9]+")
_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PROGRAMS: Final = {"EPS", "WMF"}  # drawn by an outside program, not decoded
_SAME_COLOUR: Final = 2  # a profile that moves no probe by more than this is taken for sRGB

_FORMATS: Final = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pnm": "PPM",
}
_SAVE_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "PPM": {},
}
_WITHOUT_ALPHA: Final = {"JPEG", "PPM"}
_JPEG_MARKER_BYTES: Final = 65_533
_JPEG_XMP_OVERHEAD: Final = 29


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

    keep_metadata: False drops EXIF and XMP. A profile that cannot be used is ignored with a UserWarning, and so is
    broken EXIF. Colours under transparent pixels are left as they are.

    Raises OptionError (a type, shape or value range other than the above), InputError (an image file that was opened
    but turns out damaged), ImageTooLarge (more than MAX_PIXELS pixels).
    """
    if isinstance(image, Image.Image):
        return _from_pil(image, keep_metadata)
    if isinstance(image, np.ndarray):
        return _from_channels(_array_to_8_bit(image))
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(image, torch.Tensor):
        return _from_channels(_tensor_to_8_bit(image))
    raise OptionError(f"image: expected a PIL image, a numpy array or a torch tensor, not {type(image).__name__}")


def open_image(source: str | os.PathLike[str] | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens an image file and decodes its first frame; the file is closed (or no longer needed) on return.

    source: a path or a binary stream. max_pixels: checked against the header, before any pixel is decoded; Pillow's own
    limit (twice `PIL.Image.MAX_IMAGE_PIXELS`) applies as well. EXIF is found in `.info["exif"]`, whatever the format.

    Raises InputError, naming the file and the cause (missing, not readable, truncated, not an image), or ImageTooLarge.
    """
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        with _typed_errors(name), open(name, "rb") as file:
            return _read(file, name, max_pixels)
    name = str(getattr(source, "name", "image stream"))
    with _typed_errors(name):
        return _read(source, name, max_pixels)


def from_arrays(
    rgb: U8, alpha: U8 | None = None, icc: bytes | None = None, exif: bytes | None = None, xmp: bytes | None = None
) -> Image.Image:
    """The PIL image, RGB or RGBA, with "icc_profile", "exif" and "xmp" in `.info`. Arguments as in `Picture`.

    `save_image` writes all three. With Pillow's own `save`, pass them: `im.save(p, exif=im.info["exif"])`.
    Raises OptionError if shapes or types are not those of `Picture`.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0 or rgb.dtype != np.uint8:
        raise OptionError(f"rgb: expected (h, w, 3) of uint8, not {rgb.shape} of {rgb.dtype}")
    if alpha is not None and (alpha.shape != rgb.shape[:2] or alpha.dtype != np.uint8):
        raise OptionError(f"alpha: expected {rgb.shape[:2]} of uint8, not {alpha.shape} of {alpha.dtype}")
    image = Image.fromarray(rgb if alpha is None else np.dstack([rgb, alpha]))
    if icc:
        image.info["icc_profile"] = icc
    if exif:
        image.info["exif"] = exif if exif.startswith(_EXIF_PREFIX) else _EXIF_PREFIX + exif
    if xmp:
        image.info["xmp"] = xmp
    return image


def save_image(image: Image.Image, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Writes an image file, atomically; the extension gives the format (see `image_bytes`).

    force: replace a file that exists. Raises InputError, naming the path: unknown extension, a file that exists, a
    folder that does not or cannot be written, or a picture that the format cannot hold.
    """
    name = os.fspath(path)
    _output_format(name)
    _writable_target(name, force)
    atomic_write_bytes(name, image_bytes(image, name), force=force)


def image_bytes(image: Image.Image, name: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file, in the format of the extension of `name`: PNG, TIFF, PPM (exact), JPEG, WebP, AVIF.

    image: any mode that `to_picture` takes; L, RGB and RGBA are written as they are. The lossy formats are written at
    high quality (4:4:4 where the format has it). Alpha is flattened on white for JPEG and PPM. ICC, EXIF and XMP in
    `.info` are written where the format holds them, or left out with a UserWarning if they are too long for JPEG; TIFF
    is compressed (Deflate) only where there is no EXIF or XMP.
    Raises InputError, naming `name`.
    """
    name = os.fspath(name)
    kind = _output_format(name)
    with _typed_errors(name, f"cannot be written as {kind}"):
        if image.mode not in ("L", "RGB", "RGBA") or "transparency" in image.info:
            picture = to_picture(image)
            image = from_arrays(picture.rgb, picture.alpha, picture.icc, picture.exif, picture.xmp)
        options = {**_SAVE_OPTIONS[kind], **_metadata_options(image, kind, name)}
        if image.mode == "RGBA" and kind in _WITHOUT_ALPHA:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes, *, force: bool = False) -> None:
    """Writes a file so that its name never stands for half of it: a temporary file beside it, then a rename.

    force: replace a file that exists. A symbolic link is followed. Raises InputError, naming the path; then the old
    file is untouched and nothing is left behind.
    """
    name = os.fspath(path)
    target = _writable_target(name, force)
    temporary = target.with_name(f".unquant-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
        _writable_target(name, force)  # it may have appeared in the meantime
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(f"{name}: cannot be written: {_cause(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


# --- errors and limits -------------------------------------------------------------------------------------------


@contextmanager
def _typed_errors(name: str, action: str = "cannot be read") -> Generator[None]:
    """Whatever Pillow or the system raises within, as InputError or ImageTooLarge."""
    try:
        yield
    except UnquantError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise ImageTooLarge(f"{name}: {_cause(error)}") from error
    except Exception as error:  # third-party parsers on hostile bytes raise nearly everything
        raise InputError(f"{name}: {action}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format, or one whose header is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _check_size(name: str, height: int, width: int, max_pixels: int = MAX_PIXELS) -> None:
    if height < 1 or width < 1:
        raise OptionError(f"{name}: has no pixels ({width}x{height})")
    if height * width > max_pixels:
        raise ImageTooLarge(f"{name}: {width}x{height} pixels: at most {max_pixels} are accepted")


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=3)


# --- PIL images --------------------------------------------------------------------------------------------------


def _read(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    image = Image.open(file)
    if image.format in _PROGRAMS:
        raise InputError(f"{name}: {image.format} is a drawing, not an image")
    try:
        _check_size(name, image.height, image.width, max_pixels)
    except OptionError as error:
        raise InputError(str(error)) from error
    image.load()
    if not image.info.get("exif"):  # TIFF keeps it in its own directory, which is read from the file
        exif = _parsed_exif(image, name)
        if exif and (described := _descriptive_exif(exif, name)):
            image.info["exif"] = described
    return image


def _from_pil(image: Image.Image, keep_metadata: bool) -> Picture:
    name = str(getattr(image, "filename", "") or "image")
    _check_size(name, image.height, image.width)
    with _typed_errors(name):
        image.load()
        exif = _parsed_exif(image, name)
        orientation = exif.get(_ORIENTATION) if exif else None
        colour, alpha = _split_alpha(image)
        transpose = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
        if transpose is not None:
            colour = colour.transpose(transpose)
            alpha = None if alpha is None else np.array(Image.fromarray(alpha).transpose(transpose))
        profile = image.info.get("icc_profile")
        rgb = _to_srgb(colour, profile if isinstance(profile, bytes) else None, name)
        if not keep_metadata:
            return Picture(rgb, _unless_opaque(alpha))
        return Picture(rgb, _unless_opaque(alpha), None, _kept_exif(image, exif, name), _kept_xmp(image))


def _split_alpha(image: Image.Image) -> tuple[Image.Image, U8 | None]:
    """The colour, in mode L, RGB, CMYK or LAB, and the alpha plane if there is any."""
    mode, key = image.mode, image.info.get("transparency")
    if mode.startswith("I;16") or mode in ("I", "F"):
        values = np.asarray(image)
        alpha = _key_alpha(values == key) if isinstance(key, int) and mode != "F" else None
        return Image.fromarray(_gray_to_8_bit(values, mode)), alpha
    if mode in ("1", "L"):
        gray = image.convert("L")
        if not isinstance(key, int):
            return gray, None
        return gray, _key_alpha(np.asarray(gray) == (255 if mode == "1" and key else key))
    if mode == "RGB" and isinstance(key, tuple) and len(cast("tuple[int, ...]", key)) == 3:
        colour = np.array(cast("tuple[int, int, int]", key))
        if colour.max() > 255:  # the key of a 16-bit file, whose pixels Pillow has cut to their high bytes
            colour >>= 8
        return image, _key_alpha((np.asarray(image) == colour).all(axis=2))
    if mode in ("CMYK", "LAB", "RGB"):
        return image, None
    if mode in ("LA", "La"):
        gray, alpha = image.convert("LA").split()
        return gray, np.array(alpha)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), np.array(rgba.getchannel("A"))
    return image.convert("RGB"), None


def _to_srgb(image: Image.Image, icc: bytes | None, name: str) -> U8:
    """(h, w, 3) uint8. image: mode L, RGB, CMYK or LAB. icc: its profile; None is sRGB (D50 Lab for LAB)."""
    if icc:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            space = icc[16:20].decode("ascii", "replace").strip()
            if space == "RGB" and image.mode == "L":
                image = image.convert("RGB")
            if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}.get(space) == image.mode:
                return _apply_profile(image, source)
            _warn(f"{name}: a colour profile for {space} does not fit a picture in {image.mode}; ignored")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            _warn(f"{name}: colour profile ignored, it cannot be used: {error}")
    if image.mode == "LAB":
        return _apply_profile(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    return np.array(image.convert("RGB"))


def _apply_profile(image: Image.Image, source: ImageCms.ImageCmsProfile) -> U8:
    transform = ImageCms.ImageCmsTransform(
        source,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        image.mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if image.mode in ("L", "RGB"):
        steps = np.linspace(0, 255, 9).round().astype(np.uint8)
        lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        probe = Image.fromarray(lattice if image.mode == "RGB" else np.arange(256, dtype=np.uint8)[None])
        moved = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
        if np.abs(moved).max() <= _SAME_COLOUR:
            return np.array(image.convert("RGB"))
    return np.array(transform.apply(image))


def _key_alpha(is_key: npt.NDArray[np.bool_]) -> U8:
    return np.where(is_key, 0, 255).astype(np.uint8)


def _unless_opaque(alpha: U8 | None) -> U8 | None:
    return None if alpha is None or alpha.min() == 255 else alpha


# --- numbers to 8 bit --------------------------------------------------------------------------------------------


def _from_16_bit(values: npt.NDArray[Any]) -> U8:
    """round(v·255/65535) = floor((v + 128)/257): 255/65535 is 1/257, and as 257 is odd there are no ties."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_unit_range(values: npt.NDArray[Any], name: str) -> U8:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):  # false for NaN too
        raise OptionError(f"{name}: values must lie in [0, 1], these span {low:g} to {high:g}")
    return np.rint(values * 255).astype(np.uint8)


def _gray_to_8_bit(values: npt.NDArray[Any], mode: str) -> U8:
    if mode == "F":
        return _from_unit_range(values, "image of mode F")
    if values.min() < 0 or values.max() > 65_535:
        raise OptionError(f"image of mode {mode}: values must lie in 0..65535, not {values.min()}..{values.max()}")
    return _from_16_bit(values)


def _array_to_8_bit(values: npt.NDArray[Any]) -> U8:
    """(h, w, 1 | 3 | 4) uint8 of what `to_picture` takes as a numpy array."""
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4):
        raise OptionError(f"array: expected (h, w) or (h, w, 1, 3 or 4), not {values.shape}")
    _check_size("array", values.shape[0], values.shape[1])
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return _from_16_bit(values)
    raise OptionError(f"array: expected uint8 or uint16, not {values.dtype}")


def _tensor_to_8_bit(tensor: Tensor) -> U8:
    """(h, w, 1 | 3 | 4) uint8 of what `to_picture` takes as a tensor."""
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4):
        raise OptionError(f"tensor: expected (1, 3 or 4, h, w), not {tuple(tensor.shape)}")
    _check_size("tensor", tensor.shape[1], tensor.shape[2])
    if not tensor.is_floating_point():
        raise OptionError(f"tensor: expected floating point in [0, 1], not {tensor.dtype}")
    values = cast("npt.NDArray[np.float32]", tensor.detach().float().cpu().numpy())
    return _from_unit_range(values, "tensor").transpose(1, 2, 0)


def _from_channels(values: U8) -> Picture:
    channels = values.shape[2]
    rgb = np.repeat(values, 3, axis=2) if channels == 1 else np.require(values[:, :, :3], requirements=["C", "W"])
    alpha = np.array(values[:, :, 3]) if channels == 4 else None
    return Picture(rgb, _unless_opaque(alpha))


# --- metadata ----------------------------------------------------------------------------------------------------


def _parsed_exif(source: Image.Image | bytes, name: str) -> Image.Exif | None:
    """The EXIF of an image, or in some bytes; None if it is broken (then with a warning)."""
    try:
        if isinstance(source, Image.Image):
            return source.getexif()
        exif = Image.Exif()
        exif.load(source)
        return exif
    except Exception as error:  # a third-party parser on hostile bytes
        _warn(f"{name}: EXIF ignored, it is broken: {_cause(error)}")
        return None


def _descriptive_exif(exif: Image.Exif, name: str) -> bytes:
    """EXIF of what describes the picture, without the tags that describe the layout of a TIFF file; b"" for nothing."""
    kept = Image.Exif()
    try:
        for tag in exif:
            if tag in _DESCRIPTIVE_TAGS:
                kept[tag] = exif[tag]
        for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            values = {tag: value for tag, value in exif.get_ifd(directory).items() if tag != ExifTags.IFD.Interop}
            if values:
                kept[directory] = values
        return kept.tobytes() if len(kept) else b""
    except Exception as error:  # a third-party parser on hostile bytes
        _warn(f"{name}: EXIF ignored, it is broken: {_cause(error)}")
        return b""


def _kept_exif(image: Image.Image, exif: Image.Exif | None, name: str) -> bytes | None:
    if exif is None:
        return None
    data = image.info.get("exif")
    if not isinstance(data, bytes) or not data:
        data = _descriptive_exif(exif, name)
    while data.startswith(_EXIF_PREFIX):
        data = data[len(_EXIF_PREFIX) :]
    if not data or set(exif) <= {_ORIENTATION}:
        return None
    return exif_with_orientation(data, 1)


def exif_with_orientation(data: bytes, orientation: int) -> bytes:
    """The same TIFF structure with the orientation (1..8) that its first directory has changed, all other bytes as they
    were; one that has none stays as it is."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return data
    changed = bytearray(data)
    with suppress(struct.error):  # a directory that runs over the end
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            if struct.unpack_from(order + "H", data, entry)[0] == _ORIENTATION:
                struct.pack_into(order + "HHIHH", changed, entry, _ORIENTATION, 3, 1, orientation, 0)
    return bytes(changed)


def _kept_xmp(image: Image.Image) -> bytes | None:
    data = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(data, str):
        data = data.encode("utf-8")
    return _XMP_ORIENTATION.sub(rb"\g<1>1", data) if isinstance(data, bytes) and data else None


def _metadata_options(image: Image.Image, kind: str, name: str) -> dict[str, Any]:
    """Arguments for Pillow's `save` that write the metadata in `image.info`."""
    icc, exif = image.info.get("icc_profile"), image.info.get("exif")
    data = image.info.get("xmp")
    xmp = data.encode() if isinstance(data, str) else data
    if kind == "PPM":
        return {}
    if kind == "JPEG":
        if exif and len(exif) > _JPEG_MARKER_BYTES:
            _warn(f"{name}: {len(exif)} bytes of EXIF do not fit into JPEG; left out")
            exif = None
        if xmp and len(xmp) > _JPEG_MARKER_BYTES - _JPEG_XMP_OVERHEAD:
            _warn(f"{name}: {len(xmp)} bytes of XMP do not fit into JPEG; left out")
            xmp = None
    options: dict[str, Any] = {"icc_profile": icc} if icc else {}
    if exif and kind in ("AVIF", "TIFF"):  # where Pillow takes it apart; elsewhere the bytes are written as they are
        parsed = _parsed_exif(exif, name)
        exif = None if parsed is None else exif if kind == "AVIF" else _descriptive_exif(parsed, name)
    if kind == "TIFF":
        tags = Image.Exif()
        if exif:
            tags.load(exif)
        if xmp:
            tags[_XMP_TIFF_TAG] = xmp
        # libtiff, which compresses, cannot write the directories of EXIF; Pillow's own writer can
        return {**options, "exif": tags, "compression": "raw"} if len(tags) else options
    if exif:
        options["exif"] = exif
    if xmp and kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        options["pnginfo"] = text
    elif xmp:
        options["xmp"] = xmp
    return options


# --- files -------------------------------------------------------------------------------------------------------


def _output_format(name: str) -> str:
    suffix = Path(name).suffix.lower()
    if suffix not in _FORMATS:
        raise InputError(f"{name}: unknown image extension '{suffix}'; known are {', '.join(_FORMATS)}")
    return _FORMATS[suffix]


def _writable_target(name: str, force: bool) -> Path:
    """The file that `name` stands for, links followed; InputError if it must not be written."""
    try:
        target = Path(os.path.realpath(name))
        is_folder, exists, is_file = target.is_dir(), target.exists(), target.is_file()
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be written: {_cause(error)}") from error
    if is_folder:
        raise InputError(f"{name}: is a folder")
    if exists and not is_file:
        raise InputError(f"{name}: is not a regular file")
    if exists and not force:
        raise InputError(f"{name}: exists already (force to overwrite)")
    return target
