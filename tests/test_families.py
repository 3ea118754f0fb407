"""The table of families: what it names exists, and it agrees with the file format."""

from __future__ import annotations

from dataclasses import is_dataclass
from pathlib import Path

import pytest

from unquant.codecs.registry import ModelInfo
from unquant.container import FAMILIES as IN_FILES
from unquant.errors import WeightsError
from unquant.families import AVIF_FAMILY, FAMILIES, family_of
from unquant.networks.common import Model
from unquant.train.recipe import Recipe
from unquant.train.stages import Training


def test_the_ids_are_those_of_the_file_format() -> None:
    assert {family.id: name for name, family in FAMILIES.items()} == IN_FILES == {1: "ratevar", 2: "cdc", 3: "av1"}


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_family_names_exists_and_is_of_that_family(name: str) -> None:
    family = family_of(name)
    config = family.load("config")()
    assert type(config).from_dict(config.to_dict()) == config
    assert issubclass(family.load("model"), Model)
    assert family.load("codec").family == name


def test_an_unknown_family_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="'av2'; there are ratevar, cdc, av1"):
        family_of("av2")


def test_one_family_draws_avif() -> None:
    assert [family for family in FAMILIES.values() if family.draws_avif] == [AVIF_FAMILY]
    found = {family: ModelInfo(family, family, Path(), 0, "", "", 0, {}).draws_avif for family in (*FAMILIES, "av2")}
    assert found == {"ratevar": False, "cdc": False, "av1": True, "av2": False}


@pytest.mark.parametrize(
    ("tensor", "group"),
    [
        ("g_a.net.0.weight", "analysis"),
        ("entropy.analysis.0.weight", "analysis"),
        ("entropy.context.weight", "stream"),
        ("tables.counts", "stream"),
        ("f.stem.weight", "reverse"),
        ("g_s.head.weight", "synthesis"),
    ],
)
def test_the_hash_group_is_that_of_the_first_prefix(tensor: str, group: str) -> None:
    assert {family.group_of(tensor) for family in FAMILIES.values()} == {group}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_training_of_a_family_has_a_first_stage_and_tables_with_defaults(name: str) -> None:
    training = family_of(name).load("training")
    assert isinstance(training, Training)
    assert 1 in training.stages
    assert training.stages[1].config is None, "the first stage begins with the recipe's model"
    assert all(stage.config is not None for number, stage in training.stages.items() if number > 1)
    assert training.tables
    for kind in training.tables.values():
        assert is_dataclass(kind)
        assert kind() == kind()
    assert {table: type(value) for table, value in Recipe(name).tables.items()} == dict(training.tables)
