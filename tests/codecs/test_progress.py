"""Codecs tell how far they are to whoever watches from the same thread, and to nobody else."""

from __future__ import annotations

import threading

import pytest
from PIL import Image

from unquant.codecs.av1 import Av1Codec
from unquant.codecs.interface import AnyCodec
from unquant.codecs.progress import counted, tell, watched

Steps = list[tuple[str, int, int | None]]


def test_watching() -> None:
    heard: Steps = []
    tell("before", 1)
    with watched(lambda *step: heard.append(step)):
        assert list(counted("ab", "letters", 2)) == ["a", "b"]
        other = threading.Thread(target=tell, args=("elsewhere", 1))
        other.start()
        other.join()
        with watched(lambda *step: None):
            tell("within", 1)
        tell("last", 3)
    tell("after", 1)
    assert heard == [("letters", 0, 2), ("letters", 1, 2), ("letters", 2, 2), ("last", 3, None)]


def test_a_large_picture_is_told_window_by_window(
    every: AnyCodec, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = photo.crop((0, 0, 200, 150))
    monkeypatch.setattr(type(every), "window", 8)
    heard: Steps = []
    with watched(lambda *step: heard.append(step)):
        data = every.encode(picture, quality=20)
        encoding = list(heard)
        heard.clear()
        every.decode(data)
    assert encoding
    windows = [step for step in heard if step[0] == "windows"]
    total = windows[0][2]
    assert total == 4  # 13 by 10 positions
    assert [step[1] for step in windows] == list(range(total + 1)) * (len(windows) // (total + 1))
    assert every.decode(data) == every.decode(data)


def test_trials_of_av1_are_counted(tiny_av1: Av1Codec, photo: Image.Image) -> None:
    heard: Steps = []
    with watched(lambda *step: heard.append(step)):
        tiny_av1.encode(photo.crop((0, 0, 64, 48)), target_bytes=600)
    trials = [done for stage, done, total in heard if stage == "trials of AV1" and total is None]
    assert len(trials) > 1
    assert trials == list(range(len(trials)))
