"""Time and peak memory of the commands by the size of the picture, each measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from unquant.bench.analysis.tables import markdown_table
from unquant.errors import InputError, OptionError
from unquant.families import FAMILIES

__all__ = ["SIZES", "Size", "costs", "draw", "measure", "picture", "read_sizes", "table"]

_DIRECTIONS: Final = ("encode", "decode")

QUALITY: Final = 40
SIZES: Final = {
    0: (32, 32),
    1: (1152, 864),
    4: (2304, 1728),
    16: (4608, 3456),
    64: (9216, 6912),
    100: (11520, 8640),
}
"""Width and height by rounded megapixels. What the smallest takes is what a process does once."""

# argv: arguments of the command; the last line on the standard output is one JSON object. VmHWM is of this process alone;
# ru_maxrss of a child begins with the memory of the process that started it.
COMMAND: Final = """
import json, pathlib, resource, sys
from unquant.cli.app import app
code = 0
try:
    app(sys.argv[1:])
except SystemExit as end:
    code = end.code
used = resource.getrusage(resource.RUSAGE_SELF)
status = pathlib.Path("/proc/self/status").read_text()
peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
print(json.dumps({"cpu": used.ru_utime + used.ru_stime, "peak": peak}))
sys.exit(code)
"""


@dataclass(frozen=True)
class Size:
    """One command on one picture. seconds: of the codec, by the clock. cpu: seconds of all cores, of the whole process.
    peak: its memory, in bytes. cpu_kind: the machine's, "busy" where others worked on it. threads: of torch."""

    model: str
    direction: str
    cpu_kind: str
    width: int
    height: int
    options: str
    seconds: float
    cpu: float
    peak: int
    threads: int

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6

    @property
    def is_start(self) -> bool:
        """Whether nearly all of it is what a process does once."""
        return (self.width, self.height) == SIZES[0]

    @property
    def passes(self) -> float:
        """How many times a decode draws the picture: 0 where it only reads it."""
        words = self.options.split()
        given = dict(zip(words[::2], words[1::2], strict=True))
        if "--scale" in given:
            return 0
        ends = 2 if 0 < float(given.get("--realism", 1)) < 1 else 1
        return ends * int(given.get("--steps", 1))


def picture(photo: Path, width: int, height: int) -> Image.Image:
    """A picture of any size: a photograph, mirrored at its edges as often as it takes."""
    with Image.open(photo) as image:
        rgb = np.asarray(image.convert("RGB"))

    def mirrored(length: int, wanted: int) -> np.ndarray[Any, Any]:
        return np.pad(np.arange(length), (0, max(0, wanted - length)), "symmetric")[:wanted]

    return Image.fromarray(rgb[mirrored(rgb.shape[0], height)][:, mirrored(rgb.shape[1], width)])


def _run(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", COMMAND, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    row, used = map(json.loads, done.stdout.strip().splitlines()[-2:])
    return row | used


def measure(
    model: str,
    photo: Path,
    size: tuple[int, int],
    *,
    encode: Sequence[str] = (),
    decode: Sequence[str] = (),
    cpu_kind: str,
    threads: int,
) -> list[Size]:
    """Encoding at quality 40 (or as `encode` says) and decoding what that gives to a PNG, with the options `decode`."""
    found: list[Size] = []
    with tempfile.TemporaryDirectory() as folder:
        source, coded, back = (Path(folder) / name for name in ("in.ppm", "a.unq", "out.png"))
        picture(photo, *size).save(source)
        rate = encode or ("-q", str(QUALITY))
        commands = (["encode", str(source), str(coded), "-m", model, *rate], ["decode", str(coded), str(back), *decode])
        for direction, command, told in zip(_DIRECTIONS, commands, (encode, decode), strict=True):
            row = _run(*command, "--json", "--quiet")
            figures = row["seconds"], round(row["cpu"], 2), row["peak"], threads
            found.append(Size(model, direction, cpu_kind, *size, " ".join(told), *figures))
    return found


def read_sizes(path: Path) -> list[Size]:
    """The rows of a file. Raises InputError, naming it."""
    try:
        return [Size(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: no rows of sizes: {error}") from error


def lines_of(rows: Iterable[Size]) -> str:
    """The rows as a file holds them."""
    return "".join(json.dumps(asdict(row)) + "\n" for row in rows)


def table(rows: Iterable[Size]) -> str:
    """Core seconds, those a megapixel once the smallest picture's are taken off, and peaks, as a Markdown table."""
    rows = list(rows)
    lines = [
        [
            row.model,
            f"{row.direction} {row.options}".strip(),
            f"{row.megapixels:.1f}",
            f"{row.cpu:.1f}",
            _number(_each(row, rows)),
            f"{row.seconds:.0f}",
            f"{row.peak / 1e6:.0f} MB",
        ]
        for row in sorted(rows, key=lambda row: (row.model, row.direction, row.options, row.megapixels))
    ]
    heads = ["model", "command", "megapixels", "core seconds", "core s/MP", "seconds by the clock", "peak memory"]
    return markdown_table(heads, lines)


def _each(row: Size, rows: Sequence[Size]) -> float | None:
    """Core seconds a megapixel beside what the process does once; None where that was not measured, or is all."""
    known = [r.cpu for r in rows if r.is_start and (r.model, r.direction) == (row.model, row.direction)]
    return None if row.is_start or not known else max(0.0, row.cpu - min(known)) / row.megapixels


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def draw(rows: Sequence[Size], out: Path) -> None:
    """Core seconds a megapixel and peak memory against megapixels, a line a model and direction, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "sizes", "svg.fonttype": "none"}):
        figure = Figure((9, 3.6), layout="constrained")
        panels = figure.subplots(1, 2)
        for name, family in FAMILIES.items():
            for direction, style in zip(_DIRECTIONS, ("--", "-"), strict=True):
                measured = [row for row in _usual(rows, name, direction) if not row.is_start]
                line = sorted(measured, key=lambda row: row.megapixels)
                x = [row.megapixels for row in line]
                colour, marker = family.look
                look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": style}
                panels[0].plot(x, [_each(row, rows) for row in line], **look, label=f"{name}, {direction}")
                panels[1].plot(x, [row.peak / 1e9 for row in line], **look)
        for panel, title in zip(panels, ("core seconds a megapixel, beside the start", "peak memory, GB"), strict=True):
            panel.set(xscale="log", xlabel="megapixels", title=title, ylim=(0, None))
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(out, format="svg", metadata={"Date": None})


def _usual(rows: Iterable[Size], model: str, direction: str) -> list[Size]:
    """Those of a model that draw once, without a search for a size."""
    usual = [row for row in rows if (row.model, row.direction) == (model, direction)]
    return [row for row in usual if "--bpp" not in row.options and (direction == "encode" or row.passes == 1)]


def costs(rows: Sequence[Size]) -> dict[str, Any]:
    """What `unquant.codecs.forecast` reads: by least squares over the rows of each family, and the peaks as they are.

    Raises OptionError for a family without two sizes, one encode to a size, and decodes of two kinds.
    """
    known = {
        "ratevar": {"latent_bytes": 5, "state_bytes": 0, "steps": 1, "steps_cost": False},
        "cdc": {"latent_bytes": 4, "state_bytes": 12, "steps": 1, "steps_cost": True},
        "av1": {"latent_bytes": 0, "state_bytes": 0, "steps": 1, "steps_cost": False},
    }
    families: dict[str, Any] = {}
    for name, more in known.items():
        encodes, decodes = (_usual(rows, name, direction) for direction in _DIRECTIONS)
        kinds = [row for row in rows if (row.model, row.direction) == (name, "decode")]
        aimed = [row for row in rows if row.model == name and "--bpp" in row.options]
        if min(len({row.megapixels for row in each}) for each in (encodes, decodes)) < 2 or not aimed:
            raise OptionError(f"{name}: rows of two sizes are needed, and of an encode with --bpp")
        if len({row.passes for row in kinds}) < 2:
            raise OptionError(f"{name}: rows of decodes are needed that draw once, and twice or not at all")
        start, each = _fitted([[1.0, row.megapixels] for row in encodes], encodes)
        once = [[1.0, row.megapixels, row.megapixels * row.passes] for row in kinds]
        _, read, drawn = _fitted(once, kinds)
        search = max(row.cpu - start for row in aimed) / max(row.megapixels for row in aimed)
        families[name] = {
            "start": start,
            "encode": each,
            "search": round(max(search, each), 3),
            "read": read,
            "draw": drawn,
            **more,
            "peaks": {direction: _peaks(each) for direction, each in zip(_DIRECTIONS, (encodes, decodes), strict=True)},
        }
    return {"machine": ", ".join(sorted({row.cpu_kind for row in rows})), "families": families}


def _fitted(terms: list[list[float]], rows: Sequence[Size]) -> list[float]:
    """Core seconds for each term; none is below 0. Relative errors count, or the largest picture would count alone."""
    weights = np.array([1 / row.cpu for row in rows])
    found = np.linalg.lstsq(np.array(terms) * weights[:, None], np.ones(len(rows)), rcond=None)[0]
    return [round(max(float(value), 0.0), 3) for value in found]


def _peaks(rows: Sequence[Size]) -> list[list[float]]:
    """Megapixels and MB, ascending; a larger picture takes no less."""
    points = sorted((round(row.megapixels, 2), round(row.peak / 1e6)) for row in rows)
    most = np.maximum.accumulate([peak for _, peak in points])
    return [[size, int(peak)] for (size, _), peak in zip(points, most, strict=True)]
