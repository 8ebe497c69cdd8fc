"""The tables of docs/reliability.rst: their rows, and the names of tests in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

ROWS = range(1, 99)


def test_the_reliability_page_has_a_row_for_each_failure_and_names_only_tests_that_exist() -> None:
    page = (ROOT / "docs/reliability.rst").read_text()
    table = page[page.index("What failed comparable libraries") :]
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert re.findall(r"^   \* - (\d+)$", table, re.MULTILINE) == [str(n) for n in ROWS]
    named = set(re.findall(r"``(test_\w+)``", page))
    assert named - set(re.findall(r"def (test_\w+)", sources)) == set()
