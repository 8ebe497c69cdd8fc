"""Sending: within the limit, after READY, and with an outcome that is true."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import select
import threading
import time
from typing import Any

import pytest

from shardlib import NotReady, SendTimeout, Shard
from shardlib.deadline import Deadline
from shardlib.gateway import SEND_LIMIT, Opcode
from shardlib.limits import SendWindow
from shardlib.testing import GatewayConnection, LocalGateway
from tests.reliability.conftest import MakeGateway, WatchShard
from tests.reliability.support import StuckCallback
from tests.support import in_background, not_none, wait_until

INTERVAL = 600  # milliseconds
PERIOD = 3.0  # seconds of the send window, in place of 60


def _numbered(number: int) -> str:
    data = {"guild_id": "1", "channel_id": None, "self_mute": False, "self_deaf": False}
    return json.dumps({"op": Opcode.VOICE_STATE_UPDATE, "d": data, "n": number})


def _times(connection: GatewayConnection, *opcodes: Opcode) -> list[float]:
    return [each.time for each in connection.received if each["op"] in opcodes]


@pytest.mark.slow
def test_a_burst_from_eight_threads_and_a_callback_keeps_the_limit_and_delays_no_heartbeat(
    make_gateway: MakeGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 25: the gateway counts 240 sends; in a callback send() raises instead of waiting."""
    monkeypatch.setattr("shardlib.limits.SEND_PERIOD", PERIOD)
    window = functools.partial(SendWindow, period=PERIOD)
    monkeypatch.setattr("shardlib.connection.SendWindow", window)
    gateway = make_gateway(heartbeat_interval=INTERVAL, heartbeat_tolerance=60)
    shard, recorder = watch_shard(gateway)
    connection = gateway.connections[-1]
    refused: list[float] = []

    @shard.on("USER_UPDATE")
    def send_until_refused(shard: Shard, _: Any) -> None:
        since = time.monotonic()
        with pytest.raises(SendTimeout):
            for _ in range(2 * SEND_LIMIT):
                shard.send(_numbered(-1))
        refused.append(time.monotonic() - since)

    def burst(first: int) -> None:
        for number in range(first, first + 30):
            shard.send(_numbered(number))

    threads = [threading.Thread(target=burst, args=(30 * each,)) for each in range(8)]
    for thread in threads:
        thread.start()
    gateway.dispatch("USER_UPDATE", {})
    wait_until(lambda: refused, 15, "the end of the callback")
    for thread in threads:
        thread.join(20)
    connection.expect(Opcode.HEARTBEAT)

    assert refused[0] < PERIOD / 2
    wait_until(lambda: {each.get("n") for each in connection.received} >= set(range(240)))
    sends = _times(connection, Opcode.IDENTIFY, Opcode.VOICE_STATE_UPDATE)
    beats = _times(connection, Opcode.HEARTBEAT)
    # Half the period, since a payload sent at its beginning may arrive late.
    assert _most_in_any(PERIOD * 0.5, sends + beats) <= SEND_LIMIT
    reserved = math.ceil(PERIOD * 1000 / INTERVAL)
    assert _most_in_any(PERIOD * 0.5, sends) <= SEND_LIMIT - reserved
    assert len(beats) >= PERIOD * 1000 / INTERVAL
    assert max(b - a for a, b in itertools.pairwise(beats)) < PERIOD / 2
    assert len(gateway.all_connections) == 1


def _most_in_any(span: float, times: list[float]) -> int:
    return max(sum(start <= each < start + span for each in times) for start in times)


def test_heartbeats_on_request_share_the_send_window(
    make_gateway: MakeGateway, watch_shard: WatchShard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 25 and 72: one heartbeat answers three requests, once the window has room again."""
    window = functools.partial(SendWindow, period=PERIOD)
    monkeypatch.setattr("shardlib.connection.SendWindow", window)
    gateway = make_gateway(heartbeat_interval=10**7)
    shard, _ = watch_shard(gateway)
    connection = gateway.connections[-1]
    with pytest.raises(SendTimeout, match="used up"):
        for sent in range(2 * SEND_LIMIT):
            shard.send(_numbered(sent), timeout=0)
    for _ in range(3):
        connection.request_heartbeat()
    answer = connection.expect(Opcode.HEARTBEAT)

    assert sent >= 110  # the reserve for heartbeats is no larger than it has to be
    everything = [each.time for each in connection.received]
    # Half the period, since a payload sent at its beginning may arrive late.
    assert _most_in_any(PERIOD * 0.5, everything) <= SEND_LIMIT
    assert answer.time - everything[0] > PERIOD * 0.5
    with pytest.raises(TimeoutError):
        connection.expect(Opcode.HEARTBEAT, timeout=0.5)  # one heartbeat has answered all three


def test_a_new_connection_has_the_whole_send_window(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 25: payloads that were sent on the last connection count no longer."""
    shard, recorder = watch_shard(gateway)
    for life in range(2):
        with pytest.raises(SendTimeout):
            for number in range(SEND_LIMIT):
                shard.send(_numbered(number), timeout=1.0)  # a heartbeat may be on its way
        assert number > 100
        gateway.connections[-1].reset()
        wait_until(lambda: recorder.count("reconnected", True) == life + 1)


def test_send_tells_the_truth_about_a_payload_while_the_connection_flaps(
    gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 26: no payload precedes Identify or Resume, arrives twice, or arrives though refused."""
    shard, recorder = watch_shard(gateway)
    stop = threading.Event()
    refused: set[int] = set()

    def send(first: int) -> None:
        number = first
        while not stop.is_set():
            try:
                shard.send(_numbered(number), timeout=0.01)
            except SendTimeout:
                refused.add(number)
                stop.wait(0.001)  # the window is used up; another connection comes soon
            except NotReady as error:
                if "nothing was sent" in str(error):
                    refused.add(number)
            number += 1

    threads = [threading.Thread(target=send, args=(10**6 * each,)) for each in range(4)]
    for thread in threads:
        thread.start()
    for flap in range(40):
        connection = gateway.connections[-1]
        connection.expect(Opcode.VOICE_STATE_UPDATE)
        (connection.reset, connection.drop, connection.reconnect)[flap % 3]()
        wait_until(lambda: recorder.count("reconnected") == flap + 1)
    stop.set()
    for thread in threads:
        thread.join(10)

    arrived: list[int] = []
    for connection in gateway.all_connections:
        opcodes = [each["op"] for each in connection.received if each["op"] != Opcode.HEARTBEAT]
        assert opcodes[0] in (Opcode.IDENTIFY, Opcode.RESUME)
        arrived += [each["n"] for each in connection.received if "n" in each]
    assert len(arrived) == len(set(arrived)) > 40
    assert refused.isdisjoint(arrived)
    assert recorder.count("ready") == 1  # the gateway closed with neither 4002 nor 4003


def test_a_payload_that_a_lost_connection_did_not_take_is_sent_on_the_next(
    stuck: StuckCallback, gateway: LocalGateway, watch_shard: WatchShard
) -> None:
    """Row 26: the reader is inside a callback, and does not know of the loss yet."""
    shard, recorder = watch_shard(gateway)
    shard.on("SLOW")(stuck)
    gateway.dispatch("SLOW", None)
    assert stuck.entered.wait(10)
    gateway.connections[-1].reset()
    # The system knows of the reset; the reader does not.
    ours = not_none(not_none(shard.socket_instance).sock)
    wait_until(lambda: select.select([ours], [], [], 0)[0])
    with pytest.raises(NotReady, match="nothing was sent in time"):
        shard.send(_numbered(0), timeout=0.05)
    sending = in_background(shard.send, _numbered(1000))
    stuck.release.set()
    assert sending.result(10) is None
    wait_until(lambda: any(each.get("n") == 1000 for each in gateway.connections[-1].received))
    numbers = [each["n"] for each in gateway.connections[-1].received if "n" in each]
    assert numbers == [1000]
    wait_until(lambda: recorder.count("reconnected", True) == 1)


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_no_payload_follows_half_a_frame_on_its_connection(
    tls: bool, make_gateway: MakeGateway, watch_shard: WatchShard
) -> None:
    """Row 32: if the peer reads only half of a frame, the shard opens another connection."""
    gateway = make_gateway(tls=tls, receive_buffer=2048, heartbeat_interval=60_000)
    shard, recorder = watch_shard(gateway)
    first = gateway.connections[-1]
    connection = shard._reader.connection
    first.stop_reading()
    with pytest.raises(SendTimeout, match="cut off"):
        # More than the buffers of the system hold, so a part of the frame stays unsent.
        connection.send("x" * 50_000_000, Deadline(0.3))
    for number in range(20):  # none of these may land in the rest of that frame
        with contextlib.suppress(NotReady, SendTimeout):
            shard.send(_numbered(number), timeout=0.01)
    first.thaw()
    wait_until(lambda: recorder.count("reconnected", True) == 1)

    assert shard._reader.connection is not connection
    assert not any("n" in each for each in first.received)
    assert [call for call in recorder.life if call[0] == "disconnected"] == [
        ("disconnected", None, False)
    ]
