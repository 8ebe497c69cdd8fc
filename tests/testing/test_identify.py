"""Hello, Identify and READY of a local gateway, and the errors it closes with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shardlib.gateway import Intents
from shardlib.testing import LocalGateway
from shardlib.testing.sessions import SessionStarts
from tests.testing.client import connected


def test_hello_holds_the_heartbeat_interval() -> None:
    with LocalGateway(heartbeat_interval=1234) as gateway, connected(gateway) as client:
        hello = client.receive()
        assert (hello["op"], hello["t"], hello["s"]) == (10, None, None)
        assert hello["d"]["heartbeat_interval"] == 1234


def test_ready_and_the_guilds_agree(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.receive()
        client.identify(shard=[0, 1])
        ready = client.event("READY")
        assert ready["v"] == 10
        assert ready["shard"] == [0, 1]
        assert ready["resume_gateway_url"] == local_gateway.resume_url != local_gateway.url
        assert ready["application"]["id"] == ready["user"]["id"]
        (session,) = local_gateway.sessions
        assert ready["session_id"] == session.session_id
        guilds = [client.event("GUILD_CREATE") for _ in ready["guilds"]]
        assert [guild["id"] for guild in guilds] == [guild["id"] for guild in ready["guilds"]]
        assert len(guilds) == 3
        client.nothing_more()


def test_sequences_count_up_from_one(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        assert client.receive()["s"] is None
        client.identify()
        assert [client.receive()["s"] for _ in range(4)] == [1, 2, 3, 4]
        local_gateway.dispatch("USER_UPDATE", {})
        assert client.receive()["s"] == 5


def test_ready_names_no_shard_where_identify_named_none(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        assert "shard" not in client.ready()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": "wrong"}, 4004),
        ({"token": None}, 4004),
        ({"properties": None}, 4001),
        ({"properties": []}, 4001),
        ({"compress": "yes"}, 4001),
        ({"large_threshold": 49}, 4001),
        ({"large_threshold": 251}, 4001),
        ({"presence": {"status": "sleeping"}}, 4001),
        ({"presence": {"status": "idle", "activities": [{"name": "no type"}]}}, 4001),
        ({"shard": [1, 1]}, 4010),
        ({"shard": [0, 0]}, 4010),
        ({"shard": [-1, 2]}, 4010),
        ({"shard": [0]}, 4010),
        ({"shard": "0,1"}, 4010),
        ({"shard": [0, True]}, 4010),
        ({"intents": -1}, 4013),
        ({"intents": 1 << 30}, 4013),
        ({"intents": "513"}, 4013),
        ({"intents": int(Intents.GUILD_MEMBERS)}, 4014),
        ({"intents": int(Intents.all())}, 4014),
    ],
)
@pytest.mark.local_gateway(allowed_intents=Intents.default())
def test_a_wrong_identify_is_closed_with_its_code(
    local_gateway: LocalGateway, changes: dict[str, Any], code: int
) -> None:
    with connected(local_gateway) as client:
        client.receive()
        client.identify(**{"intents": 1, **changes})
        assert client.close_code() == code
    assert local_gateway.sessions == []


@pytest.mark.parametrize("version", [8, 9, 10])
def test_identify_without_intents_is_closed_with_4013(
    local_gateway: LocalGateway, version: int
) -> None:
    with connected(local_gateway, query=f"?v={version}&encoding=json") as client:
        client.receive()
        client.identify(None)
        assert client.close_code() == 4013


@pytest.mark.parametrize("query", ["?v=6", "?v=7&encoding=json", ""])
@pytest.mark.local_gateway(allowed_intents=Intents.all() & ~Intents.GUILD_PRESENCES)
def test_before_version_8_a_session_without_intents_gets_all_that_the_bot_may_get(
    local_gateway: LocalGateway, query: str
) -> None:
    with connected(local_gateway, query=query) as client:
        client.receive()
        client.identify(None)
        guilds = [each["id"] for each in client.event("READY")["guilds"]]
        assert [client.event("GUILD_CREATE")["id"] for _ in guilds] == guilds
        for event in ("PRESENCE_UPDATE", "GUILD_MEMBER_ADD"):
            local_gateway.dispatch(event, {"guild_id": guilds[0], "user": {"id": "1"}})
        client.event("GUILD_MEMBER_ADD")


def test_before_version_8_wrong_intents_are_still_refused(local_gateway: LocalGateway) -> None:
    with connected(local_gateway, query="?v=6") as client:
        client.receive()
        client.identify("all")
        assert client.close_code() == 4013


def test_the_undocumented_intent_of_interactions_py_is_taken(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.receive()
        client.identify(1 | 1 << 17)
        client.event("READY")
    assert local_gateway.sessions[0].intents == Intents.GUILDS


def test_the_reason_names_the_disallowed_intents() -> None:
    with LocalGateway(allowed_intents=Intents.default()) as gateway, connected(gateway) as client:
        client.receive()
        client.identify(Intents.GUILDS | Intents.GUILD_MEMBERS)
        assert "GUILD_MEMBERS" in client.closed().reason


def test_too_many_guilds_for_one_shard_are_closed_with_4011() -> None:
    with LocalGateway(guilds=3, max_guilds_per_shard=2) as gateway:
        with connected(gateway) as client:
            client.receive()
            client.identify()
            assert client.close_code() == 4011
        with connected(gateway) as client:
            assert len(client.ready(shard=[0, 2])["guilds"]) == 2


@pytest.mark.parametrize(
    ("shard", "code"),
    [([0, 1], 4011), ([2, 3], 4011), ([0, 6], 4010), ([0, 4], None), ([7, 8], None)],
)
def test_a_shard_count_that_the_bot_may_not_have_is_closed_with_its_code(
    shard: list[int], code: int | None
) -> None:
    with LocalGateway(min_shards=4, shard_multiple=4) as gateway, connected(gateway) as client:
        client.receive()
        client.identify(shard=shard)
        if code is None:
            assert client.event("READY")["shard"] == shard
        else:
            assert client.close_code() == code


def test_the_reason_for_a_huge_shard_count_fits_into_a_close_frame() -> None:
    with LocalGateway(shard_multiple=16) as gateway, connected(gateway) as client:
        client.receive()
        client.identify(shard=[0, int("1" * 500)])
        assert client.closed().reason.endswith("must be a multiple of 16")


@pytest.mark.parametrize("option", ["shard_multiple", "min_shards"])
def test_a_demand_on_shard_counts_must_be_at_least_1(option: str) -> None:
    options: dict[str, Any] = {option: 0}
    with pytest.raises(ValueError, match=f"{option} must be at least 1, not 0"):
        LocalGateway(**options)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("not JSON", 4002),
        ("[1]", 4002),
        ("{}", 4002),
        ('{"op": "1"}', 4002),
        ('{"op": true}', 4002),
        ("[" * 4000, 4002),
        (json.dumps({"op": 1, "d": None, "padding": "x" * 4096}), 4002),
        ('{"op": 99}', 4001),
        ('{"op": 1' + "0" * 200 + "}", 4001),
        ('{"op": 0, "d": {}}', 4001),
        ('{"op": 7}', 4001),
        ('{"op": 1, "d": "5"}', 4001),
        ('{"op": 2, "d": []}', 4001),
        ('{"op": 6, "d": null}', 4001),
        ('{"op": 3, "d": {"status": "idle"}}', 4003),
        ('{"op": 8, "d": {}}', 4003),
    ],
)
def test_what_no_client_may_send_is_closed_with_its_code(
    local_gateway: LocalGateway, message: str, code: int
) -> None:
    with connected(local_gateway) as client:
        client.socket.send(message)
        assert client.close_code() == code


def test_4096_bytes_may_be_sent_and_no_more(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.receive()
        padding = "x" * (4096 - len('{"op":1,"d":null,"p":""}'))
        client.socket.send('{"op":1,"d":null,"p":"%s"}' % padding)
        assert client.receive()["op"] == 11
        client.socket.send('{"op":1,"d":null,"p":"%sx"}' % padding)
        assert client.close_code() == 4002


def test_a_message_that_is_not_utf8_is_closed_with_4002(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.socket.send_binary(b'{"op": 1, "d": null, "x": "\xff"}')
        assert client.close_code() == 4002


def test_a_second_identify_is_closed_with_4005(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.ready()
        client.identify()
        assert client.close_code() == 4005


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?v=5&encoding=json", 4012),
        ("?v=11", 4012),
        ("?v=ten", 4012),
        ("?v=10&encoding=etf", 4012),
        ("?v=10&encoding=json&compress=gzip", 4012),
    ],
)
def test_a_wrong_query_is_closed_with_its_code_and_a_reason(
    local_gateway: LocalGateway, query: str, code: int
) -> None:
    with connected(local_gateway, query=query) as client:
        closed = client.closed()
        assert closed.code == code
        assert closed.reason  # for the developer of the client


def test_identifies_of_one_rate_limit_key_keep_five_seconds_apart() -> None:
    with LocalGateway() as gateway:
        with connected(gateway) as first, connected(gateway) as second:
            first.ready(shard=[0, 2])
            second.receive()
            second.identify(shard=[1, 2])
            assert second.receive() == {"t": None, "s": None, "op": 9, "d": False}
            gateway.clock.advance(5)
            second.identify(shard=[1, 2])
            second.event("READY")


@pytest.mark.parametrize(("seconds", "accepted"), [(4.999, False), (5.0, True)])
def test_the_interval_of_a_rate_limit_key_has_no_slack(seconds: float, accepted: bool) -> None:
    with LocalGateway(max_concurrency=2) as gateway:
        starts = SessionStarts(gateway.rules, gateway.clock)
        assert starts.take_slot(1, 100.0)
        assert starts.take_slot(3, 100.0 + seconds) is accepted
        assert starts.take_slot(2, 100.0)


def test_identifies_are_listed_in_the_order_in_which_they_arrived() -> None:
    with LocalGateway(max_concurrency=2, min_shards=2) as gateway:
        with connected(gateway) as first, connected(gateway) as second, connected(gateway) as third:
            first.ready(shard=[2, 4])
            second.receive()
            second.identify(shard=[0, 4])
            assert second.receive()["op"] == 9
            third.receive()
            third.identify()
            assert third.close_code() == 4011
            second.identify(shard=[1, 4])
            second.event("READY")
            gateway.clock.advance(5)
        with connected(gateway) as client:
            client.ready(shard=[0, 4])
        identifies = gateway.identifies
    assert [each[1:] for each in identifies] == [
        (2, 4, True),
        (0, 4, False),
        (0, 1, False),
        (1, 4, True),
        (0, 4, True),
    ]
    times = [each.time for each in identifies]
    assert times == sorted(times)
    assert 5 <= times[4] - times[0] < 30


def test_malformed_identifies_and_those_with_a_wrong_token_are_not_listed(
    local_gateway: LocalGateway,
) -> None:
    for changes in ({"token": "wrong"}, {"properties": None}, {"shard": [1, 1]}):
        with connected(local_gateway) as client:
            client.receive()
            client.identify(**changes)
            client.close_code()
    assert local_gateway.identifies == []


def test_an_identify_that_is_refused_uses_up_no_session_start() -> None:
    with LocalGateway(session_start_limit=2, min_shards=2) as gateway:
        with connected(gateway) as client:
            client.receive()
            client.identify()
            assert client.close_code() == 4011
        assert gateway.session_starts["remaining"] == 2


def test_different_rate_limit_keys_identify_at_once() -> None:
    with LocalGateway(max_concurrency=2) as gateway:
        with connected(gateway) as first, connected(gateway) as second:
            first.ready(shard=[0, 2])
            second.ready(shard=[1, 2])


def test_too_many_identifies_reset_the_token() -> None:
    with LocalGateway(session_start_limit=2, identify_interval=0) as gateway:
        assert gateway.session_starts["remaining"] == 2
        token = gateway.token
        with connected(gateway) as first, connected(gateway) as second, connected(gateway) as third:
            first.ready()
            second.ready()
            assert gateway.session_starts["remaining"] == 0
            assert 86_000_000 < gateway.session_starts["reset_after"] <= 86_400_000
            third.receive()
            third.identify()
            assert third.close_code() == first.close_code() == second.close_code() == 4004
        assert gateway.sessions == []
        assert gateway.token != token


def test_the_session_start_limit_resets_after_a_day() -> None:
    with LocalGateway(session_start_limit=1) as gateway:
        with connected(gateway) as client:
            client.ready()
        gateway.clock.advance(86_400)
        assert gateway.session_starts["remaining"] == 1
        with connected(gateway) as client:
            client.ready()


def test_the_limit_is_reset_a_day_after_the_first_session_for_all_of_the_day() -> None:
    with LocalGateway(session_start_limit=3, identify_interval=0) as gateway:

        def start() -> None:
            with connected(gateway) as client:
                client.ready()

        assert gateway.session_starts["reset_after"] == 0
        start()
        gateway.clock.advance(86_000)
        start()
        start()
        assert gateway.session_starts["remaining"] == 0
        assert 0 < gateway.session_starts["reset_after"] <= 400_000
        gateway.clock.advance(400)
        assert gateway.session_starts["remaining"] == 3
        assert gateway.session_starts["reset_after"] == 0
        start()
        assert gateway.session_starts["remaining"] == 2
        assert gateway.session_starts["reset_after"] > 86_000_000


def test_the_121st_payload_within_a_minute_is_closed_with_4008(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.receive()
        for _ in range(120):
            client.send(1, None)
            assert client.receive()["op"] == 11
        client.send(1, None)
        assert client.close_code() == 4008


@pytest.mark.local_gateway(heartbeat_interval=100_000)
def test_120_payloads_every_minute_are_allowed(local_gateway: LocalGateway) -> None:
    with connected(local_gateway) as client:
        client.receive()
        for _ in range(2):
            for _ in range(120):
                client.send(1, None)
                assert client.receive()["op"] == 11
            local_gateway.clock.advance(60)


def test_heartbeats_of_a_short_interval_use_up_no_allowance() -> None:
    with LocalGateway(heartbeat_interval=100) as gateway, connected(gateway) as client:
        client.receive()
        for _ in range(600):
            client.send(1, None)
        for _ in range(600):
            assert client.receive()["op"] == 11
