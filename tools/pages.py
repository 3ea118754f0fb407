"""Tables of rows inside Markdown pages, each between a comment that says what it shows and a closing one.

    <!-- equal-bytes figures/kodak.jsonl targets=0.15,0.3 metrics=psnr,lpips_alex -->
    … made anew …
    <!-- end -->

Paths are relative to the page. `equal-bytes`: a line for every target, codec and realism. `against`: codecs beside
`anchor=` read off their curves at equal bytes, see `unquant.bench.analysis.equal`; `ours=` names some of them, `boxes=` is
how many bytes of every file do not count, `distances=` a file distances.json of the same run. `bd`: a line for every
setting, its BD-rates against AVIF. `speed`: what `python -m tools speed --out` wrote. `sizes`: rows of
`python -m tools sizes`. `uncertainty`: rows of `python -m tools uncertainty`. `scale`: rows of `python -m tools scale`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.scale import read_scale
from tools.scale import table as scale_table
from tools.sizes import read_sizes
from tools.sizes import table as sizes_table
from tools.speed import Measure
from tools.speed import table as speed_table
from tools.spread import read_rows as read_spreads
from tools.spread import table as spread_table
from unquant.bench.analysis.curves import read_rows
from unquant.bench.analysis.equal import RATES, equal_table
from unquant.bench.analysis.study import Setting, Study
from unquant.bench.analysis.summary import Group, footnotes, means
from unquant.bench.analysis.tables import markdown_table, number
from unquant.bench.metrics import METRICS
from unquant.bench.run.rows import Row
from unquant.bench.subjects.anchors import find, title_of
from unquant.errors import InputError, OptionError
from unquant.files import write_whole

__all__ = ["fill", "filled"]

_BLOCK = re.compile(
    r"(<!-- (equal-bytes|against|bd|speed|sizes|uncertainty|scale) ([^\n]*?) -->\n).*?(<!-- end -->)", re.DOTALL
)


def fill(page: Path) -> bool:
    """Make the tables of a page anew, in place; whether that changed anything. Raises InputError as `filled`."""
    try:
        before = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{page}: {getattr(e, 'strerror', None) or e}") from e
    after = filled(before, page)
    if after == before:
        return False
    write_whole(page, after, force=True)
    return True


def filled(text: str, page: Path) -> str:
    """The text of a page with its tables made anew from their files. Raises InputError naming page, block and cause."""

    def block(match: re.Match[str]) -> str:
        head, kind, words, end = match.groups()
        try:
            arguments = shlex.split(words)
            files = [page.parent / word for word in arguments if "=" not in word]
            options = dict(word.split("=", 1) for word in arguments if "=" in word)
            if "distances" in options:
                options["distances"] = str(page.parent / options["distances"])
            return f"{head}{_KINDS[kind](files, **options)}\n{end}"
        except (TypeError, KeyError, ValueError, IndexError, OSError, OptionError) as e:
            raise InputError(f"{page}: cannot make <!-- {kind} {words} -->: {e!r}") from e

    return _BLOCK.sub(block, text)


def _equal_bytes(files: Sequence[Path], *, metrics: str, targets: str | None = None) -> str:
    names = metrics.split(",")
    wanted = None if targets is None else {float(target) for target in targets.split(",")}
    rows = [row for row in read_rows(files) if wanted is None or row.target_bpp in wanted]
    groups = sorted(means(rows), key=_order)
    heads = [METRICS[name].head.replace(" (AlexNet)", "") for name in names]
    lines = [
        [
            _label(g),
            g.target,
            f"{g.bpp:.3f}" + ("*" if g.unreached else ""),
            *(number(g.scores.get(name), METRICS[name].digits) for name in names),
        ]
        for g in groups
    ]
    below = [note for note in footnotes(rows) if note.startswith("*")]
    notes = [note.replace("* ", "\\* ", 1) for note in below]
    return "\n\n".join([markdown_table(["codec", "target", "bpp", *heads], lines), *notes, _caption(rows)])


def _order(group: Group) -> tuple[Any, ...]:
    """By target; models before anchors, the most realistic decode first, anchors from the best known to the oldest."""
    codecs = ["av1", "ratevar", "cdc", "avif", "heic", "jxl", "webp", "jpeg2000", "jpeg"]
    family = group.codec.split("-")[0]  # AVIF has a name for each set of options
    place = codecs.index(family) if family in codecs else -1
    return float(group.target.split()[0]), place, group.codec, -(group.realism or 0), group.steps or 0


def _label(group: Group) -> str:
    return group.setting if group.realism is not None else title_of(group.codec)


def _against(
    files: Sequence[Path],
    *,
    anchor: str,
    metrics: str,
    ours: str | None = None,
    targets: str | None = None,
    boxes: str = "0",
    distances: str | None = None,
) -> str:
    rows = [replace(row, bytes=row.bytes - int(boxes)) for row in read_rows(files)]
    rates = RATES if targets is None else tuple(float(target) for target in targets.split(","))
    chosen = () if ours is None else tuple(ours.split(","))
    rows = [row for row in rows if not chosen or row.codec in (*chosen, anchor)]
    names = {row.setting: title_of(row.codec) for row in rows if row.realism is None}
    sets = None if distances is None else json.loads(Path(distances).read_text(encoding="utf-8"))
    table = equal_table(rows, anchor, metrics.split(","), ours=chosen, rates=rates, names=names, distances=sets)
    return f"{table}\n\n{_caption(rows)}"


def _bd(files: Sequence[Path], *, metrics: str) -> str:
    names = metrics.split(",")
    rows = read_rows(files)
    study = Study(rows)
    lines = [
        [setting.name, *(_bd_cell(study, setting, name) for name in names)]
        for setting in study.settings
        if setting != study.reference
    ]
    return (
        f"{markdown_table(['codec', *(METRICS[name].head.rstrip(' ↑↓') for name in names)], lines)}\n\n{_caption(rows)}"
    )


def _bd_cell(study: Study, setting: Setting, metric: str) -> str:
    """Mean over the images and its standard error, in percent of the bytes, where most of the images have one."""
    found = study.bd_rate(setting, metric)
    if found is None or found.per_image.rate is None or not found.per_image.is_of_most:
        return "–"
    each = found.per_image
    error = "" if each.sigma is None else f" ± {each.sigma:.1f}"
    fewer = "" if each.defined == each.total else f" ({each.defined})"
    return f"{each.rate:+.1f}{error}{fewer}"


def _caption(rows: Sequence[Row]) -> str:
    """How many images, and of each codec which version."""
    versions = dict.fromkeys((_library(row.codec), row.version) for row in rows)
    words = ", ".join(f"{codec} {version}" for codec, version in versions)
    return f"{len({row.image_id for row in rows})} images; {words}."


def _library(codec: str) -> str:
    """The title of a codec, whatever its options."""
    anchor = find(codec)
    return "AVIF" if anchor is not None and anchor.avif is not None else title_of(codec)


def _speed(files: Sequence[Path]) -> str:
    content = json.loads(files[0].read_text(encoding="utf-8"))
    measures = [Measure(**{k: v for k, v in row.items() if k != "ratio"}) for row in content["measures"]]
    place = content["environment"]
    size = f"{content['width']}×{content['height']}"
    return f"{speed_table(measures)}\n\n{size}; {place['cpu']}, {place['threads']} threads; medians."


def _sizes(files: Sequence[Path]) -> str:
    rows = read_sizes(files[0])
    kinds = {f"{row.cpu_kind}, {row.threads} threads of torch" for row in rows}
    return f"{sizes_table(rows)}\n\n{'; '.join(sorted(kinds))}."


def _uncertainty(files: Sequence[Path]) -> str:
    rows = read_spreads(files[0])
    versions = dict.fromkeys(f"{row.codec} {row.version}" for row in rows)
    return f"{spread_table(rows)}\n\n{', '.join(versions)}."


def _scale(files: Sequence[Path]) -> str:
    rows = read_scale(files[0])
    return f"{scale_table(rows)}\n\n{', '.join(dict.fromkeys(row.cpu_kind for row in rows))}."


_KINDS: dict[str, Callable[..., str]] = {
    "equal-bytes": _equal_bytes,
    "against": _against,
    "bd": _bd,
    "speed": _speed,
    "sizes": _sizes,
    "uncertainty": _uncertainty,
    "scale": _scale,
}
