"""Checks of arguments: ValueError or TypeError at the call, saying which one and why."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

# An int may be beyond it, and then cannot be reckoned with as a time.
_LARGEST = sys.float_info.max


def check_type(name: str, value: object, wanted: type, optional: bool = False) -> None:
    """:raises TypeError: where a value is of another type; a bool is no int here."""
    if optional and value is None:
        return
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise TypeError(f"{name} is of type {wanted.__name__}, not {type(value).__name__}")


def check_methods(name: str, value: object, *methods: str, optional: bool = False) -> None:
    """:raises TypeError: where an object lacks one of the functions that will be called."""
    if optional and value is None:
        return
    missing = [method for method in methods if not callable(getattr(value, method, None))]
    if missing:
        raise TypeError(f"{name} has {' and '.join(methods)}; {value!r} lacks {missing[0]}")


def check_callback(name: str, value: Any) -> Callable[..., object] | None:
    """:raises TypeError: where a value is neither a function nor None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} is a function or None, not {type(value).__name__}")
    return value  # type: ignore[no-any-return]


def check_positive(name: str, value: Any) -> float:
    """:raises TypeError: where a value is no number; ValueError where not above 0, or endless."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number, not {type(value).__name__}")
    if not 0 < value <= _LARGEST:
        raise ValueError(f"{name} is a number above 0, not {value!r}")
    return value


def check_timeout(name: str, value: Any) -> float | None:
    """:raises TypeError: where a value is neither a number nor None; ValueError where below 0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds or None, not {type(value).__name__}")
    if not 0 <= value <= _LARGEST:
        raise ValueError(f"{name} is a number of seconds from 0 up, not {value!r}")
    return value
