"""`unquant train`: stage 1, and joining an export to a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unquant.cli.exits import guarded, say
from unquant.cli.quantities import parse_duration
from unquant.errors import InputError, OptionError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Train a model; export its weights.")


@app.command("stage1")
@guarded
def stage1(
    config: Annotated[Path, typer.Option(metavar="FILE", help="The recipe, TOML.", show_default=False)],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of tar shards of images.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run.", show_default=False)],
    time_budget: Annotated[
        str, typer.Option(metavar="TIME", help="Wall clock: 90m, 2h, 1h30m, 75s.", show_default=False)
    ],
    planned_total: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Length of the learning-rate cosine over several runs.",
            show_default="to the end of this one",
        ),
    ] = None,
    init: Annotated[
        str, typer.Option(metavar="klt|random|PATH", help="Start from this; PATH: an export or a weights file.")
    ] = "klt",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what lies in --out, if anything does.")] = False,
    metrics_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the LPIPS weights.", show_default="UNQUANT_METRICS")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to train.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, metavar="N", help="How many of them.")] = 1,
) -> None:
    """Transforms and entropy model together, for every rate.

    A file orders.json with {"stop": true} in the run's folder ends the run after an export.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError(f"--device: auto, cpu or cuda, not {device!r}")
    budget = parse_duration(time_budget, "--time-budget")
    total = None if planned_total is None else parse_duration(planned_total, "--planned-total")

    from unquant.train.loop import train
    from unquant.train.recipe import Run, load_recipe

    recipe = load_recipe(config)
    run = Run(
        data=data,
        out=out,
        time_budget=budget,
        planned_total=total,
        init=init,
        resume=resume,
        metrics=metrics_dir,
        device=device,
        devices=devices,
    )
    folder = train(recipe, run, echo=say)
    say(f"weights exported to {folder}; `unquant train export {folder} -o FILE` joins them")


@app.command("export")
@guarded
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of a run, or the export in it.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The weights file, *.safetensors.", show_default=False),
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
) -> None:
    """Joins an export to one weights file that encodes and decodes."""
    if output.exists() and not force:
        raise InputError(f"{output}: exists already (--force overwrites)")
    if output.is_dir():
        raise InputError(f"{output}: is a folder")

    from unquant.weights import join_shards

    nested = folder / "export"
    try:
        weights = join_shards(nested if (nested / "ema.json").is_file() else folder, output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror or error}") from error
    say(
        f"{output}: {output.stat().st_size} bytes, stream id {weights.stream_id.hex()}, weights id {weights.weights_id}"
    )
