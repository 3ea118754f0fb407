"""One loaded codec in several processes: forked after use it hangs nowhere, spawned it gives the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from unquant.codecs import device
from unquant.codecs.interface import AnyCodec
from unquant.errors import OptionError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SCRIPT = """
import multiprocessing, os, signal, sys, threading, traceback
import numpy as np
import torch
from PIL import Image
import unquant.codecs

weights, picture = sys.argv[1:]

def result(given=None):
    codec = unquant.codecs.loaded(weights)
    data = codec.encode(Image.open(picture), quality=50)
    return data, np.asarray(codec.decode(given or data, realism=1)).astype(int)

def check(found):
    # another number of threads rounds otherwise, so that a symbol may differ, and a level in the picture of one file
    assert abs(len(found[0]) - len(expected[0])) <= 0.02 * len(expected[0]) + 8, (len(found[0]), len(expected[0]))
    assert np.abs(found[1] - expected[1]).mean() < 0.1, np.abs(found[1] - expected[1]).mean()

def in_child(run):
    pid = os.fork()
    if not pid:
        signal.alarm(200)  # what hangs is killed
        try:
            run()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0

def in_thread(run):
    failed = []
    def job():
        try:
            run()
        except BaseException as error:
            failed.append(error)
    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert not failed, failed

def once():
    check(result(expected[0]))

if __name__ == "__main__":
    torch.set_num_threads(2)
    expected = result()
    in_child(once)
    in_child(lambda: in_thread(once))
    in_thread(lambda: (once(), in_child(once)))
    with unquant.codecs._lock:  # as if another thread were loading
        in_child(once)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        check(pool.apply(result, expected[:1]))
    once()
    assert torch.get_num_threads() == 2
    print("ended")
"""


@pytest.mark.slow
def test_processes(every_weights: Path, photo: Image.Image, tmp_path: Path) -> None:
    picture, script = tmp_path / "a.png", tmp_path / "script.py"
    photo.crop((0, 0, 192, 128)).save(picture)
    script.write_text(SCRIPT)
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = [sys.executable, script, every_weights, picture]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert (done.stdout, done.returncode) == ("ended\n", 0), done.stderr


def test_a_device_is_not_forked(tiny: AnyCodec, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "device", torch.device("cuda:1"))
    monkeypatch.setattr(device.os, "getpid", lambda: -1)
    for run in (lambda: tiny.encode(photo), lambda: tiny.decode(b"")):
        with pytest.raises(OptionError, match=r"device 'cuda:1' cannot be used in a forked process"):
            run()
