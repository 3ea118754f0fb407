"""The demonstration on a terminal: the bundled photograph there and back, beside AVIF and JPEG at the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table

from unquant.bench.analysis.tables import number
from unquant.bench.metrics import FAST, METRICS, Meter
from unquant.bench.subjects import anchors
from unquant.bench.subjects.models import Codec, load
from unquant.bench.subjects.search import encode_to_size
from unquant.codecs.registry import DEFAULT_MODEL
from unquant.demo import photograph_file
from unquant.demo.montage import Panel, draw
from unquant.files import write_whole
from unquant.images import image_bytes, read_rgb

__all__ = ["DemoResult", "DemoRow", "photograph", "run"]

DETAIL = (0.69, 0.23)  # the rim of the cup, the end of the spoon, the saucer and the grain of the wood


class DemoRow(NamedTuple):
    """One line of the table. scores: by name, of `metrics.FAST`. note: what is special about it, or empty."""

    name: str
    bytes: int
    bpp: float
    scores: Mapping[str, float | None]
    encode_s: float
    decode_s: float
    note: str = ""


class DemoResult(NamedTuple):
    """picture: the PNG with the versions side by side; file: the `.unq`; rows: the table; notes: what is missing."""

    picture: Path
    file: Path
    rows: tuple[DemoRow, ...]
    notes: tuple[str, ...]


class _Timed(NamedTuple):
    """A file, the picture in it and the seconds of each direction."""

    data: bytes
    image: Image.Image
    encode_s: float
    decode_s: float


def photograph() -> Image.Image:
    """The bundled photograph, 600×400, 8-bit RGB (CC0, see coffee.LICENSE.txt)."""
    return Image.fromarray(read_rgb(io.BytesIO(photograph_file())))


def _ours(codec: Codec, image: Image.Image, bpp: float) -> dict[float, _Timed]:
    """One file at `bpp`, decoded at realism 1 and 0. The first call of each kind is not the one that is timed."""
    codec.decode(codec.encode(image, bpp=bpp), realism=1.0)
    start = perf_counter()
    data = codec.encode(image, bpp=bpp)
    encode_s = perf_counter() - start
    decoded: dict[float, _Timed] = {}
    for realism in (1.0, 0.0):
        start = perf_counter()
        picture = codec.decode(data, realism=realism)
        decoded[realism] = _Timed(data, picture, encode_s, perf_counter() - start)
    return decoded


def _anchor(name: str, image: Image.Image, target_bytes: int) -> tuple[_Timed, bool]:
    """The anchor at the same bytes, timed at the quality found; and whether it could get that small."""
    found = encode_to_size(image, name, target_bytes)
    start = perf_counter()
    anchors.encode(image, name, found.quality)
    encode_s = perf_counter() - start
    start = perf_counter()
    picture = anchors.decode(found.data)
    return _Timed(found.data, picture, encode_s, perf_counter() - start), found.fits


def _caption(row: DemoRow) -> str:
    parts = [f"{row.bytes:,} bytes", f"{row.bpp:.3f} bpp", f"PSNR {number(row.scores['psnr'], 1)} dB"]
    lpips = row.scores["lpips_alex"]
    if lpips is not None:
        parts.append(f"LPIPS {lpips:.3f}")
    return "  ·  ".join(parts)


def _table(rows: tuple[DemoRow, ...]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("codec", no_wrap=True)
    for title in ("bytes", "bpp", "PSNR", "MS-SSIM", "LPIPS", "encode", "decode"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        scores = (number(row.scores[name], METRICS[name].digits) for name in FAST)
        seconds = f"{row.encode_s:.2f} s", f"{row.decode_s:.2f} s"
        table.add_row(row.name, f"{row.bytes:,}", f"{row.bpp:.3f}", *scores, *seconds)
    return table


def run(
    output_dir: Path,
    bpp: float = 0.15,
    model: str = DEFAULT_MODEL,
    *,
    codec: Codec | None = None,
    console: Console | None = None,
) -> DemoResult:
    """Encodes the bundled photograph at about `bpp`, decodes it, compares, draws and prints.

    output_dir: made if need be; `demo.png` and `coffee.unq` in it are replaced. model: a name from `unquant models` or a
    weights file. codec: None loads that model. console: where the table goes; None is the standard output. Metrics
    whose weights are missing are left out and noted. Raises ModelMissing without the codec's weights, InputError where
    nothing can be written.
    """
    console = console or Console()
    image, codec = photograph(), codec or load(model)
    ours_title = "unquant" if model == DEFAULT_MODEL else f"unquant, {Path(model).stem}"
    pixels = image.width * image.height
    meter = Meter(FAST)
    score = meter.against(image)

    def row(name: str, made: _Timed, note: str = "") -> DemoRow:
        size = len(made.data)
        return DemoRow(name, size, 8 * size / pixels, score(made.image), made.encode_s, made.decode_s, note)

    ours = _ours(codec, image, bpp)
    data = ours[1.0].data
    rows = [row(ours_title, ours[1.0]), row(f"{ours_title}, plain", ours[0.0])]
    panels = [
        Panel("Original", f"{image.width} x {image.height}  ·  {3 * pixels:,} bytes  ·  24 bpp", image),
        Panel(ours_title, _caption(rows[0]), ours[1.0].image),
    ]
    for name in ("avif", "jpeg"):
        made, fits = _anchor(name, image, len(data))
        title = anchors.ANCHORS[name].title
        note = "" if fits else f"{title}: its smallest possible file, larger than the {len(data):,} bytes aimed at"
        rows.append(row(title, made, note))
        panels.append(Panel(title if fits else f"{title}, smallest possible", _caption(rows[-1]), made.image))

    picture, file = output_dir / "demo.png", output_dir / "coffee.unq"
    write_whole(file, data, force=True)
    drawn = draw(f"One photograph, {len(data):,} bytes ({8 * len(data) / pixels:.2f} bpp)", panels, DETAIL)
    write_whole(picture, image_bytes(drawn, picture), force=True)
    result = DemoResult(picture, file, tuple(rows), tuple(meter.notes))
    console.print(_table(result.rows))
    notes = [*(line.note for line in rows if line.note), *meter.notes]
    notes.append(f"{rows[1].name}: the same file at realism 0, without the detail that the decoder draws at realism 1")
    for note in notes:
        console.print(f"  {note}", style="dim", markup=False, highlight=False)
    console.print(f"file:    {file}\npicture: {picture}", markup=False, highlight=False, soft_wrap=True)
    return result
