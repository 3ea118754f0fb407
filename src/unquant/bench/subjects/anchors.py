"""Conventional codecs to compare with, as Pillow and its plugins write them: good settings, no metadata.

    jpeg  webp  avif  jpeg2000   Pillow itself          jxl   pillow-jxl-plugin          heic   pillow-heif

`avif` is AVIF as Pillow writes it by default, `avif-base` with the options of the family `av1`. Other options of AVIF are
anchors too, called `avif-TUNE-SUBSAMPLING[-dqSTRENGTH][-shSHARPNESS][-sSPEED]`, such as `avif-iq-420-s8`. `missing` says what
to install where there is no plugin.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import PIL
from PIL import AvifImagePlugin, Image, features

from unquant.bench.subjects.plugins import HeifPlugin, Plugin
from unquant.codecs.avif import BASE, SUBSAMPLINGS, TUNES, AvifOptions, encode_avif
from unquant.errors import InputError, OptionError

__all__ = ["ANCHORS", "Anchor", "decode", "encode", "find", "limit_threads", "missing", "title_of", "usable"]

Options = Callable[[float], dict[str, Any]]

_threads = 0
"""Threads of the encoders and decoders that can be told; 0 leaves the number to each."""


def _quality(quality: float) -> dict[str, Any]:
    return {"quality": quality}


@dataclass(frozen=True)
class Anchor:
    """One codec of Pillow or of a plugin.

    lowest, highest, step: the range of its quality and how finely it can be set; 100 is best. options: beside the quality,
    fixed. rate: the options that set a quality. feature: what Pillow was built with; plugin: in place of that.
    threads_option: what limits its encoder's threads. avif: all options of AVIF, in place of `options` and `rate`. look:
    colour and marker (matplotlib's) in figures; None for one that the name decides.
    """

    title: str
    format: str
    suffix: str
    feature: str = ""
    plugin: Plugin | None = None
    threads_option: str = ""
    lowest: float = 0
    highest: float = 100
    step: float = 1
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rate: Options = _quality
    avif: AvifOptions | None = None
    look: tuple[str, str] | None = None

    @property
    def version(self) -> str:
        """The version of the library behind it, or of its plugin; "None" where it is not installed."""
        return str(features.version(self.feature)) if self.plugin is None else self.plugin.version()

    @property
    def settings(self) -> dict[str, Any]:
        """All options but the quality, by name."""
        if self.avif is None:
            return dict(self.options)
        return {name: value for name, value in asdict(self.avif).items() if name != "quality"}

    @property
    def fingerprint(self) -> str:
        """All that a file depends on beside the picture and the quality, in one line."""
        return f"{self.format} {self.version} {PIL.__version__} {sorted(self.settings.items())} {self.rate(50.0)}"

    @property
    def steps(self) -> int:
        """The index of the highest quality; the lowest has 0."""
        return round((self.highest - self.lowest) / self.step)

    def quality(self, index: int) -> float:
        """The quality `index` steps above the lowest; an int where only those are allowed."""
        return self.lowest + index if self.step == 1 else round(self.lowest + index * self.step, 6)

    def nearest(self, quality: float) -> float:
        """The quality nearest to one in 0..100 that can be set."""
        return self.quality(min(max(round((quality - self.lowest) / self.step), 0), self.steps))


_JPEG_OPTIONS = {"optimize": True, "progressive": True, "subsampling": "4:2:0"}
# what Pillow writes by default where there are several cores: one thread gives other bytes
_AVIF_OPTIONS = {"speed": 6, "subsampling": "4:2:0", "autotiling": False, "max_threads": 2}
# x265 in one thread: its pool gains little on one picture, and files would depend on the number of processors
_HEIC_OPTIONS = {"chroma": 420, "enc_params": {"preset": "slow", "x265:pools": "none"}}
# without a comment OpenJPEG writes one of its own, of 33 bytes
_JPEG2000_OPTIONS = {"quality_mode": "dB", "irreversible": True, "mct": 1, "no_jp2": True, "comment": " "}

_JXL = Plugin("pillow_jxl", "pillow-jxl-plugin", "pillow_jxl.JpegXLImagePlugin")
_HEIF = HeifPlugin("pillow_heif", "pillow-heif", "pillow_heif.options")


def _avif(title: str, options: AvifOptions, look: tuple[str, str] | None = None) -> Anchor:
    return Anchor(title, "AVIF", ".avif", "avif", avif=options, look=look)


ANCHORS: dict[str, Anchor] = {
    "jpeg": Anchor("JPEG", "JPEG", ".jpg", "libjpeg_turbo", lowest=1, options=_JPEG_OPTIONS, look=("#7a5c12", "D")),
    # WebP takes fractions, and needs them: from 0 to 1 its files grow by half
    "webp": Anchor("WebP", "WEBP", ".webp", "webp", step=0.01, options={"method": 6}, look=("#22804c", "^")),
    "avif": Anchor("AVIF", "AVIF", ".avif", "avif", options=_AVIF_OPTIONS, look=("#1c63b7", "s")),
    "avif-base": _avif("AVIF, base of av1", BASE, ("#4f9bd9", "P")),
    "jxl": Anchor(
        "JPEG XL",
        "JXL",
        ".jxl",
        plugin=_JXL,
        threads_option="num_threads",
        highest=99.9,  # 100 is another mode, without loss
        step=0.1,
        options={"effort": 7},
        look=("#6a4bb5", "v"),
    ),
    # x265 takes whole steps, two of the quality
    "heic": Anchor("HEIC", "HEIF", ".heic", plugin=_HEIF, step=2, options=_HEIC_OPTIONS, look=("#0d7f86", "h")),
    # 15 to 55 dB: below, nothing but a header is left
    "jpeg2000": Anchor(
        "JPEG 2000",
        "JPEG2000",
        ".j2k",
        "jpg_2000",
        step=0.1,
        options=_JPEG2000_OPTIONS,
        rate=lambda quality: {"quality_layers": [15 + 0.4 * quality]},
    ),
}
_AVIF_NAME = re.compile(rf"avif-({'|'.join(TUNES)})-(4\d\d)(?:-dq(\d+))?(?:-sh(\d+))?(?:-s(\d+))?")


def limit_threads(threads: int) -> int:
    """Set the threads of JPEG XL, HEIC and of decoding AVIF, 0 for each one's own choice; gives what was set before."""
    global _threads
    before, _threads = _threads, threads
    AvifImagePlugin.DEFAULT_MAX_THREADS = threads
    return before


def missing(name: str) -> str | None:
    """Why the anchor `name` cannot be used here and what to install; None if it can. Raises OptionError for no anchor."""
    anchor = _anchor(name)
    if anchor.plugin is None:
        here = features.check(anchor.feature) or (name == "jpeg" and features.check("jpg"))
        return None if here else f"{anchor.title}: this Pillow was built without {anchor.feature}"
    problem = anchor.plugin.problem()
    return problem and f"{anchor.title}: {problem}; install {anchor.plugin.package}"


def encode(image: Image.Image, name: str, quality: float) -> bytes:
    """The file that the anchor `name` makes of the picture (as 8-bit RGB) at its own `quality`.

    Raises OptionError where the codec is not there, InputError for a picture that it refuses.
    """
    anchor = usable(name)
    bare = image.convert("RGB")
    bare = bare.copy() if bare is image else bare
    bare.info.clear()
    if anchor.avif is not None:
        return encode_avif(np.array(bare), replace(anchor.avif, quality=round(quality)))
    # a plugin may write into what it is given
    options = {key: dict(value) if isinstance(value, dict) else value for key, value in anchor.options.items()}
    if anchor.threads_option and _threads:
        options[anchor.threads_option] = _threads
    buffer = io.BytesIO()
    try:
        bare.save(buffer, anchor.format, **anchor.rate(quality), **options)
    except (OSError, ValueError, RuntimeError) as e:
        raise InputError(f"{anchor.title} cannot encode a picture of {bare.width}×{bare.height}: {e}") from e
    return buffer.getvalue()


def decode(data: bytes, name: str | None = None) -> Image.Image:
    """The picture in a file, as 8-bit RGB. name: the anchor whose decoder shall read it; None for whichever Pillow has.

    Raises OptionError where the codec is not there, InputError for bytes that are no such file.
    """
    formats = None if name is None else [usable(name).format]
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            return image.convert("RGB")
    except (OSError, ValueError, RuntimeError, SyntaxError) as e:
        raise InputError(f"not a file of {name or 'a known format'}: {e}") from e


def find(name: str) -> Anchor | None:
    """The anchor of this name; None for none. Raises OptionError for options that AVIF does not have."""
    named = _AVIF_NAME.fullmatch(name)
    if name in ANCHORS or named is None:
        return ANCHORS.get(name)
    tune, digits, strength, sharpness, speed = named.groups()
    subsampling = ":".join(digits)
    if subsampling not in SUBSAMPLINGS:
        return None
    chosen = AvifOptions(
        speed=int(speed or 6),
        tune=tune,
        subsampling=subsampling,
        deltaq_strength=None if strength is None else int(strength),
        sharpness=None if sharpness is None else int(sharpness),
    )
    deltaq = "" if strength is None else f", deltaq {strength}"
    sharp = f", sharpness {sharpness}" if sharpness else ""
    return _avif(f"{tune} {subsampling}{deltaq}{sharp}, speed {chosen.speed}", chosen)


def title_of(codec: str) -> str:
    """What a codec is called: an anchor by its title, a model by its name."""
    anchor = find(codec)
    return codec if anchor is None else anchor.title


def _anchor(name: str) -> Anchor:
    anchor = find(name)
    if anchor is None:
        raise OptionError(f"no anchor codec is called {name!r}; there are {', '.join(ANCHORS)}")
    return anchor


def usable(name: str) -> Anchor:
    """The anchor `name`, ready to be used. Raises OptionError where the codec is not there."""
    problem = missing(name)
    if problem is not None:
        raise OptionError(problem)
    anchor = _anchor(name)
    if anchor.plugin is not None:
        anchor.plugin.limit_threads(_threads)
    return anchor
