"""The report's sentences, and what it says of how all was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from unquant.bench.analysis.study import Setting, Study
from unquant.bench.metrics import METRICS
from unquant.bench.report.tables import MARK
from unquant.bench.run.rows import Row
from unquant.bench.subjects.anchors import find

__all__ = ["caveats", "codec_list", "command_of", "environment_lists", "facts", "headline", "verdict", "winners"]


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
    trained = {metric for names in study.trained_for.values() for metric in names}
    for metric, targets in winners(study).items():
        if targets:
            name, count = Counter(targets.values()).most_common(1)[0]
            at = "" if count == len(targets) else f" ({count} of {len(targets)} rates)"
            found.setdefault(name, []).append(METRICS[metric].title + f" {MARK}" * (metric in trained) + at)
    order = [setting.name for setting in study.settings]
    return [f"{name}: best in {_listed(found[name])}." for name in sorted(found, key=order.index)]


def codec_list(study: Study) -> list[tuple[str, str]]:
    """Every codec with its version, an anchor with its settings."""
    found: dict[tuple[str, str], str] = {}
    for setting in study.settings:
        anchor = find(setting.codec)
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
    for codec, names in study.trained_for.items():
        others = [METRICS[name].title for name in study.metrics if name not in names]
        titles = _listed([METRICS[name].title for name in names])
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


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
