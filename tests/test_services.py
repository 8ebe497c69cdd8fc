"""The services of systemd that stand in the documentation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples import ROOT

UNITS = ["daemon.service", "start/questions.service"]


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_understands_the_service(unit: str, tmp_path: Path) -> None:
    systemd_analyze = shutil.which("systemd-analyze")
    if systemd_analyze is None:
        pytest.skip("this machine has no systemd-analyze")
    lines = (ROOT / "examples" / unit).read_text().splitlines()
    program = next(line for line in lines if line.startswith("ExecStart=")).split()[0]
    # The program must exist.
    text = "\n".join(lines).replace(program, f"ExecStart={sys.executable}")
    copy = tmp_path / Path(unit).name
    copy.write_text(text)
    done = subprocess.run([systemd_analyze, "verify", copy], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
