"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import shardlib

TEST = """
import pytest
from shardlib.testing import LocalGateway

pytestmark = pytest.mark.local_gateway(guilds=1, members=5)

def test_plain(local_gateway):
    assert isinstance(local_gateway, LocalGateway)
    assert local_gateway.url.startswith("ws://")
    assert len(local_gateway.world.guilds) == 1

@pytest.mark.local_gateway(guilds=2, tls=True)
def test_marked(local_gateway):
    assert local_gateway.url.startswith("wss://")
    assert len(local_gateway.world.guilds) == 2
    assert all(len(guild.members) == 6 for guild in local_gateway.world.guilds.values())

@pytest.mark.local_gateway(nonsense=1)
def test_wrong(local_gateway):
    pass

@pytest.mark.local_gateway(5)
def test_without_a_name(local_gateway):
    pass
"""


def plugin_option() -> list[str]:
    """Load the plugin by name, unless shardlib is installed and pytest does so itself."""
    from importlib.metadata import entry_points

    installed = any(each.name == "shardlib" for each in entry_points(group="pytest11"))
    return [] if installed else ["-p", "shardlib.testing.plugin"]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let other processes find this shardlib, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(Path(shardlib.__file__).parents[1]), prepend=os.pathsep)


def test_the_fixture_takes_its_options_from_markers(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess("--strict-markers", *plugin_option())
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(["*TypeError*nonsense*"])
    result.stdout.fnmatch_lines(["*takes options by name, such as local_gateway(guilds=1), not 5*"])


def test_the_plugin_needs_no_extra() -> None:
    """pytest loads it wherever shardlib is installed, websockets or not."""
    program = (
        "import sys; sys.modules['websockets'] = None; sys.modules['trustme'] = None;"
        "import shardlib.testing.plugin; from shardlib.testing import LocalGateway"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError") and 'pip install "shardlib[local]"' in last


def test_the_plugin_alone_imports_nothing_that_takes_long() -> None:
    """Row 96: pytest loads it in every run of everybody who has shardlib."""
    program = (
        "import pytest, sys; before = set(sys.modules); import shardlib.testing.plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert result.stdout.split() == ["shardlib", "shardlib.testing", "shardlib.testing.plugin"]
