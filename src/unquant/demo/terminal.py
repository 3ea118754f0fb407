"""The demonstration on a terminal: the bundled photographs there and back, beside AVIF and JPEG at the same bytes."""

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
from unquant.demo import CAT, COFFEE, photograph_file
from unquant.demo.montage import Panel, draw
from unquant.files import write_whole
from unquant.images import image_bytes, read_rgb

__all__ = ["DemoResult", "DemoRow", "photograph", "run"]

DETAILS = {
    CAT: (0.4, 0.35),  # an eye, the fur around it
    COFFEE: (0.69, 0.23),  # the rim of the cup, the end of the spoon, the saucer and the grain of the wood
}
"""Of each photograph the place that is magnified, as fractions of width and height."""


class DemoRow(NamedTuple):
    """One line of the table. scores: by name, of `metrics.FAST`."""

    name: str
    bytes: int
    bpp: float
    scores: Mapping[str, float | None]
    encode_s: float
    decode_s: float


class DemoResult(NamedTuple):
    """picture: the PNG with the versions side by side; file: the `.unq`; rows: the table; notes: what is special in them."""

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


def photograph(name: str) -> Image.Image:
    """A bundled photograph, 8-bit RGB."""
    return Image.fromarray(read_rgb(io.BytesIO(photograph_file(name))))


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
) -> tuple[DemoResult, ...]:
    """Encodes each bundled photograph at about `bpp`, decodes it, compares, draws and prints.

    output_dir: made if need be; `cat.png`, `cat.unq`, `coffee.png` and `coffee.unq` in it are replaced. model: a name from
    `unquant models` or a weights file. codec: None loads that model. console: where the tables go; None is the standard
    output. Metrics whose weights are missing are left out and noted. Raises ModelMissing without the codec's weights,
    InputError where nothing can be written.
    """
    console, codec, meter = console or Console(), codec or load(model), Meter(FAST)
    ours_title = "unquant" if model == DEFAULT_MODEL else f"unquant, {Path(model).stem}"
    results: list[DemoResult] = []
    for name in DETAILS:
        result = _one(name, output_dir, bpp, codec, ours_title, meter)
        results.append(result)
        console.print(_table(result.rows))
        for note in result.notes:
            console.print(f"  {note}", style="dim", markup=False, highlight=False)
        paths = f"file:    {result.file}\npicture: {result.picture}"
        console.print(paths, markup=False, highlight=False, soft_wrap=True)
    plain = f"{ours_title}, plain: the same file at realism 0, without the detail that the decoder draws at realism 1"
    for note in (*meter.notes, plain):
        console.print(f"  {note}", style="dim", markup=False, highlight=False)
    return tuple(results)


def _one(name: str, output_dir: Path, bpp: float, codec: Codec, title: str, meter: Meter) -> DemoResult:
    image, stem = photograph(name), Path(name).stem
    pixels = image.width * image.height
    score = meter.against(image)

    def row(name: str, made: _Timed) -> DemoRow:
        size = len(made.data)
        return DemoRow(name, size, 8 * size / pixels, score(made.image), made.encode_s, made.decode_s)

    ours = _ours(codec, image, bpp)
    data = ours[1.0].data
    rows, notes = [row(title, ours[1.0]), row(f"{title}, plain", ours[0.0])], list[str]()
    panels = [
        Panel("Original", f"{image.width} x {image.height}  ·  {3 * pixels:,} bytes  ·  24 bpp", image),
        Panel(title, _caption(rows[0]), ours[1.0].image),
    ]
    for anchor in ("avif", "jpeg"):
        made, fits = _anchor(anchor, image, len(data))
        other = anchors.ANCHORS[anchor].title
        if not fits:
            notes.append(f"{other}: its smallest possible file, larger than the {len(data):,} bytes aimed at")
        rows.append(row(other, made))
        panels.append(Panel(other if fits else f"{other}, smallest possible", _caption(rows[-1]), made.image))

    picture, file = output_dir / f"{stem}.png", output_dir / f"{stem}.unq"
    write_whole(file, data, force=True)
    drawn = draw(f"One photograph, {len(data):,} bytes ({8 * len(data) / pixels:.2f} bpp)", panels, DETAILS[name])
    write_whole(picture, image_bytes(drawn, picture), force=True)
    return DemoResult(picture, file, tuple(rows), tuple(notes))
