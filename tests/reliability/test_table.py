"""The table of docs/reliability.rst: each failure has its row, and each test named exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_of_the_45_failures_has_its_row_and_the_tests_named_there_exist() -> None:
    page = (ROOT / "docs/reliability.rst").read_text()
    table = page[page.index("What failed comparable libraries") :]
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    assert re.findall(r"^   \* - (\d+)$", table, re.MULTILINE) == [str(n) for n in range(1, 46)]
    named = set(re.findall(r"``(test_\w+)``", page))
    assert named - set(re.findall(r"def (test_\w+)", sources)) == set()
