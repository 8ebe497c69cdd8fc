"""The table of docs/reliability.rst: each failure has its row, and each test named exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


# Rows 80, 86 to 88, 91 to 96 and 98 of the second list are still open.
ROWS = [*range(1, 80), *range(81, 86), 89, 90, 97]


def test_each_failure_has_its_row_and_the_tests_named_there_exist() -> None:
    page = (ROOT / "docs/reliability.rst").read_text()
    table = page[page.index("What failed comparable libraries") :]
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert re.findall(r"^   \* - (\d+)$", table, re.MULTILINE) == [str(n) for n in ROWS]
    named = set(re.findall(r"``(test_\w+)``", page))
    assert named - set(re.findall(r"def (test_\w+)", sources)) == set()
