"""check_callback() refuses functions that could never do their work, before any event."""

from __future__ import annotations

import asyncio
import functools
import inspect
import queue
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

import pytest

from shardlib.checks import check_callback


def plain(shard: Any, data: Any) -> None: ...


async def coroutine(shard: Any, data: Any) -> None: ...


async def async_generator(shard: Any, data: Any) -> AsyncIterator[int]:
    yield 1


def generator(shard: Any, data: Any) -> Iterator[int]:
    yield 1


class Bot:
    def method(self, shard: Any, data: Any) -> None: ...

    async def async_method(self, shard: Any, data: Any) -> None: ...

    @classmethod
    async def async_class_method(cls, shard: Any, data: Any) -> None: ...

    @staticmethod
    async def async_static_method(shard: Any, data: Any) -> None: ...

    async_partial_method = functools.partialmethod(async_method, data=1)


class Callable:
    def __call__(self, shard: Any, data: Any) -> None: ...


class AsyncCallable:
    async def __call__(self, shard: Any, data: Any) -> None: ...


class AsyncStaticCallable:
    @staticmethod
    async def __call__(shard: Any, data: Any) -> None: ...


class AsyncDescriptor(AsyncCallable):
    def __get__(self, instance: object, owner: object) -> AsyncDescriptor:
        return self


class GeneratorCallable:
    def __call__(self, shard: Any, data: Any) -> Iterator[int]:
        yield 1


def passing_on(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


def running(function: Any) -> Any:
    """A plain function that runs an async one, as asgiref's async_to_sync makes it."""

    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return asyncio.run(function(*arguments))

    return wrapper


def with_database(function: Any) -> Any:
    """A decorator whose wrapper passes one argument more than it takes."""

    @functools.wraps(function)
    def wrapper(shard: Any, data: Any) -> Any:
        return function(shard, data, "database")

    return wrapper


@with_database
def stores(shard: Any, data: Any, database: str) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        None,
        plain,
        lambda *arguments: None,
        lambda shard, data, more=None, *, other=1: None,
        Bot().method,
        functools.partial(plain),
        functools.partial(Bot().method),
        functools.partial(lambda first, shard, data: None, "first"),
        Callable(),
        passing_on(plain),
        running(coroutine),
        stores,
        functools.lru_cache(plain),
        dict,
        mock.Mock(),
        mock.MagicMock(),
        mock.create_autospec(plain),
        print,
        queue.SimpleQueue().put,
        dict[str, int]().setdefault,
        threading.Thread,
        getattr,
    ],
)
def test_a_function_that_can_be_called_is_accepted(function: Any) -> None:
    assert check_callback("on_socket_dispatch", function, 2) is function


@pytest.mark.parametrize("function", [1, "print", [plain], object()])
def test_an_object_that_cannot_be_called_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match=f"on_socket_ready must be .*not {type(function).__name__}"):
        check_callback("on_socket_ready", function, 2)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (coroutine, "coroutine"),
        (async_generator, "async_generator"),
        (Bot().async_method, "Bot.async_method"),
        (Bot.async_class_method, "Bot.async_class_method"),
        (Bot().async_static_method, "Bot.async_static_method"),
        (Bot().async_partial_method, "Bot.async_method"),
        (functools.partial(coroutine), "coroutine"),
        (functools.partial(functools.partial(Bot().async_method), data=1), "Bot.async_method"),
        (AsyncCallable(), "AsyncCallable.__call__"),
        (functools.partial(AsyncCallable()), "AsyncCallable.__call__"),
        (AsyncStaticCallable(), "AsyncStaticCallable.__call__"),
        (AsyncDescriptor(), "AsyncCallable.__call__"),
        (AsyncCallable().__call__, "AsyncCallable.__call__"),
        (mock.AsyncMock(), ""),
    ],
)
def test_an_async_function_is_refused_with_the_reason(function: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"on_ready: {name}.*no event loop.*plain function"):
        check_callback("on_ready", function, 2)


def test_a_function_that_is_marked_as_async_is_refused() -> None:
    if sys.version_info < (3, 12):
        pytest.skip("inspect.markcoroutinefunction is of 3.12")
    marked = inspect.markcoroutinefunction(passing_on(coroutine))
    with pytest.raises(TypeError, match="no event loop"):
        check_callback("on_ready", marked, 2)


@pytest.mark.parametrize("function", [generator, functools.partial(generator), GeneratorCallable()])
def test_a_generator_function_is_refused_since_a_call_runs_nothing(function: Any) -> None:
    with pytest.raises(TypeError, match="on_ready: .*runs nothing.*yield"):
        check_callback("on_ready", function, 2)


def needs_a_keyword(shard: Any, data: Any, *, database: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "shown", "why"),
    [
        (lambda: None, "<lambda>()", "too many"),
        (lambda shard: None, "<lambda>(shard)", "too many"),
        (lambda shard, data, more: None, "<lambda>(shard, data, more)", "'more'"),
        (needs_a_keyword, "needs_a_keyword(", "'database'"),
        (Bot.method, "Bot.method(self, ", "'data'"),
        (functools.partial(plain, 1), "plain(data", "too many"),
        (functools.partial(Callable(), 1), "Callable.__call__(data", "too many"),
        ([].append, "list.append(object, /)", "too many"),
        (mock.create_autospec(lambda shard: None), "(shard)", "too many"),
    ],
)
def test_a_function_of_wrong_arity_is_refused_with_its_signature(
    function: Any, shown: str, why: str
) -> None:
    with pytest.raises(TypeError) as raised:
        check_callback("on_socket_dispatch", function, 2)
    text = str(raised.value)
    assert text.startswith("on_socket_dispatch: ")
    assert "2 positional arguments" in text
    assert shown in text
    assert why in text
