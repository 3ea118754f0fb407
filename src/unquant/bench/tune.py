"""How the reverse path is best driven: figures of any way to sample, on validation pictures, and a search over them.

    weights, pictures ──►┤tune├──► the best Setting and a table of figures ──►┤write_tuned├──► weights

What changes is configuration alone: no network is trained, files that exist keep decoding.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unquant.codecs.options import DEFAULT_SEED
from unquant.codecs.ratevar import RatevarCodec
from unquant.diffusion.noise import seeded_noise
from unquant.errors import InputError, ModelMissing, OptionError
from unquant.files import IMAGE_SUFFIXES, check_target
from unquant.images import read_rgb
from unquant.models.common import SideInfo, log2_q_of
from unquant.models.ratevar import Ratevar
from unquant.models.reverse import ReverseConfig
from unquant.nn.transforms import LATENT_STRIDE
from unquant.perceptual import DISTS, LPIPS, load_dists, load_lpips
from unquant.shapes import Image, Latent
from unquant.weights import Weights, read_weights, write_weights

__all__ = [
    "Decoded",
    "Figures",
    "Judge",
    "Setting",
    "Table",
    "Tuned",
    "decode",
    "load_pictures",
    "markdown",
    "rate_indices",
    "run_tuning",
    "tune",
    "write_tuned",
]

Picture = Float[Tensor, "1 3 h w"]
Distance = LPIPS | DISTS
_SMALLEST = 2 * LATENT_STRIDE
"""AlexNet takes no smaller picture."""
_WORTH = 0.995
"""A setting that takes more steps must bring the score below this share of the best so far."""
_FEATURE_BYTES = 2 * 2**30
"""Of the originals' features that are kept; those of further pictures are extracted again for every setting."""
_DRIVE = ("sampler", "steps", "schedule_power", "alpha_first", "alpha_last", "tau", "project")
"""The fields of `ReverseConfig` that may change without training."""
_COLUMNS = ("ρ", "steps", "power", "sampler", "α", "τ", "projected")
"""Headings of what a table says of a setting."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to decode: realism ρ in [0, 1], and how the reverse path is driven. reverse: None to leave the path out."""

    realism: float
    reverse: ReverseConfig | None

    def essence(self) -> Setting:
        """The setting with every option that has no effect beside the others at one fixed value.

        Settings of one essence decode to the same picture, bit for bit.
        """
        c = self.reverse
        if c is None or self.realism <= 0:
            return Setting(self.realism, None)
        if c.steps == 1:
            c = replace(c, schedule_power=1.0, alpha_last=c.alpha_first)
        if c.sampler == "deterministic" or c.alpha_first == c.alpha_last == 0:
            sampler = "bridge" if c.sampler == "bridge" else "deterministic"
            c = replace(c, sampler=sampler, alpha_first=0.0, alpha_last=0.0, tau="constant")
        return Setting(self.realism, c)

    def columns(self) -> dict[str, str]:
        """What a table says of the setting, by heading; a dash for options that have no effect."""
        c = self.essence().reverse
        if c is None:
            return {**dict.fromkeys(_COLUMNS, "–"), "ρ": f"{self.realism:g}"}
        noisy = c.alpha_first > 0 or c.alpha_last > 0
        ends = [f"{c.alpha_first:g}", f"{c.alpha_last:g}"][: c.steps]
        texts = (
            f"{self.realism:g}",
            str(c.steps),
            f"{c.schedule_power:g}" if c.steps > 1 else "–",
            c.sampler,
            "–" if c.sampler == "deterministic" else "..".join(ends),
            c.tau if noisy else "–",
            "yes" if c.project else "no",
        )
        return dict(zip(_COLUMNS, texts, strict=True))


class Figures(NamedTuple):
    """Of decoded pictures against the originals: psnr in dB; lpips (AlexNet) and dists, None where the weights are missing;
    gradient: gradient energy over the original's, 1 for as much detail. Of the latent at the end of the path, y': explained:
    1 − ‖y' − y‖²/‖ŷ_T − y‖²; variance: ‖y' − ŷ_T‖²/‖y − ŷ_T‖², 1 for a sample of the right energy.
    """

    psnr: float
    lpips: float | None
    dists: float | None
    gradient: float
    explained: float
    variance: float


Table = dict[tuple[int, Setting], Figures]
"""Means over the pictures, by q index and by the essence of a setting, in the order of their computation."""


class Tuned(NamedTuple):
    """What a search found: the best setting, and the figures of all that were tried."""

    setting: Setting
    table: Table

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `setting` and `table`, a list of rows with `q_index`, `setting` and the figures by name."""
        rows = [{"q_index": i, "setting": asdict(s), **f._asdict()} for (i, s), f in self.table.items()]
        return {"setting": asdict(self.setting), "table": rows}


def markdown(table: Table) -> str:
    """The table as Markdown, a row for each q index and setting, by q index."""
    lines: list[list[str]] = []
    for (index, setting), f in sorted(table.items(), key=lambda item: item[0][0]):
        distances = ["–" if value is None else f"{value:.4f}" for value in (f.lpips, f.dists)]
        shares = [f"{value:.3f}" for value in (f.gradient, f.explained, f.variance)]
        lines.append([str(index), *setting.columns().values(), f"{f.psnr:.2f}", *distances, *shares])
    heads = ["q index", *_COLUMNS, "PSNR", "LPIPS", "DISTS", "gradient", "explained", "variance"]
    rows = [heads, ["--:"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def load_pictures(folder: Path, crop: int | None = None, count: int | None = None) -> list[Picture]:
    """The images of a folder by name, as the codec takes them, in [0, 1].

    Of each the middle, cut to multiples of 16 pixels and to at most crop×crop; images of less than 32 pixels a side are left
    out. count: so many at most. Raises InputError for a folder without such images and, naming it, for an image that
    cannot be read; ImageTooLarge; OptionError for a crop below 32 or a count below 1.
    """
    if crop is not None and crop < _SMALLEST:
        raise OptionError(f"crop: at least {_SMALLEST} pixels, not {crop}")
    if count is not None and count < 1:
        raise OptionError(f"count: at least 1, not {count}")
    pictures: list[Picture] = []
    for path in sorted(p for p in folder.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
        if len(pictures) == count:
            break
        rgb = read_rgb(path)
        height, width = (min(n, crop or n) // LATENT_STRIDE * LATENT_STRIDE for n in rgb.shape[:2])
        if min(height, width) >= _SMALLEST:
            top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
            part = torch.from_numpy(rgb[top : top + height, left : left + width].copy())
            pictures.append(part.permute(2, 0, 1)[None].float() / 255)
    if not pictures:
        raise InputError(f"{folder}: no images of at least {_SMALLEST}×{_SMALLEST} pixels in this folder")
    return pictures


def _log2_q(index: int) -> Float[Tensor, "1 1 1 1"]:
    return torch.full((1, 1, 1, 1), log2_q_of(index))


@torch.no_grad()
def rate_indices(model: Ratevar, pictures: Sequence[Picture], bpps: Iterable[float]) -> list[int]:
    """For each rate the finest q index at which the pictures take no more bits per pixel of all of them.

    By cross-entropy, without containers, and by bisection: the rate falls as the index grows. Raises OptionError for a rate
    that is not positive, and for one that is out of reach.
    """
    targets = list(bpps)
    if not targets or not all(0 < target < math.inf for target in targets):
        raise OptionError(f"bpp: positive numbers, one at least, not {targets}")
    latents = [model.g_a(x) for x in pictures]
    pixels = sum(x.shape[-2] * x.shape[-1] for x in pictures)

    @functools.cache
    def bpp(index: int) -> float:
        coded = (model.quantise(y, _log2_q(index), noise=False) for y in latents)
        return sum(float(c.bits_y.sum() + c.bits_z.sum()) for c in coded) / pixels

    found: list[int] = []
    for target in targets:
        low, high = model.config.q_index_min, model.config.q_index_max
        if bpp(high) > target:
            raise OptionError(f"bpp: {target:g} is out of reach, the coarsest step takes {bpp(high):.3f}")
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if bpp(middle) <= target else (middle + 1, high)
        found.append(low)
    return found


class Decoded(NamedTuple):
    """The latent at the end of the path (latent units), and the picture of it (not clamped)."""

    y: Latent
    picture: Image


@torch.no_grad()
def decode(model: Ratevar, side: SideInfo, setting: Setting) -> Decoded:
    """One decode as the codec makes it, with its default seed, but in float32. The path needs a reverse network."""
    y, log2_q = side.y_file, side.log2_q_file
    if setting.reverse is not None and setting.realism > 0:
        height, width = y.shape[-2:]

        def noise(stream: int, step: int, channels: int) -> Tensor:
            return seeded_noise(DEFAULT_SEED, step, channels, height, width, stream=stream)

        y, log2_q = model.reverse(side, noise, config=setting.reverse)

    def end(y: Latent, log2_q: Tensor, realism: float) -> Image:
        return model.g_s(y, log2_q, side.log2_q_file, torch.full((1, 1, 1, 1), realism))

    if setting.realism in (0, 1):
        return Decoded(y, end(y, log2_q, setting.realism))
    plain, drawn = end(side.y_file, side.log2_q_file, 0.0), end(y, log2_q, 1.0)
    return Decoded(y, torch.lerp(plain.clamp(0, 1), drawn.clamp(0, 1), setting.realism))


class Judge:
    """Decodes pictures in many ways and keeps the mean figures of each.

    Settings of one essence are decoded once, a picture is encoded once a q index, and the features of the originals are kept
    up to 2 GiB (with DISTS a picture of 256×256 takes 32 MB). On the CPU.

    metrics: folder of the LPIPS and DISTS weights, None for what UNQUANT_METRICS names. notes: a line for each of the two
    whose weights are missing. Raises ModelMissing if both are.
    """

    def __init__(self, model: Ratevar, pictures: Sequence[Picture], metrics: Path | None = None) -> None:
        self.model, self.pictures = model, pictures
        self.notes: list[str] = []
        self.lpips = self._load(lambda: load_lpips("alex", metrics))
        self.dists = self._load(lambda: load_dists(metrics))
        if self.lpips is None and self.dists is None:
            raise ModelMissing(self.notes[-1])
        self.table: Table = {}
        self._encoded: dict[tuple[int, int], tuple[Latent, SideInfo]] = {}
        self._features: dict[int, list[list[Tensor] | None]] = {}
        self._feature_bytes = 0

    def _load(self, load: Callable[[], Distance]) -> Distance | None:
        try:
            return load()
        except ModelMissing as e:
            self.notes.append(str(e))
            return None

    def figures(self, q_index: int, setting: Setting) -> Figures:
        """The mean figures of all pictures at one q index, computed where the table has none."""
        key = q_index, setting.essence()
        if key not in self.table:
            rows = [self._figures(number, *key) for number in range(len(self.pictures))]
            self.table[key] = Figures(
                fmean(f.psnr for f in rows),
                _mean([f.lpips for f in rows]),
                _mean([f.dists for f in rows]),
                fmean(f.gradient for f in rows),
                fmean(f.explained for f in rows),
                fmean(f.variance for f in rows),
            )
        return self.table[key]

    def score(self, q_indices: Sequence[int], setting: Setting) -> float:
        """The mean of DISTS over the q indices, of LPIPS where there is no DISTS; lower is better."""
        found = [self.figures(i, setting) for i in q_indices]
        values = [f.lpips if self.dists is None else f.dists for f in found]
        return fmean(v for v in values if v is not None)

    @torch.no_grad()
    def _figures(self, number: int, q_index: int, setting: Setting) -> Figures:
        x = self.pictures[number]
        if (number, q_index) not in self._encoded:
            self._encoded[number, q_index] = self.model.encode(x, _log2_q(q_index))
        y, side = self._encoded[number, q_index]
        state = decode(self.model, side, setting)
        out = (state.picture.clamp(0, 1) * 255).round() / 255
        lpips, dists = (
            None if net is None or original is None else max(0.0, float(net.compare(original, net.extract(out))))
            for net, original in zip((self.lpips, self.dists), self._original(number), strict=True)
        )
        lost = (y - side.y_file).square().sum()
        return Figures(
            float(-10 * (out - x).square().mean().clamp(min=1e-8).log10()),
            lpips,
            dists,
            _gradient_energy(out) / max(_gradient_energy(x), 1e-12),
            float(1 - (state.y - y).square().sum() / lost),
            float((state.y - side.y_file).square().sum() / lost),
        )

    def _original(self, number: int) -> list[list[Tensor] | None]:
        """What each of the two distances extracts from a picture."""
        if number in self._features:
            return self._features[number]
        features = [None if net is None else net.extract(self.pictures[number]) for net in (self.lpips, self.dists)]
        size = sum(tap.nbytes for taps in features for tap in taps or ())
        if self._feature_bytes + size <= _FEATURE_BYTES:
            self._features[number] = features
            self._feature_bytes += size
        return features


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, None where a value is missing."""
    known = [v for v in values if v is not None]
    return fmean(known) if len(known) == len(values) else None


def _gradient_energy(x: Image) -> float:
    """Mean squared difference of neighbouring pixels' luminance (ITU-R BT.601), the sum over both directions."""
    luminance = (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    return sum(float(luminance.diff(dim=d).square().mean()) for d in (-1, -2))


def tune(
    model: Ratevar,
    pictures: Sequence[Picture],
    bpps: Sequence[float],
    metrics: Path | None = None,
    echo: Callable[[str], Any] = print,
) -> Tuned:
    """The best way to drive the model's reverse network: one choice after another, each with the best so far.

    Steps (more only if they pay), schedule of q, randomness, τ and projection at ρ = 1, at last the default ρ; a tie stays
    with what was there. The sampler is that of the configuration, which goes with the training. The table also has the
    decodes without the path, at ρ = 0 and 1, to compare with. metrics: as in `Judge`. echo: called with one line per setting,
    its score first. Raises OptionError for a model without reverse network and as `rate_indices`, ModelMissing as `Judge`.
    """
    start = model.config.reverse
    if start is None:
        raise OptionError("these weights have no reverse network: there is nothing to tune")
    judge = Judge(model, pictures, metrics)
    for note in judge.notes:
        echo(note)
    indices = rate_indices(model, pictures, bpps)
    echo(f"q indices of {', '.join(f'{b:g}' for b in bpps)} bpp: {', '.join(map(str, indices))}")
    indices = list(dict.fromkeys(indices))
    tried: set[Setting] = set()

    def score(setting: Setting) -> float:
        """Infinite for what was tried before: then it was not the best, and the best has not become worse."""
        if setting.essence() in tried:
            return math.inf
        tried.add(setting.essence())
        value = judge.score(indices, setting)
        echo(f"{value:.4f}  {', '.join(f'{name} {text}' for name, text in setting.columns().items() if text != '–')}")
        return value

    for realism in (0.0, 1.0):
        score(Setting(realism, None))
    best, lowest = start, math.inf
    for steps in (1, 2, 4):
        candidate = replace(start, steps=steps)
        if (value := score(Setting(1.0, candidate))) < _WORTH * lowest:
            best, lowest = candidate, value
    choices: tuple[tuple[dict[str, Any], ...], ...] = (
        tuple({"schedule_power": power} for power in (1.0, 0.5, 2.0)),
        tuple({"alpha_first": a, "alpha_last": b} for a, b in ((1.0, 1.0), (1.0, 0.0), (0.5, 0.5), (0.0, 0.0))),
        tuple({"tau": kind} for kind in ("constant", "coefficient")),
        tuple({"project": inside} for inside in (False, True)),
    )
    for options in choices:
        for candidate in [replace(best, **option) for option in options]:
            if (value := score(Setting(1.0, candidate))) < lowest:
                best, lowest = candidate, value
    setting = Setting(1.0, best)
    for realism in (0.75, 0.5):
        if (value := score(Setting(realism, best))) < lowest:
            setting, lowest = Setting(realism, best), value
    return Tuned(setting, judge.table)


def write_tuned(source: Path, target: Path, setting: Setting) -> Weights:
    """Copy a weights file with another default realism and another way to drive its reverse network.

    Of the setting's configuration only what may change without training is taken; tensors, hashes and ids stay. Returns what
    was written. Raises OptionError for a way to drive a network that the weights lack, ModelMissing or WeightsError for a
    source that cannot be read, InputError for a target that cannot be written.
    """
    weights = read_weights(source)
    config = {**weights.config, "default_realism": setting.realism}
    if setting.reverse is not None:
        if not weights.config.get("reverse"):
            raise OptionError(f"{source}: these weights have no reverse network")
        drive = {name: getattr(setting.reverse, name) for name in _DRIVE}
        config["reverse"] = {**weights.config["reverse"], **drive}
    return write_weights(target, weights.family, config, weights.tensors, weights.training, weights.int8)


def _check_target(path: Path) -> None:
    """Raises InputError for a file that exists, or that cannot be made."""
    check_target(path)
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise InputError(f"{path}: cannot be written: {nearest} is not a folder that can be written to")


def run_tuning(
    weights: Path,
    images: Path,
    out: Path,
    bpps: Sequence[float] = (0.1, 0.2, 0.4),
    crop: int | None = 256,
    count: int | None = None,
    metrics: Path | None = None,
    echo: Callable[[str], Any] = print,
) -> Tuned:
    """Tune a weights file on a folder of images, and write it as `out` with the best setting as its configuration.

    bpps: rates to tune for, together. crop, count: as in `load_pictures`; metrics, echo: as in `tune`. Whatever can be wrong
    with the arguments is found before any network runs, but for a rate out of reach, which is found next. Raises InputError,
    OptionError, ModelMissing, WeightsError, ImageTooLarge.
    """
    _check_target(out)
    model = RatevarCodec.from_file(weights).model
    if model.f is None:
        raise OptionError(f"{weights}: these weights have no reverse network: there is nothing to tune")
    tuned = tune(model, load_pictures(images, crop, count), bpps, metrics, echo)
    write_tuned(weights, out, tuned.setting)
    return tuned
