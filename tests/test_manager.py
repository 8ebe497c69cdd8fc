"""ShardManager: its arguments, what it shows of itself, and how it compares with Shard."""

from __future__ import annotations

import copy
import gc
import inspect
import math
import pickle
import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest

from shardlib import Backoff, GatewayBot, IdentifyGate, Session, Shard, ShardManager
from shardlib.limits import default_gate
from shardlib.shardoptions import ShardOptions
from shardlib.testing import LocalGateway
from tests.managers import connect, make_gateway, make_manager
from tests.recorder import CALLBACKS
from tests.support import TOKEN

# Of the arguments of a Shard, those that each shard of a manager has for itself, and those that a
# manager has, too, for another purpose.
OWN = {"shard_id", "session", "backoff"}
SHARED = {"token", "intents", "shard_count", "identify_gate"}

ANSWER: Any = GatewayBot("wss://gateway.discord.gg", 4, 1000, 1000, 0.0, 1)


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway() as gateway:
        yield gateway


def make(**options: Any) -> ShardManager:
    """A manager that is never connected."""
    return ShardManager(**{"token": TOKEN, "intents": 0, **options})


# The constructor


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"token": None}, TypeError, "token"),
        ({"token": ""}, ValueError, "token"),
        ({"token": "Bot " + TOKEN}, ValueError, "Bot"),
        ({"intents": "guilds"}, TypeError, "intents"),
        ({"intents": -1}, ValueError, "intents"),
        ({"shard_count": 0}, ValueError, "shard_count"),
        ({"shard_count": -1}, ValueError, "shard_count"),
        ({"shard_count": "4"}, TypeError, "shard_count"),
        ({"shard_count": 4.0}, TypeError, "shard_count"),
        ({"shard_count": True}, TypeError, "shard_count"),
        ({"shard_ids": [0]}, ValueError, "shard_ids needs shard_count"),
        ({"shard_ids": [], "shard_count": 4}, ValueError, "shard_ids"),
        ({"shard_ids": [0, 0], "shard_count": 4}, ValueError, "shard_ids"),
        ({"shard_ids": [4], "shard_count": 4}, ValueError, "from 0 to 3, not 4"),
        ({"shard_ids": [-1], "shard_count": 4}, ValueError, "shard_ids"),
        ({"shard_ids": ["0"], "shard_count": 4}, TypeError, "shard_ids"),
        ({"shard_ids": [1.0], "shard_count": 4}, TypeError, "shard_ids"),
        ({"shard_ids": [True], "shard_count": 4}, TypeError, "shard_ids"),
        ({"shard_ids": "01", "shard_count": 4}, TypeError, "shard_ids"),
        ({"shard_ids": 1, "shard_count": 4}, TypeError, "shard_ids"),
        ({"sessions": 5}, TypeError, "sessions"),
        ({"sessions": ""}, ValueError, "sessions"),
        ({"sessions": "a\0b"}, ValueError, "sessions"),
        ({"gateway_bot": "wss://gateway.discord.gg"}, TypeError, "gateway_bot"),
        ({"gateway_bot": lambda token: None}, TypeError, "gateway_bot"),
        ({"gateway_bot": ANSWER._replace(shards=0)}, ValueError, "GatewayBot.shards"),
        ({"gateway_bot": ANSWER._replace(shards="4")}, TypeError, "GatewayBot.shards"),
        ({"gateway_bot": ANSWER._replace(max_concurrency=0)}, ValueError, "max_concurrency"),
        ({"gateway_bot": ANSWER._replace(remaining=-1)}, ValueError, "GatewayBot.remaining"),
        ({"gateway_bot": ANSWER._replace(total=cast(Any, None))}, TypeError, "GatewayBot.total"),
        ({"gateway_bot": ANSWER._replace(reset_after=-1.0)}, ValueError, "reset_after"),
        ({"gateway_bot": ANSWER._replace(url="https://discord.com")}, ValueError, "gateway URL"),
        ({"identify_gate": 5}, TypeError, "identify_gate"),
        ({"on_all_ready": 5}, TypeError, "on_all_ready"),
        ({"on_all_ready": lambda: None}, TypeError, "on_all_ready"),
        ({"on_resharding_needed": lambda manager: None}, TypeError, "on_resharding_needed"),
        ({"on_socket_ready": lambda: None}, TypeError, "on_socket_ready"),
        ({"on_socket_ready": 1}, TypeError, "on_socket_ready"),
        ({"shard_id": 0}, TypeError, "takes no shard_id: each of its shards has its own"),
        (
            {"session": Session("a", 1, None, 0, 1)},
            TypeError,
            "takes no session: each of its",
        ),
        ({"backoff": Backoff()}, TypeError, "takes no backoff: each of its shards has its own"),
        ({"on_socket_redy": print}, TypeError, "unexpected keyword argument 'on_socket_redy'"),
        ({"shards": 4}, TypeError, "unexpected keyword argument 'shards'"),
        ({"compression": "gzip"}, ValueError, "compression"),
        ({"large_threshold": 5}, ValueError, "large_threshold"),
        ({"presence": {"status": "away"}}, ValueError, "status"),
        ({"connect_timeout": 0}, ValueError, "connect_timeout"),
        ({"close_timeout": math.nan}, ValueError, "close_timeout"),
        ({"dispatcher": "mailbox"}, TypeError, "dispatcher"),
        ({"logger": "shard"}, TypeError, "logger"),
        ({"proxy": "ftp://localhost:21"}, ValueError, "proxy"),
        ({"ssl_context": True}, TypeError, "ssl_context"),
        ({"json": object()}, TypeError, "json"),
        ({"should_reconnect": 1}, TypeError, "should_reconnect"),
        ({"slow_callback": 0}, ValueError, "slow_callback"),
    ],
)
def test_a_wrong_argument_of_the_constructor_is_refused_by_name(
    options: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        make(**options)
    assert TOKEN not in str(caught.value)


def test_a_callback_that_is_an_async_def_is_refused() -> None:
    async def never_awaited(*_: Any) -> None: ...

    for name in ("on_all_ready", "on_resharding_needed", "on_socket_ready", "gateway_bot"):
        with pytest.raises(TypeError, match=f"{name}.*async def"):
            make(**{name: never_awaited})


@pytest.mark.parametrize("shard_ids", [[2, 0], (2, 0), {0, 2}, range(0, 4, 2), iter([2, 0])])
def test_the_shards_to_run_may_be_given_in_any_order_and_kind(shard_ids: Any) -> None:
    make(shard_ids=shard_ids, shard_count=4)


def test_the_constructor_starts_nothing_and_asks_nothing() -> None:
    def ask() -> GatewayBot:
        raise AssertionError

    manager = make(gateway_bot=ask)
    assert dict(manager.shards) == {}
    assert manager.shard_count is None
    assert make(shard_count=5).shard_count == 5


def test_a_manager_takes_the_options_of_a_shard_and_no_others() -> None:
    arguments = set(inspect.signature(Shard).parameters)
    assert set(ShardOptions.__annotations__) == arguments - OWN - SHARED
    assert set(CALLBACKS) <= set(ShardOptions.__annotations__)
    assert ShardOptions.__total__ is False


def test_the_options_have_the_types_that_a_shard_declares() -> None:
    of_shard = Shard.__init__.__annotations__
    assert {name: kind.__forward_arg__ for name, kind in ShardOptions.__annotations__.items()} == {
        name: kind for name, kind in of_shard.items() if name in ShardOptions.__annotations__
    }


def test_each_option_reaches_each_shard(gateway: LocalGateway) -> None:
    presence: dict[str, Any] = {"status": "dnd", "activities": [], "since": None, "afk": False}
    with make_manager(
        gateway,
        large_threshold=77,
        presence=presence,
        properties={"os": "plan9", "browser": "b", "device": "d"},
        compression=None,
        should_reconnect=False,
    ) as manager:
        connect(manager)
        for shard in manager.shards.values():
            assert (shard.large_threshold, shard.should_reconnect) == (77, False)
        for session in gateway.sessions:
            assert session.identify["large_threshold"] == 77
            assert session.identify["presence"] == presence
            assert session.identify["properties"]["os"] == "plan9"
        assert {each.compression for each in gateway.connections} == {None}


# The methods


WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], Any, str]] = [
    ("on", (5, print), {}, TypeError, "event"),
    ("on", ("",), {}, ValueError, "event"),
    ("on", ("READY", 5), {}, TypeError, "READY"),
    ("on", ("READY", lambda: None), {}, TypeError, "READY"),
    ("off", (5, print), {}, TypeError, "event"),
    ("off", ("READY", print), {}, ValueError, "does not listen to READY"),
    ("wait_for", (5,), {}, TypeError, "event"),
    ("wait_for", ("READY", 5), {}, TypeError, "predicate"),
    ("wait_for", ("READY",), {"timeout": -1}, ValueError, "timeout"),
    ("wait_for", ("READY",), {"timeout": "1"}, TypeError, "timeout"),
    ("events", (5,), {}, TypeError, "names"),
    ("events", (), {"timeout": -1}, ValueError, "timeout"),
    ("events", (), {"maxsize": 0}, ValueError, "maxsize"),
    ("events", (), {"maxsize": None}, TypeError, "maxsize"),
    ("connect", (5,), {}, TypeError, "gateway URL"),
    ("connect", ("https://discord.com",), {}, ValueError, "gateway URL"),
    ("start", (5,), {}, TypeError, "gateway URL"),
    ("start", ("",), {}, ValueError, "gateway URL"),
    ("run_forever", ("gateway.discord.gg",), {}, ValueError, "gateway URL"),
    ("wait_until_ready", (-1,), {}, ValueError, "timeout"),
    ("wait_until_ready", ("1",), {}, TypeError, "timeout"),
    ("wait_until_ready", (), {"progress": 5}, TypeError, "progress"),
    ("wait_until_ready", (), {"progress": lambda ready: None}, TypeError, "progress"),
    ("close", (), {"keep_sessions": 1}, TypeError, "keep_sessions"),
    ("close", (), {"timeout": -1}, ValueError, "timeout"),
    ("close", (), {"timeout": "1"}, TypeError, "timeout"),
    ("close", (), {"progress": 5}, TypeError, "progress"),
    ("disconnect", (1006,), {}, ValueError, "code"),
    ("disconnect", (3999,), {}, ValueError, "code"),
    ("disconnect", ("1000",), {}, TypeError, "code"),
    ("disconnect", (), {"wait": 1}, TypeError, "wait"),
    ("join", (-1,), {}, ValueError, "timeout"),
    ("join", ("1",), {}, TypeError, "timeout"),
    ("restart", ([9],), {}, ValueError, "shard_ids has 9"),
    ("restart", (["0"],), {}, TypeError, "shard_ids"),
    ("restart", (5,), {}, TypeError, "shard_ids must be a list of int"),
    ("restart", (), {"new_session": 1}, TypeError, "new_session"),
    ("restart", (), {"pause": -1}, ValueError, "pause"),
    ("restart", (), {"pause": None}, TypeError, "pause"),
    ("restart", (), {"timeout": -1}, ValueError, "timeout"),
    ("reshard", (0,), {}, ValueError, "shard_count"),
    ("reshard", ("4",), {}, TypeError, "shard_count"),
    ("reshard", (), {"timeout": -1}, ValueError, "timeout"),
]


def test_wrong_arguments_of_the_methods_are_refused_at_the_call(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        for name, arguments, options, error, message in WRONG:
            if name in ("connect", "start", "run_forever"):
                continue
            with pytest.raises(error, match=message):
                getattr(manager, name)(*arguments, **options)
        assert "4 ready" in repr(manager)
        assert len(gateway.all_connections) == 4


@pytest.mark.parametrize(
    ("name", "arguments", "options", "error", "message"),
    [each for each in WRONG if each[0] != "restart"],
)
def test_they_are_refused_before_connect_as_well(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        getattr(make(), name)(*arguments, **options)


# What it shows


def test_what_it_shows_never_has_the_token(gateway: LocalGateway) -> None:
    manager = make_manager(gateway)
    shown = [repr(manager), str(manager)]
    assert shown[0] == "<ShardManager, never connected>"
    with manager:
        connect(manager)
        shown += [repr(manager), repr(manager.shards), repr(manager.stats)]
        assert shown[2] == "<ShardManager 4 shards, 4 ready>"
    shown.append(repr(manager))
    assert not [each for each in shown if TOKEN in each]


def test_one_shard_is_shown_as_one() -> None:
    with make_gateway(1) as gateway, make_manager(gateway) as manager:
        connect(manager)
        assert repr(manager) == "<ShardManager 1 shard, 1 ready>"


def test_the_shards_cannot_be_changed_from_outside(gateway: LocalGateway) -> None:
    with make_manager(gateway) as manager:
        connect(manager)
        with pytest.raises(TypeError):
            manager.shards[0] = None  # type: ignore[index]
        before = manager.shards
        assert list(before) == [0, 1, 2, 3]
        assert all(isinstance(each, Shard) for each in before.values())


def test_it_can_be_neither_copied_nor_pickled() -> None:
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            copying(make())


def test_managers_that_nothing_refers_to_are_collected() -> None:
    reference = weakref.ref(make())
    gc.collect()
    assert reference() is None


# Beside Shard


def test_every_public_method_is_documented_with_its_arguments() -> None:
    for name, method in inspect.getmembers(ShardManager):
        if name.startswith("_"):
            continue
        assert method.__doc__, name
        if not inspect.isfunction(method):
            continue
        for argument in inspect.signature(method).parameters:
            if argument not in ("self", "arguments", "options"):
                assert f":param {argument}:" in method.__doc__, (name, argument)


@pytest.mark.parametrize(
    "name",
    [
        *("on", "off", "wait_for", "events", "disconnect", "join", "update_presence"),
        *("shard_count", "stats", "wait_until_ready"),
    ],
)
def test_what_a_shard_has_too_is_called_alike(name: str) -> None:
    own, of_shard = getattr(ShardManager, name), getattr(Shard, name)
    if not callable(own):
        assert isinstance(of_shard, property) and isinstance(own, property)
        return
    parameters = inspect.signature(own).parameters
    for argument, parameter in inspect.signature(of_shard).parameters.items():
        assert parameters[argument].kind is parameter.kind
        assert parameters[argument].default == parameter.default


def test_the_default_gate_is_that_of_the_token(gateway: LocalGateway) -> None:
    token = f"{TOKEN}.of-this-test"
    gateway.token = token
    gate = default_gate(token)
    assert isinstance(gate, IdentifyGate)
    with make_manager(gateway, token=token, identify_gate=None, shard_count=1) as manager:
        connect(manager)
        assert 0 < gate.expected_wait(0) <= 5.25
        assert gate.expected_wait(1) == 0.0  # max_concurrency is 2, as Discord has told
