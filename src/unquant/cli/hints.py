"""Commands that take files: their usage line, and a hint for a file whose name is taken for an option."""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import TyperCommand

from unquant.cli.exits import say

__all__ = ["FilesCommand", "HintingCommand"]

# its module depends on typer's version, which may bring a click of its own
_UsageError: Any = typer.BadParameter.__mro__[1]


class HintingCommand(TyperCommand):
    """A command that names `--` where a file's name, such as `-lead.jpg` of a shell's `*.jpg`, is read as options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left. Raises a usage error."""
        name = _file_like_option(args)
        hint = f"{name}: a file whose name begins with - goes behind --, or as ./{name}"
        try:
            rest = super().parse_args(ctx, args)
        except _UsageError as error:
            if name is not None:
                error.message = f"{error.message}\n{hint}"
            raise
        if name is not None and not ctx.resilient_parsing:
            say(hint, "note")
        return rest


class FilesCommand(HintingCommand):
    """One whose usage line shows its arguments as people type them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the command's name."""
        return ["[OPTIONS]", "IN... [OUT]"]


def _file_like_option(args: list[str]) -> str | None:
    """The first argument that is read as options and is the name of a file as well; one behind an option may be its value."""
    before = ""
    for argument in args:
        if argument == "--":
            return None
        if len(argument) > 1 and argument[0] == "-" and before[:1] != "-" and os.path.lexists(argument):
            return argument
        before = argument
    return None
