"""Metrics, orders, signals, and the moving average."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from unquant.train.ema import Ema
from unquant.train.journal import Journal, StopSwitch, Window


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_json_and_told_in_words(tmp_path: Path) -> None:
    told: list[str] = []
    with Journal(tmp_path / "m.jsonl", told.append) as journal:
        journal.write("train", {"step": 3, "loss": 1.23456, "bpp": math.nan, "recipe": {"lr": 1}})
    assert rows(tmp_path / "m.jsonl") == [
        {"kind": "train", "step": 3, "loss": 1.23456, "bpp": None, "recipe": {"lr": 1}}
    ]
    assert told == ["kind=train step=3 loss=1.235 bpp=nan"]


def test_a_line_cut_off_by_a_crash_goes(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"kind": "train", "step": 1}\n{"kind": "tra')
    with Journal(path, print) as journal:
        journal.write("train", {"step": 2})
    assert [row["step"] for row in rows(path)] == [1, 2]


def test_other_devices_write_nothing() -> None:
    told: list[str] = []
    with Journal(None, told.append) as journal:
        journal.write("train", {"step": 2})
    assert told == []


def test_means_leave_out_steps_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0])
    monkeypatch.setattr("unquant.train.journal.time.monotonic", lambda: next(clock))
    window = Window()
    for loss, grad in ((1.0, 2.0), (math.nan, math.nan), (3.0, 4.0), (9.0, math.inf)):
        window.add({"loss": torch.tensor(loss), "grad": torch.tensor(grad)})
    window.pause(6.0)
    means, skipped, rate = window.close(108.0)
    assert means == {"loss": 2.0, "grad": 3.0}
    assert (skipped, rate, len(window)) == (2, 2.0, 0)
    assert window.close(109.0) == ({}, 0, 0.0)


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ('{"stop": true}', True),
        ('{"stop": false}', False),
        ("{}", False),
        ('{"stop": tr', False),
        ("[1]", False),
        ('{"stop": "no"}', False),
    ],
)
def test_orders(tmp_path: Path, text: str, stops: bool) -> None:
    stop = StopSwitch(tmp_path)
    assert not stop.ordered()
    stop.path.write_text(text)
    assert stop.ordered() == stops
    stop.obeyed()
    assert stop.path.exists() != stops


def test_a_signal_ends_the_run_in_good_order_and_a_second_one_at_once(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSwitch(tmp_path) as stop:
        assert not stop.signalled
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signalled
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with StopSwitch(tmp_path):
        pass
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_signals_are_left_alone_outside_the_main_thread(tmp_path: Path) -> None:
    seen: list[object] = []

    def look() -> None:
        with StopSwitch(tmp_path):
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]


def test_average_warms_up_and_then_keeps_its_decay() -> None:
    ema = Ema(nn.Linear(1, 1), 0.9)
    assert ema.decay_at(0) == 0
    assert ema.decay_at(1) == pytest.approx(2 / 11)
    assert ema.decay_at(20) == pytest.approx(21 / 30)
    assert ema.decay_at(1000) == 0.9


def test_average_is_what_torch_would_keep_under_the_same_names() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    ema = Ema(model, 0.5)

    def update(average: torch.Tensor, current: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        return average.lerp(current, 1 - ema.decay_at(int(count)))

    reference = AveragedModel(model, avg_fn=update)
    for _ in range(8):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p))
        ema.update(model)
        reference.update_parameters(model)
    state = ema.state_dict()
    assert state.keys() == reference.state_dict().keys()
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(state[name], value)
    assert not any(p.requires_grad for p in ema.parameters())
    assert not ema.module.training


def test_first_update_copies() -> None:
    model = nn.Linear(2, 2)
    ema = Ema(model, 0.999)
    with torch.no_grad():
        model.weight.fill_(7)
    ema.update(model)
    assert ema.module.weight.eq(7).all()
