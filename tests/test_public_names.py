"""What users import from shardlib: the same for type checkers, for Python, and in __all__."""

from __future__ import annotations

import ast
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import shardlib

ROOT = Path(__file__).parent.parent


def names_for_type_checkers() -> dict[str, str]:
    """The module of each name that is imported under ``if TYPE_CHECKING``."""
    tree = ast.parse(Path(shardlib.__file__).read_text())
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    assert all(isinstance(node, ast.ImportFrom) for node in block.body)
    return {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname is None
    }


def test_all_lists_what_type_checkers_see() -> None:
    assert shardlib.__all__ == sorted(names_for_type_checkers())


@pytest.mark.parametrize(("name", "module"), names_for_type_checkers().items())
def test_each_name_is_the_object_that_type_checkers_see(name: str, module: str) -> None:
    assert getattr(shardlib, name) is getattr(importlib.import_module(module), name)
    assert name in dir(shardlib)


def test_a_star_import_imports_every_name() -> None:
    namespace: dict[str, object] = {}
    exec("from shardlib import *", namespace)
    assert set(shardlib.__all__) <= set(namespace)


def test_a_misspelt_name_cannot_be_imported() -> None:
    with pytest.raises(AttributeError, match="'Shrad'"):
        shardlib.Shrad  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="'Shrad'"):
        exec("from shardlib import Shrad")


def test_the_version_is_the_one_that_the_changelog_describes() -> None:
    heading = (ROOT / "CHANGELOG.rst").read_text().splitlines()[3]
    number, described = heading.split(maxsplit=1)
    expected = f"{number}.dev0" if described == "(unreleased)" else number
    assert shardlib.__version__ == expected


def loaded_after(statement: str) -> set[str]:
    """The modules that a new interpreter loads for a statement."""
    program = (
        "import sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "import pickle; sys.stdout.buffer.write(pickle.dumps(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    loaded: set[str] = pickle.loads(done.stdout)
    return loaded


def test_importing_the_package_alone_loads_nothing() -> None:
    loaded = loaded_after("import shardlib") - loaded_after("import __future__")
    assert loaded == {"shardlib"}
    assert not loaded_after("from shardlib import ShardError") & {"ssl", "websocket", "ujson"}
    assert loaded_after("from shardlib import Shard") >= {"ssl", "websocket", "ujson"}


def test_a_shard_is_imported_without_modules_that_few_programs_need() -> None:
    # websocket-client imports python_socks if installed, which imports many modules itself.
    alone = "import sys; sys.modules['python_socks'] = None\n"
    needed = loaded_after(f"{alone}import websocket, ujson")
    loaded = loaded_after(f"{alone}import shardlib; shardlib.Shard")
    assert not (loaded - needed) & {
        "asyncio",
        "dataclasses",
        "difflib",
        "email",
        "importlib.metadata",
        "platform",
        "tempfile",
        "urllib.request",
    }


@pytest.mark.slow
def test_mypy_finds_every_name_and_no_misspelt_one(tmp_path: Path) -> None:
    every = "".join(
        f"from shardlib import {name}\nreveal_type({name})\n" for name in shardlib.__all__
    )
    (tmp_path / "every_name.py").write_text(every)
    (tmp_path / "misspelt.py").write_text(
        "from shardlib import Shrad\nimport shardlib\nshardlib.Intent\n"
        "from shardlib.testing import LocalGatway\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
            *("--follow-imports=silent", "--cache-dir", str(tmp_path / "cache")),
            *("every_name.py", "misspelt.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = done.stdout.splitlines()
    errors = [line for line in lines if " error: " in line]
    assert [line.split(": error: ")[0] for line in errors] == [
        "misspelt.py:1",
        "misspelt.py:3",
        "misspelt.py:4",
    ]
    assert all("[attr-defined]" in line for line in errors)
    revealed = [line for line in lines if "Revealed type" in line]
    assert len(revealed) == len(shardlib.__all__)
    assert not [line for line in revealed if '"Any"' in line]


def test_a_file_with_the_name_of_one_of_pythons_modules_is_told(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "from shardlib import Shard"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: shardlib.") and "'random'" in last
