"""The report's tables and sentences: what the template prints, ready to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from unquant.bench.analysis.published import Point
from unquant.bench.analysis.study import Setting, Study
from unquant.bench.metrics import METRICS
from unquant.bench.report.figures import colour
from unquant.bench.run.rows import Row
from unquant.bench.subjects import anchors
from unquant.bench.tables import number

__all__ = [
    "Cell",
    "Table",
    "bd_table",
    "caveats",
    "codec_list",
    "command_of",
    "difference_tables",
    "environment_lists",
    "facts",
    "headline",
    "number_table",
    "plain_table",
    "published_table",
    "short",
    "time_table",
    "trained_for",
    "verdict",
    "winner_table",
    "winners",
]

TRAINED_FOR = {
    "ratevar": ("lpips_alex", "lpips_alex_cut", "dists"),
    "cdc": ("lpips_alex", "lpips_alex_cut"),
    "av1": ("lpips_alex", "lpips_alex_cut", "dists"),
}
"""Perceptual metrics that are a loss of a model's training, see docs/model-card.md."""
MARK = "†"


class Cell(NamedTuple):
    """small: a second line. note: shown when pointed at. look: CSS classes. dot: a colour before the text."""

    text: str
    small: str = ""
    note: str = ""
    look: str = ""
    dot: str = ""


class Table(NamedTuple):
    """Rows in groups; a group has a heading, or "". The first cell of a row is its heading."""

    header: list[Cell]
    groups: list[tuple[str, list[list[Cell]]]]
    caption: str = ""


def trained_for(study: Study) -> dict[str, list[str]]:
    """The measured metrics that each model here was trained for."""
    codecs = dict.fromkeys(setting.codec for setting in study.models)
    found = {codec: [name for name in TRAINED_FOR.get(codec, ()) if name in study.metrics] for codec in codecs}
    return {codec: names for codec, names in found.items() if names}


def short(metric: str) -> str:
    """The title of a metric without its unit, for sentences."""
    return METRICS[metric].title.split(", ")[0]


def _metric(study: Study, name: str) -> Cell:
    info = METRICS[name]
    arrow = {"higher": " ↑", "lower": " ↓", "one": " → 1"}[info.better]
    trained = [codec for codec, names in trained_for(study).items() if name in names]
    note = f"{', '.join(trained)} was trained for this metric" if trained else ""
    return Cell(info.title + arrow + (f" {MARK}" if trained else ""), note=note)


def headline(study: Study) -> str:
    """What is compared, in one line."""
    models = list(dict.fromkeys(setting.codec for setting in study.models))
    anchors = list(dict.fromkeys(setting.name for setting in study.settings if not setting.is_model))
    sizes = " at equal bytes" if study.equal_targets else ""
    if models and anchors:
        return f"{_listed(models)} against {_listed(anchors)}{sizes}"
    return _listed(models or anchors) + sizes


def facts(study: Study, dataset: str | None) -> str:
    """Images, sizes and rates in one sentence."""
    sizes = Counter(f"{row.width}×{row.height}" for row in {row.image_id: row for row in study.rows}.values())
    size = next(iter(sizes)) if len(sizes) == 1 else f"{len(sizes)} sizes, most often {sizes.most_common(1)[0][0]}"
    count = len(study.images)
    images = f"{count} image{'s' * (count > 1)}{f' of the data set {dataset}' if dataset else ''} ({size} pixels)"
    targets = study.equal_targets or study.targets
    rates = targets[0] if len(targets) == 1 else f"{len(targets)} rates, {targets[0]} to {targets[-1]}"
    return f"{images}, {rates}; a rate is the size of the whole file on disk."


def winners(study: Study) -> dict[str, dict[str, str]]:
    """The name of the best setting by metric and target, where there are at least two to compare."""
    best = {name: {target: study.best(name, target) for target in study.equal_targets} for name in study.metrics}
    return {name: {t: b.setting.name for t, b in found.items() if b} for name, found in best.items()}


def verdict(study: Study) -> list[str]:
    """Who is best at most rates, metric by metric: one sentence for each winner."""
    found: dict[str, list[str]] = {}
    trained = {metric for names in trained_for(study).values() for metric in names}
    for metric, targets in winners(study).items():
        if targets:
            name, count = Counter(targets.values()).most_common(1)[0]
            at = "" if count == len(targets) else f" ({count} of {len(targets)} rates)"
            found.setdefault(name, []).append(short(metric) + f" {MARK}" * (metric in trained) + at)
    order = [setting.name for setting in study.settings]
    return [f"{name}: best in {_listed(found[name])}." for name in sorted(found, key=order.index)]


def winner_table(study: Study) -> Table:
    """A row a metric, a column a target: the best setting and its mean."""
    rows: list[list[Cell]] = []
    for metric in study.metrics:
        cells = [_metric(study, metric)]
        for target in study.equal_targets:
            best = study.best(metric, target)
            if best is None:
                cells.append(Cell("–", "no two codecs", "fewer than two codecs met this size on half of the images"))
                continue
            value = number(best.value, METRICS[metric].digits)
            fewer = f", {best.images} images" if best.images < len(study.images) else ""
            look = "ours" if best.setting.is_model else ""
            cells.append(Cell(best.setting.name, value + fewer, look=look, dot=colour(best.setting.codec)))
        rows.append(cells)
    return Table([Cell(""), *(Cell(target) for target in study.equal_targets)], [("", rows)])


def bd_table(study: Study) -> Table | None:
    """A row a setting, a column a metric; None without a reference."""
    metrics = [name for name in study.metrics if METRICS[name].better != "one"]
    if study.reference is None or not metrics:
        return None
    rows = [
        [Cell(setting.name, dot=colour(setting.codec)), *(_bd_cell(study, setting, name) for name in metrics)]
        for setting in study.settings
        if setting != study.reference
    ]
    return Table([Cell(""), *(_metric(study, name) for name in metrics)], [("", rows)])


def _bd_cell(study: Study, setting: Setting, metric: str) -> Cell:
    found = study.bd_rate(setting, metric)
    if found is None:
        return Cell("–")
    each, means = found
    if means.rate is not None:
        small = f"means {_signed(means.rate, 1)} %"
        overlap = f"curves of means share {means.overlap:.0%} of their range"
    else:
        small, overlap = "means –", f"curves of means: {means.reason}"
    if each.rate is None or 2 * each.defined < each.total:
        only = f"{each.defined} of {each.total} images only" if each.defined else ""
        return Cell(
            "–", small if means.rate is not None else only or each.reason, f"{only} {each.reason}; {overlap}".strip()
        )
    shares = f"{each.defined} of {each.total} images" if each.defined < each.total else ""
    error = f" ± {each.sigma:.1f}" if each.sigma is not None else ""
    note = f"mean of {each.defined} images{error}; their curves share {each.overlap:.0%} of their range; {overlap}"
    note += f"; the others: {each.reason}" if each.reason else ""
    look = "good" if each.rate < 0 else "bad"
    return Cell(f"{_signed(each.rate, 1)} %", "; ".join(filter(None, [shares, small])), note, look)


def difference_tables(study: Study) -> list[tuple[str, Table]]:
    """For each setting of a model: every image against the reference, the best first."""
    tables: list[tuple[str, Table]] = []
    for setting in study.models:
        rows: list[list[Cell]] = []
        for each in study.differences(setting):
            cells = [Cell(each.image), Cell(str(each.targets))]
            for name in study.metrics:
                info, value = METRICS[name], each.scores.get(name)
                better = {"higher": 1, "lower": -1, "one": 0}[info.better] * (value or 0)
                text = "–" if value is None else _signed(value, info.digits)
                cells.append(Cell(text, look="good" if better > 0 else "bad" if better < 0 else ""))
            rows.append(cells)
        header = [Cell("image"), Cell("rates"), *(_metric(study, name) for name in study.metrics)]
        if rows:
            tables.append((setting.name, Table(header, [("", rows)])))
    return tables


def time_table(study: Study) -> Table | None:
    """Ratios to the reference's seconds, with the seconds; None where nothing was timed."""
    rows: list[list[Cell]] = []
    for setting in study.settings:
        seconds = study.seconds(setting)
        if seconds.encode is None and seconds.decode is None:
            continue
        cells = [Cell(setting.name, dot=colour(setting.codec))]
        for ratio, value in ((seconds.encode_ratio, seconds.encode), (seconds.decode_ratio, seconds.decode)):
            text = "–" if ratio is None else f"{ratio:.3g} ×"
            cells.append(Cell(text, "not timed" if value is None else f"{value:.3g} s"))
        rows.append(cells)
    return Table([Cell(""), Cell("encode"), Cell("decode")], [("", rows)]) if rows else None


def number_table(study: Study) -> Table:
    """Means over the images: a group a target, a row a setting."""
    header = [Cell("means over the images"), Cell("images"), Cell("met"), Cell("bpp")]
    groups: list[tuple[str, list[list[Cell]]]] = []
    for target in study.targets:
        lines: list[list[Cell]] = []
        for setting in study.settings:
            rows = list(study.at(setting, target).values())
            if not rows:
                continue
            met = sum(row.reached for row in rows)
            values = [number(study.mean(setting, target, name), METRICS[name].digits) for name in study.metrics]
            bpp = sum(row.bpp for row in rows) / len(rows)
            head = [Cell(setting.name), Cell(str(len(rows))), Cell(str(met), look="bad" if met < len(rows) else "")]
            lines.append([*head, Cell(f"{bpp:.3f}"), *map(Cell, values)])
        groups.append((target, lines))
    return Table([*header, *(_metric(study, name) for name in study.metrics)], groups)


def published_table(points: Sequence[Point]) -> Table | None:
    """Every value of the points that match, as it was published."""
    metrics = list(dict.fromkeys(name for point in points for name in point.scores))
    header = ["codec", "bpp", *(METRICS[name].title if name in METRICS else name for name in metrics), "source"]
    rows = [
        [Cell(p.codec), Cell(f"{p.bpp:.4g}"), *(Cell(_short(p.scores.get(name))) for name in metrics), Cell(p.source)]
        for p in points
    ]
    return Table([*map(Cell, header)], [("", rows)]) if rows else None


def plain_table(entries: Iterable[Mapping[str, Any]]) -> Table | None:
    """Any list of flat records with one set of names."""
    found = list(entries)
    names = list(dict.fromkeys(name for entry in found for name in entry))
    rows = [[Cell(_short(entry.get(name))) for name in names] for entry in found]
    return Table([Cell(name) for name in names], [("", rows)]) if rows else None


def codec_list(study: Study) -> list[tuple[str, str]]:
    """Every codec with its version, an anchor with its settings."""
    found: dict[tuple[str, str], str] = {}
    for setting in study.settings:
        anchor = anchors.find(setting.codec)
        options = ", ".join(f"{name} {value}" for name, value in anchor.settings.items()) if anchor else ""
        title = anchor.title if anchor else setting.codec
        found[title, setting.version] = "; ".join(filter(None, [setting.version, options]))
    return [(title, words) for (title, _), words in found.items()]


def environment_lists(environments: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Names and values of each environment; what is nested on one line."""

    def words(value: object) -> str:
        if isinstance(value, Mapping):
            pairs = cast(Mapping[object, object], value).items()
            return ", ".join(f"{name} {item}" for name, item in pairs if item is not None) or "–"
        return "–" if value is None else str(value)

    return [(name, [(key, words(value)) for key, value in place.items()]) for name, place in environments.items()]


def command_of(study: Study, published: str | None = None) -> str:
    """The command that measures the same settings again. published: the name of the CSV file of points."""
    searched = [row for row in study.rows if row.target_bpp is not None]
    fixed = [row for row in study.rows if row.target_bpp is None]
    bpps = sorted({row.target_bpp for row in searched if row.target_bpp is not None})
    qualities = sorted({row.quality for row in fixed if row.quality is not None})
    indices = sorted({row.q_index for row in fixed if row.quality is None and row.q_index is not None})
    realisms, steps = (
        sorted({v for setting in study.models if (v := getattr(setting, name)) is not None})
        for name in ("realism", "steps")
    )
    options: dict[str, list[Any]] = {
        "at-bpp": bpps,
        "quality": qualities,
        "q-index": indices,
        "realism": realisms,
        "steps": steps,
    }
    words = [f"--{name} {','.join(f'{value:g}' for value in values)}" for name, values in options.items() if values]
    codecs = ",".join(dict.fromkeys(setting.codec for setting in study.settings))
    metrics = ",".join(dict.fromkeys(name for row in study.rows for name in row.scores)) or "none"
    words += [f"--published {published}"] if published else []
    return " ".join(["unquant bench IMAGES", f"--codecs {codecs}", *words, f"--metrics {metrics}"])


def caveats(study: Study) -> list[str]:
    """What the figures do not say, and what flatters whom."""
    lines: list[str] = []
    for codec, names in trained_for(study).items():
        others = [short(name) for name in study.metrics if name not in names]
        titles = _listed([short(name) for name in names])
        lines.append(
            f"{codec} was trained with {titles} as a loss, at realism 1 above all: they flatter it. "
            f"Read them beside {_listed(others)}, set distances and the pictures."
        )
    if any((setting.realism or 0) > 0 for setting in study.models):
        lines.append(
            "At high realism detail is invented: it may look right and be wrong. No metric here tells whether lettering, "
            "faces or numbers are those of the original."
        )
    missed = sorted({setting.name for setting in study.settings for row in _rows(study, setting) if not row.reached})
    if missed:
        lines.append(
            f"Some images cannot be made as small as asked for ({_listed(missed)}): the curves hold their smallest files at "
            "the rate that these have, comparisons at equal bytes leave them out."
        )
    lines.append("Conventional codecs aim at fidelity, as PSNR and MS-SSIM measure it, at the settings below.")
    if len(study.images) < 20:
        lines.append(f"{len(study.images)} images are few: differences between neighbouring codecs may be chance.")
    return lines


def _rows(study: Study, setting: Setting) -> list[Row]:
    return [row for target in study.equal_targets for row in study.at(setting, target).values()]


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _short(value: object) -> str:
    return "–" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
