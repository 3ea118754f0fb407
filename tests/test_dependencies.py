"""The lower bounds of pyproject.toml are the versions that `make test-oldest` installs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_oldest_versions_are_the_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    bounds: dict[str, str] = {}
    for requirement in (each for group in groups for each in group if not each.startswith("unquant[")):
        found = re.match(r"([\w-]+)(?:\[\w+\])?(?:>=|==)([\d.]+\d)", requirement)
        assert found is not None, f"{requirement}: no lower bound"
        name, version = found.groups()
        assert bounds.setdefault(name, version) == version, f"{name}: two bounds"
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    oldest = dict(line.partition(";")[0].strip().split("==") for line in lines if not line.startswith("#"))
    assert {name: version.removesuffix(".0") for name, version in oldest.items()} == {
        name: version.removesuffix(".0") for name, version in bounds.items()
    }
