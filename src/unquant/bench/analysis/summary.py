"""Means over the images, as data and as a table; what has to be said beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from unquant.bench.analysis.tables import markdown_table, number
from unquant.bench.metrics import METRICS
from unquant.bench.metrics.sets.kinds import KINDS
from unquant.bench.run.rows import Row

__all__ = ["Group", "footnotes", "means", "table", "violations"]


@dataclass(frozen=True)
class Group:
    """Means over the images of one codec at one setting.

    n: how many images; missing: those that other groups have and this one lacks. unreached: how many files are larger than
    the target; below: how many are more than a tenth under it. scores: by metric, None where no image has one; measured:
    how many images have one. encode_s, decode_s: seconds, None where no image was timed.
    """

    target: str
    setting: str
    codec: str
    realism: float | None
    steps: int | None
    n: int
    bpp: float
    bytes: float
    encode_s: float | None
    decode_s: float | None
    scores: Mapping[str, float | None]
    measured: Mapping[str, int]
    missing: tuple[str, ...] = ()
    unreached: int = 0
    below: int = 0

    def flat(self) -> dict[str, Any]:
        """The group as JSON holds it."""
        return asdict(self)


def means(rows: Sequence[Row]) -> list[Group]:
    """A group for every codec and setting, in the order of their first rows."""
    images = {row.image_id: row.image for row in rows}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.target, row.setting), []).append(row)
    return [_group(group, images) for group in groups.values()]


def _group(rows: Sequence[Row], images: Mapping[str, str]) -> Group:
    first, found = rows[0], {row.image_id for row in rows}
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    values = {name: [v for row in rows if (v := row.scores.get(name)) is not None] for name in names}
    return Group(
        target=first.target,
        setting=first.setting,
        codec=first.codec,
        realism=first.realism,
        steps=first.steps,
        n=len(rows),
        bpp=fmean(row.bpp for row in rows),
        bytes=fmean(row.bytes for row in rows),
        encode_s=_mean([row.encode_s for row in rows]),
        decode_s=_mean([row.decode_s for row in rows]),
        scores={name: _mean(values[name]) for name in names},
        measured={name: len(values[name]) for name in names},
        missing=tuple(name for image, name in images.items() if image not in found),
        unreached=sum(not row.reached for row in rows),
        below=sum(row.target_bpp is not None and row.bpp < 0.9 * row.target_bpp for row in rows),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


def table(rows: Sequence[Row], metrics: Sequence[str], distances: Mapping[str, Any] | None = None) -> str:
    """The means as a Markdown table, a line for every target, codec and decode.

    metrics: by name. distances: between the sets, as `metrics.sets.distances.Results.flat` gives them.
    """
    groups = means(rows)
    with_steps = any(group.steps is not None for group in groups)
    with_realism = any(group.realism is not None for group in groups)
    sets = {(d["kind"], d["target"], d["setting"]): d["value"] for d in (distances or {}).get("distances", ())}
    kinds = [KINDS[name] for name in dict.fromkeys(name for (name, _, _), value in sets.items() if value is not None)]
    header = ["target", "codec", *(["realism"] if with_realism else []), *(["steps"] if with_steps else []), "bpp"]
    header += [*(METRICS[name].label for name in metrics), *(kind.title for kind in kinds)]
    lines: list[list[str]] = []
    for group in groups:
        line = [group.target, group.codec]
        line += ["–" if group.realism is None else f"{group.realism:g}"] if with_realism else []
        line += [number(group.steps, 0)] if with_steps else []
        line += [f"{group.bpp:.4f}" + ("*" if group.unreached else "") + ("°" if group.missing else "")]
        line += [number(group.scores.get(name), METRICS[name].digits) for name in metrics]
        for kind in kinds:
            value = sets.get((kind.name, group.target, group.setting))
            line.append(number(None if value is None else kind.scale * value, 2))
        lines.append(line)
    return markdown_table(header, lines)


def footnotes(rows: Sequence[Row]) -> list[str]:
    """What a reader of the means must know: targets that were not met, images that are not in them; a line for each kind."""
    groups = means(rows)
    files = _files_of(groups)
    unreached = [f"{each.codec} at {each.target} ({each.unreached} of {each.n})" for each in files if each.unreached]
    below = [f"{each.codec} at {each.target} ({each.below} of {each.n})" for each in files if each.below]
    lacking = [
        f"{group.setting} at {group.target} ({', '.join(group.missing[:3])}{' …' if len(group.missing) > 3 else ''})"
        for group in groups
        if group.missing
    ]
    partly = [
        f"{name} of {group.setting} at {group.target} ({count} of {group.n})"
        for group in groups
        for name, count in group.measured.items()
        if 0 < count < group.n
    ]
    kinds = {
        "* target not reached, the smallest file counts": unreached,
        "more than 10% below the target": below,
        "° images missing": lacking,
        "means of some images only": partly,
    }
    return [f"{kind}: {', '.join(found)}" for kind, found in kinds.items() if found]


def _files_of(groups: Iterable[Group]) -> list[Group]:
    """One group for every codec and target: its decodes share their files."""
    found: dict[tuple[str, str], Group] = {}
    for group in groups:
        found.setdefault((group.codec, group.target), group)
    return list(found.values())


def violations(rows: Iterable[Row]) -> list[str]:
    """Where a file grew although the q index rose, one sentence each; empty if the rate is monotonic."""
    sizes: dict[tuple[str, str, str], dict[int, int]] = {}
    for row in rows:
        if row.q_index is not None:
            sizes.setdefault((row.image_id, row.image, row.codec), {})[row.q_index] = row.bytes
    return [
        f"{image}, {codec}: {after} bytes at q index {high}, more than {before} at {low}"
        for (_, image, codec), steps in sizes.items()
        for (low, before), (high, after) in pairwise(sorted(steps.items()))
        if after > before
    ]
