"""Asking the Gateway, and having the whole answer: fetch_...() and join_voice()."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from shardlib import (
    AuthenticationFailed,
    GuildMembers,
    NotReady,
    Opcode,
    Session,
    Shard,
    ShardClosed,
    ShardError,
    VoiceUpdates,
)
from shardlib.testing import GatewayConnection, Guild, LocalGateway
from tests.shards import make_gateway, make_shard
from tests.support import in_background, not_none, wait_until

REQUEST = Opcode.REQUEST_GUILD_MEMBERS
ELSEWHERE = 41771983444115456  # a guild of which the gateway knows nothing, so that tests answer


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with make_gateway(guilds=2, members=2500) as gateway:
        yield gateway


@pytest.fixture
def shard(gateway: LocalGateway) -> Iterator[Shard]:
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        yield shard
        assert not any(map(shard._callbacks.wants, ("READY", "RESUMED")))


def guild_of(gateway: LocalGateway) -> Guild:
    return next(iter(gateway.world.guilds.values()))


def ids(members: list[dict[str, Any]]) -> list[str]:
    return [member["user"]["id"] for member in members]


class Answering:
    """A fetch_guild_members() in the background, which the test answers."""

    def __init__(self, gateway: LocalGateway, shard: Shard, **options: Any) -> None:
        self._gateway = gateway
        self.progress: list[tuple[int, int]] = []
        self.result: Future[Any] = in_background(
            lambda: shard.fetch_guild_members(
                ELSEWHERE, progress=lambda *counts: self.progress.append(counts), **options
            )
        )
        self.nonce = ""

    def await_request(self, connection: GatewayConnection | None = None) -> None:
        """Wait until the gateway was asked."""
        connection = connection or self._gateway.connections[-1]
        self.nonce = connection.expect(REQUEST, 10)["d"]["nonce"]

    def answer(self, index: int, count: int, **changes: Any) -> None:
        """Send a chunk with one member, whose id is the chunk's index."""
        chunk = {
            "guild_id": str(ELSEWHERE),
            "members": [{"user": {"id": str(index)}}],
            "chunk_index": index,
            "chunk_count": count,
            "nonce": self.nonce,
        }
        (session,) = self._gateway.sessions
        session.dispatch("GUILD_MEMBERS_CHUNK", {**chunk, **changes})

    def members(self) -> list[str]:
        """The ids of the members that were fetched."""
        members = self.result.result(20)
        assert isinstance(members, GuildMembers)
        return ids(members)


# Members


def test_the_members_of_all_chunks_are_returned(gateway: LocalGateway, shard: Shard) -> None:
    guild = guild_of(gateway)
    seen: list[tuple[int, int, threading.Thread]] = []
    members = shard.fetch_guild_members(
        guild.id, progress=lambda *counts: seen.append((*counts, threading.current_thread()))
    )
    assert members == list(guild.members.values())
    assert seen == [(count, 3, threading.current_thread()) for count in (1, 2, 3)]
    assert (members.presences, members.not_found) == ([], [])


def test_the_presences_and_the_ids_that_are_no_members_come_along(
    gateway: LocalGateway, shard: Shard
) -> None:
    guild = guild_of(gateway)
    all_of_them = shard.fetch_guild_members(int(guild.id), presences=True)
    assert {each["user"]["id"] for each in all_of_them.presences} == set(guild.presences)
    some = list(guild.members)[5:8]
    found = shard.fetch_guild_members(guild.id, user_ids=[*some, 5])
    assert (ids(found), found.not_found) == (some, ["5"])
    name = guild.members[some[0]]["user"]["username"]
    assert some[0] in ids(shard.fetch_guild_members(guild.id, query=name[:3], limit=100))


def test_ten_thousand_members_come_amid_a_thousand_other_events_a_second() -> None:
    """In ten chunks, of which none is missed."""
    with make_gateway(members=9_999) as gateway, make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        guild = guild_of(gateway)
        traffic = gateway.traffic(rate=1000, mix={"TYPING_START": 1})
        with shard.events("TYPING_START") as others:
            wait_until(others.poll)
            seen: list[tuple[int, int]] = []
            members = shard.fetch_guild_members(
                guild.id, progress=lambda *counts: seen.append(counts), timeout=30
            )
            wait_until(others.poll)
        traffic.stop()
        assert members == list(guild.members.values())
        assert seen == [(received, 10) for received in range(1, 11)]


def test_chunks_may_come_out_of_order_and_between_those_of_others(
    gateway: LocalGateway, shard: Shard
) -> None:
    fetching = Answering(gateway, shard)
    fetching.await_request()
    fetching.answer(2, 3)
    fetching.answer(0, 1, nonce="another")
    fetching.answer(0, 1, nonce=None)
    fetching.answer(2, 3)
    fetching.answer(0, 3)
    fetching.answer(1, 3)
    assert fetching.members() == ["0", "1", "2"]
    assert fetching.progress == [(1, 3), (1, 3), (2, 3), (3, 3)]


def test_all_of_64_chunks_that_come_at_once_are_returned(
    gateway: LocalGateway, shard: Shard
) -> None:
    """Row 91: they come while the thread that asks is busy with the first."""
    fetching = Answering(gateway, shard)
    fetching.await_request()
    for index in range(64):
        fetching.answer(index, 64)
    assert fetching.members() == [str(index) for index in range(64)]


def test_an_iterator_that_was_made_before_asking_misses_none_of_64_chunks(
    gateway: LocalGateway, shard: Shard
) -> None:
    """Row 91: the loop that people write."""
    with shard.events("GUILD_MEMBERS_CHUNK", timeout=10) as chunks:
        shard.request_guild_members(ELSEWHERE, nonce="mine")
        gateway.connections[0].expect(REQUEST, 10)
        (session,) = gateway.sessions
        for index in range(64):
            session.dispatch("GUILD_MEMBERS_CHUNK", {"nonce": "mine", "chunk_index": index})
        got = [next(chunks).data["chunk_index"] for _ in range(64)]
    assert got == list(range(64))


def test_requests_at_the_same_time_get_an_answer_each(gateway: LocalGateway, shard: Shard) -> None:
    guilds = list(gateway.world.guilds.values())
    fetching = [in_background(shard.fetch_guild_members, guild.id) for guild in guilds]
    for guild, future in zip(guilds, fetching, strict=True):
        assert future.result(20) == list(guild.members.values())


def test_rate_limited_is_waited_for_and_the_request_sent_again(
    gateway: LocalGateway, shard: Shard
) -> None:
    guild = guild_of(gateway)
    shard.fetch_guild_members(guild.id)
    gateway.clock.advance(25)  # of the 30 seconds in which there is one request for all members
    began = time.monotonic()
    assert len(shard.fetch_guild_members(guild.id)) == len(guild.members)
    assert 0.1 < time.monotonic() - began < 20
    nonces = [each["d"]["nonce"] for each in gateway.connections[0].received if each["op"] == 8]
    assert len(nonces) == 3 and len(set(nonces)) == 2


def test_rate_limited_for_longer_than_the_timeout_is_told_at_once(
    gateway: LocalGateway, shard: Shard
) -> None:
    guild = guild_of(gateway)
    shard.fetch_guild_members(guild.id)
    began = time.monotonic()
    with pytest.raises(
        TimeoutError, match=r"no chunk .* in (2\d(\.\d)?|30) seconds at the earliest"
    ):
        shard.fetch_guild_members(guild.id, timeout=20)
    assert time.monotonic() - began < 10


def test_rate_limited_without_a_time_is_followed_by_another_request_in_a_second(
    gateway: LocalGateway, shard: Shard
) -> None:
    fetching = Answering(gateway, shard)
    fetching.await_request()
    nonce = fetching.nonce
    (session,) = gateway.sessions
    for retry_after in (None, "soon"):
        meta = {"guild_id": str(ELSEWHERE), "nonce": nonce}
        session.dispatch("RATE_LIMITED", {"opcode": 8, "retry_after": retry_after, "meta": meta})
        fetching.await_request()
        assert fetching.nonce == nonce
    session.dispatch("RATE_LIMITED", {"opcode": 8, "retry_after": 0, "meta": {"nonce": "another"}})
    fetching.answer(0, 1)
    assert fetching.members() == ["0"]


def test_chunks_that_a_resume_replays_count(gateway: LocalGateway, shard: Shard) -> None:
    fetching = Answering(gateway, shard)
    fetching.await_request()
    fetching.answer(0, 3)
    wait_until(lambda: fetching.progress)
    gateway.connections[0].drop()
    fetching.answer(1, 3)
    wait_until(lambda: shard.stats.resumes == 1)
    fetching.answer(2, 3)
    assert fetching.members() == ["0", "1", "2"]
    shard.update_presence()
    gateway.connections[0].expect(Opcode.PRESENCE_UPDATE)
    assert not [each for each in gateway.connections[0].received if each["op"] == REQUEST]


def test_a_request_that_was_lost_with_its_connection_is_sent_again(
    gateway: LocalGateway, shard: Shard, caplog: pytest.LogCaptureFixture
) -> None:
    connection = gateway.connections[0]
    connection.stop_reading()
    fetching = Answering(gateway, shard)
    wait_until(lambda: any('sent {"op":8' in each.getMessage() for each in list(caplog.records)))
    connection.drop()
    resumed = gateway.wait_for_connection(lambda each: each is not connection, 10)
    fetching.await_request(resumed)
    fetching.answer(0, 1)
    assert fetching.members() == ["0"]


def test_in_a_new_session_the_request_is_sent_again_and_answered_anew(
    gateway: LocalGateway, shard: Shard
) -> None:
    fetching = Answering(gateway, shard)
    fetching.await_request()
    fetching.answer(0, 3)
    wait_until(lambda: fetching.progress)
    connection = gateway.connections[0]
    connection.close(4009)
    fetching.await_request(gateway.wait_for_connection(lambda each: each is not connection, 10))
    fetching.answer(5, 2)
    fetching.answer(6, 2)
    assert fetching.members() == ["5", "6"]
    assert fetching.progress == [(1, 3), (1, 2), (2, 2)]


def test_a_timeout_says_how_many_chunks_came(gateway: LocalGateway, shard: Shard) -> None:
    fetching = Answering(gateway, shard, timeout=3)
    fetching.await_request()
    fetching.answer(1, 3)
    with pytest.raises(TimeoutError) as caught:
        fetching.result.result(10)
    assert str(caught.value) == (
        f"1 of 3 chunks of the members of guild {ELSEWHERE} came within 3 seconds"
    )
    with pytest.raises(TimeoutError, match="^no chunk of the members of guild 417"):
        shard.fetch_guild_members(ELSEWHERE, timeout=0.01)


def test_a_timeout_during_an_outage_says_where_the_shard_is(
    gateway: LocalGateway, shard: Shard
) -> None:
    fetching = Answering(gateway, shard, timeout=3)
    fetching.await_request()
    fetching.answer(0, 2)
    wait_until(lambda: fetching.progress)
    gateway.outage()
    with pytest.raises(TimeoutError, match="^1 of 2 chunks .* within 3 seconds; the shard is "):
        fetching.result.result(10)


def test_what_progress_raises_is_raised(gateway: LocalGateway, shard: Shard) -> None:
    with pytest.raises(ZeroDivisionError):
        shard.fetch_guild_members(guild_of(gateway).id, progress=lambda *counts: 1 / 0)


def test_unusable_arguments_are_refused_and_nothing_is_sent(
    gateway: LocalGateway, shard: Shard
) -> None:
    calls: list[tuple[Callable[[], object], type[Exception]]] = [
        (lambda: shard.fetch_guild_members("guild"), ValueError),
        (lambda: shard.fetch_guild_members(1, query="a"), ValueError),
        (lambda: shard.fetch_guild_members(1, timeout=-1), ValueError),
        (lambda: shard.fetch_guild_members(1, progress=1), TypeError),  # type: ignore[arg-type]
        (lambda: shard.fetch_soundboard_sounds([]), ValueError),
        (lambda: shard.fetch_soundboard_sounds("123"), TypeError),
        (lambda: shard.fetch_channel_info(1, ["name"]), ValueError),
        (lambda: shard.join_voice(1, None), TypeError),  # type: ignore[arg-type]
        (lambda: shard.join_voice(1, "general"), ValueError),
    ]
    for call, error in calls:
        with pytest.raises(error):
            call()
    assert {each["op"] for each in gateway.connections[0].received} <= {1, 2}


# The end, and where asking is refused


CALLS: dict[str, Callable[[Shard], object]] = {
    "fetch_guild_members": lambda shard: shard.fetch_guild_members(ELSEWHERE),
    "fetch_soundboard_sounds": lambda shard: shard.fetch_soundboard_sounds([ELSEWHERE]),
    "fetch_channel_info": lambda shard: shard.fetch_channel_info(ELSEWHERE),
    "join_voice": lambda shard: shard.join_voice(ELSEWHERE, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_end_of_the_shard_ends_the_wait(name: str, gateway: LocalGateway, shard: Shard) -> None:
    asking = in_background(CALLS[name], shard)
    wait_until(lambda: shard._callbacks.wants("RESUMED"))
    shard.disconnect()
    with pytest.raises(ShardClosed, match="closed by disconnect"):
        asking.result(10)
    shard.connect(gateway.url)
    asking = in_background(CALLS[name], shard)
    wait_until(lambda: shard._callbacks.wants("RESUMED"))
    gateway.connections[-1].close(4004)
    with pytest.raises(AuthenticationFailed):
        asking.result(10)
    with pytest.raises(AuthenticationFailed):
        shard.join(10)


@pytest.mark.parametrize("name", CALLS)
def test_asking_in_a_callback_or_before_connect_is_refused(
    name: str, gateway: LocalGateway
) -> None:
    errors: list[Exception] = []

    def ask(shard: Shard) -> None:
        try:
            CALLS[name](shard)
        except ShardError as error:
            errors.append(error)

    with make_shard(on_socket_ready=ask) as shard:
        with pytest.raises(ShardError, match="ever connected"):
            CALLS[name](shard)
        shard.connect(gateway.url)
        wait_until(lambda: errors)
    assert f"{name}() was called in a callback" in str(errors[0])


def test_a_shard_that_does_not_become_ready_in_time_is_told() -> None:
    with make_gateway() as gateway, make_shard() as shard:
        gateway.inject(instead_of="ready", connections=None)
        shard.connect(gateway.url)
        with pytest.raises(NotReady):
            shard.fetch_channel_info(ELSEWHERE, timeout=0.05)


# Sounds and channels


def test_the_sounds_come_by_the_ids_as_they_were_given(gateway: LocalGateway, shard: Shard) -> None:
    one, other = gateway.world.guilds.values()
    sounds = shard.fetch_soundboard_sounds(each for each in (one.id, int(other.id)))
    assert sounds == {one.id: one.sounds, int(other.id): other.sounds}


def test_a_timeout_names_the_guilds_whose_sounds_did_not_come(
    gateway: LocalGateway, shard: Shard
) -> None:
    with pytest.raises(TimeoutError, match=r"^the sounds of 1 guild of 2 \(417719834441154"):
        shard.fetch_soundboard_sounds([ELSEWHERE, guild_of(gateway).id], timeout=2)


def test_channel_info_returns_the_channels(gateway: LocalGateway, shard: Shard) -> None:
    guild = guild_of(gateway)
    (session,) = gateway.sessions
    session.dispatch("CHANNEL_INFO", {"guild_id": "1", "channels": ["of another guild"]})
    for fields in (["status"], ["status", "voice_start_time"]):
        channels = shard.fetch_channel_info(guild.id, fields)
        assert [set(each) for each in channels] == [{"id", *fields}] * len(channels)
        assert [each["id"] for each in channels] == [
            each["id"] for each in guild.channel_info(fields)
        ]


# Voice


def check_voice(gateway: LocalGateway, shard: Shard, **options: Any) -> None:
    guild = guild_of(gateway)
    channel = guild.voice_channels[0]["id"]
    updates = shard.join_voice(int(guild.id), channel, **options)
    assert isinstance(updates, VoiceUpdates)
    assert updates.state["user_id"] == gateway.world.user["id"]
    assert updates.state["session_id"] == shard.session_id
    assert updates.state["channel_id"] == channel
    assert updates.state["self_deaf"] is options.get("self_deaf", False)
    assert updates.server["endpoint"] and updates.server["token"]


def test_join_voice_returns_the_state_and_the_server(gateway: LocalGateway, shard: Shard) -> None:
    check_voice(gateway, shard, self_deaf=True)


def test_the_voice_of_others_and_a_server_that_is_not_found_yet_are_passed_over(
    gateway: LocalGateway, shard: Shard
) -> None:
    joining = in_background(shard.join_voice, ELSEWHERE, 7)
    gateway.connections[0].expect(Opcode.VOICE_STATE_UPDATE, 10)
    guild = {"guild_id": str(ELSEWHERE)}
    own = {"user_id": gateway.world.user["id"], "session_id": "own"}
    (session,) = gateway.sessions
    for event, data in (
        ("VOICE_STATE_UPDATE", {**guild, **own, "user_id": "5", "channel_id": "7"}),
        ("VOICE_STATE_UPDATE", {**guild, **own, "channel_id": "8"}),
        ("VOICE_STATE_UPDATE", {**own, "guild_id": "1", "channel_id": "7"}),
        ("VOICE_STATE_UPDATE", {**guild, **own, "channel_id": "7", "self_mute": False}),
        ("VOICE_SERVER_UPDATE", {**guild, "endpoint": None, "token": "early"}),
        ("VOICE_SERVER_UPDATE", {**guild, "endpoint": "host:1", "token": "right"}),
    ):
        session.dispatch(event, data)
    updates = joining.result(10)
    assert isinstance(updates, VoiceUpdates)
    assert updates.state["channel_id"] == "7"
    assert updates.state["user_id"] == own["user_id"]
    assert updates.server["token"] == "right"


def test_in_a_session_of_another_process_the_bot_is_known_by_its_session(
    gateway: LocalGateway,
) -> None:
    """READY, which says who the bot is, came to that process."""
    with make_shard() as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        saved: Session = not_none(shard.session)
        shard.disconnect(4000)
    with make_shard(session=saved) as shard:
        shard.connect(gateway.url)
        shard.wait_until_ready(10)
        check_voice(gateway, shard)


def test_a_timeout_says_what_did_not_come_and_what_it_needs(
    gateway: LocalGateway, shard: Shard
) -> None:
    with pytest.raises(
        TimeoutError, match="no VOICE_STATE_UPDATE and no VOICE_SERVER_UPDATE .*GUILD_VOICE_STATES"
    ):
        shard.join_voice(ELSEWHERE, 7, timeout=0.01)
