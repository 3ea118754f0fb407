"""`unquant train`: the stages of training, and joining an export to a weights file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from unquant.cli.exits import guarded, say
from unquant.cli.quantities import parse_duration, parse_rates
from unquant.errors import OptionError
from unquant.files import check_target
from unquant.places import is_url

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Train a model; export its weights.")

_Metrics = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the LPIPS weights.", show_default="UNQUANT_METRICS")
]


def _add_stage(number: int, text: str, start: Any) -> None:
    """The command of a stage: they differ in their help and in what --init is, the option `start`, alone."""

    @app.command(f"stage{number}", help=text)
    @guarded
    def stage(
        config: Annotated[Path, typer.Option(metavar="FILE", help="The recipe, TOML.", show_default=False)],
        data: Annotated[
            str,
            typer.Option(
                metavar="DIR", help="Folder of tar shards of images; with --stream also a URL.", show_default=False
            ),
        ],
        out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run.", show_default=False)],
        time_budget: Annotated[
            str | None, typer.Option(metavar="TIME", help="Wall clock: 90m, 2h, 1h30m, 75s.", show_default=False)
        ] = None,
        steps: Annotated[
            int | None,
            typer.Option(
                min=1,
                metavar="N",
                help="In place of --time-budget: this many steps, with a schedule over them.",
                show_default=False,
            ),
        ] = None,
        planned_total: Annotated[
            str | None,
            typer.Option(
                metavar="TIME",
                help="Length of the learning-rate cosine over several runs.",
                show_default="to the end of this one",
            ),
        ] = None,
        cooldown: Annotated[
            bool,
            typer.Option("--cooldown", help="The learning rate falls from lr to lr_end over this run's time or steps."),
        ] = False,
        init: str | None = start,
        resume: Annotated[
            bool, typer.Option("--resume", help="Go on from what lies in --out, if anything does.")
        ] = False,
        metrics_dir: _Metrics = None,
        device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to train.")] = "auto",
        devices: Annotated[int, typer.Option(min=1, metavar="N", help="How many of them, on each machine.")] = 1,
        num_nodes: Annotated[
            int, typer.Option(min=1, metavar="N", help="Machines; each runs this command, by torchrun or srun.")
        ] = 1,
        stream: Annotated[
            bool, typer.Option("--stream", help="Data beyond memory: read the shards as training goes on.")
        ] = False,
        buffer: Annotated[
            int, typer.Option(min=1, metavar="N", help="With --stream: images in memory, each of 0.8 MB.")
        ] = 4096,
    ) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise OptionError(f"--device: auto, cpu or cuda, not {device!r}")
        if (time_budget is None) == (steps is None):
            raise OptionError("--time-budget or --steps: one of the two")
        budget = None if time_budget is None else parse_duration(time_budget, "--time-budget")
        if planned_total is not None and steps is not None:
            raise OptionError("--planned-total: goes with --time-budget, not with --steps")
        if planned_total is not None and cooldown:
            raise OptionError("--planned-total: a cooldown takes the time budget alone")
        if is_url(data) and not stream:
            raise OptionError(f"--data: {data} is a URL, which --stream reads")
        total = None if planned_total is None else parse_duration(planned_total, "--planned-total")
        if number > 1 and init in ("klt", "random"):
            raise OptionError(f"--init: stage {number} goes on from weights: an export or a weights file, not {init!r}")

        from unquant.codecs.registry import find_model
        from unquant.train.loop import train
        from unquant.train.recipe import Run, load_recipe

        recipe = load_recipe(config)
        run = Run(
            data=data if stream else Path(data),
            out=out,
            time_budget=budget,
            steps=steps,
            planned_total=total,
            cooldown=cooldown,
            init=str(find_model(recipe.family).path) if init is None else init,
            resume=resume,
            metrics=metrics_dir,
            device=device,
            devices=devices,
            num_nodes=num_nodes,
            stream=buffer if stream else None,
            stage=number,
        )
        folder = train(recipe, run, echo=say)
        say(f"weights exported to {folder}; `unquant train export {folder} -o FILE` joins them")


_WEIGHTS = typer.Option(
    None,
    metavar="PATH",
    help="Start from this export or weights file.",
    show_default="the package's weights of the recipe's family",
)

_add_stage(
    1,
    """Transforms and entropy model together, for every rate.

    A file orders.json with {"stop": true} in the run's folder ends the run after an export.
    """,
    typer.Option("klt", metavar="klt|random|PATH", help="Start from this; PATH: an export or a weights file."),
)
_add_stage(
    2,
    """The reverse network alone, in latent space: by mse, bridge or energy, as the recipe says.

    All else stays as it is: files keep decoding. Stops as stage1 does.
    """,
    _WEIGHTS,
)
_add_stage(
    3,
    """Reverse network and synthesis together, for realism; of `av1` the network that redraws.

    Starts, of `ratevar`, from weights whose reverse network is of the training energy.

    Analysis and entropy model stay as they are: files keep decoding. Stops as stage1 does.
    """,
    _WEIGHTS,
)


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
    int8: Annotated[
        bool, typer.Option("--int8", help="Half the size: most of what draws pictures in int8, streams as they are.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
) -> None:
    """Joins an export to one weights file that encodes and decodes."""
    check_target(output, force=force, hint="--force overwrites")

    from unquant.weights_file import join_shards

    nested = folder / "export"
    weights = join_shards(nested if (nested / "ema.json").is_file() else folder, output, int8=int8)
    say(
        f"{output}: {output.stat().st_size} bytes, stream id {weights.stream_id.hex()}, weights id {weights.weights_id}"
    )


@app.command("tune")
@guarded
def tune(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="A weights file, *.safetensors.")],
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder of validation images.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The tuned weights file; must be new.", show_default=False),
    ],
    bpp: Annotated[str, typer.Option(metavar="LIST", help="Rates to tune for.")] = "0.1,0.2,0.4",
    crop: Annotated[int, typer.Option(min=32, metavar="PIXELS", help="The middle of each image, of this side.")] = 256,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N images.", show_default="all")
    ] = None,
    metrics_dir: _Metrics = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The choice and all figures as JSON on the standard output.")
    ] = False,
) -> None:
    """How the reverse path is best driven, written into a copy of the weights.

    Searches steps, schedules of q and of randomness, and the default realism, for the lowest DISTS. No tensor changes.
    """
    rates = parse_rates(bpp, "--bpp")

    from unquant.bench.tuning import markdown, run_tuning

    tuned = run_tuning(weights, images, output, rates, crop, count, metrics_dir, echo=say)
    print(json.dumps(tuned.to_dict()) if as_json else markdown(tuned.table))
    say(f"{output}: realism {tuned.setting.realism:g}, {tuned.setting.reverse}")
