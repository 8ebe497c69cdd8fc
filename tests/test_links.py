"""Links between files of the repository. Sphinx checks those that need a build (nitpicky)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What a host for repositories shows, and what the pages of the documentation are made from.
TEXTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.rst"), *ROOT.glob("docs/*.rst"), *ROOT.glob("tests/**/*.rst"))
)

_RELATIVE_LINK = re.compile(r"`[^`]+<(?!\w+:)([^>\s]+)>`_|^\.\. (?:image|figure):: (\S+)$", re.M)
_OTHER_PAGE = re.compile(r":doc:`(?:[^`<]*<)?([\w/-]+)>?`")
_NAMED_FILE = re.compile(
    r"``((?:docs|tests|benchmarks|examples|shardlib|\.ci|\.github)/[\w./-]+\.\w+)``"
)


@pytest.mark.parametrize("text", TEXTS)
def test_what_a_text_links_to_or_names_is_a_file_of_the_repository(text: str) -> None:
    path = ROOT / text
    content = path.read_text()
    linked = {link or image for link, image in _RELATIVE_LINK.findall(content)}
    found = {link: (path.parent / link.partition("#")[0]).exists() for link in linked}
    found |= {
        page: (ROOT / "docs" / f"{page}.rst").exists() for page in _OTHER_PAGE.findall(content)
    }
    found |= {name: (ROOT / name).exists() for name in _NAMED_FILE.findall(content)}
    assert [name for name, exists in found.items() if not exists] == []


def test_a_readme_shown_elsewhere_links_to_the_documentation() -> None:
    assert len(_RELATIVE_LINK.findall((ROOT / "README.rst").read_text())) > 10
