"""`unquant bulk`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from unquant.cli.exits import Code, say, write_line
from unquant.cli.paths import FILES, IMAGES
from unquant.cli.quantities import parse_size
from unquant.cli.transcode import FILES_PANEL, Force, Json, MaxPixels, Model, Quality, Quiet
from unquant.codecs.registry import DEFAULT_MODEL
from unquant.errors import OptionError

__all__ = ["bulk"]


def bulk(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A folder, a list of names (.txt), or Parquet of paths or bytes; a path or a URL such as s3://bucket/photos.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Argument(metavar="OUT", help="Folder or URL of the outputs.", show_default="beside the inputs"),
    ] = None,
    decoding: Annotated[bool, typer.Option("--decode", help=".unq and .avif files to PNG.")] = False,
    model: Model = DEFAULT_MODEL,
    quality: Quality = None,
    bpp: Annotated[float | None, typer.Option(help="Bits per pixel, met from below.")] = None,
    target_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Size of each file, met from below: 20k.")
    ] = None,
    effort: Annotated[int | None, typer.Option(min=1, max=9, help="Time the encoder may take (av1 only).")] = None,
    file_format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="unq, or avif (av1 only).", rich_help_panel=FILES_PANEL)
    ] = "unq",
    realism: Annotated[float | None, typer.Option(min=0, max=1, help="As of encode and decode.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="As of encode and decode.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="As of encode and decode.")] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Parquet, a row an image.",
            show_default="manifest.parquet in OUT, or in the folder IN",
            rich_help_panel=FILES_PANEL,
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of Parquet: text names files, binary holds them.",
            show_default="path, else bytes",
            rich_help_panel=FILES_PANEL,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on: leave out what the manifest has.", rich_help_panel=FILES_PANEL),
    ] = False,
    force: Force = False,
    workers: Annotated[
        int | None,
        typer.Option("-j", "--workers", min=1, metavar="N", help="Of one core each.", show_default="every core"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Of a running Ray cluster; auto for the one of this machine.",
            show_default="one of this machine's cores, for this run",
        ),
    ] = None,
    batch_pixels: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="What a worker does at most before it notes it in the manifest, and what is lost with it.",
            show_default="100000000",
        ),
    ] = None,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Many images on all cores, or on a Ray cluster; a manifest says what became of each.

    An image that cannot be done is a row of the manifest, and the exit code is 7.
    """
    from unquant import bulk as bulks
    from unquant.codecs.options import DecodeOptions, EncodeOptions
    from unquant.codecs.registry import find_model
    from unquant.places import Place

    rates = {
        "quality": quality,
        "bpp": bpp,
        "target_bytes": None if target_size is None else parse_size(target_size, "--target-size"),
    }
    wishes = {"realism": realism, "steps": steps, "seed": seed}
    options: dict[str, Any] = {name: value for name, value in wishes.items() if value is not None}
    if decoding:
        if any(value is not None for value in (*rates.values(), effort)) or file_format != "unq":
            raise OptionError("--decode takes no rate, effort or format")
        DecodeOptions(**options)
    else:
        if file_format not in ("unq", "avif"):
            raise OptionError(f"--format {file_format}: unq or avif")
        options |= {name: value for name, value in {**rates, "effort": effort}.items() if value is not None}
        options |= {"container": file_format} if file_format == "avif" else {}
        EncodeOptions(**options)
    place = Place.named(source)
    home = None if output is None else Place.named(output)
    if manifest is None:
        folder = home or (place if place.is_folder else None)
        if folder is None:
            raise OptionError("--manifest FILE: is needed where there is neither OUT nor a folder IN")
        manifest = folder.child("manifest.parquet").uri
    weights = None if decoding else find_model(model).weights_id
    asked = {"decoding": decoding, "weights": weights, "options": options, "output": home and home.uri}
    task = bulks.Task(decoding, model, options, home, column or "bytes", max_pixels)
    suffixes = (FILES if decoding else IMAGES).suffixes

    def told(row: dict[str, Any]) -> None:
        if as_json:
            write_line(json.dumps({name: value for name, value in row.items() if value is not None}))
        elif row["error"] is not None:
            say(str(row["error"]), "error")

    summary = bulks.run(
        bulks.Bulk(
            task,
            place,
            suffixes,
            Place.named(manifest),
            asked,
            column=column,
            workers=workers,
            address=address,
            resume=resume,
            force=force,
            batch_pixels=batch_pixels or bulks.BATCH_PIXELS,
            bars=sys.stderr.isatty() and not quiet and not as_json,
        ),
        told,
    )
    if as_json:
        write_line(json.dumps({"summary": summary.to_dict()}))
    if not quiet:
        say(_line(summary))
    if summary.failures:
        raise typer.Exit(Code.PARTIAL)


def _line(summary: Any) -> str:
    failed = "".join(f", {count} {kind}" for kind, count in summary.failures.most_common())
    skipped = f", {summary.skipped} done before" if summary.skipped else ""
    return (
        f"{summary.images} images{skipped}{failed}; {summary.megapixels:.1f} megapixels, {summary.bytes_in} bytes in, "
        f"{summary.bytes_out} out, {summary.seconds:.1f} s, {summary.images_per_core_second:.2f} images a second and core"
    )
