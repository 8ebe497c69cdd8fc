"""The tables of README.rst: their rows, and the tests that they and docs/reliability.rst name."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

ROWS = range(1, 99)


def test_the_tables_have_a_row_for_each_failure_and_name_only_tests_that_exist() -> None:
    tables = (ROOT / "tests/reliability/README.rst").read_text()
    page = tables + (ROOT / "docs/reliability.rst").read_text()
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert re.findall(r"^   \* - (\d+)$", tables, re.MULTILINE) == [str(n) for n in ROWS]
    named = set(re.findall(r"``(test_\w+)``", page))
    assert named - set(re.findall(r"def (test_\w+)", sources)) == set()
