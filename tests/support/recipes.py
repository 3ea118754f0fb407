"""Recipes with other values than their files'."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unquant.train.recipe import Recipe

__all__ = ["changed"]


def changed(recipe: Recipe, kind: type[Any], **values: Any) -> Recipe:
    """A recipe with other values in its table of a class."""
    tables = {name: replace(table, **values) if type(table) is kind else table for name, table in recipe.tables.items()}
    return replace(recipe, tables=tables)
