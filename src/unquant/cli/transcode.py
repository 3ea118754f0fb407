"""`unquant encode` and `unquant decode`."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from unquant.cli.batch import Batch, Done, read_bytes
from unquant.cli.paths import FILES, IMAGES, Job, plan
from unquant.cli.quantities import parse_size
from unquant.codecs.registry import DEFAULT_MODEL
from unquant.errors import InputError, OptionError, UnsupportedVersion

if TYPE_CHECKING:
    from unquant.codecs import Codec
    from unquant.codecs.info import Info

__all__ = ["FilesCommand", "decode", "encode"]

_FILES = "Files"
_RUN = "Running"
_WISHES = "What the file asks of its decoder, which may be told otherwise"
_AV1 = "av1"
_ANEW = "with -q, --bpp or --target-size"
_HEAD_BYTES = 4096  # what an image begins with that tells an AVIF file: its file type box
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
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="unq, or avif (av1 only) for a file that every viewer opens, where no OUT names it.",
            show_default="unq",
            rich_help_panel=_FILES,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("-m", "--model", metavar="NAME", help="A name from `unquant models`.")
    ] = DEFAULT_MODEL,
    quality: Annotated[
        float | None, typer.Option("-q", "--quality", min=0, max=100, help="0 smallest, 100 best.")
    ] = None,
    bpp: Annotated[float | None, typer.Option(help="Bits per pixel, the whole file counted; met from below.")] = None,
    target_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Size of the file, met from below: 20000, 20k, 20KB, 1.5MB.")
    ] = None,
    effort: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=9,
            help="Time the encoder may take (av1 only): 1 least, 9 most; 10 less the effort is libaom's speed.",
            show_default="4",
        ),
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
    """Images to .unq files, or to AVIF files that unquant redraws.

    OUT defaults to the input's name with .unq, beside it; an OUT of .avif is written as AVIF (av1 only). An AVIF input goes
    into a .unq file of av1 as it is, unless a rate is given.
    """
    from unquant.codecs.info import info as read_info
    from unquant.codecs.registry import find_model
    from unquant.images import open_image

    given = {"--quality": quality, "--bpp": bpp, "--target-size": target_size}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise OptionError(f"{' and '.join(names)} exclude each other")
    target_bytes = None if target_size is None else parse_size(target_size, "--target-size")
    extension = (file_format or "unq").lower().lstrip(".")
    if extension not in ("unq", "avif"):
        raise OptionError(f"--format {file_format}: unq or avif")
    work = plan(inputs, output, recursive=recursive, kind=IMAGES, suffix=f".{extension}")
    batch = Batch(work, workers=jobs, force=force, as_json=as_json, quiet=quiet)
    own: dict[str, Any] = {} if effort is None else {"effort": effort}  # what the family av1 alone takes
    if _to_avif(work[0].target, file_format, extension):
        own["container"] = "avif"
        if (family := find_model(model).family) != _AV1:
            raise OptionError(f"-m {model}: models of the family {family} write .unq alone; .avif is written by av1")
    codecs = _Codecs(device)
    if len(work) > 1:
        codecs.get(model)  # a model that is missing ends the command here, not file by file
    wishes = {"metadata": not no_metadata, "realism": realism, "steps": steps, "seed": seed}

    def one(job: Job) -> Done:
        source, avif = _source(job)
        repacked = avif and find_model(model).family == _AV1 and _is_repacked(rated=bool(names), own=own)
        image = None if repacked else open_image(source, name=job.source_name)
        codec = codecs.get(model)
        start = perf_counter()
        if image is None:
            data = _repack(codec, _contents(source), wishes)
        else:
            data = codec.encode(image, quality=quality, bpp=bpp, target_bytes=target_bytes, **wishes, **own)
        seconds = perf_counter() - start
        info = read_info(data)
        batch.write(job, data)
        how = "the same AV1 stream repacked, " if repacked else ""
        line = f"{how}{len(data)} bytes, {info.bpp:.3f} bpp, q index {info.q_index}, {seconds:.1f} s"
        return Done(line, _row(info, seconds, repacked=repacked))

    batch.run(one)


def decode(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IN... [OUT]",
            help=".unq and .avif files, - for the standard input, or folders with -r.",
            show_default=False,
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
            help="Steps of the drawing; 0: without the reverse network (ratevar, av1).",
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
    """.unq files to images, and any .avif files redrawn.

    OUT defaults to the input's name with .png, beside it; its extension gives the format. A .unq file of av1 becomes an
    .avif as it is, unless --realism, --steps, --seed or --preview asks for what is drawn.
    """
    from unquant.codecs.info import info as read_info
    from unquant.codecs.registry import find_decoder
    from unquant.container import DEFAULT_LIMITS
    from unquant.images import image_bytes

    if preview and realism is not None:
        raise OptionError("--preview and --realism exclude each other")
    extension = (image_format or "png").lower().lstrip(".")
    work = plan(inputs, output, recursive=recursive, kind=FILES, suffix=f".{extension}")
    batch = Batch(work, workers=jobs, force=force, as_json=as_json, quiet=quiet)
    _check_format(work[0].target, image_format, extension)
    codecs = _Codecs(device)
    to_avif = _to_avif(work[0].target, image_format, extension)
    asked = preview or not (realism is None and steps is None and seed is None)

    def one(job: Job) -> Done:
        data = read_bytes(job.source, DEFAULT_LIMITS.max_file)
        info = read_info(data)
        start = perf_counter()
        if to_avif and info.family == _AV1:
            if not asked and info.container == "unq":
                avif = _as_avif(data)
                batch.write(job, avif)
                seconds = perf_counter() - start
                line = f"the same AV1 stream repacked, {len(avif)} bytes, {seconds:.1f} s"
                return Done(line, _row(info, seconds, repacked=True))
            warnings.warn("what is drawn is coded a second time, as AVIF", stacklevel=1)
        codec = codecs.get(str(find_decoder(data, model).path))
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


def _row(info: Info, seconds: float, *, repacked: bool = False) -> dict[str, Any]:
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


# --- AVIF files ---------------------------------------------------------------------------------------------------


def _to_avif(target: Path | None, asked: str | None, extension: str) -> bool:
    """Whether the outputs are AVIF files: by the name of the first, else by --format (asked; extension follows from it).
    Raises OptionError where both are given and differ on that."""
    by_format = extension == "avif"
    by_name = by_format if target is None else target.suffix.lower() == ".avif"
    if asked is not None and by_name != by_format:
        raise OptionError(f"{target}: the extension of OUT gives the format; --format says {asked}")
    return by_name


def _source(job: Job) -> tuple[Path | _Pipe, bool]:
    """What an image is read from, and whether that is an AVIF file, whatever its name."""
    from unquant.container.avif import is_avif

    if job.source is None:
        pipe = _standard_input()
        return pipe, is_avif(pipe.getvalue())
    return job.source, is_avif(read_bytes(job.source, _HEAD_BYTES))


def _contents(source: Path | _Pipe) -> bytes:
    from unquant.container import DEFAULT_LIMITS

    return source.getvalue() if isinstance(source, _Pipe) else read_bytes(source, DEFAULT_LIMITS.max_file)


def _is_repacked(*, rated: bool, own: dict[str, Any]) -> bool:
    """Whether an AVIF file is repacked; with a warning where it is coded a second time, because a rate is given. Raises
    CodecMissing where that cannot be, and OptionError for an AVIF file that shall become one."""
    from unquant.codecs.avif import require_avif

    if rated:
        require_avif()
        warnings.warn("this is an AVIF file: with a rate given it is coded a second time", stacklevel=2)
    elif "container" in own:
        raise OptionError(f"it is an AVIF file already; {_ANEW} it is coded a second time")
    return not rated


def _repack(codec: Codec, avif: bytes, wishes: dict[str, Any]) -> bytes:
    from unquant.codecs.av1 import Av1Codec

    assert isinstance(codec, Av1Codec)
    try:
        return codec.repack(avif, **wishes)
    except UnsupportedVersion as error:
        raise UnsupportedVersion(f"{error}; {_ANEW} it is coded anew") from error


def _as_avif(data: bytes) -> bytes:
    from unquant.codecs.av1_files import unq_to_avif

    try:
        return unq_to_avif(data)
    except UnsupportedVersion as error:
        raise UnsupportedVersion(f"{error}; with --realism it is drawn, and coded a second time") from error


def _check_format(target: Path | None, asked: str | None, extension: str) -> None:
    """Raises OptionError or InputError if images cannot be written so: before anything is decoded.

    asked: the argument of --format. extension: the one that follows from it.
    """
    from PIL import Image

    from unquant.codecs.avif import require_avif
    from unquant.images import image_bytes

    if asked is not None and target is not None:
        named = target.suffix.lower().lstrip(".")
        if _ALIASES.get(named, named) != _ALIASES.get(extension, extension):
            raise OptionError(f"{target}: the extension of OUT gives the format; --format says {asked}")
    if _to_avif(target, None, extension):
        require_avif()
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
