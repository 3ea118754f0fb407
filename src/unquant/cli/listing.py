"""`unquant info`, `unquant models` and `unquant demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unquant.cli.batch import read_bytes
from unquant.cli.exits import Code, code_of, describe, print_traceback, say, write_line
from unquant.cli.transcode import MaxPixels
from unquant.codecs.registry import DEFAULT_MODEL
from unquant.errors import UnquantError

if TYPE_CHECKING:
    from unquant.codecs.info import Info

__all__ = ["demo", "info", "models"]


def info(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help=".unq and .avif files, - for the standard input.", show_default=False),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per file.")] = False,
    max_pixels: MaxPixels = None,
) -> None:
    """What the headers of .unq and .avif files say."""
    from unquant.codecs.info import info as read_info
    from unquant.container import DEFAULT_LIMITS

    codes: set[Code] = set()
    shown = 0
    for name in files:
        try:
            found = read_info(
                read_bytes(None if name == "-" else Path(name), DEFAULT_LIMITS.max_file), max_pixels=max_pixels
            )
        except (UnquantError, MemoryError) as error:
            print_traceback(error)
            cause = describe(error, name)
            say(cause, "error")
            code = code_of(error) or Code.OTHER
            codes.add(code)
            if as_json:
                write_line(json.dumps({"file": name, "error": cause, "code": int(code)}))
            continue
        if as_json:
            write_line(json.dumps({"file": name, **found.to_dict()}))
        else:
            write_line(("\n" if shown else "") + _text(name, found))
        shown += 1
    if codes:
        raise typer.Exit(Code.PARTIAL if shown or len(codes) > 1 else codes.pop())


def models(as_json: Annotated[bool, typer.Option("--json", help="One JSON object per model.")] = False) -> None:
    """The models that are installed."""
    from unquant.codecs.registry import models as installed_models

    found = installed_models()
    if not found:
        say("no models are installed")
    if as_json:
        for model in found:
            row = {
                "name": model.name,
                "family": model.family,
                "path": str(model.path),
                "bytes": model.bytes,
                "parameters": model.parameters,
                "stream_id": model.stream_id,
                "weights_id": model.weights_id,
                "training": model.training,
            }
            write_line(json.dumps(row))
        return
    rows = [("name", "family", "parameters", "size", "stream id", "weights id")]
    for model in found:
        size = f"{model.bytes / 1e6:.1f} MB"
        rows.append(
            (model.name, model.family, f"{model.parameters / 1e6:.1f} M", size, model.stream_id, model.weights_id)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if found else ():
        write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the picture and the file.")
    ] = Path("demo"),
    bpp: Annotated[float, typer.Option(min=0.0, help="Bits per pixel.")] = 0.15,
    model: Annotated[
        str, typer.Option("-m", "--model", metavar="NAME", help="A name from `unquant models`.")
    ] = DEFAULT_MODEL,
    serve: Annotated[bool, typer.Option("--serve", help="A page in the browser for photographs of your own.")] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Of the page, on 127.0.0.1; 0 for any.")
    ] = 8765,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="With --serve: open the page in a browser.")
    ] = True,
) -> None:
    """A bundled photograph there and back, beside AVIF and JPEG at the same bytes; or a page for any photograph."""
    if serve:
        _serve(model, bpp, port, browser)
    else:
        from unquant.demo.terminal import run

        run(output, bpp, model)


def _serve(model: str, bpp: float, port: int, browser: bool) -> None:
    import threading
    import webbrowser

    from unquant.demo.web import serve

    def ready(url: str) -> None:
        write_line(f"{url}  (Ctrl-C ends it)")
        if browser:  # one on the terminal would wait for its end
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    serve(model, port, bpp=bpp, ready=ready)


def _text(name: str, found: Info) -> str:
    def default(value: object) -> str:
        return "the model's" if value is None else str(value)

    weights = f"model {found.model}" if found.model else "no installed model"
    nominal = " by the bytes per pixel; the headers do not tell" if found.q_nominal else ""
    lines = [
        ("file", name),
        ("size", f"{found.width}x{found.height} pixels, {found.bytes} bytes, {found.bpp:.4f} bpp"),
        ("family", found.family),
        ("stream id", f"{found.stream_id or 'none: an AVIF file'} ({weights})"),
        ("q index", f"{found.q_index}{' and a map' if found.q_map else ''}{nominal}"),
        ("realism", default(found.realism)),
        ("steps", default(found.steps)),
        ("seed", default(found.seed)),
        ("tiles", str(found.tiles)),
        ("sections", ", ".join(f"{kind} {size} bytes" for kind, size in found.sections.items()) or "none"),
    ]
    if coding := _coding(found):
        lines.append(("coding", ", ".join(coding)))
    return "\n".join(f"{label + ':':<11}{value}" for label, value in lines)


def _coding(found: Info) -> list[str]:
    """What there is to say of how AV1 coded the picture."""
    said = (
        (found.chroma, found.chroma or ""),
        (found.half, "base at half size"),
        (found.using_qmatrix, "quantisation matrices"),
        (found.delta_q_present, "steps that differ by superblock"),
        (found.grid, "a grid of pictures"),
        (found.film_grain, "film grain"),
        (found.has_alpha and "alpha" not in found.sections, "alpha"),
        ((found.orientation or 1) != 1, f"to be turned (orientation {found.orientation})"),
    )
    return [text for holds, text in said if holds]
