"""AV1 still pictures by way of Pillow: encoding with every option explicit, decoding to RGB.

The forward path of the family `av1`. Bytes differ between builds of libaom and between one encoder thread and several (two
and more agree), so threads and tiling are fixed here; pixels of one stream agree up to rounding of YUV to RGB.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from PIL import Image as PILImage
from PIL import features

from unquant.errors import CodecMissing, CorruptStream, OptionError
from unquant.images import without_pillows_limit

__all__ = [
    "BASE",
    "SUBSAMPLINGS",
    "TUNES",
    "AvifOptions",
    "decode_avif",
    "encode_avif",
    "enlarge",
    "reduce",
    "require_avif",
]

TUNES: Final = ("iq", "ssim", "psnr")
SUBSAMPLINGS: Final = ("4:2:0", "4:2:2", "4:4:4")
_MAX_QUALITY: Final = 100
_MAX_SPEED: Final = 10
_MAX_SHARPNESS: Final = 7
_MAX_STRENGTH: Final = 100
_REFUSED: Final = "codec-specific option"
"""What Pillow's message for an option that a build of libaom does not know contains."""


@dataclass(frozen=True, slots=True)
class AvifOptions:
    """How libaom encodes one picture.

    quality: 0..100, libavif's; 100 is lossless in YUV. speed: 0 (slowest)..10. tune: of `TUNES`; "iq" brings quantisation
    matrices, chroma offsets and sharpness 7. subsampling: of `SUBSAMPLINGS`. deltaq_strength: 0..100, of a step that differs
    by superblock after its contents; 0 turns that off. sharpness: 0..7. None of either leaves it to the tune. Raises
    OptionError.
    """

    quality: int = 50
    speed: int = 6
    tune: str = "iq"
    subsampling: str = "4:4:4"
    deltaq_strength: int | None = 50
    sharpness: int | None = 0

    def __post_init__(self) -> None:
        for name, value, most in (
            ("quality", self.quality, _MAX_QUALITY),
            ("speed", self.speed, _MAX_SPEED),
            ("deltaq_strength", 0 if self.deltaq_strength is None else self.deltaq_strength, _MAX_STRENGTH),
            ("sharpness", 0 if self.sharpness is None else self.sharpness, _MAX_SHARPNESS),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
                raise OptionError(f"{name}: a whole number in 0..{most}, not {value!r}")
        for name, text, known in (("tune", self.tune, TUNES), ("subsampling", self.subsampling, SUBSAMPLINGS)):
            if text not in known:
                raise OptionError(f"{name}: one of {', '.join(known)}, not {text!r}")

    def advanced(self) -> dict[str, str]:
        """libaom's own options, by its names."""
        chosen = {"tune": self.tune}
        if self.deltaq_strength == 0:
            chosen["deltaq-mode"] = "0"
        elif self.deltaq_strength is not None:
            chosen |= {"deltaq-mode": "6", "deltaq-strength": str(self.deltaq_strength)}
        if self.sharpness is not None:
            chosen["sharpness"] = str(self.sharpness)
        return chosen


BASE: Final = AvifOptions()
"""What the family `av1` encodes with."""


def require_avif() -> None:
    """Raises CodecMissing where this Pillow cannot write AVIF."""
    if not features.check("avif"):
        raise CodecMissing("this Pillow was built without AVIF (libavif): install a wheel of Pillow 11.3 or newer")


def encode_avif(
    rgb: npt.NDArray[np.uint8],
    options: AvifOptions = BASE,
    *,
    threads: int = 2,
    guide: Float[np.ndarray, "h16 w16"] | None = None,
) -> bytes:
    """A standard .avif file of (h, w, 3) or, for a grey picture, (h, w) uint8.

    threads: 1 gives other bytes than 2 and more. guide: the share of the bits that each block of 16×16 pixels is to have; it
    moves the step by superblock in place of deltaq_strength. An option that this build of libaom does not know is left out.
    Raises CodecMissing, for a guide that it does not know too, and OptionError for a picture that AV1 cannot hold (above
    65,536 a side).
    """
    require_avif()
    if guide is None or options.quality == _MAX_QUALITY:  # without loss there are no steps
        return _encode(rgb, options, options.advanced(), threads)
    with TemporaryDirectory(prefix="unquant-") as folder:
        path = Path(folder) / "rates.txt"
        path.write_text("".join(" ".join(f"{rate:.6g}" for rate in row) + "\n" for row in guide), "ascii")
        guided = replace(options, deltaq_strength=None).advanced()
        guided |= {"deltaq-mode": "3", "enable-rate-guide-deltaq": "1", "rate-distribution-info": str(path)}
        return _encode(rgb, options, guided, threads)


def _encode(rgb: npt.NDArray[np.uint8], options: AvifOptions, advanced: dict[str, str], threads: int) -> bytes:
    picture = PILImage.fromarray(np.ascontiguousarray(rgb))
    subsampling = "4:0:0" if rgb.ndim == 2 else options.subsampling
    while True:
        buffer = io.BytesIO()
        try:
            picture.save(
                buffer,
                "AVIF",
                quality=options.quality,
                speed=options.speed,
                subsampling=subsampling,
                range="full",
                max_threads=threads,
                autotiling=False,
                advanced=advanced,
            )
            return buffer.getvalue()
        except ValueError as e:
            if _REFUSED not in str(e) or not advanced:
                raise OptionError(f"AVIF cannot hold this picture of {picture.width}×{picture.height}: {e}") from None
        if "rate-distribution-info" in advanced:
            raise CodecMissing(
                "a region of interest needs a libaom that takes a guide of rates: a newer wheel of Pillow"
            )
        # the newest options go first; Pillow does not say which one it was
        for name in ("deltaq-strength", "deltaq-mode", "sharpness", "tune"):
            if advanced.pop(name, None) is not None:
                break


def decode_avif(data: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """The first picture of an .avif file, (h, w, 3) uint8, as coded: neither turned nor mirrored; and alpha (h, w) or None.

    Its size has been checked (`parse_avif`). Raises CorruptStream.
    """
    require_avif()
    try:
        with without_pillows_limit():
            opened = PILImage.open(io.BytesIO(data), formats=("AVIF",))
        with opened as picture:
            alpha = np.array(picture.getchannel("A")) if picture.mode == "RGBA" else None
            return np.array(picture.convert("RGB")), alpha
    except MemoryError:
        raise
    except Exception as e:  # third-party parsers on hostile bytes; the AV1 decoder's own is a RuntimeError
        raise CorruptStream(f"AV1 picture: cannot be decoded: {e}") from None


def reduce(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture (h, w, 3) at half size, (⌈h/2⌉, ⌈w/2⌉, 3): its edge repeated to even sides, then Lanczos."""
    height, width = rgb.shape[:2]
    even = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    half = PILImage.fromarray(even).resize((even.shape[1] // 2, even.shape[0] // 2), PILImage.Resampling.LANCZOS)
    return np.array(half)


def enlarge(rgb: npt.NDArray[np.uint8], height: int, width: int, times: int = 2) -> npt.NDArray[np.uint8]:
    """A decoded half-size picture at full size (docs/format.md): bicubic by exactly 2, cut to (height, width, 3). times: in
    place of 2, for other small pictures."""
    size = times * rgb.shape[1], times * rgb.shape[0]
    return np.array(PILImage.fromarray(rgb).resize(size, PILImage.Resampling.BICUBIC))[:height, :width]
