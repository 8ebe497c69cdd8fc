"""Sessions: how they are resumed, and how they end."""

from __future__ import annotations

import threading

import pytest

from shardlib.testing import LocalGateway
from tests.testing.client import Client, connected

PLAIN = {"id": "1", "note": "an event that belongs to no guild"}
PRESENCE = {"status": "idle", "afk": False, "since": None, "activities": []}


def test_a_resumed_session_gets_what_it_missed_in_order(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        ready = client.ready()
        client.leave(4000)
    for number in range(50):
        assert local_gateway.dispatch("USER_UPDATE", {"number": number}) == 1
    with connected(local_gateway, resume_url=True) as client:
        client.resume(ready["session_id"], 4)
        replay = client.events_until("RESUMED")
        assert [payload["d"]["number"] for payload in replay[:-1]] == list(range(50))
        assert [payload["s"] for payload in replay] == list(range(5, 56))
        local_gateway.dispatch("USER_UPDATE", PLAIN)
        assert client.receive() == {"t": "USER_UPDATE", "s": 56, "op": 0, "d": PLAIN}
    connections = local_gateway.all_connections
    assert [each.at_resume_url for each in connections] == [False, True]
    assert local_gateway.sessions[0].resumes == 1


def test_a_second_resume_does_not_replay_resumed(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
    with connected(local_gateway) as client:
        client.resume(session_id, 4)
        client.event("RESUMED")
        local_gateway.dispatch("USER_UPDATE", PLAIN)
        client.event("USER_UPDATE")
    with connected(local_gateway) as client:
        client.resume(session_id, 4)
        assert [each["t"] for each in client.events_until("RESUMED")] == ["USER_UPDATE", "RESUMED"]


@pytest.mark.parametrize("sequence", [5, 1000, -1, 10**200], ids=["5", "1000", "-1", "long"])
def test_resume_with_a_sequence_never_issued_is_closed_with_4007(
    local_gateway: LocalGateway, sequence: int
) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
    with connected(local_gateway) as client:
        client.resume(session_id, sequence)
        assert client.close_code() == 4007
    assert local_gateway.sessions == []


def test_resume_of_an_unknown_session_is_answered_with_invalid_session(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        client.resume("nonsense", 1)
        assert client.receive() == {"t": None, "s": None, "op": 9, "d": False}
        # The client may identify on the same connection.
        client.identify()
        client.event("READY")


def test_resume_with_a_wrong_token_is_closed_with_4004(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
    with connected(local_gateway) as client:
        client.resume(session_id, 4, token="wrong")
        assert client.close_code() == 4004


@pytest.mark.parametrize("code", [1000, 1001])
def test_a_client_that_closes_with_1000_or_1001_ends_its_session(
    local_gateway: LocalGateway, code: int
) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
        connection = local_gateway.wait_for_connection()
        client.leave(code)
        assert connection.wait_closed() == code
    assert local_gateway.sessions == []
    with connected(local_gateway) as client:
        client.resume(session_id, 4)
        assert client.receive()["op"] == 9


@pytest.mark.parametrize("code", [4000, 3000, 1002, None])
def test_any_end_but_1000_and_1001_keeps_the_session(
    local_gateway: LocalGateway, code: int | None
) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
        connection = local_gateway.wait_for_connection()
        if code is None:
            client.socket.shutdown()
        else:
            client.leave(code)
        assert connection.wait_closed() == code
    with connected(local_gateway) as client:
        client.resume(session_id, 4)
        client.event("RESUMED")


@pytest.mark.parametrize("code", [1000, 1001, 4000, 4008])
def test_the_answer_to_a_close_of_the_gateway_ends_no_session(
    local_gateway: LocalGateway, code: int
) -> None:
    with connected(local_gateway) as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        connection.close(code)
        assert client.close_code() == code  # websocket-client answers 1000
    assert connection.wait_closed() == 1000
    assert local_gateway.sessions


@pytest.mark.parametrize("code", [4007, 4009])
def test_a_close_code_that_says_the_session_is_over_ends_it(
    local_gateway: LocalGateway, code: int
) -> None:
    with connected(local_gateway) as client:
        client.ready()
        local_gateway.wait_for_connection().close(code)
        assert client.close_code() == code
        assert local_gateway.sessions == []


def test_a_session_without_a_client_expires(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
        client.leave()
    local_gateway.wait_for_connection().wait_closed()
    local_gateway.clock.advance(295)
    assert local_gateway.sessions
    local_gateway.clock.advance(10)
    assert local_gateway.sessions == []
    with connected(local_gateway) as client:
        client.resume(session_id, 4)
        assert client.receive()["op"] == 9


@pytest.mark.local_gateway(heartbeat_interval=10_000_000)
def test_a_connected_session_does_not_expire(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        local_gateway.clock.advance(3000)
        assert local_gateway.sessions


def test_a_session_that_was_invalidated_takes_no_command_and_no_resume(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
        local_gateway.wait_for_connection().invalid_session(resumable=False)
        assert client.receive() == {"t": None, "s": None, "op": 9, "d": False}
        assert local_gateway.sessions == []
        local_gateway.clock.advance(5)
        client.send(3, PRESENCE)
        closed = client.closed()
        assert (closed.code, closed.reason) == (4003, "PRESENCE_UPDATE (op 3) after op 9")
    with connected(local_gateway) as client:
        client.resume(session_id, 4)
        assert client.receive()["op"] == 9


@pytest.mark.parametrize("resumable", [False, True])
def test_a_command_that_crosses_an_invalid_session_is_ignored(
    local_gateway: LocalGateway, resumable: bool
) -> None:
    with connected(local_gateway) as client:
        client.ready()
        connection = local_gateway.wait_for_connection()
        connection.invalid_session(resumable)
        client.send(3, PRESENCE)
        connection.expect(3)
        assert client.receive()["op"] == 9
        local_gateway.clock.advance(6)
        client.identify()
        client.event("READY")


def test_a_session_invalid_but_resumable_is_resumed_on_the_same_connection(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
        local_gateway.wait_for_connection().invalid_session(resumable=True)
        assert client.receive() == {"t": None, "s": None, "op": 9, "d": True}
        local_gateway.dispatch("USER_UPDATE", PLAIN)
        client.nothing_more()
        # @discordjs/ws resumes on the same connection.
        client.send(6, {"token": local_gateway.token, "session_id": session_id, "seq": 4})
        assert [each["t"] for each in client.events_until("RESUMED")] == ["USER_UPDATE", "RESUMED"]


def test_a_resume_closes_the_old_connection_of_its_session(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as old, connected(local_gateway) as new:
        session_id = old.ready()["session_id"]
        new.resume(session_id, 4)
        new.event("RESUMED")
        assert old.close_code() == 4000
        local_gateway.dispatch("USER_UPDATE", PLAIN)
        new.event("USER_UPDATE")


@pytest.mark.local_gateway(resume_after_close=True)
def test_with_resume_after_close_a_resume_before_the_close_costs_the_session(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as old, connected(local_gateway) as new:
        session_id = old.ready()["session_id"]
        new.resume(session_id, 4)
        assert new.receive() == {"t": None, "s": None, "op": 9, "d": False}
        assert local_gateway.sessions == []
        assert old.close_code() == 4000


@pytest.mark.local_gateway(resume_after_close=True)
@pytest.mark.parametrize("end", ["close", "drop", "linger", "frozen", "by the gateway"])
def test_with_resume_after_close_any_end_of_the_old_connection_lets_a_resume_through(
    local_gateway: LocalGateway, end: str
) -> None:
    with connected(local_gateway) as old:
        session_id = old.ready()["session_id"]
        connection = local_gateway.wait_for_connection()
        if end == "drop":
            old.socket.shutdown()
        elif end == "frozen":
            connection.freeze()
        elif end == "by the gateway":
            connection.close(4000)
        else:
            if end == "linger":
                connection.linger()
            old.socket.send_close(4000)
        with connected(local_gateway) as new:
            new.resume(session_id, 4)
            new.event("RESUMED")


def test_a_delayed_replay_holds_the_events_of_the_meantime(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
        client.leave()
    local_gateway.inject(lambda it: it.proceed(after=60), instead_of="replay")
    with connected(local_gateway) as client:
        client.resume(session_id, 4)
        client.nothing_more()
        local_gateway.dispatch("USER_UPDATE", PLAIN)
        local_gateway.clock.advance(30)
        client.nothing_more()
        local_gateway.clock.advance(30)
        assert [each["t"] for each in client.events_until("RESUMED")] == ["USER_UPDATE", "RESUMED"]
        local_gateway.dispatch("USER_UPDATE", PLAIN)
        client.event("USER_UPDATE")


@pytest.mark.local_gateway(replay_limit=10)
def test_a_replay_that_comes_too_late_loses_the_session(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
        client.leave()
    session = local_gateway.sessions[0]
    local_gateway.inject(instead_of="replay")
    with connected(local_gateway) as client:
        client.resume(session_id, 4)
        client.nothing_more()
        for number in range(local_gateway.replay_limit + 1):
            session.dispatch("USER_UPDATE", number)
        local_gateway.connections[-1].proceed()
        assert client.receive() == {"t": None, "s": None, "op": 9, "d": False}


def test_a_fault_instead_of_the_replay_leaves_identify_alone(local_gateway: LocalGateway) -> None:
    local_gateway.inject(instead_of="replay", connections=None)
    with connected(local_gateway) as client:
        client.ready()


def test_resume_on_a_connection_that_has_a_session_is_closed_with_4005(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        ready = client.ready()
        client.send(6, {"token": local_gateway.token, "session_id": ready["session_id"], "seq": 1})
        assert client.close_code() == 4005


@pytest.mark.local_gateway(replay_limit=10)
def test_a_session_that_missed_more_than_replay_limit_is_invalid(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
    for number in range(11):
        local_gateway.sessions[0].dispatch("USER_UPDATE", number)
    with connected(local_gateway) as client:
        client.resume(session_id, 4)
        assert client.receive()["op"] == 9
    assert local_gateway.sessions == []


@pytest.mark.local_gateway(replay_limit=10)
def test_a_session_that_missed_as_much_as_replay_limit_is_resumed(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
    for number in range(10):
        local_gateway.sessions[0].dispatch("USER_UPDATE", number)
    with connected(local_gateway) as client:
        client.resume(session_id, 4)
        assert len(client.events_until("RESUMED")) == 11


def test_a_missed_heartbeat_closes_the_connection_and_keeps_the_session() -> None:
    gateway = LocalGateway(heartbeat_interval=60_000, heartbeat_tolerance=60)
    with gateway, connected(gateway) as client:
        client.ready()
        gateway.clock.advance(90)  # within the tolerance
        client.nothing_more()
        gateway.clock.advance(120)
        assert client.close_code() == 4000
        assert gateway.sessions


@pytest.mark.parametrize("by_shard_id", [True, False])
def test_a_lost_session_gets_events_until_its_client_leaves_and_is_not_resumed(
    local_gateway: LocalGateway, by_shard_id: bool
) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
        (session,) = local_gateway.sessions
        local_gateway.lose_session(0 if by_shard_id else session)
        local_gateway.dispatch("USER_UPDATE", PLAIN)
        assert client.event("USER_UPDATE") == PLAIN
        assert (session.ended, local_gateway.sessions) == (None, [session])
        client.leave(4000)
    local_gateway.wait_until(lambda: session.ended == "lost")
    assert local_gateway.sessions == []
    with connected(local_gateway) as client:
        client.resume(session_id, 5)
        assert client.receive() == {"t": None, "s": None, "op": 9, "d": False}


def test_a_lost_session_is_not_resumed_while_its_former_connection_is_open(
    local_gateway: LocalGateway,
) -> None:
    with connected(local_gateway) as former, connected(local_gateway) as client:
        session_id = former.ready()["session_id"]
        local_gateway.lose_session(0)
        client.resume(session_id, 4)
        assert client.receive()["op"] == 9
        former.nothing_more()


def test_a_session_whose_client_is_away_is_lost_at_once(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        (session,) = local_gateway.sessions
        client.leave(4000)
    local_gateway.wait_until(lambda: session.connection is None)
    local_gateway.lose_session(session)
    assert session.ended == "lost"
    with pytest.raises(ValueError, match="no session that a Resume could continue"):
        local_gateway.lose_session(session)


@pytest.mark.local_gateway(identify_interval=0)
def test_losing_the_sessions_of_a_shard_can_close_their_connections(
    local_gateway: LocalGateway,
) -> None:
    clients = [Client(local_gateway) for _ in range(3)]
    for client, shard in zip(clients, ([1, 2], [1, 3], [2, 3]), strict=True):
        client.ready(shard=shard)
    local_gateway.lose_session(1, close_code=4000)
    assert [client.close_code() for client in clients[:2]] == [4000, 4000]
    for client in clients[:2]:
        client.socket.shutdown()
    clients[2].nothing_more()
    local_gateway.wait_until(lambda: len(local_gateway.sessions) == 1)
    assert [each.shard for each in local_gateway.sessions] == [(2, 3)]
    clients[2].socket.shutdown()
    with pytest.raises(ValueError, match="shard 1 has no session"):
        local_gateway.lose_session(1)


@pytest.mark.local_gateway(keep_history=True, identify_interval=0, replay_limit=1)
def test_the_history_holds_every_event_of_every_session(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        session_id = client.ready()["session_id"]
        local_gateway.dispatch("USER_UPDATE", PLAIN)
        client.leave(4000)
    local_gateway.wait_until(lambda: local_gateway.sessions[0].connection is None)
    local_gateway.dispatch("USER_UPDATE", {"id": "2"})
    with connected(local_gateway) as client:
        client.resume(session_id, 5)
        client.events_until("RESUMED")
        client.leave(1000)
    with connected(local_gateway) as client:
        client.ready()
    first, second = local_gateway.all_sessions
    assert first.ended == "closed with 1000"
    history = first.history
    assert [event.sequence for event in history] == list(range(1, 8))
    assert [event.name for event in history] == [
        "READY",
        *["GUILD_CREATE"] * 3,
        "USER_UPDATE",
        "USER_UPDATE",
        "RESUMED",
    ]
    assert history[0].data["session_id"] == session_id
    assert [event.data for event in history[4:6]] == [PLAIN, {"id": "2"}]
    assert [event.sequence for event in second.history] == [1, 2, 3, 4]


def test_a_session_without_a_history_says_how_to_get_one(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
    with pytest.raises(ValueError, match="keep_history=True"):
        _ = local_gateway.all_sessions[0].history


@pytest.mark.parametrize("how", ["lose_session", "invalid_session"])
def test_a_thread_that_waits_sees_at_once_that_another_ends_the_session(
    local_gateway: LocalGateway, how: str
) -> None:
    looked = threading.Event()

    def is_over() -> bool:
        looked.set()
        return not local_gateway.sessions

    with connected(local_gateway) as client:
        client.ready()
        (connection,) = local_gateway.connections
        if how == "lose_session":
            client.leave(4000)
            connection.wait_closed()
        waiter = threading.Thread(target=local_gateway.wait_until, args=(is_over, 60))
        waiter.start()
        assert looked.wait(10)
        if how == "lose_session":
            local_gateway.lose_session(0)
        else:
            connection.invalid_session()
        waiter.join(20)
        assert not waiter.is_alive()
