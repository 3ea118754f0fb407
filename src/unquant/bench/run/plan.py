"""What to measure: codecs × sizes or settings × decodes, and the keys under which results are kept.

names ──►┤resolve├──► subjects ──┐
lists of rates, qualities, … ────┴──► Plan ──►┤files, items├──► one key a file, one key a row
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import unquant
from unquant.bench.run.environment import code_id
from unquant.bench.subjects import anchors
from unquant.codecs import models
from unquant.codecs.registry import DEFAULT_MODEL, find_model
from unquant.errors import OptionError
from unquant.families import FAMILIES, family_of

__all__ = ["DEFAULT_BPP", "MODEL", "Decoding", "Item", "Plan", "Request", "Subject", "file_key", "resolve", "row_key"]

DEFAULT_BPP = (0.1, 0.15, 0.2, 0.3, 0.4, 0.6)
MODEL = DEFAULT_MODEL
_FORMAT = 1  # of what is kept; raise it where an old result must not be taken for a new one


class Request(NamedTuple):
    """How a file is asked for: exactly one is given. bpp: bits per pixel; quality: the codec's own; q_index: a model's."""

    bpp: float | None = None
    quality: float | None = None
    q_index: int | None = None


class Decoding(NamedTuple):
    """How a file is decoded. realism: in [0, 1], steps: of the reverse path; None: there is none, or the model's own."""

    realism: float | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Subject:
    """A codec to be measured. name: in the rows; source: what loads it, the name of an anchor or of a model or a path.

    version: the weights id of a model, the library's version of an anchor. fingerprint: all that its results depend on
    beside the picture and the setting. always_steps: whether a model's decode takes steps at realism 0 as well. has_q_index:
    whether a model can be asked for a quantiser step; of the others' files it does not order the sizes.
    """

    name: str
    source: str
    version: str
    fingerprint: str
    is_model: bool
    always_steps: bool = False
    has_q_index: bool = True

    @property
    def suffix(self) -> str:
        """Of the names of its files."""
        anchor = anchors.find(self.source)
        return ".unq" if anchor is None or self.is_model else anchor.suffix

    def nearest(self, quality: float) -> float:
        """The quality nearest to one in 0..100 that can be set."""
        anchor = anchors.find(self.source)
        return quality if anchor is None or self.is_model else anchor.nearest(quality)


class Item(NamedTuple):
    """What one row is about."""

    subject: Subject
    request: Request
    decoding: Decoding


@dataclass(frozen=True)
class Plan:
    """What to measure on each image.

    bpps: sizes, in bits per pixel, that every codec is brought to from below. qualities: in 0..100 on each codec's own scale.
    q_indices: quantiser steps, for models that take one. realisms: in [0, 1], for models. steps: of the decoder, for models
    (ratevar: at a realism above 0); empty: the model's own. metrics: by name; empty: nothing is decoded. Raises OptionError.
    """

    subjects: tuple[Subject, ...]
    bpps: tuple[float, ...] = ()
    qualities: tuple[float, ...] = ()
    q_indices: tuple[int, ...] = ()
    realisms: tuple[float, ...] = (0.0, 1.0)
    steps: tuple[int, ...] = ()
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = (
            ("sizes in bits per pixel must be above 0", self.bpps, lambda v: 0 < v < float("inf")),
            ("a quality lies in 0..100", self.qualities, lambda v: 0 <= v <= 100),
            ("a q index is at least 0", self.q_indices, lambda v: v >= 0),
            ("a realism lies in 0..1", self.realisms, lambda v: 0 <= v <= 1),
            ("steps are 0 or more", self.steps, lambda v: v >= 0),
        )
        for text, values, allowed in checks:
            wrong = [value for value in values if not allowed(value)]
            if wrong:
                raise OptionError(f"{text}, not {wrong[0]:g}")
        if not self.realisms:
            raise OptionError("at least one realism is needed")
        if not self.files():
            raise OptionError("nothing to measure: no rates and no settings, or settings of models without a model")

    def files(self) -> list[tuple[Subject, Request]]:
        """Every file of one image."""
        asked = [(subject, Request(bpp=bpp)) for bpp in self.bpps for subject in self.subjects]
        asked += [(subject, Request(quality=subject.nearest(q))) for q in self.qualities for subject in self.subjects]
        asked += [
            (subject, Request(q_index=q))
            for q in self.q_indices
            for subject in self.subjects
            if subject.is_model and subject.has_q_index
        ]
        return list(dict.fromkeys(asked))

    def decodings(self, subject: Subject) -> list[Decoding]:
        """How each of a codec's files is decoded; where realism 0 takes no steps, it stands once."""
        if not subject.is_model or not self.metrics:
            return [Decoding()]
        every = [
            Decoding(realism, n)
            for realism in self.realisms
            for n in (self.steps if realism or subject.always_steps else ()) or (None,)
        ]
        return list(dict.fromkeys(every))

    def items(self) -> Iterator[Item]:
        """Every row of one image, in the order of the results."""
        for subject, request in self.files():
            for decoding in self.decodings(subject):
                yield Item(subject, request, decoding)


def resolve(names: Sequence[str]) -> tuple[list[Subject], list[str]]:
    """The codecs of these names, and a note for each that cannot be used here. No names: the default model and every anchor.

    Raises OptionError for a name that is neither a codec nor a model, or if no codec remains; ModelMissing, WeightsError.
    """
    notes: list[str] = []
    found: dict[str, Subject] = {}
    for name in dict.fromkeys(names or (MODEL, *anchors.ANCHORS)):
        anchor = anchors.find(name)
        if anchor is None:
            subject = _model(name)
            found[subject.name if subject.name not in found else name] = subject
            continue
        problem = anchors.missing(name)
        if problem is not None:
            notes.append(f"{problem}; left out")
            continue
        found[name] = Subject(name, name, anchor.version, anchor.fingerprint, is_model=False)
    if not found:
        raise OptionError(f"no codec is left to measure: {' '.join(notes)}")
    return [replace(subject, name=name) for name, subject in found.items()], notes


def _model(name: str) -> Subject:
    is_path = name.endswith(".safetensors") or os.sep in name
    if not is_path and name not in FAMILIES:
        known = [*anchors.ANCHORS, *(model.name for model in models())]
        if name not in known:
            raise OptionError(f"no codec is called {name!r}; there are {', '.join(dict.fromkeys(known))}")
    info = find_model(name)
    # the weights id leaves out the configuration, and with it the schedule of the reverse path
    digest = hashlib.sha256(info.path.read_bytes()).hexdigest()
    fingerprint = f"{digest} {unquant.__version__} {code_id()}"
    title = Path(name).stem if is_path else name
    family = family_of(info.family)
    return Subject(
        title,
        name,
        info.weights_id,
        fingerprint,
        is_model=True,
        always_steps=family.always_steps,
        has_q_index=family.has_q_index,
    )


def file_key(image_id: str, subject: Subject, request: Request) -> str:
    """Names a file: hash of the picture, the codec with its version, and what was asked for."""
    return _key(image_id, subject.fingerprint, *request)


def row_key(file: str, decoding: Decoding) -> str:
    """Names a row: hash of its file's key and of how it is decoded."""
    return _key(file, *decoding)


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([_FORMAT, *parts]).encode()).hexdigest()[:20]
