"""A shard checks functions when they are registered, not when the first event comes."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import unittest.mock
from collections.abc import Callable
from typing import Any

import pytest

from shardlib import Intents, Shard
from tests.peers import Peer
from tests.reliability.conftest import MakeScripted, WatchShard
from tests.shards import fast_options
from tests.support import TOKEN, wait_until


@pytest.fixture
def shard() -> Shard:
    """A shard that is never connected."""
    return Shard(TOKEN, Intents.all())


# Functions that cannot be called as the shard calls them


async def coroutine_function(*arguments: object) -> None:
    """A function whose call does nothing but make a coroutine."""


class Asynchronous:
    """An object whose __call__ is a coroutine function."""

    async def __call__(self, *arguments: object) -> None:
        pass


REFUSED: dict[str, Any] = {
    "no function": "nonsense",
    "a coroutine function": coroutine_function,
    "a partial coroutine function": functools.partial(coroutine_function, 1),
    "an object with an async __call__": Asynchronous(),
    "too few arguments: none": lambda: None,
    "too few arguments: one": lambda shard: None,
    "too many arguments": lambda shard, data, more: None,
    "a keyword-only argument": lambda shard, data, *, more: None,
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("way", ["decorator", "on()", "attribute", "constructor"])
def test_a_function_that_cannot_be_called_is_refused_at_registration(
    way: str, what: str, shard: Shard
) -> None:
    """Row 89: with a TypeError at the line that registers it, which names the event or callback."""
    function = REFUSED[what]
    with pytest.raises(TypeError) as caught:
        if way == "decorator":
            shard.on("MESSAGE_CREATE")(function)
        elif way == "on()":
            shard.on("MESSAGE_CREATE", function)
        elif way == "attribute":
            shard.on_socket_dispatch = function
        else:
            Shard(TOKEN, Intents.all(), on_socket_dispatch=function)

    if "coroutine" in what or "async" in what:
        assert "async" in str(caught.value) or "coroutine" in str(caught.value)
    name = "MESSAGE_CREATE" if way in ("decorator", "on()") else "on_socket_dispatch"
    assert name in str(caught.value)


ARITIES = {
    "on_socket_connected": 1,
    "on_socket_reconnected": 2,
    "on_socket_disconnected": 3,
    "on_socket_heartbeat": 2,
    "on_socket_dispatch": 2,
    "on_socket_raw_message": 2,
    "on_socket_text": 4,
    "on_socket_batch": 2,
    "on_socket_ready": 1,
    "on_socket_error": 2,
    "on_socket_state": 2,
    "on_socket_closed": 2,
}


@pytest.mark.parametrize("name", ARITIES)
def test_each_callback_has_its_own_number_of_arguments(name: str, shard: Shard) -> None:
    """Row 89: a function with one argument more or less is refused."""
    functions = [
        lambda: None,
        lambda a: None,
        lambda a, b: None,
        lambda a, b, c: None,
        lambda a, b, c, d: None,
    ]
    for number, function in enumerate(functions):
        if number == ARITIES[name]:
            setattr(shard, name, function)
            assert getattr(shard, name) is function
        else:
            with pytest.raises(TypeError, match=name):
                setattr(shard, name, function)


class Listener:
    """Methods of all kinds, which take a shard and the data of an event."""

    def method(self, shard: Shard, data: object) -> None:
        pass

    @classmethod
    def class_method(cls, shard: Shard, data: object) -> None:
        pass

    @staticmethod
    def static_method(shard: Shard, data: object = None, more: object = None) -> None:
        pass

    def __call__(self, *arguments: object, **options: object) -> None:
        pass


ACCEPTED: dict[str, Callable[..., object]] = {
    "method": Listener().method,
    "class method": Listener.class_method,
    "static method": Listener.static_method,
    "object": Listener(),
    "builtin": print,
    "builtin without a signature": max,
    "bound builtin": {}.setdefault,
    "partial": functools.partial(lambda more, shard, data: None, 1),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_any_callable_that_takes_the_arguments_is_accepted(what: str, shard: Shard) -> None:
    """Row 89: the check refuses only what the shard cannot call."""
    shard.on("MESSAGE_CREATE", ACCEPTED[what])
    shard.off("MESSAGE_CREATE", ACCEPTED[what])
    shard.on_socket_dispatch = ACCEPTED[what]
    assert shard.on_socket_dispatch is ACCEPTED[what]
    shard.on_socket_dispatch = None
    assert shard.on_socket_dispatch is None


def test_a_predicate_that_is_a_coroutine_function_is_refused(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 89: it would return a coroutine, which always counts as true."""
    shard, _ = watch_shard(make_scripted())
    with pytest.raises(TypeError, match="predicate"):
        shard.wait_for("MESSAGE_CREATE", coroutine_function, timeout=0.1)


@pytest.mark.parametrize("value", [print, None], ids=["function", "None"])
@pytest.mark.parametrize(
    "name, nearest",
    [("on_socket_redy", "on_socket_ready"), ("on_socket_message", "on_socket_raw_message")],
)
def test_a_misspelt_callback_attribute_is_refused_and_the_right_name_told(
    name: str, nearest: str, value: object, shard: Shard
) -> None:
    """Row 89: the shard would never call it."""
    with pytest.raises(AttributeError, match=nearest):
        setattr(shard, name, value)


# Names of events


def test_an_unknown_event_name_is_warned_of_once_with_the_nearest_known_one(
    shard: Shard, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 89: the event may be new, so on() accepts it; or misspelt, so the log tells."""
    for _ in range(2):
        shard.on("MESAGE_CREATE", print)
    shard.on("MESSAGE_CREATE", print)
    shard.on("message_update", print)

    [warning] = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "MESAGE_CREATE" in warning.getMessage()
    assert "MESSAGE_CREATE" in warning.getMessage()


# Methods of subclasses, and on() with two arguments


def test_the_methods_of_a_subclass_are_its_callbacks(make_scripted: MakeScripted) -> None:
    """Row 89: a method is called with the shard as self, not as another argument."""
    seen: list[tuple[Any, ...]] = []

    class Bot(Shard):
        def on_socket_ready(self) -> None:
            seen.append((self, "ready"))

        def on_socket_dispatch(self, payload: dict[str, Any]) -> None:
            seen.append((self, payload["t"]))

        def on_socket_closed(self, error: object) -> None:
            seen.append((self, error))

    gateway = make_scripted()
    with Bot(TOKEN, Intents.all(), **fast_options()) as bot:
        bot.connect(gateway.url)
        wait_until(lambda: len(seen) == 2)

    assert sorted(seen[:2], key=lambda call: call[1]) == [(bot, "READY"), (bot, "ready")]
    assert seen[2:] == [(bot, None)]


def test_a_subclass_with_a_method_that_cannot_be_called_is_refused() -> None:
    """Row 89: the constructor checks methods as it checks functions."""
    with pytest.raises(TypeError, match="on_socket_ready"):

        class Coroutine(Shard):
            async def on_socket_ready(self) -> None:
                pass

        Coroutine(TOKEN, Intents.all())

    with pytest.raises(TypeError, match="on_socket_dispatch"):

        class Arity(Shard):
            def on_socket_dispatch(self) -> None:
                pass

        Arity(TOKEN, Intents.all())


def test_on_takes_the_function_as_its_second_argument(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 89: for a function of another module; on() returns it, as the decorator does."""

    def listener(shard: Shard, data: object) -> None:
        received.append(data)

    received: list[object] = []
    gateway = make_scripted()
    shard, _ = watch_shard(gateway, connect=False)

    assert shard.on("TYPING_START", listener) is listener
    shard.connect(gateway.url)
    shard.wait_until_ready(10)
    gateway.peers[0].dispatch("TYPING_START", "typing")

    wait_until(lambda: received == ["typing"])


# Callbacks that fail


def test_a_callback_that_always_fails_does_not_fill_the_log(
    make_scripted: MakeScripted, watch_shard: WatchShard, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 90: three tracebacks for each function; on_socket_error is called for each failure."""

    def script(peer: Peer) -> None:
        peer.begin()
        for _ in range(50):
            peer.dispatch("TYPING_START")
        peer.dispatch("DONE")
        peer.serve()

    def first(shard: Shard, data: object) -> None:
        raise LookupError("first")

    def second(shard: Shard, data: object) -> None:
        raise LookupError("second")

    gateway = make_scripted(script)
    shard, recorder = watch_shard(gateway, connect=False)
    shard.on("TYPING_START")(first)
    shard.on("TYPING_START")(second)
    shard.connect(gateway.url)
    wait_until(lambda: shard.stats.events["DONE"])

    tracebacks = [str(each.exc_info[1]) for each in caplog.records if each.exc_info]
    assert sorted(tracebacks) == ["first"] * 3 + ["second"] * 3
    assert [str(error) for error in recorder.errors] == ["first", "second"] * 50
    lines = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(lines) <= 2 * (3 + 1)


def test_a_misspelt_callback_method_is_refused_when_its_class_is_defined() -> None:
    """Row 89: the shard would never call it."""
    with pytest.raises(AttributeError, match="on_socket_redy"):

        class Bot(Shard):
            def on_socket_redy(self) -> None: ...


def test_a_callback_assigned_before_super_init_is_refused_with_advice() -> None:
    class Bot(Shard):
        def __init__(self) -> None:
            self.on_socket_ready = print
            super().__init__(TOKEN, 0)

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\) first"):
        Bot()


# Callbacks as attributes: deletion, methods and equality


def handle_event(shard: Shard, name: str) -> None:
    """Have a shard without a connection handle an event."""
    shard._handle_message(json.dumps({"op": 0, "t": name, "s": 1, "d": None}))


def test_a_deleted_callback_is_called_no_more() -> None:
    """Deletion uncovers the attribute of the class, which is None."""
    shard = Shard(TOKEN, Intents.all(), compression=None)
    called: list[str] = []

    with unittest.mock.patch.object(
        shard, "on_socket_dispatch", lambda shard, payload: called.append(payload["t"])
    ):
        handle_event(shard, "FIRST")
    handle_event(shard, "SECOND")

    assert called == ["FIRST"]
    assert shard.on_socket_dispatch is None
    with pytest.raises(AttributeError):
        del shard.on_socket_dispatch


class Bot(Shard):
    """A subclass with a callback of its own."""

    def __init__(self) -> None:
        super().__init__(TOKEN, 0, compression=None)
        self.called: list[str] = []

    def on_socket_dispatch(self, payload: dict[str, Any]) -> None:
        self.called.append(payload["t"])


def test_a_method_of_a_subclass_is_called_again_once_its_override_is_deleted() -> None:
    bot: Any = Bot()
    bot.on_socket_dispatch = lambda shard, payload: None
    handle_event(bot, "FIRST")
    del bot.on_socket_dispatch
    handle_event(bot, "SECOND")
    assert bot.called == ["SECOND"]


def test_a_method_of_a_subclass_that_is_assigned_back_is_still_called() -> None:
    """Tools that patch attributes in tests put the old value back."""
    bot: Any = Bot()
    bot.on_socket_dispatch = bot.on_socket_dispatch
    handle_event(bot, "FIRST")
    assert bot.called == ["FIRST"]


def test_a_subclass_without_a_hash_can_connect(make_scripted: MakeScripted) -> None:
    """A class that defines __eq__ alone, such as a dataclass, has no hash."""

    @dataclasses.dataclass(init=False)
    class Named(Shard):
        name: str

        def __init__(self, name: str) -> None:
            self.name = name
            super().__init__(TOKEN, 0, **fast_options())

    gateway = make_scripted()
    with Named("one") as one, Named("one") as other:
        assert one == other
        for shard in (one, other):
            shard.connect(gateway.url)
            shard.wait_until_ready(10)
