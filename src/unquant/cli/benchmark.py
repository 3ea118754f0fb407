"""`unquant bench`: codecs at equal bytes over images, with scores, a table and a report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from unquant.cli.exits import Code, code_of, describe, print_traceback, say, write_line
from unquant.cli.quantities import parse_rates
from unquant.codecs.registry import DEFAULT_MODEL
from unquant.errors import OptionError

if TYPE_CHECKING:
    from unquant.bench.run.measure import Results, Watch
    from unquant.bench.run.setup import Failure

__all__ = ["MetricsDir", "bench", "metric_names"]

T = TypeVar("T", int, float)

_WHAT = "What to measure"
_RUN = "Running"


_Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGES...", help="Images, and folders of images.", show_default=False)
]
_Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of rows, report and cache.")]
_Recursive = Annotated[bool, typer.Option("-r", "--recursive", help="Take folders with all levels.")]
_Codecs = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Models, by name or path, and jpeg, webp, avif, avif-base (with the options of av1), jxl, heic, jpeg2000.",
        show_default=f"{DEFAULT_MODEL} and all that are installed",
        rich_help_panel=_WHAT,
    ),
]
_AtBpp = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Bits per pixel, whole files counted; every codec meets each from below.",
        show_default="0.1,0.15,0.2,0.3,0.4,0.6 if neither -q nor --q-index",
        rich_help_panel=_WHAT,
    ),
]
_Quality = Annotated[
    str | None,
    typer.Option("-q", "--quality", metavar="LIST", help="0-100, on each codec's own scale.", rich_help_panel=_WHAT),
]
_QIndex = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Quantiser steps, for models; exit 1 if a larger one makes a larger file.",
        rich_help_panel=_WHAT,
    ),
]
_Realism = Annotated[str, typer.Option(metavar="LIST", help="0-1, for models.", rich_help_panel=_WHAT)]
_Steps = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Steps of the reverse network, for models at a realism above 0.",
        show_default="the model's",
        rich_help_panel=_WHAT,
    ),
]
_Metrics = Annotated[
    str,
    typer.Option(metavar="LIST", help="Names, or fast, default, all, none (sizes only).", rich_help_panel=_WHAT),
]
_Distances = Annotated[
    bool | None,
    typer.Option(
        "--distances/--no-distances",
        help="Distances between the sets of originals and of decodes.",
        show_default="unless --metrics is within fast, where the weights are there",
        rich_help_panel=_WHAT,
    ),
]
MetricsDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder of the metrics' weights.", show_default="UNQUANT_METRICS", rich_help_panel=_RUN
    ),
]
_Against = Annotated[
    str | None,
    typer.Option(
        metavar="CODEC",
        help="Beside the table another: all at exactly equal bytes, read off each image's curve over the sizes measured.",
        rich_help_panel=_WHAT,
    ),
]
_Published = Annotated[
    Path | None, typer.Option(metavar="CSV", help="Points of other codecs, for the report.", rich_help_panel=_RUN)
]
_Jobs = Annotated[int, typer.Option("-j", "--jobs", min=1, help="Images at a time.", rich_help_panel=_RUN)]
_Threads = Annotated[
    int | None, typer.Option(min=1, help="Of each process.", show_default="cores / jobs", rich_help_panel=_RUN)
]
_Report = Annotated[bool, typer.Option("--report/--no-report", help="Write DIR/report.html.", rich_help_panel=_RUN)]
_Json = Annotated[
    bool, typer.Option("--json", help="The summary as JSON on the standard output.", rich_help_panel=_RUN)
]


def bench(
    images: _Images,
    output: _Output = Path("out/bench"),
    recursive: _Recursive = False,
    codecs: _Codecs = None,
    at_bpp: _AtBpp = None,
    quality: _Quality = None,
    q_index: _QIndex = None,
    realism: _Realism = "0,1",
    steps: _Steps = None,
    metrics: _Metrics = "default",
    metrics_dir: MetricsDir = None,
    distances: _Distances = None,
    against: _Against = None,
    published: _Published = None,
    jobs: _Jobs = 1,
    threads: _Threads = None,
    report: _Report = True,
    as_json: _Json = False,
) -> None:
    """Measures codecs on images: bytes, scores, seconds.

    What is measured is kept: asking for one image, codec, setting or metric more measures only that, and a run that was
    ended goes on where it was. DIR/rows.jsonl holds what this command asked for, DIR/cache all.
    """
    bpps = parse_rates(at_bpp, "--at-bpp") if at_bpp is not None else ()
    qualities = _numbers(quality, float, "--quality")
    q_indices = _numbers(q_index, int, "--q-index")
    realisms, step_counts = _numbers(realism, float, "--realism"), _numbers(steps, int, "--steps")
    names = None if codecs is None else _words(codecs, "--codecs")

    from unquant.bench.analysis.published import read_points
    from unquant.bench.metrics import FAST
    from unquant.bench.run import plan as plans
    from unquant.bench.run.measure import measure
    from unquant.bench.subjects.images import find_images

    chosen = metric_names(metrics)
    if distances and not chosen:
        raise OptionError("--distances: nothing is decoded with --metrics none")
    subjects, notes = plans.resolve(names or ())
    if against is not None and against not in [subject.name for subject in subjects]:
        raise OptionError(f"--against: {against!r} is not among the codecs that are measured")
    if against is not None and not chosen:
        raise OptionError("--against: nothing is decoded with --metrics none")
    if against is not None and as_json:
        raise OptionError("--against makes a table, --json has none")
    bpps = bpps if bpps or qualities or q_indices else plans.DEFAULT_BPP
    plan = plans.Plan(tuple(subjects), bpps, qualities, q_indices, realisms, step_counts, chosen)
    if published is not None:
        read_points(published)  # what is wrong with it is said now, not after hours
    paths = [path for name in images for path in find_images(name, recursive=recursive, without=output)]
    wanted = distances if distances is not None else bool(set(chosen) - set(FAST))
    for note in notes:
        say(note, "note")
    with _progress() as watch:
        results = measure(
            paths,
            plan,
            output,
            metrics_dir=metrics_dir,
            distances=wanted,
            jobs=jobs,
            threads=threads,
            tell=_tell,
            watch=watch,
        )
    _finish(results, published, against, report=report, as_json=as_json)


def _finish(results: Results, published: Path | None, against: str | None, *, report: bool, as_json: bool) -> None:
    """Report, table, notes, exit code."""
    from unquant.bench.analysis.equal import equal_table
    from unquant.bench.analysis.summary import footnotes, means, table, violations

    rows, setup = results.rows, results.setup
    grown = violations(rows)
    if report and rows:
        _report(results, published)
    if as_json:
        content = {
            "groups": [group.flat() for group in means(rows)],
            "images": len(results.pictures),
            "distances": results.distances,
            "failures": [{"image": f.image, "codec": f.codec, "error": str(f.error)} for f in results.failures],
            "notes": [*results.notes, *footnotes(rows)],
            "violations": grown,
        }
        write_line(json.dumps(content, ensure_ascii=False))
    elif rows:
        below = footnotes(rows)
        write_line("\n".join([table(rows, setup.plan.metrics, results.distances), *(["", *below] if below else [])]))
        if against is not None:
            write_line("\n" + equal_table(rows, against, setup.plan.metrics, distances=results.distances))
    for note in results.notes:
        say(note, "note")
    for sentence in grown:
        say(sentence, "error")
    kept = len(rows) - results.measured
    say(f"{setup.out}: {len(rows)} rows, {results.measured} measured, {kept} known before")
    _leave(results, bool(grown))


def _report(results: Results, published: Path | None) -> None:
    """Write the page; without its libraries there is a note in its place."""
    from unquant.bench.report.page import write_report

    setup = results.setup
    measured_in = {row.environment for row in results.rows}
    try:
        write_report(
            setup.out / "report.html",
            results.rows,
            original=results.original,
            picture=results.picture,
            distances=results.distances,
            published=published,
            environments={name: place for name, place in setup.environments.items() if name in measured_in},
        )
    except OptionError as error:
        results.notes.append(f"no report: {error}")


def _leave(results: Results, violated: bool) -> None:
    """Raises typer.Exit unless all went well."""
    if violated:
        raise typer.Exit(Code.OTHER)
    if results.failures:
        codes = {code_of(failure.error) or Code.OTHER for failure in results.failures}
        raise typer.Exit(Code.PARTIAL if results.rows or len(codes) > 1 else codes.pop())


def _tell(failure: Failure) -> None:
    print_traceback(failure.error)
    name = f"{failure.image}, {failure.codec}" if failure.codec else failure.image
    say(f"{describe(failure.error, name)}; left out", "error")


def metric_names(text: str) -> tuple[str, ...]:
    """The names of metrics in the argument of --metrics. Raises OptionError for one that is none."""
    from unquant.bench.metrics import METRICS, SETS

    if text in SETS:
        return SETS[text]
    names = tuple(dict.fromkeys(_words(text, "--metrics")))
    wrong = [name for name in names if name not in METRICS]
    if wrong:
        raise OptionError(f"--metrics: {wrong[0]!r} is none; there are {', '.join(METRICS)}, and {', '.join(SETS)}")
    return names


def _words(text: str, option: str) -> tuple[str, ...]:
    words = tuple(part.strip() for part in text.split(",") if part.strip())
    if not words:
        raise OptionError(f"{option}: a list of names is needed, such as a,b")
    return words


def _numbers(text: str | None, kind: Callable[[str], T], option: str) -> tuple[T, ...]:
    if text is None:
        return ()
    try:
        return tuple(kind(part) for part in _words(text, option))
    except ValueError as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(f"{option}: {text!r} is not a list of numbers such as 10,20") from error


@contextmanager
def _progress() -> Generator[Watch]:
    """A bar with the time that is left on the standard error, if that is a terminal; gives what moves it."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    # rows come in bursts, an image at a time: the speed is that of the whole run
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, speed_estimate_period=1e9
    ) as progress:
        task = progress.add_task("rows", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
