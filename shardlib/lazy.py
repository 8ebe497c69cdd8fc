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
    :raises ImportError: if one of the modules cannot be imported.
    """
    for module in modules:
        try:
            found = vars(importlib.import_module(f"{package}.{module}")).get(name)
        except AttributeError as error:
            # Left as it is, Python would take it for "no such name". A file of the user's that has
            # the name of one of Python's modules is the usual cause.
            raise ImportError(f"{package}.{module} cannot be imported: {error}") from error
        if found is not None:
            return found
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
