"""`unquant decode`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from unquant.cli.batch import Batch, Done, read_bytes
from unquant.cli.dry_run import DryDecode
from unquant.cli.paths import FILES, Job, Naming, plan, without_clashes
from unquant.cli.transcode import (
    FILES_PANEL,
    RUN_PANEL,
    Deterministic,
    Device,
    DryRun,
    Force,
    Jobs,
    Json,
    KeepSuffix,
    MaxDrawnPixels,
    MaxMemory,
    Output,
    PreserveTimes,
    Quiet,
    Recursive,
    Resume,
    foretold,
    is_avif_output,
    limits_of,
    row_of,
)
from unquant.container import DECODE_MAX_PIXELS
from unquant.errors import CorruptStream, InputError, OptionError, UnsupportedVersion, warn
from unquant.families import family_of

if TYPE_CHECKING:
    from unquant.codecs.options import Region

__all__ = ["decode"]


class Engine(StrEnum):
    """What runs the network of a decode."""

    TORCH = "torch"
    ONNX = "onnx"


_MAP_GAIN: Final = 8
"""Values of the map of `--uncertainty` for a level of 255."""


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
    resume: Resume = False,
    keep_suffix: KeepSuffix = False,
    preserve_times: PreserveTimes = False,
    image_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="png, jpg, webp, avif, tiff or ppm, where no OUT names it.",
            show_default="png",
            rich_help_panel=FILES_PANEL,
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
        typer.Option(
            "--preview",
            help="A first look, fast: AV1's own picture, or a coarse one of part of the bytes; excludes --realism.",
        ),
    ] = False,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="These pixels alone, of the picture as coded: from column X and row Y, W wide and H high.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(metavar="1/N", help="A small picture, fast: 1/2, 1/4 or 1/8; excludes --realism, --steps."),
    ] = None,
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial",
            help="Of a damaged .unq file write what is whole, say what is not, and exit with 4.",
        ),
    ] = False,
    uncertainty: Annotated[
        str | None,
        typer.Option(
            metavar="MAP",
            help="Write a second picture, grey: where the drawn detail of realism 1 is invented. Five times the decode.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    engine: Annotated[
        Engine,
        typer.Option(
            help="What runs the network: torch, or onnx (ONNX Runtime on the CPU), which starts faster; for files of av1, "
            "pip install 'unquant[onnx]'.",
            rich_help_panel=RUN_PANEL,
        ),
    ] = Engine.TORCH,
    device: Device = None,
    deterministic: Deterministic = False,
    jobs: Jobs = 1,
    max_pixels: MaxDrawnPixels = None,
    max_memory: MaxMemory = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """.unq files to images, and any .avif files redrawn.

    OUT defaults to the input's name with .png, beside it; its extension gives the format. A .unq file of av1 becomes an
    .avif as it is, unless --realism, --steps, --seed, --preview, --region or --scale asks for what is drawn.
    """
    from unquant.codecs.options import DecodeOptions

    if preview and realism is not None:
        raise OptionError("--preview and --realism exclude each other")
    if uncertainty is not None and (resume or allow_partial or scale is not None):
        raise OptionError("--uncertainty excludes --resume, --allow-partial and --scale")
    if engine is Engine.ONNX and (uncertainty is not None or device not in (None, "cpu")):
        raise OptionError("--engine onnx draws on the CPU, and no map of --uncertainty")
    extension = (image_format or "png").lower().lstrip(".")
    work = plan(inputs, output, recursive=recursive, naming=Naming(FILES, f".{extension}", keep_suffix))
    batch = Batch(
        work,
        workers=jobs,
        force=force,
        resume=resume,
        as_json=as_json,
        quiet=quiet,
        preserve_times=preserve_times,
        limits=limits_of(max_pixels or DECODE_MAX_PIXELS, max_memory),
        uses_torch=engine is Engine.TORCH,
    )
    _check_format(work.jobs[0].target, image_format, extension)
    to_avif = is_avif_output(work.jobs[0].target, image_format, extension)
    drawing: dict[str, Any] = {
        "realism": realism,
        "steps": steps,
        "seed": seed,
        "preview": preview,
        "region": None if region is None else _region(region),
        "scale": _scale(scale),
        "allow_partial": allow_partial,
    }
    options = DecodeOptions(**drawing)
    of_map = None if uncertainty is None else _map_job(batch, uncertainty)
    if dry_run:
        batch.run(DryDecode(model, options))
        return
    running: dict[str, Any] = {"device": device, "deterministic": deterministic}
    batch.run(_Decoder(batch, model, engine, running, drawing, extension, to_avif=to_avif, of_map=of_map))


@dataclass(frozen=True)
class _Decoder:
    """What is done with each file. model: None for the first that fits. running: how it is loaded. drawing: options of a
    decode. extension: of an output without a name. to_avif: the outputs are AVIF files. of_map: the job of the map of
    uncertainty of the one file; None where nobody asks."""

    batch: Batch
    model: str | None
    engine: Engine
    running: Mapping[str, Any]
    drawing: Mapping[str, Any]
    extension: str
    to_avif: bool
    of_map: Job | None

    def __call__(self, job: Job) -> Done:
        from unquant.codecs import loaded
        from unquant.codecs.info import info as read_info
        from unquant.codecs.options import DecodeOptions
        from unquant.codecs.registry import find_decoder
        from unquant.container import DEFAULT_LIMITS
        from unquant.images import image_bytes

        data = read_bytes(job.source, DEFAULT_LIMITS.max_file)
        options = DecodeOptions(**self.drawing)
        info = read_info(data, allow_partial=options.allow_partial)
        start = perf_counter()
        if self.to_avif and family_of(info.family).draws_avif:
            if options == DecodeOptions() and info.container == "unq":
                avif = _repacked(data)
                self._write(job, avif, self._map(data))
                seconds = perf_counter() - start
                line = f"the same AV1 stream repacked, {len(avif)} bytes, {seconds:.1f} s"
                return Done(line, row_of(info, seconds, repacked=True))
            warn("what is drawn is coded a second time, as AVIF")
        entry = find_decoder(data, self.model)
        self.batch.foretell(job, foretold(info, options))
        if self.engine is Engine.ONNX:
            from unquant.codecs.av1_engine import onnx_decoder

            codec = onnx_decoder(entry.path, 1 if self.running["deterministic"] else None)
        else:
            codec = loaded(entry, **self.running)
        start = perf_counter()
        with self.batch.bar.of_picture(info.width * info.height):
            image = codec.decode(data, **self.drawing)
            spread = self._map(data)
        seconds = perf_counter() - start
        self._write(job, image_bytes(image, job.target or f"stdout.{self.extension}"), spread)
        if damage := image.info.get("damage"):
            raise CorruptStream(f"{'; '.join(damage)}; what is whole is in {job.target_name}")
        return Done(f"{image.width}x{image.height}, {seconds:.1f} s", row_of(info, seconds))

    def _map(self, data: bytes) -> bytes | None:
        """The file of the map of uncertainty, grey, where one is asked for."""
        if self.of_map is None:
            return None
        import numpy as np
        from PIL import Image

        from unquant.codecs import loaded
        from unquant.codecs.registry import find_decoder
        from unquant.images import image_bytes

        codec = loaded(find_decoder(data, self.model), **self.running)
        spread = codec.uncertainty(data, region=self.drawing["region"])
        grey = np.rint(np.minimum(_MAP_GAIN * spread, 255)).astype(np.uint8)
        return image_bytes(Image.fromarray(grey), self.of_map.target_name)

    def _write(self, job: Job, data: bytes, of_map: bytes | None) -> None:
        self.batch.write(job, data)
        if self.of_map is not None and of_map is not None:
            self.batch.write(self.of_map, of_map)


def _map_job(batch: Batch, name: str) -> Job:
    """The job that writes a map beside the one picture. Raises OptionError or InputError where it cannot be written."""
    if len(batch.jobs) > 1:
        raise OptionError("--uncertainty: for one file")
    (job,) = batch.jobs
    of_map = without_clashes([job, replace(job, target=Path(name), make_folder=False)])[-1]
    batch.check(of_map)
    _check_format(of_map.target, None, "png")
    return of_map


def _region(text: str) -> Region:
    try:
        x, y, width, height = map(int, text.split(","))
    except ValueError:
        raise OptionError(f"--region: four whole numbers X,Y,W,H, not {text!r}") from None
    return x, y, width, height


def _scale(text: str | None) -> float:
    from unquant.codecs.options import SCALES

    names = {f"1/{round(1 / scale)}": scale for scale in SCALES} | {"1": 1}
    if text is not None and text not in names:
        raise OptionError(f"--scale: 1/2, 1/4 or 1/8, not {text!r}")
    return 1 if text is None else names[text]


def _repacked(data: bytes) -> bytes:
    """The `.avif` with the AV1 stream of a `.unq` file; needs no weights."""
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
    from unquant.images import FORMATS, image_bytes

    if asked is not None and target is not None:
        named, wanted = (FORMATS.get(suffix, suffix) for suffix in (target.suffix.lower(), f".{extension}"))
        if named != wanted:
            raise OptionError(f"{target}: the extension of OUT gives the format; --format says {asked}")
    if is_avif_output(target, None, extension):
        require_avif()
    try:
        image_bytes(Image.new("RGB", (8, 8)), target or f"stdout.{extension}")
    except InputError as error:
        if asked is None:
            raise
        raise OptionError(f"--format {asked}: {error}") from error
