"""`python -m unquant.bench speed|plot|texture|pages`: seconds of the codec, figures and tables of rows of `unquant bench`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from unquant.bench import figures, pages, speed, texture
from unquant.bench.environment import environment, limited_threads
from unquant.bench.subject import find_images, load, read_image
from unquant.bench.tables import write_json
from unquant.codecs.registry import DEFAULT_MODEL
from unquant.errors import InputError, ModelMissing, UnquantError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Seconds of the codec; figures of results. `unquant bench` measures codecs on images.",
)
log = Console(stderr=True)

Out = Annotated[Path | None, typer.Option("--out", help="write everything measured as JSON")]
Threads = Annotated[int | None, typer.Option(min=1, help="threads of torch and AVIF")]


@app.command("speed")
def seconds(
    image: Annotated[Path, typer.Argument(help="the image to encode", exists=True, dir_okay=False)],
    model: Annotated[str, typer.Option("-m", "--model", help="the model")] = DEFAULT_MODEL,
    bpp: Annotated[float, typer.Option(help="target of the file", min=0)] = 0.15,
    repeats: Annotated[int, typer.Option(help="each figure is the median of so many", min=1)] = 5,
    out: Out = None,
    threads: Threads = None,
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


@app.command("plot")
def plot(
    results: Annotated[
        list[Path], typer.Argument(help="files rows.jsonl that `unquant bench` wrote", exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="the figure, .svg or .png")],
    x: Annotated[str, typer.Option(help=f"one of {', '.join(figures.AXES)}")] = "bpp",
    y: Annotated[str, typer.Option(help="one of the same")] = "lpips_alex",
    along: Annotated[str, typer.Option(help="what the points of a line differ in: bpp, realism or steps")] = "bpp",
) -> None:
    """One metric against another, means over the images, a line for every codec and setting."""
    figures.draw(figures.lines_of(figures.read_rows(results), x, y, along), x, y, out)


@app.command("texture")
def regular_texture(
    images: Annotated[Path, typer.Argument(help="an image or a folder of images", exists=True)],
    model: Annotated[str, typer.Option("-m", "--model", help="the model")] = "av1",
    bpp: Annotated[float, typer.Option("--at-bpp", help="target of the files", min=0)] = 0.15,
    out: Out = None,
) -> None:
    """Regular texture of period 8 / 4 in the error of smooth areas, over the spectrum around it: 1 is none."""
    codec = load(model)
    rows: list[texture.TextureRow] = []
    for path in find_images(images):
        with log.status(path.name):
            rows.append(texture.texture_of(codec, path.name, read_image(path), bpp))
    print(texture.table(rows))
    if out is not None:
        write_json(
            out, {"model": model, "weights": codec.weights_id, "bpp": bpp, "rows": [asdict(row) for row in rows]}
        )


@app.command("pages")
def fill_pages(
    files: Annotated[list[Path], typer.Argument(help="Markdown files", exists=True, dir_okay=False)],
) -> None:
    """Makes the tables in Markdown pages anew from the rows that they name; see `unquant.bench.pages`."""
    for path in files:
        log.print(f"{path}: {'made anew' if pages.fill(path) else 'as it was'}", markup=False, highlight=False)


def main() -> None:
    """Runs a command; an error of the package becomes one line on stderr and an exit code."""
    try:
        app()
    except UnquantError as error:
        log.print(f"error: {error}", style="red", markup=False, highlight=False)
        code = 3 if isinstance(error, InputError) else 5 if isinstance(error, ModelMissing) else 2
        raise SystemExit(code) from error


if __name__ == "__main__":
    main()
