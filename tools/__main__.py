"""`python -m tools speed|pages`, from the top of the repository: seconds of the codec, and the tables of its pages."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tools import pages, speed
from unquant.bench.run.environment import environment, limited_threads
from unquant.bench.run.json_files import write_json
from unquant.bench.subjects.images import read_image
from unquant.bench.subjects.models import load
from unquant.cli.exits import guarded
from unquant.codecs.registry import DEFAULT_MODEL

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
