"""The reference of the documentation: each public name and each option stands there, once."""

from __future__ import annotations

import ast
import collections
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import shardlib.shard

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

PACKAGES = (
    *("shardlib", "shardlib.dispatch", "shardlib.fleet", "shardlib.testing"),
    *("shardlib.embed", "shardlib.recording"),
)

# What is described in the source, and imported from a package above it.
IMPORTED_FROM = {
    "shardlib.testing.traffic.TRAFFIC_MIX": "shardlib.testing.TRAFFIC_MIX",
    "shardlib.testing.faults.STEPS": "shardlib.testing.STEPS",
}

_DIRECTIVE = re.compile(r"^\.\. (?:py:)?(\w+):: ([\w.]+)", re.MULTILINE)
_CALLBACK = re.compile(r"^\.\. py:data:: (\w+)\n +:type: (.*)$", re.MULTILINE)


def described_names() -> collections.Counter[str]:
    """How often each name is described, on all pages, with its module."""
    found = collections.Counter[str]()
    for page in DOCS.glob("*.rst"):
        module = ""
        for kind, name in _DIRECTIVE.findall(page.read_text()):
            if kind in ("currentmodule", "module"):
                module = f"{name}."
            elif kind.startswith("auto") or kind == "data":
                full = name if name.startswith("shardlib.") else module + name
                found[IMPORTED_FROM.get(full, full)] += 1
    return found


def public_names(package: str) -> list[str]:
    """What a package lets users import; of a module without ``__all__``, what it defines itself."""
    module = importlib.import_module(package)
    names: Iterable[str] = getattr(module, "__all__", ())
    names = names or (
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == package and not name.startswith("_")
    )
    return [f"{package}.{name}" for name in names]


@pytest.mark.parametrize("package", PACKAGES)
def test_each_public_name_is_described_once(package: str) -> None:
    described = described_names()
    names = public_names(package)
    assert names
    assert {name: described[name] for name in names} == dict.fromkeys(names, 1)


def test_each_method_and_property_of_a_shard_is_described_once() -> None:
    described = described_names()
    names = [
        f"shardlib.Shard.{name}"
        for name in dir(shardlib.shard.Shard)
        if not name.startswith(("_", "on_socket_"))
    ]
    assert {name: described[name] for name in names} == dict.fromkeys(names, 1)


def test_the_types_of_callbacks_are_those_of_the_source() -> None:
    tree = ast.parse(Path(shardlib.shard.__file__).read_text())
    types = {
        target.id: ast.unparse(node.value).replace("'", "")
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and re.match(r"OnSocket|Listener$", target.id)
    }
    assert types
    assert dict(_CALLBACK.findall((DOCS / "api-shard.rst").read_text())) == types


def help_of(*command: str) -> str:
    """What ``--help`` of a command prints, without broken lines."""
    done = subprocess.run(
        [sys.executable, "-m", "shardlib", *command, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "400"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


COMMANDS = re.findall(r"^    (\w+) ", help_of(), re.MULTILINE)


def sections_of_commands() -> dict[str, str]:
    """The text of cli.rst on each command, and on what those of a fleet have in common."""
    heading = re.compile(r"^(?:shardlib (\w+)[^\n]*|(The commands of a fleet))\n[-~]+\n", re.M)
    _, *parts = heading.split((DOCS / "cli.rst").read_text())
    sections = collections.defaultdict[str, str](str)
    for command, common, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        sections[command or common] += text
    return sections


def test_the_command_line_has_a_section_for_each_command_and_no_other() -> None:
    assert {*sections_of_commands()} == {*COMMANDS, "The commands of a fleet"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_a_command_are_those_of_its_help(command: str) -> None:
    shown = re.findall(r"^  (?:-v, )?(--[\w-]+(?: \S+)?)(?:  |\n)", help_of(command), re.MULTILINE)
    sections = sections_of_commands()
    text = sections[command]
    if "--redis URL" in shown:
        text += sections["The commands of a fleet"]
    terms = re.findall(r"^(``-.*)\n   \S", text, re.MULTILINE)
    described = {option for term in terms for option in re.findall("``([^`]+)``", term)}
    aliases = {"-v": "--verbose", "--start oldest|newest": "--start {oldest,newest}"}
    assert {aliases.get(option, option) for option in described} == {*shown}


def test_the_table_of_faults_has_those_of_the_help() -> None:
    help_text = help_of("gateway").partition('"do" must be one of:\n')[2]
    faults = re.findall(r"^  (\w+)", help_text, re.MULTILINE)
    rows = re.findall(r"^   \* - (``[a-z_]+``.*)$", sections_of_commands()["gateway"], re.MULTILINE)
    # The parameters stand in parentheses.
    described = [
        name for row in rows for name in re.findall(r"``(\w+)``", re.sub(r"\(.*?\)", "", row))
    ]
    assert "outage" in described
    assert sorted(described) == sorted(faults)
