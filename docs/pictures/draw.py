"""Draw the pictures whose sources have changed, or those named: ``python docs/pictures/draw.py``.

The source of a picture NAME.svg is NAME.dot, for Graphviz's ``dot``, or NAME.py, a program that
writes the picture. Both are in the repository, so that building the documentation needs neither.
The picture carries a digest of its source, by which a test finds a picture that was forgotten.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

# The modules in a directory of pictures that sources import. A change of one is a change of these.
TOOLS = ("canvas", "terminal")

_STAMP = re.compile(r"<!-- drawn from (\w+) -->\n\Z")


def names(directory: Path) -> list[str]:
    """The pictures that have a source in a directory."""
    sources = [*directory.glob("*.dot"), *directory.glob("*.py")]
    return sorted(source.stem for source in sources if source.stem not in ("draw", *TOOLS))


def is_current(directory: Path, name: str) -> bool:
    """True if a picture was drawn from its source as it is now."""
    picture = directory / f"{name}.svg"
    stamp = _STAMP.search(picture.read_text("utf-8")) if picture.exists() else None
    return stamp is not None and stamp[1] == _digest(_source(directory, name))


def draw(directory: Path, name: str) -> None:
    """Draw a picture, and put the digest of its source behind it.

    :raises subprocess.CalledProcessError: if ``dot``, or the program, fails.
    """
    source = _source(directory, name)
    picture = source.with_suffix(".svg")
    digest = _digest(source)  # before: drawing may take minutes
    program = [sys.executable, str(source)]
    if source.suffix == ".dot":
        program = ["dot", "-Tsvg", str(source), "-o", str(picture)]
    subprocess.run(program, check=True)
    drawn = _STAMP.sub("", picture.read_text("utf-8")).rstrip("\n")
    picture.write_text(f"{drawn}\n<!-- drawn from {digest} -->\n", "utf-8")


def _source(directory: Path, name: str) -> Path:
    graph = directory / f"{name}.dot"
    return graph if graph.exists() else directory / f"{name}.py"


def _digest(source: Path) -> str:
    text = source.read_text("utf-8")
    for tool in TOOLS:
        if source.suffix == ".py" and f"from {tool} import" in text:
            text += source.with_name(f"{tool}.py").read_text("utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


if __name__ == "__main__":
    here = Path(__file__).parent
    for each in sys.argv[1:] or [each for each in names(here) if not is_current(here, each)]:
        print("drawing", each)
        draw(here, each)
