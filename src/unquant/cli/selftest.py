"""`unquant selftest`."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated

import typer

from unquant.cli.exits import Code, say, write_line

__all__ = ["selftest"]


def selftest(
    quick: Annotated[bool, typer.Option("--quick", help="This machine's own instructions alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each set of instructions.")] = False,
) -> None:
    """Whether this machine decodes the package's golden files to the recorded symbols.

    It decodes them as it is, and in processes that leave out some of the CPU's instructions; AV1's pictures, whose
    decoder is not ours, may differ by 2 levels. Exit code 1 where something is not as recorded.
    """
    from unquant.selftest import INSTRUCTION_SETS, TOLERANCE, check_elsewhere, entries

    names = [*INSTRUCTION_SETS][:1] if quick else [*INSTRUCTION_SETS]
    with ThreadPoolExecutor(2) as pool:
        outcomes = dict(zip(names, pool.map(check_elsewhere, names), strict=True))
    if as_json:
        for name, outcome in outcomes.items():
            write_line(json.dumps({"instructions": name, **asdict(outcome)}))
    wrong = [f"{line} ({name})" for name, outcome in outcomes.items() for line in outcome.wrong]
    for line in wrong:
        say(line, "error")
    if not as_json:
        recorded = entries()
        coded = sum("symbols" in entry for entry in recorded)
        cpu = outcomes[names[0]].capability
        write_line(
            f"{'wrong' if wrong else 'ok'}: {len(wrong)} of {len(names) * len(recorded)} decodes differ from the record: "
            f"symbols of {coded} files, pictures of {len(recorded) - coded} within {TOLERANCE} levels, "
            f"instruction sets: {len(names)}, CPU: {cpu}"
        )
    if wrong:
        raise typer.Exit(Code.OTHER)
