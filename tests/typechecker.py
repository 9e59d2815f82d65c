"""Run-time types in the tests: beartype, taking an int for a float as PEP 484 and mypy do."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
