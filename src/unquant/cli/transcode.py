"""`unquant encode` and `unquant decode`."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from unquant.cli.batch import Batch, Done, read_bytes
from unquant.cli.paths import FILES, IMAGES, Job, plan
from unquant.cli.quantities import parse_size
from unquant.errors import InputError, OptionError

if TYPE_CHECKING:
    from unquant.codecs import Codec
    from unquant.codecs.info import Info

__all__ = ["FilesCommand", "decode", "encode"]

_FILES = "Files"
_RUN = "Running"
_WISHES = "What the file asks of its decoder, which may be told otherwise"
_ALIASES = {"jpeg": "jpg", "tif": "tiff", "pnm": "ppm"}


class FilesCommand(TyperCommand):
    """A command whose usage line shows its arguments as people type them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the command's name."""
        return ["[OPTIONS]", "IN... [OUT]"]


Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        help="Output file or folder, or - for the standard output.",
        rich_help_panel=_FILES,
    ),
]
Recursive = Annotated[
    bool,
    typer.Option("-r", "--recursive", help="Take folders, all levels; OUT gets the same tree.", rich_help_panel=_FILES),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite outputs that exist.", rich_help_panel=_FILES)]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N.", show_default="cpu", rich_help_panel=_RUN)
]
Jobs = Annotated[int, typer.Option("-j", "--jobs", min=1, help="Files at a time.", rich_help_panel=_RUN)]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object per file on the standard output.", rich_help_panel=_RUN)
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing but errors on the standard error.", rich_help_panel=_RUN)]


def encode(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IN... [OUT]", help="Images, - for the standard input, or folders with -r.", show_default=False
        ),
    ],
    output: Output = None,
    recursive: Recursive = False,
    force: Force = False,
    model: Annotated[
        str, typer.Option("-m", "--model", metavar="NAME", help="A name from `unquant models`.")
    ] = "ratevar",
    quality: Annotated[
        float | None, typer.Option("-q", "--quality", min=0, max=100, help="0 smallest, 100 best.")
    ] = None,
    bpp: Annotated[float | None, typer.Option(help="Bits per pixel, the whole file counted; met from below.")] = None,
    target_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Size of the file, met from below: 20000, 20k, 20KB, 1.5MB.")
    ] = None,
    no_metadata: Annotated[bool, typer.Option("--no-metadata", help="Leave out EXIF and XMP.")] = False,
    realism: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="0 lowest error, 1 most detail drawn; kept in steps of 0.01.",
            show_default="the model's",
            rich_help_panel=_WISHES,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of the drawing.", show_default="the model's", rich_help_panel=_WISHES),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seed of the drawn detail; one seed, one image.", show_default="0", rich_help_panel=_WISHES
        ),
    ] = None,
    device: Device = None,
    jobs: Jobs = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Images to .unq files.

    OUT defaults to the input's name with .unq, beside it.
    """
    from unquant.codecs.images import open_image
    from unquant.codecs.info import info as read_info

    given = {"--quality": quality, "--bpp": bpp, "--target-size": target_size}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise OptionError(f"{' and '.join(names)} exclude each other")
    target_bytes = None if target_size is None else parse_size(target_size, "--target-size")
    work = plan(inputs, output, recursive=recursive, kind=IMAGES, suffix=".unq")
    batch = Batch(work, workers=jobs, force=force, as_json=as_json, quiet=quiet)
    codecs = _Codecs(device)
    if len(work) > 1:
        codecs.get(model)  # a model that is missing ends the command here, not file by file

    def one(job: Job) -> Done:
        image = open_image(_standard_input() if job.source is None else job.source)
        codec = codecs.get(model)
        start = perf_counter()
        data = codec.encode(
            image,
            quality=quality,
            bpp=bpp,
            target_bytes=target_bytes,
            metadata=not no_metadata,
            realism=realism,
            steps=steps,
            seed=seed,
        )
        seconds = perf_counter() - start
        info = read_info(data)
        batch.write(job, data)
        line = f"{len(data)} bytes, {info.bpp:.3f} bpp, q index {info.q_index}, {seconds:.1f} s"
        return Done(line, _row(info, seconds))

    batch.run(one)


def decode(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IN... [OUT]", help=".unq files, - for the standard input, or folders with -r.", show_default=False
        ),
    ],
    output: Output = None,
    recursive: Recursive = False,
    force: Force = False,
    image_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="png, jpg, webp, avif, tiff or ppm, where no OUT names it.",
            show_default="png",
            rich_help_panel=_FILES,
        ),
    ] = None,
    realism: Annotated[
        float | None, typer.Option(min=0, max=1, help="0 lowest error, 1 most detail drawn.", show_default="the file's")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Steps of the drawing; 0: without the reverse network (ratevar only).",
            show_default="the file's",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the drawn detail; one seed, one image.", show_default="the file's"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m", "--model", metavar="NAME", help="A name from `unquant models`.", show_default="the first that fits"
        ),
    ] = None,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="The plain decode in one pass, whatever the file asks for; excludes --realism."),
    ] = False,
    device: Device = None,
    jobs: Jobs = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """.unq files to images.

    OUT defaults to the input's name with .png, beside it; its extension gives the format.
    """
    from unquant.codecs.images import image_bytes
    from unquant.codecs.info import info as read_info
    from unquant.codecs.registry import find_stream
    from unquant.container import DEFAULT_LIMITS

    if preview and realism is not None:
        raise OptionError("--preview and --realism exclude each other")
    extension = (image_format or "png").lower().lstrip(".")
    work = plan(inputs, output, recursive=recursive, kind=FILES, suffix=f".{extension}")
    batch = Batch(work, workers=jobs, force=force, as_json=as_json, quiet=quiet)
    _check_format(work[0].target, image_format, extension)
    codecs = _Codecs(device)

    def one(job: Job) -> Done:
        data = read_bytes(job.source, DEFAULT_LIMITS.max_file)
        info = read_info(data)
        codec = codecs.get(model or str(find_stream(info.family, bytes.fromhex(info.stream_id)).path))
        start = perf_counter()
        image = codec.decode(data, realism=realism, steps=steps, seed=seed, preview=preview)
        seconds = perf_counter() - start
        batch.write(job, image_bytes(image, job.target or f"stdout.{extension}"))
        return Done(f"{image.width}x{image.height}, {seconds:.1f} s", _row(info, seconds))

    batch.run(one)


class _Codecs:
    """Codecs by name or path of the model, each loaded once, shared by all threads."""

    def __init__(self, device: str | None) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._loaded: dict[str, Codec] = {}

    def get(self, model: str) -> Codec:
        """The codec of a model. Raises ModelMissing, WeightsError or OptionError (no such device)."""
        import unquant

        with self._lock:
            if model not in self._loaded:
                self._loaded[model] = unquant.load(model, device=self._device)
            return self._loaded[model]


def _row(info: Info, seconds: float) -> dict[str, Any]:
    return {
        "bytes": info.bytes,
        "bpp": round(info.bpp, 6),
        "width": info.width,
        "height": info.height,
        "q_index": info.q_index,
        "model": info.model,
        "stream_id": info.stream_id,
        "seconds": round(seconds, 3),
    }


def _check_format(target: Path | None, asked: str | None, extension: str) -> None:
    """Raises OptionError or InputError if images cannot be written so: before anything is decoded.

    asked: the argument of --format. extension: the one that follows from it.
    """
    from PIL import Image

    from unquant.codecs.images import image_bytes

    if asked is not None and target is not None:
        named = target.suffix.lower().lstrip(".")
        if _ALIASES.get(named, named) != _ALIASES.get(extension, extension):
            raise OptionError(f"{target}: the extension of OUT gives the format; --format says {asked}")
    try:
        image_bytes(Image.new("RGB", (8, 8)), target or f"stdout.{extension}")
    except InputError as error:
        if asked is None:
            raise
        raise OptionError(f"--format {asked}: {error}") from error


class _Pipe(io.BytesIO):
    name = "standard input"


def _standard_input() -> _Pipe:
    from unquant.container import DEFAULT_LIMITS

    return _Pipe(read_bytes(None, DEFAULT_LIMITS.max_file))
