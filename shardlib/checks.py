"""Checks of arguments: ValueError or TypeError at the call, saying which argument and why."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from shardlib.gateway import SESSION_ENDING_CLOSE_CODES
from shardlib.text import describe

# An int may be larger; then no time in seconds can be computed from it.
_LARGEST = sys.float_info.max


def check_type(name: str, value: object, wanted: type, optional: bool = False) -> None:
    """Check a type.

    :param name: of the argument, as the error names it.
    :param value: of the argument.
    :param wanted: the type; a bool does not pass for an int.
    :param optional: True if None passes, too.
    :raises TypeError: if the value is of another type.
    """
    if optional and value is None:
        return
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise TypeError(f"{name} must be of type {wanted.__name__}, not {type(value).__name__}")


def check_methods(name: str, value: object, *methods: str, optional: bool = False) -> None:
    """Check an object of the user's.

    :param name: of the argument, as the error names it.
    :param value: of the argument.
    :param methods: the names of the functions that the library will call.
    :param optional: True if None passes, too.
    :raises TypeError: if the value lacks one of the functions.
    """
    if optional and value is None:
        return
    missing = [method for method in methods if not callable(getattr(value, method, None))]
    if missing:
        raise TypeError(f"{name} must have a method {missing[0]}, which {describe(value)} lacks")


def check_callback(name: str, value: object, arguments: int) -> Callable[..., object] | None:
    """Check a function of the user's that the library will call, and return it.

    Faults that only the call can show pass: those of a builtin function without a signature, and of
    a decorator that returns a coroutine, or that takes any arguments and hands them on.

    :param name: of the argument, as the error names it.
    :param value: the function, or None.
    :param arguments: how many positional arguments the library will pass.
    :raises TypeError: if the value is neither a function nor None, if a call of it would only make
        a coroutine or a generator and run nothing, or if it cannot take that many arguments.
    """
    if value is None:
        return None
    if not callable(value):
        raise TypeError(f"{name} must be a function or None, not {type(value).__name__}")
    functions = _functions_behind(value)
    shown = next(each.__qualname__ for each in functions if hasattr(each, "__qualname__"))
    if any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in functions
    ):
        raise TypeError(
            f"{name}: {shown} is an async def, and async def is never awaited here: shardlib has "
            "no event loop; make it a plain function"
        )
    if any(map(inspect.isgeneratorfunction, functions)):
        raise TypeError(
            f"{name}: {shown} is a generator function, of which a call runs nothing; make it a "
            "plain function, without yield"
        )
    try:
        # The signature of the decorator, not of what it has wrapped: it may add arguments.
        signature = inspect.signature(value, follow_wrapped=False)
    except (TypeError, ValueError):  # some functions written in C have no signature
        return value
    try:
        signature.bind(*[None] * arguments)
    except TypeError as error:
        plural = "" if arguments == 1 else "s"
        raise TypeError(
            f"{name}: {shown} is called with {arguments} positional argument{plural}, which "
            f"{shown}{signature} cannot take: {error}"
        ) from None
    return value


def _functions_behind(value: Any) -> list[Any]:
    """A callable, and what a call of it runs: the function behind a partial, a method, an object.

    inspect looks behind some of these itself, and behind others only in later versions of Python.
    """
    functions = [value, _unbound(value)]
    if not inspect.isfunction(functions[-1]):
        functions.append(_unbound(type(functions[-1]).__call__))
    return functions


def _unbound(value: Any) -> Any:
    while True:
        if isinstance(value, functools.partial):
            value = value.func
        elif inspect.ismethod(value):
            value = value.__func__
        else:
            return value


def _check_number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    return value


def check_at_least_one(name: str, value: Any) -> int:
    """Check an int, and return it.

    :param name: of the argument, as the error names it.
    :param value: of the argument.
    :raises TypeError: if the value is not an int.
    :raises ValueError: if it is below 1.
    """
    check_type(name, value, int)
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    number: int = value
    return number


def check_close_code(code: Any) -> None:
    """Check a close code that a client may send, or None.

    :raises TypeError: if it is not an int.
    :raises ValueError: if a client must not send it.
    """
    check_type("code", code, int, optional=True)
    if code is not None and code not in SESSION_ENDING_CLOSE_CODES and not 4000 <= code <= 4999:
        raise ValueError(f"code must be 1000, 1001, or from 4000 to 4999, not {code}")


def check_finite(name: str, value: Any) -> float:
    """Check a number, and return it.

    :param name: of the argument, as the error names it.
    :param value: of the argument.
    :raises TypeError: if the value is not an int or a float.
    :raises ValueError: if it is infinite or NaN.
    """
    number = _check_number(name, value)
    if not -_LARGEST <= number <= _LARGEST:
        raise ValueError(f"{name} must be a finite number, not {number!r}")
    return number


def check_positive(name: str, value: Any) -> float:
    """Check a number, and return it.

    :param name: of the argument, as the error names it.
    :param value: of the argument.
    :raises TypeError: if the value is not an int or a float.
    :raises ValueError: if it is not above 0, or is infinite or NaN.
    """
    number = _check_number(name, value)
    if not 0 < number <= _LARGEST:
        raise ValueError(f"{name} must be a number above 0, not {number!r}")
    return number


def check_not_negative(name: str, value: Any) -> float:
    """Check a number, and return it.

    :param name: of the argument, as the error names it.
    :param value: of the argument.
    :raises TypeError: if the value is not an int or a float.
    :raises ValueError: if it is below 0, or is infinite or NaN.
    """
    number = _check_number(name, value)
    if not 0 <= number <= _LARGEST:
        raise ValueError(f"{name} must be a number from 0 up, not {number!r}")
    return number


def check_timeout(name: str, value: Any) -> float | None:
    """Check seconds, and return them.

    :param name: of the argument, as the error names it.
    :param value: of the argument, seconds or None.
    :raises TypeError: if the value is neither a number nor None.
    :raises ValueError: if it is below 0, or is infinite or NaN.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}")
    if not 0 <= value <= _LARGEST:
        raise ValueError(f"{name} must be a number of seconds from 0 up, not {value!r}")
    return value
