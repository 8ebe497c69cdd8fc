"""The types of the public names, as pyright sees them; mypy is a step of its own in ``.ci/run``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "tests" / "typed_program.py"
# Without the bots of other libraries, which are not installed.
EXAMPLES = [
    path for path in sorted((ROOT / "examples").rglob("*.py")) if "_before" not in path.stem
]


@pytest.mark.slow
def test_pyright_reads_the_program_and_the_examples(tmp_path: Path) -> None:
    pyright = shutil.which("pyright", path=Path(sys.executable).parent)
    if pyright is None:
        pytest.skip("pyright is not installed")
    for path in (PROGRAM, *EXAMPLES):  # it reads the files beside its settings
        shutil.copy(path, tmp_path)
    settings = {
        "extraPaths": [str(ROOT)],  # of an editable installation pyright finds nothing
        "reportUnnecessaryTypeIgnoreComment": "error",
        "enableTypeIgnoreComments": False,  # those are mypy's
        "reportMissingImports": "none",  # a toolkit that is not installed
        "reportMissingModuleSource": "none",
        "reportAttributeAccessIssue": "error",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [pyright, "--project", str(tmp_path), "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("0 errors"), done.stdout
