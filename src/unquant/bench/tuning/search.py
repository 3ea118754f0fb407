"""The search for the best way to drive the reverse path, and the weights file with it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from unquant.bench.metrics.base import to_tensor
from unquant.bench.run.store import finite
from unquant.bench.tuning.decoding import rate_indices
from unquant.bench.tuning.judge import Judge, Table, load_pictures
from unquant.bench.tuning.setting import DRIVE, Setting
from unquant.codecs.ratevar import RatevarCodec
from unquant.errors import InputError, OptionError
from unquant.files import check_target
from unquant.networks.ratevar import Ratevar
from unquant.weights_file import Weights, read_weights, write_weights

__all__ = ["Tuned", "run_tuning", "tune", "write_tuned"]

_WORTH = 0.995
"""A setting that takes more steps must bring the score below this share of the best so far."""


class Tuned(NamedTuple):
    """What a search found: the best setting, and the figures of all that were tried."""

    setting: Setting
    table: Table

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: `setting` and `table`, a list of rows with `q_index`, `setting` and the figures by name."""
        rows = [
            {
                "q_index": index,
                "setting": asdict(setting),
                **{name: finite(value) for name, value in f._asdict().items()},
            }
            for (index, setting), f in self.table.items()
        ]
        return {"setting": asdict(self.setting), "table": rows}


def tune(
    model: Ratevar,
    pictures: Sequence[Image.Image],
    bpps: Sequence[float],
    metrics: Path | None = None,
    echo: Callable[[str], Any] = print,
) -> Tuned:
    """The best way to drive the model's reverse network: one choice after another, each with the best so far.

    Steps (more only if they pay), schedule of q, randomness, τ and projection at ρ = 1, at last the default ρ; a tie stays
    with what was there. The sampler is that of the configuration, which goes with the training. The table also has the
    decodes without the path, at ρ = 0 and 1, to compare with; at ρ = 0 a joint network is in it. metrics: as in `Judge`.
    echo: called with one line per setting, its score first. Raises OptionError for a model without reverse network and as
    `rate_indices`, ModelMissing as `Judge`.
    """
    start = model.config.reverse
    if start is None:
        raise OptionError("these weights have no reverse network: there is nothing to tune")
    judge = Judge(model, pictures, metrics)
    for note in judge.notes:
        echo(note)
    indices = rate_indices(model, [to_tensor(picture) for picture in pictures], bpps)
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

    score(Setting(0.0, start if start.joint else None))
    score(Setting(1.0, None))
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
        drive = {name: getattr(setting.reverse, name) for name in DRIVE}
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
