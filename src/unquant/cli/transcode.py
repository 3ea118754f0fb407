"""What `unquant encode` and `unquant decode` share: their options, what is said of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from unquant.cli.quantities import parse_size
from unquant.codecs.forecast import Forecast, foretell_decode
from unquant.container import DECODE_MAX_PIXELS, MAX_PIXELS, Limits
from unquant.errors import OptionError

if TYPE_CHECKING:
    from unquant.codecs.info import Info
    from unquant.codecs.options import DecodeOptions

__all__ = [
    "FILES_PANEL",
    "RUN_PANEL",
    "Deterministic",
    "Device",
    "DryRun",
    "Force",
    "Jobs",
    "Json",
    "KeepSuffix",
    "MaxDrawnPixels",
    "MaxMemory",
    "MaxPixels",
    "Model",
    "Output",
    "PreserveTimes",
    "Quality",
    "Quiet",
    "Recursive",
    "Resume",
    "foretold",
    "is_avif_output",
    "limits_of",
    "row_of",
]

FILES_PANEL: Final = "Files"
RUN_PANEL: Final = "Running"


Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        help="Output file or folder, or - for the standard output.",
        rich_help_panel=FILES_PANEL,
    ),
]
Model = Annotated[str, typer.Option("-m", "--model", metavar="NAME", help="A name from `unquant models`.")]
Quality = Annotated[float | None, typer.Option("-q", "--quality", min=0, max=100, help="0 smallest, 100 best.")]
Recursive = Annotated[
    bool,
    typer.Option(
        "-r", "--recursive", help="Take folders, all levels; OUT gets the same tree.", rich_help_panel=FILES_PANEL
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Overwrite earlier outputs, and nothing else.", rich_help_panel=FILES_PANEL)
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Leave inputs out whose output is there and no older than they are.",
        rich_help_panel=FILES_PANEL,
    ),
]
KeepSuffix = Annotated[
    bool,
    typer.Option(
        "--keep-suffix", help="Name outputs a.png.unq rather than a.unq, and so on.", rich_help_panel=FILES_PANEL
    ),
]
PreserveTimes = Annotated[
    bool, typer.Option("--preserve-times", help="Outputs get the times of their inputs.", rich_help_panel=FILES_PANEL)
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Write nothing: say what would be written, by the inputs' headers.",
        rich_help_panel=FILES_PANEL,
    ),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N.", show_default="cpu", rich_help_panel=RUN_PANEL)
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="In float32 and one thread: on one machine equal bytes, whatever its threads. Slower.",
        rich_help_panel=RUN_PANEL,
    ),
]
Jobs = Annotated[int, typer.Option("-j", "--jobs", min=1, help="Files at a time.", rich_help_panel=RUN_PANEL)]


def _max_pixels(default: int) -> Any:
    return typer.Option(
        "--max-pixels",
        metavar="N",
        min=1,
        help="Width times height of a picture at most.",
        show_default=f"{default}",
        rich_help_panel=RUN_PANEL,
    )


MaxPixels = Annotated[int | None, _max_pixels(MAX_PIXELS)]
MaxDrawnPixels = Annotated[int | None, _max_pixels(DECODE_MAX_PIXELS)]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Memory at most, by what is foretold of it: 800M, 2G. A picture that takes more is refused before any work.",
        show_default="any",
        rich_help_panel=RUN_PANEL,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object per file on the standard output.", rich_help_panel=RUN_PANEL)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Nothing but errors on the standard error.", rich_help_panel=RUN_PANEL)
]


def limits_of(max_pixels: int | None, max_memory: str | None) -> Limits:
    """The limits that the options ask for. Raises OptionError."""
    return Limits(
        max_pixels=max_pixels, max_memory=None if max_memory is None else parse_size(max_memory, "--max-memory")
    )


def row_of(info: Info, seconds: float, *, repacked: bool = False) -> dict[str, Any]:
    """The JSON object of a file. seconds: of the codec. repacked: the AV1 stream is as it was."""
    return {
        "bytes": info.bytes,
        "bpp": round(info.bpp, 6),
        "width": info.width,
        "height": info.height,
        "q_index": info.q_index,
        "model": info.model,
        "stream_id": info.stream_id,
        "repacked": repacked,
        "seconds": round(seconds, 3),
    }


def foretold(info: Info, options: DecodeOptions) -> Forecast:
    """What a decode will take, by the file's headers."""
    *_, width, height = options.part(info.width, info.height)
    realism = 0.0 if options.is_plain else info.realism if options.realism is None else options.realism
    steps = info.steps if options.steps is None else options.steps
    return foretell_decode(info.family, width * height, realism=realism, steps=1 if options.is_plain else steps)


def is_avif_output(target: Path | None, asked: str | None, extension: str) -> bool:
    """Whether the outputs are AVIF files: by the name of the first, else by --format (asked; extension follows from it).

    Raises OptionError where both are given and differ on that.
    """
    by_format = extension == "avif"
    by_name = by_format if target is None else target.suffix.lower() == ".avif"
    if asked is not None and by_name != by_format:
        raise OptionError(f"{target}: the extension of OUT gives the format; --format says {asked}")
    return by_name
