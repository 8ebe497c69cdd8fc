"""Wrong arguments: ValueError or TypeError at the call, saying which and why."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest

from shardlib import Session, Shard
from shardlib.shardoptions import ShardOptions
from tests.recorder import CALLBACKS
from tests.shards import make_shard
from tests.support import TOKEN

PLAYING = {"name": "a game", "type": 0}


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"token": None}, TypeError, "token"),
        ({"token": ""}, ValueError, "token"),
        ({"token": TOKEN + "\n"}, ValueError, "line break"),
        ({"token": "Bot " + TOKEN}, ValueError, "Bot"),
        ({"intents": "guilds"}, TypeError, "intents"),
        ({"intents": True}, TypeError, "intents"),
        ({"intents": -1}, ValueError, "intents"),
        ({"shard_id": -1}, ValueError, "shard_id"),
        ({"shard_id": 1}, ValueError, "shard_id"),
        ({"shard_id": "0"}, TypeError, "shard_id"),
        ({"shard_count": 0}, ValueError, "shard_count"),
        ({"large_threshold": 49}, ValueError, "large_threshold"),
        ({"large_threshold": 251}, ValueError, "large_threshold"),
        ({"large_threshold": "50"}, TypeError, "large_threshold"),
        ({"presence": "online"}, TypeError, "presence"),
        ({"presence": {"status": "away"}}, ValueError, "status"),
        ({"properties": "linux"}, TypeError, "properties"),
        ({"properties": {"os": math.nan}}, ValueError, "Identify.*NaN"),
        ({"properties": {"os": b"linux"}}, TypeError, "linux"),
        ({"properties": {"os": "x" * 4096}}, ValueError, "Identify.*4096"),
        ({"presence": {"activities": [{**PLAYING, "state": "x" * 4096}]}}, ValueError, "4096"),
        ({"compression": "gzip"}, ValueError, "compression"),
        ({"session": "abc"}, TypeError, "session"),
        ({"session": Session("abc", 1, None, 1, 2)}, ValueError, "shard 1 of 2"),
        ({"json": object()}, TypeError, "json"),
        ({"identify_gate": 5}, TypeError, "identify_gate"),
        ({"session_gate": object()}, TypeError, "session_gate must have a method may_resume"),
        ({"acknowledge": "never"}, ValueError, 'acknowledge must be "callbacks" or "manual"'),
        ({"acknowledge": None}, TypeError, "acknowledge"),
        ({"backoff": 1.0}, TypeError, "backoff must be of type Backoff"),
        ({"connect_timeout": 0}, ValueError, "connect_timeout"),
        ({"hello_timeout": -1}, ValueError, "hello_timeout"),
        ({"ready_timeout": math.inf}, ValueError, "ready_timeout"),
        ({"send_timeout": math.nan}, ValueError, "send_timeout"),
        ({"send_timeout": 10**400}, ValueError, "send_timeout"),
        ({"close_timeout": None}, TypeError, "close_timeout"),
        ({"slow_callback": 0}, ValueError, "slow_callback"),
        ({"slow_callback": float("inf")}, ValueError, "slow_callback"),
        ({"slow_callback": "5"}, TypeError, "slow_callback"),
        ({"max_payload": 0}, ValueError, "max_payload"),
        ({"max_payload": 1.5}, TypeError, "max_payload"),
        ({"ssl_context": True}, TypeError, "ssl_context"),
        ({"proxy": 8080}, TypeError, "proxy"),
        ({"proxy": "localhost:8080"}, ValueError, "proxy"),
        ({"proxy": "ftp://localhost:21"}, ValueError, "proxy"),
        ({"proxy": "http://user:password@host:99999"}, ValueError, "proxy"),
        ({"logger": "shard"}, TypeError, "logger"),
        ({"should_reconnect": 1}, TypeError, "should_reconnect"),
        ({"on_socket_ready": "print"}, TypeError, "on_socket_ready"),
        ({"on_socket_closed": 1}, TypeError, "on_socket_closed"),
    ],
)
def test_a_wrong_argument_of_the_constructor_is_refused_by_name(
    options: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        make_shard(**options)
    assert TOKEN not in str(caught.value)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    "url, error, message",
    [
        (None, TypeError, "str"),
        ("", ValueError, "ws"),
        ("http://gateway.discord.gg", ValueError, "ws"),
        ("gateway.discord.gg", ValueError, "ws"),
        ("wss://", ValueError, "host"),
        ("wss://gateway.discord.gg\r\nHost: x", ValueError, "space|character|control"),
        ("wss://user:pass@gateway.discord.gg", ValueError, "user"),
        ("wss://gateway.discord.gg:99999", ValueError, "Port"),
    ],
)
def test_a_wrong_argument_of_connect_is_refused(url: Any, error: Any, message: str) -> None:
    shard = make_shard()
    with pytest.raises(error, match=message):
        shard.connect(url)
    with pytest.raises((TypeError, ValueError)):
        shard.connect("ws://127.0.0.1", "ten")  # type: ignore[arg-type]
    assert shard.socket_thread is None


CALLS: dict[str, Callable[[Any], object]] = {
    "disconnect(999)": lambda shard: shard.disconnect(999),
    "disconnect(3000)": lambda shard: shard.disconnect(3000),
    "disconnect(5000)": lambda shard: shard.disconnect(5000),
    'disconnect("1000")': lambda shard: shard.disconnect("1000"),
    "disconnect(True)": lambda shard: shard.disconnect(True),
    'heartbeat("yes")': lambda shard: shard.heartbeat("yes"),
    "reinstantiate(1)": lambda shard: shard.reinstantiate(1),
    'wait_until_ready("1")': lambda shard: shard.wait_until_ready("1"),
    "wait_until_ready(-1)": lambda shard: shard.wait_until_ready(-1),
    "wait_until_ready(10**400)": lambda shard: shard.wait_until_ready(10**400),
    "join(math.nan)": lambda shard: shard.join(math.nan),
    "wait_for(3)": lambda shard: shard.wait_for(3),
    'wait_for("READY", "predicate")': lambda shard: shard.wait_for("READY", "predicate"),
    'wait_for("READY", None, -1)': lambda shard: shard.wait_for("READY", None, -1),
    "on(3)": lambda shard: shard.on(3),
    'on("READY")("function")': lambda shard: shard.on("READY")("function"),
    'off("READY", print)': lambda shard: shard.off("READY", print),
    "acknowledge(1, 1)": lambda shard: shard.acknowledge(1, 1),
    'acknowledge("abc", -1)': lambda shard: shard.acknowledge("abc", -1),
    "rewind(-1)": lambda shard: shard.rewind(-1),
    'rewind("1")': lambda shard: shard.rewind("1"),
    'send(\'{"op": 1}\', "soon")': lambda shard: shard.send('{"op": 1}', "soon"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_wrong_argument_of_another_method_is_refused(call: Callable[[Any], object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        call(make_shard())


def test_a_manager_hands_every_option_of_a_shard_on_but_those_of_one_shard_or_its_own() -> None:
    its_own = {"token", "intents", "shard_id", "shard_count", "session", "backoff", "identify_gate"}
    options = inspect.signature(Shard).parameters.keys() - its_own
    assert ShardOptions.__annotations__.keys() == options


def test_a_missing_package_is_refused_with_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(ValueError, match=r"shardlib\[proxy\]"):
        make_shard(proxy="socks5://127.0.0.1:1080")
    for module in ("backports", "backports.zstd", "compression", "compression.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r"shardlib\[zstd\]"):
        make_shard(compression="zstd-stream")


def test_no_repr_shows_the_token() -> None:
    """Row 45: neither the shard nor any object that it consists of shows the token."""
    shard = make_shard()
    reader = shard._reader
    assert TOKEN not in repr((shard, str(shard), *vars(shard).values()))
    assert TOKEN not in repr((*vars(reader).values(), *vars(reader.protocol).values()))
    assert TOKEN not in repr(shard._options.identity)


def test_the_defaults_of_shard_are_the_documented_ones() -> None:
    parameters = inspect.signature(Shard).parameters
    expected = {
        "connect_timeout": 10.0,
        "hello_timeout": 10.0,
        "ready_timeout": 60.0,
        "send_timeout": 10.0,
        "close_timeout": 2.0,
        "compression": "zlib-stream",
        "max_payload": 64 * 2**20,
        "should_reconnect": True,
    }
    assert {name: parameters[name].default for name in expected} == expected


async def is_never_awaited(*arguments: Any) -> None: ...


@pytest.mark.parametrize("name", CALLBACKS)
def test_an_async_callback_or_one_of_wrong_arity_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: .*no event loop"):
        make_shard(**{name: is_never_awaited})
    with pytest.raises(TypeError, match=f"{name}: .*positional argument"):
        make_shard(**{name: lambda: None})


def test_an_async_listener_or_predicate_or_one_of_wrong_arity_is_refused() -> None:
    shard = make_shard()
    with pytest.raises(TypeError, match=r"MESSAGE_CREATE: .*no event loop"):
        shard.on("MESSAGE_CREATE")(is_never_awaited)
    with pytest.raises(TypeError, match=r"MESSAGE_CREATE: .*<lambda>\(message\)"):
        shard.on("MESSAGE_CREATE")(lambda message: None)  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"predicate: .*no event loop"):
        shard.wait_for("MESSAGE_CREATE", is_never_awaited)
    with pytest.raises(TypeError, match=r"predicate: .*1 positional argument,"):
        shard.wait_for("MESSAGE_CREATE", lambda shard, message: True)  # type: ignore[arg-type,misc]


def test_a_subclass_without_super_init_gets_an_error_that_says_so() -> None:
    class Bot(Shard):
        def __init__(self) -> None:
            self.greeting = "hello"

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(token, intents, ...\) first"):
        Bot().disconnect()
    with pytest.raises(AttributeError, match="'Shard' object has no attribute 'on_redy'$"):
        getattr(make_shard(), "on_redy")  # noqa: B009


def test_a_callback_method_with_a_second_shard_is_refused() -> None:
    class Bot(Shard):
        def on_socket_ready(self, shard: Shard) -> None: ...

    with pytest.raises(TypeError, match="self is the shard"):
        Bot("token", 0)
