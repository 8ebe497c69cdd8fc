"""Interactive sessions: Python's prompt, IPython, a notebook.

There a function is defined again in order to correct it, by typing it or by running a cell once
more, and the earlier definition is not meant any longer.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import TypeGuard


def is_interactive() -> bool:
    """True if a person types the program in: at Python's prompt, or in IPython or Jupyter."""
    if hasattr(sys, "ps1"):
        return True
    # An IPython that was imported for another reason has no shell.
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and get_ipython() is not None


def earlier_definition_of(function: object) -> Callable[[object], bool]:
    """Return a function that tells whether its argument is an earlier definition of `function`.

    It is one only in an interactive session, if both are module-level functions of ``__main__``
    with one name. Lambdas and inner functions often have one name on purpose.
    """
    if not is_interactive() or not _is_of_session(function):
        return lambda other: False
    name = function.__name__
    return lambda other: _is_of_session(other) and other.__name__ == name


def _is_of_session(function: object) -> TypeGuard[types.FunctionType]:
    """True for a module-level function of ``__main__``."""
    return (
        isinstance(function, types.FunctionType)
        and function.__module__ == "__main__"
        and function.__qualname__ == function.__name__ != "<lambda>"
    )
