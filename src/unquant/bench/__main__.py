"""`python -m unquant.bench plot|texture`: figures of rows of `unquant bench`, regular texture in what a model decodes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from unquant.bench.analysis import curves, texture
from unquant.bench.report import figures
from unquant.bench.run.json_files import write_json
from unquant.bench.subjects.images import find_images, read_image
from unquant.bench.subjects.models import load
from unquant.errors import InputError, ModelMissing, UnquantError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Figures of results; texture in decodes. `unquant bench` measures codecs on images.",
)
log = Console(stderr=True)


@app.command("plot")
def plot(
    results: Annotated[
        list[Path], typer.Argument(help="files rows.jsonl that `unquant bench` wrote", exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="the figure, .svg or .png")],
    x: Annotated[str, typer.Option(help=f"one of {', '.join(curves.AXES)}")] = "bpp",
    y: Annotated[str, typer.Option(help="one of the same")] = "lpips_alex",
    along: Annotated[str, typer.Option(help="what the points of a line differ in: bpp, realism or steps")] = "bpp",
) -> None:
    """One metric against another, means over the images, a line for every codec and setting."""
    figures.draw(curves.lines_of(curves.read_rows(results), x, y, along), x, y, out)


@app.command("texture")
def regular_texture(
    images: Annotated[Path, typer.Argument(help="an image or a folder of images", exists=True)],
    model: Annotated[str, typer.Option("-m", "--model", help="the model")] = "av1",
    bpp: Annotated[float, typer.Option("--at-bpp", help="target of the files", min=0)] = 0.15,
    out: Annotated[Path | None, typer.Option("--out", help="write everything measured as JSON")] = None,
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
