"""`python -m tools COMMAND`, from the top of the repository: what the codec takes, what its map is worth, its tables."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

import unquant
from tools import pages, scale, sizes, speed, spread
from unquant.bench.run.environment import cpu_name, environment, limited_threads
from unquant.bench.run.json_files import write_json
from unquant.bench.subjects.images import find_images, read_image
from unquant.bench.subjects.models import load
from unquant.cli.exits import guarded
from unquant.codecs.registry import DEFAULT_MODEL
from unquant.files import write_whole
from unquant.images import image_bytes

app = typer.Typer(no_args_is_help=True, add_completion=False, help="What makes this repository's own pages.")
log = Console(stderr=True)


@app.command("speed")
@guarded
def seconds(
    image: Annotated[Path, typer.Argument(help="the image to encode", exists=True, dir_okay=False)],
    model: Annotated[str, typer.Option("-m", "--model", help="the model")] = DEFAULT_MODEL,
    bpp: Annotated[float, typer.Option(help="target of the file", min=0)] = 0.15,
    repeats: Annotated[int, typer.Option(help="each figure is the median of so many", min=1)] = 5,
    out: Annotated[Path | None, typer.Option("--out", help="write everything measured as JSON")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="threads of torch and AVIF")] = None,
) -> None:
    """Seconds and peak memory of encoding, decoding, loading and the commands, beside AVIF's."""
    with limited_threads(threads):
        codec, picture = load(model), read_image(image)
        place = environment({model: codec.weights_id})
        with log.status("measuring"):
            measures = speed.warm_times(codec, picture, bpp, repeats)
            measures += speed.unet_times(codec, picture, repeats)
            measures += speed.fresh_times(model, image, bpp, min(repeats, 3))
            measures += speed.command_times(codec.encode(picture, bpp=bpp), repeats)
    print(f"{image.name}, {picture.width}×{picture.height}; {place['cpu']}, {place['threads']} threads\n")
    print(speed.table(measures))
    if out is not None:
        size = {"image": image.name, "width": picture.width, "height": picture.height, "bpp": bpp, "repeats": repeats}
        rows = [asdict(row) | {"ratio": row.ratio} for row in measures]
        write_json(out, {"environment": place, **size, "measures": rows})


@app.command("sizes")
@guarded
def of_sizes(
    photo: Annotated[Path, typer.Argument(help="a photograph, mirrored as often as it takes", exists=True)],
    out: Annotated[Path, typer.Argument(help="rows are added to this file")],
    megapixels: Annotated[list[int], typer.Option("--mp", help="of 0 (32×32 pixels), 1, 4, 16, 64, 100")],
    model: Annotated[str, typer.Option("-m", "--model", help="the model")] = DEFAULT_MODEL,
    encode: Annotated[str, typer.Option(help="options of the encode in place of -q 40")] = "",
    decode: Annotated[str, typer.Option(help="options of the decode")] = "",
    busy: Annotated[bool, typer.Option("--busy", help="others work on this machine: say so")] = False,
    plot: Annotated[Path | None, typer.Option(help="draw all rows as SVG")] = None,
) -> None:
    """Core seconds and peak memory of the commands by the size of the picture."""
    kind = cpu_name() + (", busy" if busy else "")
    rows = sizes.read_sizes(out) if out.exists() else []
    for size in megapixels:
        with log.status(f"{model}, {size} megapixels"):
            rows += sizes.measure(
                model,
                photo,
                sizes.SIZES[size],
                encode=encode.split(),
                decode=decode.split(),
                cpu_kind=kind,
                threads=torch.get_num_threads(),
            )
        write_whole(out, sizes.lines_of(rows), force=True)
    print(sizes.table(rows))
    if plot is not None:
        sizes.draw(rows, plot)


@app.command("scale")
@guarded
def of_many(
    photos: Annotated[Path, typer.Argument(help="a folder of photographs, which small ones are cut from", exists=True)],
    out: Annotated[Path, typer.Argument(help="rows are added to this file")],
    images: Annotated[int, typer.Option(min=1, help="how many")] = 1000,
    size: Annotated[tuple[int, int], typer.Option(min=1, help="width and height")] = (144, 128),
    options: Annotated[str, typer.Option(help="of both commands")] = "-q 40",
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="of both commands")] = 2,
    runs: Annotated[int, typer.Option(min=1, help="of each, one after the other")] = 1,
    busy: Annotated[bool, typer.Option("--busy", help="others work on this machine: say so")] = False,
) -> None:
    """`unquant encode` and `unquant bulk` on many small photographs: core seconds, and memory as the run goes on."""
    kind = cpu_name() + (", busy" if busy else "")
    rows = scale.read_scale(out) if out.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder)
        scale.crops(photos, small, images, size)
        for _ in range(runs):
            for how in scale.HOW:
                with log.status(f"{how}, {images} images"):
                    rows.append(scale.measure(how, small, options=options.split(), jobs=jobs, cpu_kind=kind))
                write_whole(out, scale.lines_of(rows), force=True)
    print(scale.table(rows))


@app.command("costs")
@guarded
def of_costs(
    rows: Annotated[Path, typer.Argument(help="rows of `sizes`", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Argument(help="the table")] = Path("src/unquant/codecs/costs.json"),
) -> None:
    """The table that `unquant.codecs.forecast` foretells from."""
    write_json(out, sizes.costs(sizes.read_sizes(rows)))


@app.command("uncertainty")
@guarded
def of_uncertainty(
    images: Annotated[Path, typer.Argument(help="a folder of photographs, or one", exists=True)],
    out: Annotated[
        Path | None,
        typer.Option(help="rows are added to this file; what it has is left out, of other weights taken out"),
    ] = None,
    model: Annotated[str, typer.Option("-m", "--model", help="the model")] = DEFAULT_MODEL,
    bpp: Annotated[float, typer.Option("--at-bpp", help="target of the files", min=0)] = 0.15,
    figure: Annotated[Path | None, typer.Option(help="draw the first picture, its map and its error")] = None,
) -> None:
    """Whether the map of uncertainty is large where the picture is wrong."""
    codec, paths = unquant.load(model), find_images(images)
    if figure is not None:
        drawn = spread.picture(codec, read_image(paths[0]), bpp)
        write_whole(figure, image_bytes(drawn, figure), force=True)
    if out is None:
        return
    rows = spread.read_rows(out) if out.exists() else []
    rows = [row for row in rows if row.codec != model or row.version == codec.weights_id]
    known = {row.image for row in rows if row.codec == model}
    for path in paths:
        if path.name not in known:
            with log.status(f"{model}, {path.name}"):
                rows.append(spread.measure(codec, model, read_image(path), path.name, bpp))
            write_whole(out, spread.lines_of(rows), force=True)
    print(spread.table(rows))


@app.command("pages")
@guarded
def fill_pages(
    files: Annotated[list[Path], typer.Argument(help="Markdown files", exists=True, dir_okay=False)],
) -> None:
    """Makes the tables in Markdown pages anew from the rows that they name; see `tools.pages`."""
    for path in files:
        log.print(f"{path}: {'made anew' if pages.fill(path) else 'as it was'}", markup=False, highlight=False)


if __name__ == "__main__":
    app()
