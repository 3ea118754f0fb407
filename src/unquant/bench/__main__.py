"""`python -m unquant.bench rd|speed|plot`: tables on the standard output, progress and notes on stderr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import track

from unquant.bench import anchors, distribution, figures, rd, speed
from unquant.bench.metrics import Meter
from unquant.bench.report import environment, write_json
from unquant.bench.subject import find_images, load, read_image
from unquant.errors import InputError, ModelMissing, UnquantError
from unquant.perceptual import load_vgg16

T = TypeVar("T", int, float, str)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Measures codecs from real files.")
log = Console(stderr=True)

Metrics = Annotated[Path | None, typer.Option(help="folder of the LPIPS and DISTS weights [env: UNQUANT_METRICS]")]
Out = Annotated[Path | None, typer.Option("--out", help="write everything measured as JSON")]
Threads = Annotated[int | None, typer.Option(min=1, help="threads of torch and AVIF")]


def _list(text: str, kind: Callable[[str], T], option: str) -> tuple[T, ...]:
    try:
        return tuple(kind(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from error


@app.command("rd")
def rate_distortion(
    images: Annotated[Path, typer.Argument(help="a folder of images, or one image", exists=True)],
    bpp: Annotated[str | None, typer.Option(help="targets [default: 0.05 … 0.8, none with --q-index]")] = None,
    codecs: Annotated[str, typer.Option(help="names of models and of anchors")] = ",".join(rd.DEFAULT_CODECS),
    realism: Annotated[str, typer.Option(help="realisms, for models")] = "0,1",
    q_index: Annotated[str, typer.Option(help="a sweep over these steps that must give ever smaller files")] = "",
    steps: Annotated[str, typer.Option(help="steps of the reverse path, for models at realism > 0")] = "",
    kd: Annotated[bool, typer.Option("--kd", help="a kernel distance over all images (KD-VGG16) as well")] = False,
    sizes_only: Annotated[bool, typer.Option("--sizes-only", help="file sizes, nothing decoded")] = False,
    out: Out = None,
    metrics: Metrics = None,
    threads: Threads = None,
) -> None:
    """Every codec at equal bytes: rate, distortion, perception. Exit 1 if a larger quantiser step made a larger file."""
    indices = _list(q_index, int, "--q-index")
    plan = rd.Plan(
        bpps=_list(bpp, float, "--bpp") if bpp is not None else () if indices else rd.DEFAULT_BPP,
        codecs=_list(codecs, str, "--codecs"),
        realisms=_list(realism, float, "--realism"),
        q_indices=indices,
        steps=_list(steps, int, "--steps"),
    )
    if kd and sizes_only:
        raise typer.BadParameter("--kd: nothing is decoded with --sizes-only")
    with speed.limited_threads(threads):
        models = {name: load(name) for name in plan.codecs if name not in anchors.ANCHORS}
        meter = None if sizes_only else Meter(metrics)
        collector = distribution.Collector(load_vgg16(metrics)) if kd else None
        paths = track(find_images(images), "measuring", console=log)
        rows = rd.measure(paths, plan, models, meter, out, collector)
    print(rd.summary(rows))
    if collector is not None:
        print("\n" + distribution.report(collector.results()))
    grown = rd.violations(rows)
    for note in [*(meter.notes if meter else []), *(collector.notes if collector else []), *grown]:
        log.print(note, style="yellow", markup=False, highlight=False)
    if grown:
        raise typer.Exit(1)


@app.command("speed")
def seconds(
    image: Annotated[Path, typer.Argument(help="the image to encode", exists=True, dir_okay=False)],
    model: Annotated[str, typer.Option("-m", "--model", help="the model")] = "ratevar",
    bpp: Annotated[float, typer.Option(help="target of the file", min=0)] = 0.15,
    repeats: Annotated[int, typer.Option(help="each figure is the median of so many", min=1)] = 5,
    out: Out = None,
    threads: Threads = None,
) -> None:
    """Seconds and peak memory of encoding, decoding, loading and the commands, beside AVIF's."""
    with speed.limited_threads(threads):
        codec, picture = load(model), read_image(image)
        place = environment({model: codec.weights_id})
        with log.status("measuring"):
            measures = speed.warm_times(codec, picture, bpp, repeats)
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
    results: Annotated[list[Path], typer.Argument(help="files that `rd --out` wrote", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="the figure, .svg or .png")],
    x: Annotated[str, typer.Option(help=f"one of {', '.join(figures.AXES)}")] = "bpp",
    y: Annotated[str, typer.Option(help="one of the same")] = "lpips",
    along: Annotated[str, typer.Option(help="what the points of a line differ in: bpp, realism or steps")] = "bpp",
) -> None:
    """One metric against another, means over the images, a line for every codec and setting."""
    figures.draw(figures.lines_of(figures.read_rows(results), x, y, along), x, y, out)


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
