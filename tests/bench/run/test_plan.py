"""What is to be measured: no setting twice, keys that follow what a result depends on, names that are resolved or refused."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from unquant.bench.run import plan
from unquant.bench.run.plan import Decoding, Plan, Request, Subject, file_key, resolve, row_key
from unquant.bench.subjects import anchors
from unquant.codecs import registry
from unquant.errors import ModelMissing, OptionError

MODEL = Subject("ratevar", "ratevar", "1-2-3", "f0", is_model=True)
AV1 = replace(MODEL, name="av1", has_q_index=False)
JPEG = Subject("jpeg", "jpeg", "3.0", "f1", is_model=False)


def test_every_file_once_by_target_then_codec() -> None:
    made = Plan((MODEL, JPEG), bpps=(0.1, 0.2, 0.1), q_indices=(40,), metrics=("psnr",))
    assert made.files() == [
        (MODEL, Request(bpp=0.1)),
        (JPEG, Request(bpp=0.1)),
        (MODEL, Request(bpp=0.2)),
        (JPEG, Request(bpp=0.2)),
        (MODEL, Request(q_index=40)),
    ]
    assert len(list(made.items())) == 3 * 2 + 2
    assert replace(made, subjects=(AV1, JPEG)).files() == [
        (subject, Request(bpp=bpp)) for bpp in (0.1, 0.2) for subject in (AV1, JPEG)
    ]


def test_qualities_are_those_that_a_codec_has() -> None:
    asked = Plan((MODEL, JPEG), qualities=(0, 1, 49.7, 50)).files()
    assert [request.quality for subject, request in asked if subject is JPEG] == [1, 50]
    assert [request.quality for subject, request in asked if subject is MODEL] == [0, 1, 49.7, 50]


def test_steps_are_for_models_at_realism_above_0() -> None:
    made = Plan((MODEL, JPEG), bpps=(0.1,), realisms=(0, 1), steps=(0, 2), metrics=("psnr",))
    assert made.decodings(MODEL) == [Decoding(0, None), Decoding(1, 0), Decoding(1, 2)]
    assert made.decodings(JPEG) == [Decoding()]
    assert replace(made, metrics=()).decodings(MODEL) == [Decoding()]
    # the decoder of cdc takes steps at every realism
    always = replace(MODEL, always_steps=True)
    assert made.decodings(always) == [Decoding(0, 0), Decoding(0, 2), Decoding(1, 0), Decoding(1, 2)]
    assert replace(made, steps=()).decodings(MODEL) == [Decoding(0, None), Decoding(1, None)]


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ({"bpps": (0.1, -1)}, "not -1"),
        ({"qualities": (101,)}, "0..100, not 101"),
        ({"q_indices": (-3,)}, "q index"),
        ({"bpps": (1,), "realisms": (1.5,)}, "realism"),
        ({"bpps": (1,), "realisms": ()}, "at least one realism"),
        ({"bpps": (1,), "steps": (-1,)}, "steps"),
        ({}, "nothing to measure"),
        ({"subjects": (JPEG,), "q_indices": (5,)}, "nothing to measure"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict, cause: str) -> None:
    with pytest.raises(OptionError, match=cause):
        Plan(**{"subjects": (MODEL,), **wrong})


def test_keys_follow_picture_codec_and_setting() -> None:
    request = Request(bpp=0.1)
    key = file_key("a", MODEL, request)
    assert key == file_key("a", replace(MODEL, name="renamed", version="another name"), request)
    others = [
        file_key("b", MODEL, request),
        file_key("a", replace(MODEL, fingerprint="f9"), request),
        file_key("a", MODEL, Request(bpp=0.2)),
        file_key("a", MODEL, Request(quality=0.1)),
    ]
    rows = [row_key(key, each) for each in (Decoding(), Decoding(0.0), Decoding(1.0), Decoding(1.0, 1))]
    assert len({key, *others, *rows}) == 9
    assert all(len(each) == 20 for each in rows)


def test_names_are_resolved(tiny_weights: Path) -> None:
    found, notes = resolve(["jpeg", str(tiny_weights), "jpeg"])
    assert [(each.name, each.is_model) for each in found] == [("jpeg", False), ("tiny", True)]
    assert notes == []
    assert found[1].version == registry.find_model(str(tiny_weights)).weights_id
    assert found[0].version == anchors.ANCHORS["jpeg"].version


def test_two_weights_of_one_name_stay_apart(tiny_weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / tiny_weights.name
    shutil.copy(tiny_weights, copy)
    found, _ = resolve([str(tiny_weights), str(copy)])
    assert [each.name for each in found] == ["tiny", str(copy)]
    assert found[0].fingerprint == found[1].fingerprint
    copy.write_bytes(copy.read_bytes().replace(b'"training"', b'"Training"'))
    assert plan.hashlib.sha256(copy.read_bytes()).hexdigest() not in found[0].fingerprint


def test_the_default_is_av1_and_every_anchor(shipped_av1_weights: Path) -> None:
    found, notes = resolve([])
    assert [each.name for each in found] == ["av1", *(n for n in anchors.ANCHORS if not anchors.missing(n))]
    assert len(found) + len(notes) == 1 + len(anchors.ANCHORS)


def test_names_that_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no codec is called 'gif'; there are jpeg, webp"):
        resolve(["jpeg", "gif"])
    with pytest.raises(ModelMissing, match=r"gone\.safetensors"):
        resolve(["jpeg", str(tmp_path / "gone.safetensors")])
    monkeypatch.setattr(registry, "SHIPPED_FOLDER", tmp_path)
    monkeypatch.delenv(registry.FOLDER_VARIABLE, raising=False)
    with pytest.raises(ModelMissing, match="'av1'"):
        resolve([])


def test_plugins_that_are_not_there_are_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    found, (note,) = resolve(["jpeg", "heic"])
    assert [each.name for each in found] == ["jpeg"]
    assert "install pillow-heif; left out" in note
    with pytest.raises(OptionError, match=r"no codec is left.*install pillow-heif"):
        resolve(["heic"])
