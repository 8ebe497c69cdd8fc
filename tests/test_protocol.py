"""How a GatewayProtocol, and a shard without a socket, handle the Gateway's messages.

The first half of the tests gives payloads to a GatewayProtocol at made-up times, and checks its
effects. The second half gives messages to ``Shard._handle_message``, from bytes to callbacks.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from shardlib import BrokenStream, Shard, ShardState, UnreadableMessage
from shardlib.currentsession import CurrentSession
from shardlib.loss import Cause, Loss
from shardlib.protocol import (
    Acknowledge,
    AnswerHeartbeat,
    Effect,
    Established,
    GatewayProtocol,
    Identify,
    Resume,
    StartHeartbeat,
    Warn,
    extract,
)
from tests.recorder import Recorder
from tests.shards import make_shard

READY = {
    "op": 0,
    "t": "READY",
    "s": 1,
    "d": {"session_id": "abc", "resume_gateway_url": "wss://resume.discord.gg", "guilds": []},
}

HELLO_TIMEOUT, READY_TIMEOUT = 10.0, 60.0
HELLO = {"op": 10, "d": {"heartbeat_interval": 41250}}


def dispatch(sequence: int | None, event: str = "TYPING_START", data: Any = None) -> dict[str, Any]:
    return {"op": 0, "t": event, "s": sequence, "d": data}


class Driver:
    """Plays the reader of one open connection: drives a GatewayProtocol with a made-up clock."""

    def __init__(
        self, session: CurrentSession | None = None, socket_url: str = "wss://gateway.discord.gg"
    ) -> None:
        self.now = 1000.0
        self.url = socket_url
        self.protocol = GatewayProtocol(
            session or CurrentSession(), hello_timeout=HELLO_TIMEOUT, ready_timeout=READY_TIMEOUT
        )
        self.begin()

    def begin(self) -> None:
        """Tell the protocol that a socket was opened."""
        self.protocol.begin_connection(self.url)
        self.protocol.opened(self.now)

    def give(self, *payloads: Any) -> tuple[list[Effect], list[Any]]:
        """Give payloads to the protocol, and complete each event that is to be delivered.

        :return: the effects, and the sequences of the delivered events
        """
        delivered = []
        for payload in payloads:
            message = extract(payload)
            if self.protocol.receive(message, self.now):
                delivered.append(message.sequence)
                self.protocol.session.complete()
        return self.effects(), delivered

    def effects(self) -> list[Effect]:
        return self.protocol.take_effects()

    def at(self, now: float) -> list[Effect]:
        """The effects if no payload arrives until ``now``, in seconds since the start."""
        self.now = 1000.0 + now
        self.protocol.on_deadline(self.now)
        return self.effects()

    @property
    def deadline(self) -> float | None:
        """The protocol's deadline, in seconds since the start."""
        deadline = self.protocol.next_deadline()
        return None if deadline is None else deadline - 1000.0

    @property
    def sequences(self) -> tuple[int | None, int | None]:
        return self.protocol.session.last_sequence, self.protocol.session.completed_sequence


def identifying() -> Driver:
    driver = Driver()
    driver.give(HELLO)
    driver.protocol.identify_sent(driver.now)
    return driver


def established() -> Driver:
    driver = identifying()
    driver.give(READY)
    return driver


def resuming(sequence: int | None = 5) -> Driver:
    driver = Driver(CurrentSession("abc", "wss://resume.discord.gg", sequence, sequence))
    driver.give(HELLO)
    driver.protocol.resume_sent(driver.now)
    return driver


def lost(effects: list[Effect]) -> tuple[Cause, bool]:
    """Why the protocol gave the connection up, and whether it dropped the session as well."""
    (loss,) = effects
    assert isinstance(loss, Loss)
    return loss.cause, loss.session_lost


# The opening


def test_hello_starts_the_heartbeat_and_identifies_or_resumes() -> None:
    assert Driver().give(HELLO) == ([StartHeartbeat(41250), Identify()], [])
    saved = CurrentSession("abc", None, 5, 5)
    assert Driver(saved).give(HELLO) == ([StartHeartbeat(41250), Resume()], [])


@pytest.mark.parametrize("make", [identifying, established, resuming])
def test_a_second_hello_changes_the_pace_and_nothing_else(make: Callable[[], Driver]) -> None:
    driver = make()
    before = driver.deadline
    hello = {"op": 10, "d": {"heartbeat_interval": 10_000}}
    assert driver.give(hello) == ([StartHeartbeat(10_000)], [])
    assert driver.deadline == before


@pytest.mark.parametrize("data", [None, [], {}, {"heartbeat_interval": 0}])
def test_an_unusable_hello_ends_the_connection_and_keeps_the_session(data: Any) -> None:
    effects, _ = Driver(CurrentSession("abc", None, 5, 5)).give({"op": 10, "d": data})
    assert lost(effects) == (Cause.UNRESPONSIVE, False)


def test_hello_identify_and_ready_each_have_a_deadline() -> None:
    driver = Driver()
    assert driver.deadline == HELLO_TIMEOUT
    assert driver.at(9.9) == []
    assert lost(driver.at(10.0)) == (Cause.UNRESPONSIVE, False)

    driver = Driver()
    driver.at(4.0)
    driver.give(HELLO)
    assert driver.deadline is None  # the gate is asked at once
    driver.protocol.open_later(driver.now + 3.0)
    assert driver.deadline == 7.0
    assert driver.at(6.9) == []
    assert driver.at(7.0) == [Identify()]
    driver.protocol.identify_sent(driver.now)
    assert driver.deadline == 7.0 + READY_TIMEOUT
    assert lost(driver.at(67.0)) == (Cause.UNRESPONSIVE, False)


def test_after_ready_no_deadline_is_left() -> None:
    driver = established()
    assert driver.deadline is None
    assert driver.at(86400.0) == []


def test_a_gate_that_answers_after_ready_causes_no_second_identify() -> None:
    """Another thread called identify() while the reader waited to ask the gate again."""
    driver = established()
    driver.protocol.open_later(driver.now + 3.0)
    assert driver.at(3.0) == []
    assert driver.deadline is None


def test_ready_before_hello_does_not_end_the_wait_for_hello() -> None:
    """Without Hello no heartbeat would be sent, and a dead peer would never be noticed."""
    driver = Driver()
    effects, delivered = driver.give(READY)
    assert (effects, delivered) == ([Established(resumed=False)], [1])
    assert driver.deadline == HELLO_TIMEOUT
    assert lost(driver.at(10.0)) == (Cause.UNRESPONSIVE, False)


def test_events_before_ready_are_delivered() -> None:
    assert identifying().give(dispatch(1), dispatch(2)) == ([], [1, 2])


def test_a_rewind_is_for_its_own_session_and_the_next_resume() -> None:
    driver = Driver(CurrentSession("abc", None, 5, 5))
    driver.protocol.rewind("another", 1)
    driver.protocol.rewind("abc", 3)
    driver.protocol.rewind("abc", 4)
    assert driver.protocol.awaited_rewind("abc") == 3
    driver.give(HELLO)
    assert driver.protocol.awaited_rewind("abc") is None
    assert driver.protocol.session.resume_sequence == 3
    driver.protocol.resume_sent(driver.now)
    _, delivered = driver.give(dispatch(3), dispatch(4), dispatch(5), dispatch(6, "RESUMED"))
    assert delivered == [4, 5, 6]
    assert driver.protocol.duplicates == 1 and driver.protocol.gaps == 0


def test_a_rewind_of_a_session_that_has_ended_changes_nothing() -> None:
    driver = Driver(CurrentSession("abc", None, 5, 5))
    driver.protocol.rewind("ended", 1)
    driver.give(HELLO)
    assert driver.protocol.session.resume_sequence == 5
    assert driver.protocol.awaited_rewind("ended") is None


def test_a_resume_that_was_put_off_is_due_again() -> None:
    driver = Driver(CurrentSession("abc", None, 5, 5))
    driver.give(HELLO)
    driver.protocol.open_later(driver.now + 1.0)
    assert driver.deadline == 1.0
    assert driver.at(1.0) == [Resume()]


def test_a_new_connection_inherits_no_effect_and_no_resume_from_the_last_one() -> None:
    driver = resuming()
    driver.give(dispatch(6), {"op": 7})
    driver.protocol.receive(extract({"op": 1}), driver.now)
    driver.begin()
    assert driver.effects() == []
    assert driver.deadline == HELLO_TIMEOUT
    assert not driver.protocol.resuming
    assert driver.give(HELLO) == ([StartHeartbeat(41250), Resume()], [])


# Requests of the Gateway


@pytest.mark.parametrize("make", [Driver, identifying, established, resuming])
@pytest.mark.parametrize(
    "payload, effect",
    [
        ({"op": 1, "d": None}, AnswerHeartbeat()),
        ({"op": 11}, Acknowledge()),
    ],
)
def test_heartbeat_requests_and_acknowledgements_are_handled_at_any_time(
    make: Callable[[], Driver], payload: Any, effect: Effect
) -> None:
    assert make().give(payload) == ([effect], [])


@pytest.mark.parametrize("make", [Driver, identifying, established, resuming])
@pytest.mark.parametrize(
    "payload, session_lost",
    [
        ({"op": 7}, False),
        ({"op": 7, "d": None, "s": 99, "t": None}, False),
        ({"op": 9, "d": True}, False),
        ({"op": 9, "d": False}, True),
        ({"op": 9, "d": False, "s": 3}, True),
        ({"op": 9}, True),
        ({"op": 9, "d": "true"}, True),
        ({"op": 9, "d": 1}, True),
    ],
)
def test_reconnect_and_invalid_session_end_the_connection_at_any_time(
    make: Callable[[], Driver], payload: Any, session_lost: bool
) -> None:
    driver = make()
    before = driver.sequences
    effects, delivered = driver.give(payload)
    assert lost(effects) == (Cause.GATEWAY_ASKED, session_lost)
    assert delivered == []
    assert driver.sequences == ((None, None) if session_lost else before)


@pytest.mark.parametrize("opcode", [0, 2, 3, 4, 5, 6, 8, 12, 99, -1])
def test_an_opcode_that_no_client_handles_is_ignored(opcode: int) -> None:
    effects, delivered = established().give({"op": opcode})
    assert effects == []
    assert delivered == ([None] if opcode == 0 else [])


# Sessions


@pytest.mark.parametrize(
    "data, session_id, url, warned",
    [
        ({"session_id": "abc"}, "abc", None, False),
        ({"session_id": 42}, "42", None, False),
        ({"session_id": True}, None, None, False),
        ({"session_id": ""}, None, None, False),
        ({}, None, None, False),
        (None, None, None, False),
        ({"session_id": "a", "resume_gateway_url": "wss://b"}, "a", "wss://b", False),
        ({"session_id": "a", "resume_gateway_url": "ws://b"}, "a", None, True),
        ({"session_id": "a", "resume_gateway_url": "https://b"}, "a", None, True),
        ({"session_id": "a", "resume_gateway_url": 7}, "a", None, True),
    ],
)
def test_ready_begins_a_session_with_its_id_and_resume_url(
    data: Any, session_id: Any, url: Any, warned: bool
) -> None:
    driver = identifying()
    effects, delivered = driver.give(dispatch(1, "READY", data))
    session = driver.protocol.session
    assert (session.session_id, session.resume_gateway_url) == (session_id, url)
    assert driver.sequences == (1, 1)
    assert delivered == [1]
    assert effects[-1] == Established(resumed=False)
    assert [type(effect) for effect in effects[:-1]] == [Warn] * warned


def test_an_unencrypted_resume_url_is_taken_if_connect_used_none_either() -> None:
    driver = Driver(socket_url="ws://127.0.0.1")
    data = {"session_id": "a", "resume_gateway_url": "ws://127.0.0.1:81"}
    effects, _ = driver.give(dispatch(1, "READY", data))
    assert effects == [Established(resumed=False)]
    assert driver.protocol.session.resume_gateway_url == "ws://127.0.0.1:81"


def test_a_session_is_dropped_with_its_sequence() -> None:
    driver = established()
    driver.give(dispatch(5000))
    driver.protocol.drop_session()
    assert driver.protocol.session.session_id is None
    assert driver.sequences == (None, None)
    driver.begin()
    assert driver.give(HELLO)[0][-1] == Identify()


@pytest.mark.parametrize(
    "given, last",
    [
        ([2, 3, 4], 4),
        ([2, None, 2, 1, 0], 2),
        ([100, 3], 100),
        ([-1, True, 2.0, "2", 1 << 63], 1),
        ([(1 << 63) - 1], (1 << 63) - 1),
    ],
)
def test_the_last_sequence_is_the_greatest_valid_one(given: list[Any], last: int) -> None:
    driver = established()
    driver.give(*map(dispatch, given))
    assert driver.sequences == (last, last)


def test_an_event_counts_as_completed_when_its_callbacks_have_returned() -> None:
    driver = established()
    assert driver.protocol.receive(extract(dispatch(2)), driver.now)
    assert driver.sequences == (2, 1)
    driver.protocol.session.complete()
    assert driver.sequences == (2, 2)


# The replay


def test_a_replayed_duplicate_is_dropped_until_resumed() -> None:
    driver = resuming(5)
    assert driver.protocol.resume_pending
    effects, delivered = driver.give(*map(dispatch, (4, 5, 6, None, 7)))
    assert (effects, delivered) == ([], [6, None, 7])
    effects, delivered = driver.give(dispatch(5, "RESUMED"))
    assert (effects, delivered) == ([Established(resumed=True)], [5])
    assert not driver.protocol.resume_pending
    assert driver.give(dispatch(7), dispatch(3)) == ([], [7, 3])
    assert (driver.protocol.duplicates, driver.protocol.replayed) == (2, 3)
    assert driver.sequences == (7, 7)


def test_a_replay_may_take_long_but_not_stand_still() -> None:
    driver = resuming()
    assert driver.deadline == READY_TIMEOUT
    assert driver.at(59.0) == []
    driver.give(dispatch(6))
    assert driver.deadline == 59.0 + READY_TIMEOUT
    driver.at(100.0)
    driver.give(dispatch(5), {"op": 11})  # neither a duplicate nor an acknowledgement is progress
    assert driver.at(118.9) == []
    assert lost(driver.at(119.0)) == (Cause.UNRESPONSIVE, False)


def test_resumed_without_a_resume_is_an_ordinary_event() -> None:
    assert established().give(dispatch(2, "RESUMED")) == ([], [2])


def test_ready_instead_of_resumed_begins_a_session() -> None:
    driver = resuming(77)
    effects, delivered = driver.give(READY)
    assert (effects, delivered) == ([Established(resumed=False)], [1])
    assert not driver.protocol.resume_pending
    assert driver.sequences == (1, 1)


# Gaps


@pytest.mark.parametrize(
    "given, gaps",
    [([2, 3, None, 3, 2, 4], 0), ([3], 1), ([3, 5, 6, 8], 3), ([(1 << 63) - 1], 1)],
)
def test_a_jump_of_the_sequence_is_counted_and_told_once(given: list[Any], gaps: int) -> None:
    driver = established()
    effects, _ = driver.give(*map(dispatch, given))
    assert driver.protocol.gaps == gaps
    assert [type(effect) for effect in effects] == [Warn] * min(gaps, 1)


def test_the_first_gap_of_each_connection_is_told() -> None:
    driver = established()
    driver.give(dispatch(3))
    driver.begin()
    driver.give(HELLO)
    driver.protocol.resume_sent(driver.now)
    effects, _ = driver.give(dispatch(9))
    assert [type(effect) for effect in effects[-1:]] == [Warn]


def test_an_event_before_resume_does_not_change_the_last_sequence() -> None:
    """Otherwise Resume would name the later sequence, and the events between would be lost."""
    driver = established()
    driver.give(dispatch(3))
    driver.begin()
    _, delivered = driver.give(dispatch(9), HELLO, dispatch(10))
    assert len(delivered) == 2
    assert driver.sequences[0] == 3


def test_a_replay_begins_with_the_first_missed_event() -> None:
    driver = resuming(5)
    assert not driver.protocol.replay_begun
    driver.give(dispatch(5), {"op": 11})  # was received before
    assert not driver.protocol.replay_begun
    driver.give(dispatch(6))
    assert driver.protocol.replay_begun
    driver.begin()
    assert not driver.protocol.replay_begun


def test_an_identify_by_another_thread_keeps_its_own_ready_deadline() -> None:
    """The time at which the gate is to be asked again must not count as READY's deadline."""
    driver = Driver()
    driver.begin()
    driver.give(HELLO)
    driver.protocol.open_later(driver.now + 1.0)
    driver.protocol.identify_sent(driver.now + 1.0)
    driver.protocol.open_later(driver.now + 0.5)  # the answer of a gate asked earlier
    driver.protocol.on_deadline(driver.now + 1.0)
    assert driver.effects() == []
    assert driver.deadline == 1.0 + READY_TIMEOUT


def test_a_late_gate_does_not_postpone_the_ready_deadline() -> None:
    """Another thread sent Identify while the reader was still inside its gate."""
    driver = Driver()
    driver.begin()
    driver.give(HELLO)
    driver.protocol.identify_sent(driver.now)
    deadline = driver.deadline
    driver.protocol.open_later(driver.now + 1.0)
    assert driver.deadline == deadline


@pytest.mark.parametrize("payload", [HELLO, READY, {"op": 9, "d": True}])
def test_a_callback_may_change_the_payload_that_was_read(payload: Any) -> None:
    expected, changed = Driver(), Driver()
    expected.give(payload)
    copy = json.loads(json.dumps(payload))
    message = extract(copy)
    if isinstance(copy["d"], dict):
        copy["d"].clear()
    copy.clear()
    changed.protocol.receive(message, changed.now)
    assert changed.protocol.take_effects() == Driver().give(payload)[0]
    assert changed.protocol.session.session_id == expected.protocol.session.session_id


# From a message to the callbacks of a shard


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(raw=True)


@pytest.fixture
def shard(recorder: Recorder) -> Shard:
    return make_shard(recorder, compression=None)


def give(shard: Shard, *payloads: Any) -> None:
    for payload in payloads:
        shard._handle_message(payload if isinstance(payload, str) else json.dumps(payload))


def test_hello_gives_the_heartbeat_interval_and_starts_no_thread(shard: Shard) -> None:
    give(shard, {"op": 10, "d": {"heartbeat_interval": 41250}})
    assert shard.heartbeat_interval == 41250
    assert shard.heartbeat_thread is None
    assert shard.socket_thread is None


@pytest.mark.parametrize(
    "data", [None, {}, *({"heartbeat_interval": odd} for odd in (0, "1", 10**400, math.inf))]
)
def test_a_hello_without_a_usable_interval_sets_no_heartbeat_interval(
    shard: Shard, data: Any
) -> None:
    give(shard, {"op": 10, "d": data})
    assert shard.heartbeat_interval is None


@pytest.mark.parametrize("interval", [5e-324, 1e308])
def test_the_smallest_and_the_largest_heartbeat_interval_are_accepted(
    shard: Shard, recorder: Recorder, interval: float
) -> None:
    give(shard, {"op": 10, "d": {"heartbeat_interval": interval}})
    assert shard.heartbeat_interval == interval
    assert not recorder.errors


def test_a_second_hello_keeps_the_session_of_a_shard(shard: Shard) -> None:
    give(shard, {"op": 10, "d": {"heartbeat_interval": 41250}}, READY)
    give(shard, {"op": 10, "d": {"heartbeat_interval": 10_000}})
    assert shard.heartbeat_interval == 10_000
    assert shard.session_id == "abc"


def test_ready_begins_the_session_of_a_shard(shard: Shard, recorder: Recorder) -> None:
    give(shard, READY)
    assert shard.session_id == "abc"
    assert shard.session_gateway == "wss://resume.discord.gg"
    assert shard.last_sequence == 1
    assert [call[0] for call in recorder.calls] == [
        "raw_message",
        "ready",
        "text",
        "dispatch",
        "batch",
    ]


def test_without_a_reader_thread_the_state_stays_disconnected(shard: Shard) -> None:
    give(shard, {"op": 10, "d": {"heartbeat_interval": 41250}}, READY)
    assert shard.state is ShardState.DISCONNECTED
    assert not shard.socket_active and not shard.socket_identified


def test_a_second_ready_replaces_the_sequence_even_by_a_lower_one(shard: Shard) -> None:
    give(shard, READY, dispatch(5000), {**READY, "s": 1})
    assert shard.last_sequence == 1


def test_ready_may_have_sequence_0_and_a_number_for_a_session_id(shard: Shard) -> None:
    give(shard, {"op": 0, "t": "READY", "s": 0, "d": {"session_id": 42}})
    assert (shard.session_id, shard.last_sequence, shard.session_gateway) == ("42", 0, None)


@pytest.mark.parametrize("url", ["http://example.org", "ws://resume.discord.gg", 7, ""])
def test_a_resume_url_that_the_token_may_not_be_sent_to_is_not_used(shard: Shard, url: Any) -> None:
    give(shard, {**READY, "d": {"session_id": "abc", "resume_gateway_url": url}})
    assert shard.session_id == "abc"
    assert shard.session_gateway is None


def test_the_scheme_of_a_resume_url_may_be_in_capitals(shard: Shard) -> None:
    url = "WSS://resume.discord.gg"
    give(shard, {**READY, "d": {"session_id": "abc", "resume_gateway_url": url}})
    assert shard.session_gateway == url


def test_the_last_sequence_only_grows_and_ignores_null(shard: Shard) -> None:
    give(shard, READY, dispatch(2), dispatch(None), {"op": 0, "t": "X", "d": None}, dispatch(2))
    assert shard.last_sequence == 2
    give(shard, dispatch(7), dispatch(3, "RESUMED"))
    assert shard.last_sequence == 7


@pytest.mark.parametrize("sequence", [-1, 1 << 63, 1 << 64, True, 2.0, "2"])
def test_an_invalid_sequence_is_ignored_or_none_after_ready(shard: Shard, sequence: Any) -> None:
    give(shard, READY, dispatch(sequence))
    assert shard.last_sequence == 1
    give(shard, {**READY, "s": sequence})
    assert shard.last_sequence is None
    assert shard.session is not None and shard.session.sequence is None


def test_every_dispatch_reaches_the_callbacks_in_order(shard: Shard, recorder: Recorder) -> None:
    heard: list[Any] = []
    shard.on("typing_start")(lambda _, data: heard.append(data))
    give(shard, READY, *(dispatch(2 + number, data=number) for number in range(100)))
    assert heard == list(range(100))
    assert [payload["s"] for payload in recorder.events] == list(range(1, 102))


def test_the_raw_callback_comes_before_the_payload_is_acted_on() -> None:
    seen: list[Any] = []
    shard = make_shard(
        compression=None, on_socket_raw_message=lambda shard, _: seen.append(shard.session_id)
    )
    give(shard, READY, dispatch(2))
    assert seen == [None, "abc"]


def test_an_event_without_a_listener_is_counted_but_not_decoded() -> None:
    class Json:
        decoded: list[Any] = []
        dumps = staticmethod(json.dumps)

        @classmethod
        def loads(cls, text: Any) -> Any:
            cls.decoded.append(text)
            return json.loads(text)

    shard = make_shard(compression=None, json=Json)
    heard: list[Any] = []
    shard.on("MESSAGE_CREATE")(lambda _, data: heard.append(data))
    ready = '{"t":"READY","s":1,"op":0,"d":{"session_id":"abc"}}'
    message = '{"t":"MESSAGE_CREATE","s":3,"op":0,"d":{"id":"9"}}'
    # With another order of keys, only decoding tells the event's name.
    another_order = '{"op":0,"t":"TYPING_START","s":5,"d":{}}'
    give(shard, ready, '{"t":"TYPING_START","s":2,"op":0,"d":{}}', message)
    give(shard, '{"t":"TYPING_START","s":4,"op":0,"d":{}}', another_order)
    assert heard == [{"id": "9"}]
    assert Json.decoded == [text.encode() for text in (ready, message, another_order)]
    assert shard.last_sequence == 5
    assert shard.stats.events == {"READY": 1, "TYPING_START": 3, "MESSAGE_CREATE": 1}


def test_off_removes_a_listener_and_refuses_one_that_is_not_registered(shard: Shard) -> None:
    heard: list[Any] = []

    @shard.on("TYPING_START")
    def listen(_: Shard, data: Any) -> None:
        heard.append(data)

    give(shard, dispatch(1, data=1))
    shard.off("TYPING_START", listen)
    give(shard, dispatch(2, data=2))
    assert heard == [1]
    with pytest.raises(ValueError, match="does not listen"):
        shard.off("TYPING_START", listen)


def test_invalid_session_false_forgets_the_session_and_true_keeps_it(shard: Shard) -> None:
    give(shard, READY, dispatch(5), {"op": 9, "d": True})
    assert (shard.session_id, shard.last_sequence) == ("abc", 5)
    give(shard, {"op": 9, "d": False, "s": 3})
    assert (shard.session_id, shard.last_sequence, shard.session_gateway) == (None, None, None)
    assert shard.session is None


@pytest.mark.parametrize("payload", [{"op": 9}, {"op": 9, "d": None}])
def test_invalid_session_without_data_forgets_the_session(shard: Shard, payload: Any) -> None:
    give(shard, READY, payload)
    assert shard.session_id is None


def test_reconnect_keeps_the_session(shard: Shard) -> None:
    give(shard, READY, {"op": 7}, {"op": 7, "d": None, "s": 99, "t": None})
    assert (shard.session_id, shard.last_sequence) == ("abc", 1)


def test_an_acknowledgement_without_a_heartbeat_sets_no_ping(
    shard: Shard, recorder: Recorder
) -> None:
    give(shard, {"op": 11}, {"op": 10, "d": {"heartbeat_interval": 1000}}, {"op": 11})
    assert shard.heartbeat_ping is None
    assert shard.heartbeat_acknowledged
    assert not recorder.beats


@pytest.mark.parametrize(
    "message",
    ["", "{", "[]", "null", '"op"', "{}", '{"op":"0"}', '{"op":true}', '{"op":0', "\x00", "NaN"],
)
def test_an_unreadable_message_is_skipped_and_reported(
    shard: Shard, recorder: Recorder, message: str
) -> None:
    give(shard, READY, message, dispatch(2))
    (error,) = recorder.errors
    assert isinstance(error, UnreadableMessage)
    assert error.text == message
    assert shard.last_sequence == 2


@pytest.mark.parametrize(
    "payload",
    [
        '{"op":0,"t":"X","s":2,"d":{"x":18446744073709552000}}',
        '{"op":0,"t":"X","s":2,"d":"\\ud800"}',
        '{"op":0,"t":"X","s":2,"d":' + "[" * 500 + "]" * 500 + "}",
        '{"op":0,"t":"A_NEW_THING","s":2,"d":null}',
        '{"op":0,"t":null,"s":2,"d":null}',
        '{"op":0,"t":["READY"],"s":2,"d":null}',
        '{"op":0,"s":2}',
    ],
)
def test_unusual_payloads_are_delivered_without_an_error(
    shard: Shard, recorder: Recorder, payload: str
) -> None:
    give(shard, READY, payload, {"op": 99}, {"op": 99, "d": {}}, dispatch(3))
    assert not recorder.errors
    assert len(recorder.events) == 3
    assert shard.last_sequence == 3


def test_the_sequence_follows_the_gateway_and_is_not_counted(shard: Shard) -> None:
    """Row 22: a sequence may jump or be null, and READY may begin below the old session's."""
    give(shard, READY, dispatch(5000), dispatch(None), {"op": 11})
    assert shard.last_sequence == 5000
    give(shard, {"op": 9, "d": False})
    assert shard.last_sequence is None
    assert shard.session is None and shard.session_gateway is None
    give(shard, READY, dispatch(3))
    assert shard.last_sequence == 3


@pytest.mark.parametrize(
    "data",
    [None, [], "READY", 7, *({"session_id": odd} for odd in (None, "", True, 0.5, [], ["abc"]))],
)
def test_a_malformed_ready_begins_no_session_that_could_be_resumed(
    shard: Shard, recorder: Recorder, data: Any
) -> None:
    give(shard, {"op": 0, "t": "READY", "s": 1, "d": data})
    assert shard.session is None
    assert recorder.of("ready")
    assert not recorder.errors


def test_a_callback_that_raises_is_reported_and_the_next_is_called(caplog: Any) -> None:
    errors: list[Exception] = []
    heard: list[Any] = []
    shard = make_shard(compression=None, on_socket_error=lambda _, error: errors.append(error))

    @shard.on("TYPING_START")
    def fail(_: Shard, data: Any) -> None:
        raise LookupError(f"number {data}")

    shard.on("TYPING_START")(lambda _, data: heard.append(data))
    give(shard, READY, dispatch(2, data=1), dispatch(3, data=2))
    assert [str(error) for error in errors] == ["number 1", "number 2"]
    assert heard == [1, 2]
    records = [record for record in caplog.records if record.exc_info]
    assert len(records) == 2 and "fail" in records[0].getMessage()


def test_an_error_callback_that_raises_is_not_called_for_its_own_error() -> None:
    calls: list[Exception] = []

    def fail(_: Shard, error: Exception) -> None:
        calls.append(error)
        raise RuntimeError("worse")

    shard = make_shard(compression=None, on_socket_error=fail)
    give(shard, "{", READY)
    assert len(calls) == 1
    assert shard.session_id == "abc"


def test_the_session_counts_only_events_whose_callbacks_have_returned() -> None:
    seen: list[Any] = []

    def look(shard: Shard, payload: Any) -> None:
        assert shard.session is not None
        seen.append((payload["s"], shard.last_sequence, shard.session.sequence))

    shard = make_shard(compression=None, on_socket_dispatch=look)
    give(shard, READY, dispatch(2), dispatch(3))
    assert seen == [(1, 1, 1), (2, 2, 1), (3, 3, 2)]
    assert shard.session is not None and shard.session.sequence == 3


def test_a_broken_stream_is_reported_and_keeps_the_session(recorder: Recorder) -> None:
    """test_reconnect covers what a broken stream does to the connection."""
    shard = make_shard(recorder, compression="zlib-stream")
    stream = zlib.compressobj()
    ready = stream.compress(json.dumps(READY).encode()) + stream.flush(zlib.Z_SYNC_FLUSH)
    shard._handle_message(ready)
    shard._handle_message(b"no deflate block\x00\x00\xff\xff")
    assert isinstance(recorder.errors[0], BrokenStream)
    assert shard.session_id == "abc"


def test_a_damaged_message_with_payload_compression_is_skipped(recorder: Recorder) -> None:
    """With payload compression, the next message does not depend on the damaged one."""
    shard = make_shard(recorder, compression="payload")
    shard._handle_message(b"no zlib")
    shard._handle_message(zlib.compress(json.dumps(READY).encode()))
    assert [type(error) for error in recorder.errors] == [UnreadableMessage]
    assert shard.session_id == "abc"


def test_the_zlib_buffer_holds_an_incomplete_message() -> None:
    shard = make_shard()
    shard._handle_message(b"\x78\x9c")
    assert shard.zlib_buffer == b"\x78\x9c"


def test_a_logger_that_raises_stops_no_message() -> None:
    class Logger:
        def log(self, *_: Any, **__: Any) -> None:
            raise OSError("disk full")

    shard = make_shard(compression=None, logger=Logger())
    give(shard, READY, "{", dispatch(2))
    assert shard.last_sequence == 2


@pytest.mark.parametrize("compression", [None, "payload", "zlib-stream"])
def test_a_message_that_is_neither_bytes_nor_text_is_refused(compression: str | None) -> None:
    with pytest.raises(TypeError, match="bytes or str, not int"):
        make_shard(compression=compression)._handle_message(5)  # type: ignore[arg-type]
