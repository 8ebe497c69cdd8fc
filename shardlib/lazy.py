"""Names of a package whose modules are loaded when one of the names is first used (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any


def find(package: str, modules: Iterable[str], name: str) -> Any:
    """The object that a package offers under a name.

    :param package: the package, as "shardlib".
    :param modules: those that hold its names, the cheapest first: a module is loaded only if the
        name was not found in those before it.
    :param name: of the object.
    :raises AttributeError: if none of the modules has it.
    """
    for module in modules:
        found = vars(importlib.import_module(f"{package}.{module}")).get(name)
        if found is not None:
            return found
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
