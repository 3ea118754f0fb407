"""`unquant export`."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from unquant.cli.exits import guarded, say, write_line
from unquant.codecs.registry import DEFAULT_MODEL, find_model
from unquant.files import check_target, write_whole

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Networks for other programs.")


@app.callback()
def options() -> None:
    """Networks for other programs."""


@app.command("onnx")
@guarded
def onnx(
    output: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="The file.", show_default="the model's name with .onnx")
    ] = None,
    model: Annotated[
        str, typer.Option("-m", "--model", metavar="NAME", help="A name from `unquant models`, of the family av1.")
    ] = DEFAULT_MODEL,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on the standard output.")] = False,
) -> None:
    """The network that redraws AV1 pictures as an ONNX file; docs/av1.md says what goes in."""
    from unquant.codecs.onnx_file import onnx_network

    start = perf_counter()
    entry = find_model(model)
    target = output or Path(f"{entry.name}.onnx")
    check_target(target, force=force, hint="--force overwrites")
    network = onnx_network(entry.path)
    write_whole(target, network.data, force=force)
    if not as_json:
        say(f"{entry.name} -> {target}: {len(network.data)} bytes, {perf_counter() - start:.1f} s")
        return
    row = {
        "model": entry.name,
        "output": str(target),
        "bytes": len(network.data),
        "halo": network.halo,
        "default_realism": network.default_realism,
        "weights_id": network.weights_id,
        "stream_id": network.stream_id,
    }
    write_line(json.dumps(row))
