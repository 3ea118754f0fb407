"""What the tests of training runs have in common beside fixtures: recipes, rows of journals, parameters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unquant.train.recipe import Recipe

__all__ = ["changed", "parameters", "rows"]


def changed(recipe: Recipe, kind: type[Any], **values: Any) -> Recipe:
    """A recipe with other values in its table of a class."""
    tables = {name: replace(table, **values) if type(table) is kind else table for name, table in recipe.tables.items()}
    return replace(recipe, tables=tables)


def parameters(module: nn.Module) -> Tensor:
    """A copy of all of a module's parameters, one after the other."""
    return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()


def rows(out: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The journal of a run's folder, without the note on precision, which depends on the processor."""
    parsed = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in parsed if kind in (None, row["kind"]) and "bfloat16" not in row.get("text", "")]
