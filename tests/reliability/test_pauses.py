"""Pauses between connections: after failures, and after nothing else."""

from __future__ import annotations

import email.utils
import logging
import re
import time
from collections.abc import Callable

import pytest

from shardlib import Backoff, ConnectionFailed, Opcode, Shard, ShardClosed
from shardlib.testing import LocalGateway
from tests.peers import Peer, well_behaved
from tests.reliability.conftest import MakeGateway, MakeScripted, WatchShard
from tests.support import wait_until

pytestmark = pytest.mark.slow

COMPRESSIONS = ("zlib-stream", "zstd-stream", "payload", None)
AT_ONCE = 5.0  # seconds; with the back-off of these tests a failure would cost ten or more


def long_backoff() -> Backoff:
    return Backoff(base=20.0, cap=60.0)


def test_the_pause_after_a_connection_that_worked_is_at_most_five_seconds(
    make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 62: the shard connects at once after the first loss, within five seconds after others."""
    gateway = make_scripted()
    _, recorder = watch_shard(gateway, backoff=long_backoff())
    pauses = []
    for number in range(1, 4):
        lost = time.monotonic()
        gateway.peers[-1].reset()
        pauses.append(gateway.peer(number + 1, timeout=25).accepted_at - lost)
        wait_until(lambda: recorder.count("reconnected", True) == number)

    assert pauses[0] < AT_ONCE
    assert max(pauses[1:]) < 5.0 + AT_ONCE


Request = Callable[[Shard, Peer], object]

# Every way to ask for a new connection.
REQUESTS: dict[str, Request] = {
    "reconnect()": lambda shard, peer: shard.reconnect(),
    "reinstantiate()": lambda shard, peer: shard.reinstantiate(),
    "op 7": lambda shard, peer: peer.send({"op": Opcode.RECONNECT}),
    "op 9": lambda shard, peer: peer.send({"op": Opcode.INVALID_SESSION, "d": True}),
}


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_reconnect_on_request_does_not_count_as_a_failure(
    request_name: str,
    make_scripted: MakeScripted,
    watch_shard: WatchShard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Row 63: after six reconnects on request, a lost connection is resumed at once."""
    gateway = make_scripted()
    shard, recorder = watch_shard(gateway, backoff=long_backoff())
    for number in range(1, 7):
        REQUESTS[request_name](shard, gateway.peers[-1])
        gateway.peer(number + 1, timeout=AT_ONCE)
        wait_until(lambda: recorder.count("reconnected") == number)

    gateway.peers[-1].reset()

    gateway.peer(8, timeout=AT_ONCE)
    wait_until(lambda: recorder.count("reconnected", True) > 0)
    # The shard slows requests down to one a second, so no line of the log tells of longer pauses.
    told = [each.getMessage() for each in caplog.records if each.levelno >= logging.INFO]
    assert not [line for line in told if re.search(r"(?<![\d.])([2-9]|\d\d)[\d.]* s", line)]


@pytest.mark.parametrize("request_name", ["reconnect()", "op 7"])
@pytest.mark.parametrize("answer", ["late", "none"])
def test_the_next_connection_waits_up_to_a_second_for_the_peer_to_close_the_last(
    answer: str, request_name: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """Row 64: a Resume while the Gateway still reads the old connection would be refused."""
    closing: list[float] = []

    def script(peer: Peer) -> None:
        peer.begin()
        peer.serve()
        closing.append(time.monotonic())
        if answer == "late":
            time.sleep(0.4)  # the time until the peer notices that the connection is over
            closing.append(time.monotonic())
        else:
            peer.linger()

    gateway = make_scripted(script)
    shard, recorder = watch_shard(gateway, backoff=long_backoff())

    REQUESTS[request_name](shard, gateway.peers[0])

    wait_until(lambda: recorder.count("reconnected", True) == 1)
    wait_until(lambda: len(closing) == (2 if answer == "late" else 1))
    [first, second] = gateway.peers
    assert first.close_code is not None and first.close_code >= 4000
    if answer == "late":
        assert second.accepted_at >= closing[1]
    else:
        assert second.accepted_at - closing[0] < 1.0 + AT_ONCE


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_the_pause_is_at_least_retry_after(
    status: str,
    form: str,
    make_scripted: MakeScripted,
    watch_shard: WatchShard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Row 65: an earlier attempt would earn another 429; and the log names Retry-After."""
    refused: list[float] = []

    def script(peer: Peer) -> None:
        if peer.number != 2:
            well_behaved(peer)
            return
        refused.append(time.monotonic())
        if form == "seconds":
            peer.refuse(status, "Retry-After: 1")
        else:  # a date has whole seconds, so one second more
            then = email.utils.formatdate(time.time() + 2, usegmt=True)
            peer.refuse(status, f"Retry-After: {then}")

    gateway = make_scripted(script)
    watch_shard(gateway)
    gateway.peers[0].reset()

    third = gateway.peer(3)

    assert third.accepted_at - refused[0] > 0.9
    assert "Retry-After" in caplog.text


@pytest.mark.parametrize(
    "date",
    [
        "Fri, 31 Dec 1999 23:59:59 +99999999999999999999",
        "Fri, 31 Dec 99999999999999999999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 01 Jan 0001 00:00:00 +2359",
    ],
    ids=["huge offset", "huge year", "after year 9999", "before year 1"],
)
def test_an_impossible_date_in_retry_after_is_ignored(
    date: str, make_scripted: MakeScripted, watch_shard: WatchShard
) -> None:
    """connect() raises ConnectionFailed at once, and no fault of the library."""
    gateway = make_scripted(
        lambda peer: peer.refuse("503 Service Unavailable", f"Retry-After: {date}")
    )
    shard, _ = watch_shard(gateway, connect=False)

    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match="503"):
        shard.connect(gateway.url)

    assert time.monotonic() - began < AT_ONCE
    assert len(gateway.peers) == 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_ready_larger_than_max_payload_closes_the_shard(
    compression: str | None, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 66: each READY is as large, and Discord resets the token after too many Identifies."""
    gateway = make_gateway(guilds=40)
    shard, _ = watch_shard(
        gateway, ready=False, compression=compression, max_payload=900, close_timeout=1.0
    )

    with pytest.raises(ShardClosed) as caught:
        shard.join(10)

    assert "max_payload" in str(caught.value)
    assert "900" in str(caught.value)
    assert _identifies(gateway) == 2


def _identifies(gateway: LocalGateway) -> int:
    received = [each["op"] for peer in gateway.all_connections for each in peer.received]
    return received.count(Opcode.IDENTIFY)


def test_gaps_in_the_sequence_are_counted_and_warned_of_once_a_connection(
    make_scripted: MakeScripted, watch_shard: WatchShard, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 67: at a gap events are missing, which a Resume would not bring."""

    def script(peer: Peer) -> None:
        peer.begin()
        if peer.number == 1:
            for sequence in (2, 5, 6, 9, 9, 10):
                peer.dispatch("TYPING_START", None, sequence)
        peer.serve()

    gateway = make_scripted(script)
    shard, recorder = watch_shard(gateway)
    wait_until(lambda: shard.last_sequence == 10)
    assert shard.stats.gaps == 2
    assert _warnings_of_gaps(caplog) == 1

    gateway.peers[0].reset()
    wait_until(lambda: recorder.count("reconnected", True) == 1)
    gateway.peers[1].dispatch("TYPING_START", None, 20)
    wait_until(lambda: shard.last_sequence == 20)
    assert shard.stats.gaps == 3
    assert _warnings_of_gaps(caplog) == 2


def _warnings_of_gaps(caplog: pytest.LogCaptureFixture) -> int:
    told = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    return sum("sequence" in line for line in told)
