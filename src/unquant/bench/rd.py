"""Rate against distortion and perception: every codec at equal bytes, over a folder of images.

    image ──►┤encode to n bytes├──► file ──►┤decode├──► picture ──►┤metrics├──► one row

The rate is 8·len(file)/pixels. A codec that cannot make a file as small as the target gives its smallest one, and the
row says so (`reached`). A sweep over the q index replaces the target by the step and checks that files get smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from PIL import Image

from unquant.bench import anchors
from unquant.bench.distribution import Collector
from unquant.bench.metrics import Meter, Scores
from unquant.bench.report import environment, markdown_table, number, write_json
from unquant.bench.subject import Codec, q_index_of, read_image
from unquant.errors import OptionError, RateUnreachable

__all__ = [
    "DEFAULT_BPP",
    "DEFAULT_CODECS",
    "Made",
    "Plan",
    "Row",
    "encode_to_size",
    "measure",
    "rows_of",
    "summary",
    "violations",
]

DEFAULT_BPP = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
DEFAULT_CODECS = ("ratevar", "jpeg", "webp", "avif")


@dataclass(frozen=True)
class Plan:
    """What to measure on each image.

    bpps: targets for every codec. codecs: anchors or names of models. realisms: each in [0, 1], for models only.
    q_indices: quantiser steps, for models only. steps: numbers of steps of the reverse path, for models at a realism
    above 0; empty: the model's own.
    """

    bpps: tuple[float, ...] = DEFAULT_BPP
    codecs: tuple[str, ...] = DEFAULT_CODECS
    realisms: tuple[float, ...] = (0.0, 1.0)
    q_indices: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()

    @property
    def decodings(self) -> list[tuple[float, int | None]]:
        """Realism and steps of each decode of a model's file; realism 0 has no reverse path, so it stands once."""
        return [(realism, steps) for realism in self.realisms for steps in (self.steps if realism else ()) or (None,)]


class Made(NamedTuple):
    """How a file was made. quality: an anchor's own; q_index: a model's; reached: it is within the target."""

    target_bpp: float | None = None
    quality: float | None = None
    q_index: int | None = None
    reached: bool = True

    @property
    def target(self) -> str:
        return f"{self.target_bpp:g} bpp" if self.target_bpp is not None else f"q {self.q_index}"


@dataclass(frozen=True)
class Row:
    """One picture from one file.

    realism: None for anchors and where nothing was decoded. steps: of the reverse path; None where not asked for.
    """

    image: str
    codec: str
    made: Made
    realism: float | None
    bytes: int
    bpp: float
    scores: Scores
    steps: int | None = None

    @property
    def setting(self) -> str:
        """Codec, realism and steps in words."""
        parts = [self.codec, f"realism {self.realism:g}" if self.realism is not None else ""]
        return ", ".join(filter(None, [*parts, f"{self.steps} steps" if self.steps is not None else ""]))

    def flat(self) -> dict[str, object]:
        """The row as JSON holds it, without nesting."""
        head: dict[str, object] = {"image": self.image, "codec": self.codec}
        head |= {"realism": self.realism, "steps": self.steps}
        return head | self.made._asdict() | {"bytes": self.bytes, "bpp": self.bpp} | self.scores._asdict()


def encode_to_size(codec: Codec, image: Image.Image, target_bytes: int) -> tuple[bytes, bool]:
    """The codec's file of at most `target_bytes` and True, or its smallest file and False."""
    try:
        return codec.encode(image, target_bytes=target_bytes), True
    except RateUnreachable as error:
        return codec.encode(image, target_bytes=error.smallest), False


def _files(image: Image.Image, plan: Plan, codecs: Mapping[str, Codec]) -> Iterator[tuple[str, bytes, Made]]:
    """Every file of the plan: codec, data, how it was made."""
    for bpp in plan.bpps:
        target = int(bpp * image.width * image.height / 8)
        for name in plan.codecs:
            if name in codecs:
                data, reached = encode_to_size(codecs[name], image, target)
                yield name, data, Made(target_bpp=bpp, q_index=q_index_of(data), reached=reached)
            else:
                found = anchors.encode_to_size(image, name, target)
                yield name, found.data, Made(target_bpp=bpp, quality=found.quality, reached=found.fits)
    for index in plan.q_indices:
        for name in (name for name in plan.codecs if name in codecs):
            yield name, codecs[name].encode(image, q_index=index), Made(q_index=index)


def _decode(codec: Codec, data: bytes, realism: float | None, steps: int | None) -> Image.Image:
    return codec.decode(data, realism=realism) if steps is None else codec.decode(data, realism=realism, steps=steps)


def rows_of(
    title: str,
    image: Image.Image,
    plan: Plan,
    codecs: Mapping[str, Codec],
    meter: Meter | None,
    collector: Collector | None = None,
) -> Iterator[Row]:
    """The rows of one picture. codecs: the models of the plan; every other name is an anchor.

    meter: None measures file sizes only and decodes nothing. collector: is given every picture that is scored.
    """
    score = meter.against(image) if meter is not None else None
    collect = collector.against(image) if collector is not None else None
    for name, data, made in _files(image, plan, codecs):
        bpp = 8 * len(data) / (image.width * image.height)
        if score is None:
            yield Row(title, name, made, None, len(data), bpp, Scores())
            continue
        model = codecs.get(name)
        for realism, steps in plan.decodings if model is not None else [(None, None)]:
            picture = anchors.decode(data) if model is None else _decode(model, data, realism, steps)
            row = Row(title, name, made, realism, len(data), bpp, score(picture), steps)
            if collect is not None:
                collect(made.target, row.setting, picture)
            yield row


def violations(rows: Iterable[Row]) -> list[str]:
    """Where a file grew although the q index rose, one sentence each; empty if the rate is monotonic."""
    sizes: dict[tuple[str, str], dict[int, int]] = {}
    for row in rows:
        if row.made.q_index is not None:
            sizes.setdefault((row.image, row.codec), {})[row.made.q_index] = row.bytes
    return [
        f"{image}, {codec}: {after} bytes at q index {high}, more than {before} at {low}"
        for (image, codec), steps in sizes.items()
        for (low, before), (high, after) in pairwise(sorted(steps.items()))
        if after > before
    ]


def summary(rows: Sequence[Row]) -> str:
    """The means over the images as a Markdown table, one line per setting and codec."""
    groups: dict[tuple[str, str, float | None, int | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.made.target, row.codec, row.realism, row.steps), []).append(row)

    def mean(group: Sequence[Row], value: Callable[[Row], float | None], digits: int) -> str:
        values = [found for row in group if (found := value(row)) is not None]
        return number(fmean(values) if values else None, digits)

    def reached(group: Sequence[Row]) -> str:
        within = sum(row.made.reached for row in group)
        return f"{len(group)}" if within == len(group) else f"{within} of {len(group)}"

    header = ["target", "codec", "realism", "steps", "bpp"]
    header += ["PSNR", "MS-SSIM", "LPIPS", "DISTS", "gradient", "images within"]
    lines = [
        [
            target,
            codec,
            "–" if realism is None else f"{realism:g}",
            number(steps, 0),
            mean(group, lambda row: row.bpp, 4),
            mean(group, lambda row: row.scores.psnr, 2),
            mean(group, lambda row: row.scores.ms_ssim, 4),
            mean(group, lambda row: row.scores.lpips, 4),
            mean(group, lambda row: row.scores.dists, 4),
            mean(group, lambda row: row.scores.gradient, 3),
            reached(group),
        ]
        for (target, codec, realism, steps), group in groups.items()
    ]
    return markdown_table(header, lines)


def measure(
    paths: Iterable[Path],
    plan: Plan,
    codecs: Mapping[str, Codec],
    meter: Meter | None,
    out: Path | None = None,
    collector: Collector | None = None,
) -> list[Row]:
    """All rows of all images. out: a JSON file, rewritten after every image, so that a long run can be watched.

    paths: an iterable, so that a progress display can wrap it. collector: is given every decoded picture; its results
    join the file at the end. Raises OptionError for a name that is neither a model given nor an anchor, InputError for
    a file that is no image.
    """
    unknown = [name for name in plan.codecs if name not in codecs and name not in anchors.ANCHORS]
    if unknown:
        raise OptionError(f"no codec is called {', '.join(unknown)}")
    rows: list[Row] = []
    place = environment({name: codec.weights_id for name, codec in codecs.items()})

    def write(**more: object) -> None:
        if out is not None:
            notes = [note for source in (meter, collector) if source is not None for note in source.notes]
            content = {"environment": place, "plan": asdict(plan), "notes": notes, "violations": violations(rows)}
            write_json(out, content | more | {"rows": [row.flat() for row in rows]})

    for path in paths:
        rows += rows_of(path.name, read_image(path), plan, codecs, meter, collector)
        write()
    if collector is not None:
        write(kd_vgg16=collector.results().flat())
    return rows
