"""Seconds and memory on this machine, beside AVIF's for a file of the same size in the same run.

What a process does once (importing, loading, the first call, its peak memory) is measured in fresh processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from PIL import Image

from unquant.bench.analysis.tables import markdown_table
from unquant.bench.subjects import anchors
from unquant.bench.subjects.models import Codec, family_of_file
from unquant.bench.subjects.search import encode_to_size
from unquant.errors import OptionError

__all__ = ["Measure", "command_times", "fresh_times", "table", "unet_times", "warm_times"]

QUALITY = 40
REALISMS = (0.0, 1.0)
FEW_STEPS = (0, 1, 2)
MANY_STEPS = (1, 4, 17)
"""Of a family whose decode takes steps at any realism."""

# argv: codec, image, bpp; prints one JSON object. The peak is VmHWM where there is one: ru_maxrss of a child counts the
# memory of the process that started it.
FRESH = """
import json, sys, time
import torch
start = time.perf_counter()
import unquant
codec = unquant.load(sys.argv[1])
load = time.perf_counter() - start
from PIL import Image
image = Image.open(sys.argv[2]).convert("RGB")
start = time.perf_counter()
data = codec.encode(image, bpp=float(sys.argv[3]))
encode = time.perf_counter() - start
start = time.perf_counter()
codec.decode(data)
decode = time.perf_counter() - start
try:
    status = open("/proc/self/status").read()
    peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
except (OSError, IndexError):
    try:
        import resource
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    except ImportError:
        peak = 0
print(json.dumps({"load": load, "encode": encode, "decode": decode, "peak": peak}))
"""
IMPORT = "import time; start = time.perf_counter(); import unquant; print(time.perf_counter() - start)"


@dataclass(frozen=True)
class Measure:
    """One figure. unit: s, MB (10⁶ bytes) or none. avif: the same of AVIF in this run, where that has a meaning."""

    what: str
    value: float
    unit: str = "s"
    avif: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.avif if self.avif else None


def _median_seconds(call: Callable[[], object], repeats: int) -> float:
    """The median duration of `call`, after one call that is not counted."""
    call()
    seconds: list[float] = []
    for _ in range(repeats):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return median(seconds)


def warm_times(codec: Codec, image: Image.Image, bpp: float, repeats: int) -> list[Measure]:
    """Encoding and decoding by a codec that is loaded and warm, each beside AVIF at the same bytes."""
    data = codec.encode(image, bpp=bpp)
    found = encode_to_size(image, "avif", len(data))
    avif_encode = _median_seconds(lambda: anchors.encode(image, "avif", found.quality), repeats)
    avif_search = _median_seconds(lambda: encode_to_size(image, "avif", len(data)), min(repeats, 3))
    avif_decode = _median_seconds(lambda: anchors.decode(found.data), repeats)
    encode = _median_seconds(lambda: codec.encode(image, quality=QUALITY), repeats)
    search = _median_seconds(lambda: codec.encode(image, bpp=bpp), repeats)
    measures = [
        Measure(f"encode, quality {QUALITY}", encode, avif=avif_encode),
        Measure(f"encode, search for {bpp:g} bpp", search, avif=avif_search),
    ]
    for realism in REALISMS:
        decode = _median_seconds(lambda realism=realism: codec.decode(data, realism=realism), repeats)
        measures.append(Measure(f"decode, realism {realism:g}", decode, avif=avif_decode))
    return measures + _reverse_times(codec, data, repeats)


def _reverse_times(codec: Codec, data: bytes, repeats: int) -> list[Measure]:
    """Decodes at realism 1 by the steps that the codec takes, and what one costs; nothing where there are no steps."""
    family = family_of_file(data)
    seconds: dict[int, float] = {}
    for n in MANY_STEPS if family is not None and family.always_steps else FEW_STEPS:
        with suppress(OptionError):
            seconds[n] = _median_seconds(lambda n=n: codec.decode(data, realism=1.0, steps=n), repeats)
    if len(seconds) < 2:
        return []
    measures = [Measure(f"decode, realism 1, {n} steps", each) for n, each in seconds.items()]
    low, high = min(seconds), max(seconds)
    return [*measures, Measure("one reverse step", (seconds[high] - seconds[low]) / (high - low))]


def unet_times(codec: Codec, image: Image.Image, repeats: int) -> list[Measure]:
    """One step of a conditional U-Net, and of its published size in the same run; nothing for a model without one.

    Both at the picture's size (rounded up to a multiple of 16), in one piece, in the codec's precision.
    """
    # tables need neither torch nor the networks
    import torch

    from unquant.codecs.device import fast_precision
    from unquant.nn.transforms import LATENT_STRIDE

    own: Any = getattr(codec, "model", None)
    published = getattr(getattr(own, "config", None), "paper", None)
    if published is None:
        return []
    device = next(own.parameters()).device
    h16, w16 = (-(-length // LATENT_STRIDE) for length in (image.height, image.width))
    precision = fast_precision(device)
    seconds: list[float] = []
    for model in (own, type(own)(published()).eval()):
        model.to(device, memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(device.type, precision, enabled=precision is not torch.float32):
            context = model.g_s(torch.zeros(1, model.config.latent, h16, w16, device=device))
            x = torch.zeros(1, 3, h16 * LATENT_STRIDE, w16 * LATENT_STRIDE, device=device)
            x = x.contiguous(memory_format=torch.channels_last)
            time, told = x.new_zeros(1), x.new_zeros(1, model.config.denoiser.scalars)
            seconds.append(
                _median_seconds(lambda m=model, c=context, x=x, t=time, k=told: m.f(x, t, c, k), min(repeats, 3))
            )
    return [
        Measure("one step of the U-Net", seconds[0]),
        Measure("one step of the U-Net, published size", seconds[1]),
        Measure("the ratio of the two", seconds[0] / seconds[1], ""),
    ]


def _run(*arguments: str) -> str:
    """The standard output of a fresh Python process. Its failure raises CalledProcessError."""
    return subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def fresh_times(name: str, image: Path, bpp: float, repeats: int) -> list[Measure]:
    """Loading (torch already imported), the first calls and the peak memory of a process that encodes and decodes."""
    runs = [json.loads(_run("-c", FRESH, name, str(image), str(bpp))) for _ in range(repeats)]
    return [
        Measure("load, torch imported", median(run["load"] for run in runs)),
        Measure(f"first encode, {bpp:g} bpp", median(run["encode"] for run in runs)),
        Measure("first decode", median(run["decode"] for run in runs)),
        Measure("peak memory", max(run["peak"] for run in runs) / 1e6, "MB"),
    ]


def command_times(data: bytes, repeats: int) -> list[Measure]:
    """`import unquant` in a fresh interpreter, and the commands that need no torch. data: a file for `unquant info`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.unq"
        path.write_bytes(data)
        return [
            Measure("import unquant", median(float(_run("-c", IMPORT)) for _ in range(repeats))),
            Measure("unquant info", _median_seconds(lambda: _run("-m", "unquant", "info", str(path)), repeats)),
            Measure("unquant --help", _median_seconds(lambda: _run("-m", "unquant", "--help"), repeats)),
        ]


def table(measures: list[Measure]) -> str:
    """The figures as a Markdown table with their ratio to AVIF's."""

    def figure(value: float | None, unit: str) -> str:
        return "–" if value is None else f"{value:.0f} {unit}" if unit == "MB" else f"{value:.3f} {unit}".rstrip()

    lines = [
        [row.what, figure(row.value, row.unit), figure(row.avif, row.unit), f"{row.ratio:.1f}" if row.ratio else "–"]
        for row in measures
    ]
    return markdown_table(["what", "unquant", "AVIF", "ratio"], lines)
