"""The type checker that tests/conftest.py puts on the package: beartype, with int taken for float as type checkers do."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
