"""Draws failure.svg, what a shard does when its network dies in silence, from a real run.

The run takes two minutes: the local gateway asks for heartbeats as often as Discord does. With
``python docs/pictures/failure.py SECONDS`` it asks for one each so many seconds.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from canvas import BLUE, CARD, FAINT, GREEN, GREY, RED, YELLOW, card, line, text

from shardlib import Intents, Shard, ShardState
from shardlib.testing import LocalGateway

INTERVAL = 41.25  # seconds, Discord's
DIES_AFTER = 15 / INTERVAL  # of an interval, after the last acknowledgement

WIDTH, TOP, AXIS = 460, 30, 104


class Moment(NamedTuple):
    """What happened when, in seconds since the network died."""

    at: float
    what: str
    more: str
    colours: tuple[str, str]

    def when(self, found: float) -> str:
        """The time, after the zombie was found in milliseconds since then."""
        if 0 < self.at - found < 1:
            return f"{(self.at - found) * 1000:.1f} ms later"
        return "0 s" if self.at == 0 else f"{self.at:+.1f} s".replace("-", "\u2212")


class Witness:
    """Notes when a shard received what, and was in which state."""

    def __init__(self) -> None:
        self.events: list[tuple[float, str, int]] = []
        self.states: list[tuple[float, ShardState]] = []
        self.acknowledged: list[float] = []

    def on_event(self, shard: Shard, payload: dict[str, Any]) -> None:
        self.events.append((time.perf_counter(), payload["t"], payload["s"]))

    def on_state(self, shard: Shard, state: ShardState) -> None:
        self.states.append((time.perf_counter(), state))

    def on_heartbeat(self, shard: Shard, ping: float) -> None:
        self.acknowledged.append(time.perf_counter())


def wait_for(condition: Callable[[], object], deadline: float) -> None:
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError
        time.sleep(0.005)


def record(interval: float) -> list[Moment]:
    """Let the network of a shard die, and return what happened."""
    witness = Witness()
    deadline = time.perf_counter() + 5 * interval
    # Its own verdict on the silent shard could not reach the shard through a network that is dead.
    patience = 10 * interval
    with LocalGateway(
        heartbeat_interval=round(interval * 1000), heartbeat_tolerance=patience
    ) as gateway:
        gateway.traffic(rate=2)
        shard = Shard(
            gateway.token,
            Intents.all(),
            on_socket_dispatch=witness.on_event,
            on_socket_state=witness.on_state,
            on_socket_heartbeat=witness.on_heartbeat,
        )
        with shard:
            shard.connect(gateway.url)
            wait_for(lambda: witness.acknowledged, deadline)
            time.sleep(DIES_AFTER * interval)
            acknowledged = shard.heartbeat_clock_time
            gateway.connections[0].freeze()
            dead = time.perf_counter()
            wait_for(lambda: shard.heartbeat_clock_time != acknowledged, deadline)
            beaten = shard.heartbeat_clock_time
            shard.wait_for("RESUMED", timeout=5 * interval)
    return tell(witness, interval, dead, beaten or dead)


def tell(witness: Witness, interval: float, dead: float, beaten: float) -> list[Moment]:
    """Put what was noted into words."""
    before = [event for event in witness.events if event[0] < dead]
    after = [event for event in witness.events if event[0] > dead]
    resumed = next(index for index, event in enumerate(after) if event[1] == "RESUMED")
    replayed = after[:resumed]
    states = {state: at for at, state in reversed(witness.states) if at > dead}
    moments = [
        (witness.acknowledged[0], "heartbeat acknowledged", "the connection is alive", GREEN),
        (before[-1][0], "the last event", f"s = {before[-1][2]}", BLUE),
        (dead, "the network dies", "no close frame, no reset: silence", RED),
        (beaten, "heartbeat sent", "as scheduled; no answer comes", YELLOW),
        (
            states[ShardState.WAITING],
            "the next one is due: a zombie",
            "state WAITING, the connection is given up",
            RED,
        ),
        (states[ShardState.CONNECTING], "a new connection begins", "CONNECTING", GREY),
        (states[ShardState.CONNECTED], "the socket is open", "CONNECTED", GREY),
        (
            states[ShardState.RESUMING],
            "Hello came, Resume is sent",
            f"RESUMING, after s = {before[-1][2]}",
            YELLOW,
        ),
        (replayed[0][0], "the replay begins", f"s = {replayed[0][2]}", BLUE),
        (
            replayed[-1][0],
            "the replay ends",
            f"s = {replayed[-1][2]}: {len(replayed)} events, all that were missed",
            BLUE,
        ),
        (after[resumed][0], "RESUMED", f"s = {after[resumed][2]}; READY, events flow", GREEN),
    ]
    if states[ShardState.WAITING] - beaten < 0.9 * interval:
        raise RuntimeError("the connection ended before its next heartbeat was due")
    expected = list(range(before[-1][2] + 1, after[resumed][2] + 1))
    if [event[2] for event in after[: resumed + 1]] != expected:
        raise RuntimeError("an event was lost or came twice")
    return [Moment(at - dead, *words) for at, *words in moments]  # type: ignore[arg-type]


def draw(moments: list[Moment]) -> str:
    """Return the picture: time goes down, and long waits are shortened."""
    places = [TOP]
    for earlier, later in itertools.pairwise(moments):
        places.append(places[-1] + (78 if later.at - earlier.at > 5 else 42))
    parts = [line(AXIS, TOP, AXIS, places[-1], FAINT, stroke_width="2")]
    for y, below, moment, later in zip(places, places[1:], moments, moments[1:], strict=False):
        if later.at - moment.at > 5:
            middle = (y + below) / 2 + 4
            parts.append(line(AXIS, middle - 7, AXIS, middle + 7, CARD, stroke_width="4"))
            parts.append(line(AXIS - 6, middle - 4, AXIS + 6, middle - 10, FAINT))
            parts.append(line(AXIS - 6, middle + 10, AXIS + 6, middle + 4, FAINT))
            waited = f"{later.at - moment.at:.0f} s pass"
            parts.append(text(AXIS + 18, middle + 4, waited, fill="#606060", font_style="italic"))
    found = next(moment.at for moment in moments if "zombie" in moment.what)
    for y, moment in zip(places, moments, strict=True):
        fill, stroke = moment.colours
        parts.append(
            f'<circle cx="{AXIS}" cy="{y}" r="6" fill="{fill}" stroke="{stroke}" stroke-width="2"/>'
        )
        parts.append(text(AXIS - 16, y + 4, moment.when(found), text_anchor="end"))
        parts.append(text(AXIS + 18, y + 1, moment.what, font_weight="bold"))
        parts.append(text(AXIS + 18, y + 17, moment.more))
    return card(WIDTH, places[-1] + 36, parts, size=13)


if __name__ == "__main__":
    happened = record(float(sys.argv[1]) if sys.argv[1:] else INTERVAL)
    for each in happened:
        print(f"{each.at:+9.4f} s  {each.what}: {each.more}")
    Path(__file__).with_suffix(".svg").write_text(draw(happened))
