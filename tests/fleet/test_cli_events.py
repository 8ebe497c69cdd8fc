"""``shardlib events``, run as users run it: with pipes that are full or closed, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
import redis

from shardlib.fleet import Fleet
from shardlib.fleet.fleetevents import position_of
from shardlib.fleet.keys import Keys
from tests.command import CTRL_C, PATIENCE, Command, Pipe, assert_quiet, run_to_end, wait_for
from tests.fleet.feed import Feed
from tests.redis_server import RedisServer
from tests.support import send_signal, wait_until

SHARDS = 2


@pytest.fixture
def feed(client: redis.Redis, keys: Keys, redis_server: RedisServer) -> Feed:
    with Fleet(redis_server.url, "mybot") as fleet:
        fleet.init(SHARDS)
    return Feed(client, keys, SHARDS)


def arguments(server: RedisServer, *others: str, group: str = "web") -> tuple[str, ...]:
    return ("events", group, "--redis", server.url, "--name", "mybot", *others)


def payloads_of(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def ids_of(lines: list[str]) -> list[str]:
    return [payload["id"] for payload in payloads_of(lines)]


def test_each_event_is_a_line_of_json_with_shard_and_id(
    feed: Feed, redis_server: RedisServer
) -> None:
    ids = feed.append_everywhere(3)
    command = run_to_end(*arguments(redis_server, "--count", "6"))
    assert command.status == 0
    payloads = payloads_of(command.out)
    for shard_id in range(SHARDS):
        of_shard = [payload for payload in payloads if payload["shard"] == shard_id]
        assert [payload["id"] for payload in of_shard] == ids[shard_id]
        assert [payload["s"] for payload in of_shard] == [1, 2, 3]
        assert of_shard[0] == {
            "op": 0,
            "s": 1,
            "t": "MESSAGE_CREATE",
            "d": {"content": "1"},
            "shard": shard_id,
            "id": ids[shard_id][0],
        }
    assert command.err[0].endswith("-- the group web is new, and begins at the oldest event")
    assert_quiet(command)


def test_the_next_command_goes_on_behind_the_last_event_that_was_printed(
    feed: Feed, redis_server: RedisServer
) -> None:
    ids = feed.append(10)
    first = run_to_end(*arguments(redis_server, "--count", "4"))
    second = run_to_end(*arguments(redis_server, "--count", "6"))
    assert ids_of(first.out) == ids[:4]
    assert ids_of(second.out) == ids[4:]
    assert second.err[0].endswith("-- the group web has not had 6 events")
    other = run_to_end(*arguments(redis_server, "--count", "10", group="other"))
    assert ids_of(other.out) == ids


def test_only_the_events_that_are_named_are_printed(feed: Feed, redis_server: RedisServer) -> None:
    feed.append(2)
    wanted = feed.append(2, name="TYPING_START")
    feed.append(2)
    command = run_to_end(
        *arguments(redis_server, "--events", "TYPING_START,PRESENCE_UPDAET", "--count", "2")
    )
    assert ids_of(command.out) == wanted
    assert any("PRESENCE_UPDATE" in line for line in command.err)  # it looks misspelt


def test_a_new_group_may_begin_with_what_comes_from_now_on(
    feed: Feed, redis_server: RedisServer, client: redis.Redis, keys: Keys
) -> None:
    feed.append(5)
    with Command(*arguments(redis_server, "--start", "newest", "--count", "3")) as command:
        command.read()
        wait_for(command.err, "begins at the newest event")
        wait_until(lambda: client.exists(keys.group(0, "web").state), PATIENCE)
        ids = feed.append(3)
        assert command.finish() == 0
    assert ids_of(command.out) == ids


def test_a_gap_is_printed_with_its_reason(feed: Feed, redis_server: RedisServer) -> None:
    feed.append(2)
    feed.begin_session("S2")
    feed.append(1)
    command = run_to_end(*arguments(redis_server, "--count", "4"))
    gap = payloads_of(command.out)[2]
    assert (gap["t"], gap["shard"]) == ("SHARDLIB_GAP", 0)
    assert gap["d"] == {"shard_id": 0, "reason": "session lost", "events": None}


def test_control_characters_and_deep_data_leave_the_terminal_alone(
    feed: Feed, redis_server: RedisServer, client: redis.Redis, keys: Keys
) -> None:
    (last,) = feed.append(1)
    epoch = position_of(last).epoch
    deep = "[" * 900 + "]" * 900
    for number, data in enumerate(['{"content":"\u202e\x9b2J"}', deep], 2):
        text = f'{{"t":"X","s":{number},"op":0,"d":{data}}}'
        client.xadd(keys.shard(0).events, {"p": text}, id=f"{epoch}-{number}")
    command = run_to_end(*arguments(redis_server, "--count", "3"))
    assert command.status == 0
    assert all(line.isascii() for line in command.out)
    assert payloads_of(command.out)[1]["d"] == {"content": "\u202e\x9b2J"}
    assert_quiet(command)


def test_ctrl_c_while_the_pipe_is_full_loses_nothing(feed: Feed, redis_server: RedisServer) -> None:
    ids = [each for _ in range(10) for each in feed.append(500)]
    with Pipe() as pipe, Command(*arguments(redis_server), stdout=pipe) as command:
        wait_until(pipe.is_full, PATIENCE)
        command.interrupt()
        assert command.finish(CTRL_C) == 0
        lines = [line.decode() for line in pipe.read_rest() if line.endswith(b"\n")]
    assert_quiet(command)
    printed = ids_of(lines)
    assert printed == ids[: len(printed)]
    assert 0 < len(printed) < len(ids)
    # The command was stuck in the pipe, and did not tell Redis how far it had come.
    (first,) = ids_of(run_to_end(*arguments(redis_server, "--count", "1")).out)
    assert ids.index(first) <= len(printed)


def test_ctrl_c_while_standard_error_is_a_full_pipe_ends_the_command(
    feed: Feed, redis_server: RedisServer, client: redis.Redis
) -> None:
    """The main thread told there where the group begins, and took no notice of Ctrl-C meanwhile."""

    others = {each["id"] for each in client.client_list()}

    def has_asked() -> bool:
        clients = [each for each in client.client_list() if each["id"] not in others]
        return any(each["cmd"].startswith("eval") for each in clients)

    with Pipe() as pipe:
        pipe.fill()
        with Command(*arguments(redis_server), stderr=pipe) as command:
            command.read()
            wait_until(has_asked, PATIENCE)
            command.interrupt()
            assert command.finish(CTRL_C) == 0


def test_a_closed_pipe_loses_nothing_that_was_not_in_the_pipe(
    feed: Feed, redis_server: RedisServer
) -> None:
    ids = [each for _ in range(10) for each in feed.append(500)]
    with Pipe() as pipe, Command(*arguments(redis_server), stdout=pipe) as command:
        wait_until(pipe.is_full, PATIENCE)
        send_signal(command.process, signal.SIGSTOP)  # in the middle of an event
        os.set_blocking(pipe.reader.fileno(), False)
        fitted = (pipe.reader.read() or b"").count(b"\n")
        pipe.close()
        command.process.send_signal(signal.SIGCONT)
        assert command.finish(CTRL_C) == 0
    assert_quiet(command)
    (first,) = ids_of(run_to_end(*arguments(redis_server, "--count", "1")).out)
    assert ids.index(first) == fitted


def test_head_takes_what_it_wants_and_the_command_ends(
    feed: Feed, redis_server: RedisServer
) -> None:
    feed.append(3)
    with Command(*arguments(redis_server)) as command:
        assert command.process.stdout is not None
        assert json.loads(command.process.stdout.readline())["s"] == 1
        command.process.stdout.close()
        assert command.finish(CTRL_C) == 0
    assert_quiet(command)


@pytest.mark.parametrize("idle", [True, False])
def test_ctrl_c_ends_the_command_quietly(
    idle: bool, feed: Feed, redis_server: RedisServer, client: redis.Redis, keys: Keys
) -> None:
    ids = [] if idle else feed.append(5)
    with Command(*arguments(redis_server)) as command:
        command.read()
        wait_until(lambda: client.exists(keys.group(0, "web").state), PATIENCE)
        wait_until(lambda: len(command.out) == len(ids), PATIENCE)
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    assert_quiet(command)
    assert len(command.err) == 1
    assert ids_of(command.out) == ids
    more = feed.append(1)
    assert ids_of(run_to_end(*arguments(redis_server, "--count", "1")).out) == more


def test_ctrl_c_while_redis_is_away_ends_the_command(feed: Feed, redis_server: RedisServer) -> None:
    feed.append(1)
    with Command(*arguments(redis_server)) as command:
        command.read()
        wait_until(lambda: command.out, PATIENCE)
        redis_server.kill()
        wait_for(command.err, "waits for Redis")
        command.interrupt()
        assert command.finish(CTRL_C) == 0
    assert not any("Traceback" in line for line in command.err)


def test_the_command_waits_for_a_redis_that_goes_away(
    feed: Feed, redis_server: RedisServer
) -> None:
    ids = feed.append(1)
    with Command(*arguments(redis_server, "--count", "2")) as command:
        command.read()
        wait_until(lambda: command.out, PATIENCE)
        redis_server.kill()
        wait_for(command.err, "waits for Redis")
        redis_server.start()
        wait_for(command.err, "Redis is back")
        ids += feed.append(1)
        assert command.finish() == 0
    assert sorted(set(ids_of(command.out))) == ids


def test_a_full_disk_is_reported_in_one_line_and_loses_nothing(
    feed: Feed, redis_server: RedisServer
) -> None:
    ids = feed.append(1)
    with open("/dev/full", "wb") as full:
        with Command(*arguments(redis_server), stdout=full) as command:
            assert command.finish() == 1
    assert command.err[-1] == "shardlib: standard output cannot be written: No space left on device"
    assert ids_of(run_to_end(*arguments(redis_server, "--count", "1")).out) == ids
