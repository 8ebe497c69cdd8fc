"""Each fact has one owner: no module of the core writes another object's attributes, or reads its
private ones.

The tests look at the syntax trees, so that code that no test runs is checked as well.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardlib

CORE = sorted(Path(shardlib.__file__).parent.glob("*.py"))

# Stores that are allowed, as (module, code): why.
STORES = {
    ("lifecycle", "self._error_was_raised.here"): "storage of the calling thread's",
    ("managerlifecycle", "self._local.is_reader"): "likewise",
    ("running", "calls.count"): "part of each call, for which a method would take too long",
    ("running", "calls.total"): "likewise",
    ("running", "calls.longest"): "likewise",
    ("connection", "client.sock"): "websocket-client is given the socket that it is to show",
}

# Private names that may be used from elsewhere, as (module, code): why.
PRIVATE = {
    ("candidate", "sys._getframe"): "Python's only way to who has called fork()",
    ("manager", "manager._begin_in_forked_child"): "the handler for forked children stands beside",
    ("manager", "manager._close_at_exit"): "so does the exit handler",
    ("running", "sys._current_frames"): "Python's only way to a thread's stack",
    ("deadline", "other._end"): "compares two of its own kind",
    ("interrupts", "sys._getframe"): "Python's only way to the stack",
    ("limits", "sys._getframe"): "Python's only way to the stack",
    ("shard", "shard._lifecycle"): "the exit handler stands beside the class, and closes shards",
    ("shard", "shard._callbacks"): "likewise",
    ("shard", "shard._process"): "likewise",
    ("shard", "shard._begin_in_forked_child"): "so does the handler for forked children",
    ("tls", "sock._sslobj"): "the only way to a refused certificate before Python 3.13",
}


def is_own(node: ast.expr) -> bool:
    """True for `self`, `cls` and `super()`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def stores(tree: ast.AST) -> Iterator[ast.expr]:
    """The nodes that write or delete an attribute of another object than self."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del)):
            if not is_own(node.value):
                yield node
        elif isinstance(node, ast.Call):
            function = node.func
            name = function.id if isinstance(function, ast.Name) else ""
            if isinstance(function, ast.Attribute) and function.attr in (
                "__setattr__",
                "__delattr__",
            ):
                name = "" if is_own(function.value) else "setattr"
            if name in ("setattr", "delattr") and not (node.args and is_own(node.args[0])):
                yield node


def private_reads(tree: ast.AST) -> Iterator[ast.expr]:
    """The nodes that read a private attribute of another object than self."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            hidden = node.attr.startswith("_") and not node.attr.endswith("__")
            if hidden and not is_own(node.value):
                yield node


def private_imports(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    """The nodes that import a private name of another module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if any(alias.name.startswith("_") for alias in node.names) and node.level == 0:
                yield node


def found(path: Path, search: object) -> list[tuple[str, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(path.stem, ast.unparse(node)) for node in search(tree)]  # type: ignore[operator]


@pytest.mark.parametrize(
    "code, count",
    [
        ("self.x = cls.x = 1", 0),
        ("x = self.y.z", 0),
        ("other.x = 1", 1),
        ("other.x += 1", 1),
        ("other.x: int = 1", 1),
        ("self.session.x = 1", 1),
        ("self.of(1).x = 1", 1),
        ("(a, (other.x, *other.y)) = z", 2),
        ("for other.x in y: pass", 1),
        ("with a as other.x: pass", 1),
        ("del other.x", 1),
        ("setattr(other, 'x', 1)", 1),
        ("setattr(self, 'x', 1)", 0),
        ("object.__setattr__(other, 'x', 1)", 1),
        ("super().__setattr__('x', 1)", 0),
        ("def f(): \n  def g(): other.x = 1", 1),
    ],
)
def test_every_kind_of_store_is_found(code: str, count: int) -> None:
    assert len(list(stores(ast.parse(code)))) == count


@pytest.mark.parametrize(
    "code, count",
    [
        ("self._x; cls._x; super()._x; other.x; other.__dict__", 0),
        ("other._x", 1),
        ("self.session._x()", 1),
        ("self._session._x", 1),
    ],
)
def test_every_kind_of_read_is_found(code: str, count: int) -> None:
    assert len(list(private_reads(ast.parse(code)))) == count


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_no_module_writes_into_another_object(path: Path) -> None:
    assert [store for store in found(path, stores) if store not in STORES] == []


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_no_module_reads_private_attributes_of_another_object(path: Path) -> None:
    assert [read for read in found(path, private_reads) if read not in PRIVATE] == []
    assert [name for name in found(path, private_imports) if name[0] != "__main__"] == []


def test_every_allowed_exception_is_still_needed() -> None:
    all_stores = Counter(store for path in CORE for store in found(path, stores))
    all_reads = Counter(read for path in CORE for read in found(path, private_reads))
    assert set(STORES) <= set(all_stores)
    assert all(all_stores[store] == 1 for store in STORES)
    assert set(PRIVATE) <= set(all_reads)
