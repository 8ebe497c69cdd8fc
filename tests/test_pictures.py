"""The pictures of the documentation, and the program that draws them."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from tests.examples import ROOT

PICTURES = ROOT / "docs" / "pictures"
PROGRAM: dict[str, Any] = runpy.run_path(str(PICTURES / "draw.py"))

SQUARE = """from pathlib import Path
Path(__file__).with_suffix(".svg").write_text("<svg></svg>\\n")
"""


@pytest.mark.parametrize("name", PROGRAM["names"](PICTURES))
def test_no_picture_is_older_than_its_source(name: str) -> None:
    assert PROGRAM["is_current"](PICTURES, name), f"run: python docs/pictures/draw.py {name}"


@pytest.mark.parametrize("picture", sorted(PICTURES.glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_is_whole_and_loads_nothing(picture: Path) -> None:
    for element in xml.etree.ElementTree.parse(picture).iter():
        assert not [
            value for key, value in element.items() if key.endswith("href") and ":" in value
        ]
    assert "url(http" not in picture.read_text("utf-8")


def test_a_picture_is_drawn_again_once_its_source_or_the_canvas_has_changed(
    tmp_path: Path,
) -> None:
    def run() -> str:
        program = [sys.executable, str(tmp_path / "draw.py")]
        return subprocess.run(program, check=True, capture_output=True, text=True).stdout

    shutil.copy(PICTURES / "draw.py", tmp_path)
    (tmp_path / "canvas.py").write_text("SIZE = 1\n")
    source = tmp_path / "square.py"
    source.write_text(SQUARE)
    assert run() == "drawing square\n"
    assert run() == ""
    source.write_text(SQUARE + "from canvas import SIZE\n")
    assert run() == "drawing square\n"
    (tmp_path / "canvas.py").write_text("SIZE = 2\n")
    assert run() == "drawing square\n"
    source.write_text(SQUARE + "from canvas import SIZE\nSIZE += 1\n")
    assert run() == "drawing square\n"
    assert (tmp_path / "square.svg").read_text().count("<!--") == 1
