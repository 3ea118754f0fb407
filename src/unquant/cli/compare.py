"""`unquant compare`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from unquant.cli.batch import read_bytes
from unquant.cli.benchmark import MetricsDir, metric_names
from unquant.cli.exits import Code, code_of, describe, print_traceback, say, write_line
from unquant.errors import InputError, OptionError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["compare"]

_METRICS = "psnr,ms_ssim,lpips_alex,lpips_vgg,dists"


class _Opened(NamedTuple):
    image: Image.Image
    bytes: int

    @property
    def line(self) -> str:
        width, height = self.image.size
        return f"{width}x{height}, {self.bytes} bytes, {8 * self.bytes / (width * height):.3f} bpp"


def compare(
    original: Annotated[str, typer.Argument(metavar="A", help="The original.", show_default=False)],
    picture: Annotated[
        str, typer.Argument(metavar="B", help="What is compared with it, - for the standard input.", show_default=False)
    ],
    metrics: Annotated[
        str, typer.Option(metavar="LIST", help="Names as of `unquant bench`, or fast, default, all.")
    ] = _METRICS,
    metrics_dir: MetricsDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """How far picture B is from picture A: PSNR, MS-SSIM, and LPIPS and DISTS where their weights are.

    Both are image files, or .unq files, which are decoded as they ask for; an .avif is read as every viewer shows it. What is
    compared is 8-bit sRGB, upright, without transparency.
    """
    names = metric_names(metrics)
    if not names:
        raise OptionError(f"--metrics {metrics}: nothing to measure")
    if original == picture == "-":
        raise OptionError("the standard input cannot be both pictures")
    a, b = _open(original), _open(picture)
    if a.image.size != b.image.size:
        shapes = (f"{w}x{h}" for w, h in (a.image.size, b.image.size))
        raise InputError(f"{picture}: pictures of one size are compared: {original} is {' and this one '.join(shapes)}")

    from unquant.bench.metrics import METRICS, Meter

    meter = Meter(names, metrics_dir)
    scores = meter.against(a.image)(b.image)
    if as_json:
        found: dict[str, Any] = {name: value if _finite(value) else None for name, value in scores.items()}
        files = {"a": original, "b": picture, "bytes_a": a.bytes, "bytes_b": b.bytes}
        write_line(json.dumps({**files, "identical": a.image.tobytes() == b.image.tobytes(), **found}))
    else:
        rows = [("A", f"{original}: {a.line}"), ("B", f"{picture}: {b.line}")]
        for name, value in scores.items():
            if value is not None:
                rows.append((METRICS[name].head, f"{value:.{METRICS[name].digits}f}"))
        width = max(len(label) for label, _ in rows)
        write_line("\n".join(f"{label:<{width}}  {text}" for label, text in rows))
    for note in meter.notes:
        say(note, "note")


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _open(name: str) -> _Opened:
    """The picture of a file, RGB. Raises InputError or ImageTooLarge, naming it, and typer.Exit where it has been named."""
    import io

    from PIL import Image

    from unquant.codecs import decode
    from unquant.container import DEFAULT_LIMITS, MAGIC
    from unquant.errors import UnquantError
    from unquant.images import read_rgb

    data = read_bytes(None if name == "-" else Path(name), DEFAULT_LIMITS.max_file)
    label = "standard input" if name == "-" else name
    if not data.startswith(MAGIC):
        return _Opened(Image.fromarray(read_rgb(io.BytesIO(data), name=label)), len(data))
    try:
        return _Opened(decode(data).convert("RGB"), len(data))
    except UnquantError as error:
        print_traceback(error)
        say(describe(error, label), "error")
        raise typer.Exit(code_of(error) or Code.OTHER) from None
