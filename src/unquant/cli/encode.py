"""`unquant encode`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer

from unquant.cli.batch import Batch, Done, read_bytes
from unquant.cli.dry_run import DryEncode
from unquant.cli.given import ExifFile, Given, IccFile, Strip, XmpFile, read_given
from unquant.cli.paths import IMAGES, Job, Naming, plan, without_clashes
from unquant.cli.quantities import parse_size
from unquant.cli.transcode import (
    FILES_PANEL,
    Deterministic,
    Device,
    DryRun,
    Force,
    Jobs,
    Json,
    KeepSuffix,
    MaxMemory,
    MaxPixels,
    Model,
    Output,
    PreserveTimes,
    Quality,
    Quiet,
    Recursive,
    Resume,
    is_avif_output,
    limits_of,
    row_of,
)
from unquant.codecs.forecast import foretell_encode
from unquant.codecs.registry import DEFAULT_MODEL
from unquant.errors import OptionError, UnquantError, UnsupportedVersion, warn
from unquant.families import FAMILIES, Family, family_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from unquant.codecs.encoder import Encoder

__all__ = ["encode"]

_WISHES: Final = "What the file asks of its decoder, which may be told otherwise"
_ANEW: Final = "with -q, --bpp or --target-size"
_HEAD_BYTES: Final = 4096  # what an image begins with that tells an AVIF file: its file type box


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
    resume: Resume = False,
    keep_suffix: KeepSuffix = False,
    preserve_times: PreserveTimes = False,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="unq, or avif (av1 only) for a file that every viewer opens, where no OUT names it.",
            show_default="unq",
            rich_help_panel=FILES_PANEL,
        ),
    ] = None,
    frame: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Of several frames or pages the one to take, from 0.",
            show_default="the first, with a warning",
            rich_help_panel=FILES_PANEL,
        ),
    ] = None,
    all_frames: Annotated[
        bool,
        typer.Option("--all-frames", help="One output a frame or page: a-0000.unq, …", rich_help_panel=FILES_PANEL),
    ] = False,
    model: Model = DEFAULT_MODEL,
    quality: Quality = None,
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
    roi: Annotated[
        str | None,
        typer.Option(
            metavar="MASK",
            help="A grey image, scaled to each picture: finer steps where it is white, coarser ones elsewhere.",
            show_default=False,
        ),
    ] = None,
    roi_gain: Annotated[
        float | None,
        typer.Option(min=0.25, max=4, metavar="G", help="How much finer they are.", show_default="1.5"),
    ] = None,
    strip: Strip = False,
    exif: ExifFile = None,
    xmp: XmpFile = None,
    icc: IccFile = None,
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
    dry_run: DryRun = False,
    device: Device = None,
    deterministic: Deterministic = False,
    jobs: Jobs = 1,
    max_pixels: MaxPixels = None,
    max_memory: MaxMemory = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Images to .unq files, or to AVIF files that unquant redraws.

    OUT defaults to the input's name with .unq, beside it; an OUT of .avif is written as AVIF (av1 only). An AVIF input goes
    into a .unq file of av1 as it is, unless a rate is given.
    """
    from unquant.codecs import loaded_encoder

    given = {"--quality": quality, "--bpp": bpp, "--target-size": target_size}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise OptionError(f"{' and '.join(names)} exclude each other")
    target_bytes = None if target_size is None else parse_size(target_size, "--target-size")
    extension = (file_format or "unq").lower().lstrip(".")
    if extension not in ("unq", "avif"):
        raise OptionError(f"--format {file_format}: unq or avif")
    if frame is not None and all_frames:
        raise OptionError("--frame and --all-frames exclude each other")
    work = plan(inputs, output, recursive=recursive, naming=Naming(IMAGES, f".{extension}", keep_suffix))
    if all_frames:
        work = replace(work, jobs=without_clashes(list(_frames(work.jobs, max_pixels))))
    elif frame is not None:
        work = replace(work, jobs=[replace(job, frame=frame) for job in work.jobs])
    batch = Batch(
        work,
        workers=jobs,
        force=force,
        resume=resume,
        as_json=as_json,
        quiet=quiet,
        preserve_times=preserve_times,
        limits=limits_of(max_pixels, max_memory),
    )
    own: dict[str, Any] = {} if effort is None else {"effort": effort}  # what not every family takes
    if roi is not None:
        own["roi"] = _mask(roi, max_pixels)
    if roi_gain is not None:
        if roi is None:
            raise OptionError("--roi-gain needs a region: --roi")
        own["roi_gain"] = roi_gain
    to_avif = is_avif_output(work.jobs[0].target, file_format, extension)
    if to_avif:
        _check_writes_avif(model)
        own["container"] = "avif"
    running: dict[str, Any] = {"device": device, "deterministic": deterministic}
    if len(work.jobs) > 1 and not dry_run:
        loaded_encoder(model, **running)  # a model that is missing ends the command here, not file by file
    rate = {"quality": quality, "bpp": bpp, "target_bytes": target_bytes}
    wishes = {"metadata": not strip, "realism": realism, "steps": steps, "seed": seed}
    given = read_given(exif, xmp, icc)
    if dry_run:
        batch.run(DryEncode(model, {**rate, **own, **wishes}))
        return
    batch.run(_Encoder(batch, model, running, {**rate, **own}, wishes, given, rated=bool(names), to_avif=to_avif))


@dataclass(frozen=True)
class _Encoder:
    """What is done with each image. running: how the model is loaded. wishes: options of an encode that a repack takes as
    well; options: all others. given: metadata in place of the image's. rated: a rate is among the options. to_avif: the
    outputs are AVIF files."""

    batch: Batch
    model: str
    running: Mapping[str, Any]
    options: Mapping[str, Any]
    wishes: Mapping[str, Any]
    given: Given
    rated: bool
    to_avif: bool

    def __call__(self, job: Job) -> Done:
        from unquant.codecs import loaded_encoder
        from unquant.codecs.info import info as read_info
        from unquant.container import DEFAULT_LIMITS
        from unquant.container.avif import is_avif
        from unquant.images import open_image, pixel_count

        limit = DEFAULT_LIMITS.max_file
        source = read_bytes(None, limit) if job.source is None else job.source
        head = source if isinstance(source, bytes) else read_bytes(source, _HEAD_BYTES)
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        repacked = is_avif(head) and _family(self.model).draws_avif and self._is_repacked(job.frame, stream)
        wishes = self.wishes
        if not repacked:
            pixels = pixel_count(stream, name=job.source_name, frame=job.frame)
            search = self.options["bpp"] is not None or self.options["target_bytes"] is not None
            self.batch.foretell(job, foretell_encode(_family(self.model).name, pixels, search=search))
        image = None if repacked else open_image(stream, name=job.source_name, frame=job.frame, icc=self.given.icc)
        if image is not None and self.given:
            image = self.given.described(image, metadata=wishes["metadata"])
            wishes = {**wishes, "metadata": True}
        encoder = loaded_encoder(self.model, **self.running)
        start = perf_counter()
        if image is None:
            data = self._repack(encoder, source if isinstance(source, bytes) else read_bytes(source, limit))
        else:
            with self.batch.bar.of_picture(image.width * image.height):
                data = encoder.encode(image, **self.options, **wishes)
        seconds = perf_counter() - start
        info = read_info(data)
        self.batch.write(job, data)
        how = "the same AV1 stream repacked, " if repacked else ""
        line = f"{how}{len(data)} bytes, {info.bpp:.3f} bpp, q index {info.q_index}, {seconds:.1f} s"
        return Done(line, row_of(info, seconds, repacked=repacked))

    def _is_repacked(self, frame: int | None, avif: Path | BinaryIO) -> bool:
        """Whether an AVIF file is repacked; with a warning where it is coded a second time, because a rate is given or one
        of its frames asked for, or because it has several. Raises CodecMissing where that cannot be, and OptionError for an
        AVIF file that shall become one."""
        from unquant.codecs.avif import require_avif

        reason = (
            "a rate given"
            if self.rated
            else "--roi"
            if "roi" in self.options
            else "a frame asked for"
            if frame is not None
            else ""
        )
        if not reason and _has_frames(avif):
            reason = "several frames"
        if reason:
            require_avif()
            warn(f"this is an AVIF file: with {reason} it is coded a second time")
        elif self.to_avif:
            raise OptionError(f"it is an AVIF file already; {_ANEW} it is coded a second time")
        return not reason

    def _repack(self, encoder: Encoder, avif: bytes) -> bytes:
        try:
            data = encoder.repack(avif, **self.wishes)
        except UnsupportedVersion as error:
            raise UnsupportedVersion(f"{error}; {_ANEW} it is coded anew") from error
        return self.given.in_file(data) if self.given else data


def _mask(name: str, max_pixels: int | None) -> Image:
    """The mask of a region of interest. Raises InputError, ImageTooLarge."""
    from unquant.images import open_image

    return open_image(name, max_pixels=max_pixels)


def _frames(jobs: Sequence[Job], max_pixels: int | None) -> Iterator[Job]:
    """The jobs, in place of one whose source has several frames a job for each. Raises OptionError for a pipe."""
    from unquant.images import frame_count

    for job in jobs:
        if job.source is None:
            raise OptionError("--all-frames: for files, not for the standard input")
        count = 1
        if job.problem is None:
            with suppress(UnquantError):  # which comes up again where it is encoded
                count = frame_count(job.source, max_pixels=max_pixels)
        if count == 1:
            yield job
            continue
        if job.target is None:
            raise OptionError(f"{job.source_name}: its {count} frames cannot all go to the standard output")
        for frame in range(count):
            target = job.target.with_name(f"{job.target.stem}-{frame:04}{job.target.suffix}")
            yield replace(job, target=target, frame=frame)


def _has_frames(avif: Path | BinaryIO) -> bool:
    """Whether a file has several; what cannot be read has none, and is told so where its stream is repacked."""
    from unquant.images import frame_count

    with suppress(UnquantError):
        return frame_count(avif) > 1
    return False


def _family(model: str) -> Family:
    """The family of a model by the model's name or path. Raises ModelMissing or WeightsError."""
    from unquant.codecs.registry import find_model

    return family_of(find_model(model).family)


def _check_writes_avif(model: str) -> None:
    """Raises OptionError unless the model's files can be AVIF files."""
    family = _family(model)
    if not family.draws_avif:
        able = ", ".join(each.name for each in FAMILIES.values() if each.draws_avif)
        raise OptionError(
            f"-m {model}: models of the family {family.name} write .unq alone; .avif is written by {able}"
        )
