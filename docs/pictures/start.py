"""Draws start.svg, how the shards of a manager start.

The times are those of a start at a local gateway. Two of the shards have a session to resume.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from canvas import BLUE, FAINT, GREEN, YELLOW, box, card, line, text

from shardlib import GatewayBot, IdentifyGate, Intents, Shard, ShardManager, ShardState
from shardlib.testing import LocalGateway

SHARDS, CONCURRENCY, RESUMED = 12, 4, (9, 10)

LEFT, TOP, SECOND, ROW = 150, 34, 52, 24  # in pixels
SECONDS = 13
BAR = 14

Times = dict[int, dict[ShardState, float]]


def record() -> Times:
    """Start the shards, and return when each first came into which state."""
    times: Times = {shard_id: {} for shard_id in range(SHARDS)}

    def note(shard: Shard, state: ShardState) -> None:
        times[shard.shard_id].setdefault(state, time.monotonic())

    with LocalGateway(shards=SHARDS, max_concurrency=CONCURRENCY) as gateway:

        def make(sessions: str, shard_ids: tuple[int, ...]) -> ShardManager:
            return ShardManager(
                gateway.token,
                Intents.default(),
                SHARDS,
                shard_ids=shard_ids,
                sessions=sessions,
                gateway_bot=GatewayBot(gateway.url, SHARDS, 1000, 1000, 0.0, CONCURRENCY),
                identify_gate=IdentifyGate(CONCURRENCY),
                on_socket_state=note,
            )

        with tempfile.TemporaryDirectory() as sessions:
            with make(sessions, RESUMED) as before:
                before.connect()
                before.wait_until_ready()
            for states in times.values():
                states.clear()
            gateway.clock.advance(10)
            with make(sessions, tuple(range(SHARDS))) as manager:
                start = time.monotonic()
                manager.connect()
                manager.wait_until_ready()
    return {
        shard_id: {state: moment - start for state, moment in each.items()}
        for shard_id, each in times.items()
    }


def bar(y: float, begin: float, end: float, colours: tuple[str, str]) -> str:
    x, width = LEFT + begin * SECOND, max(1.0, (end - begin) * SECOND)
    return box(x, y - BAR / 2, width, BAR, colours)


def draw(times: Times) -> str:
    """Return the picture: a line for each shard, from left to right its time."""
    bottom = TOP + SHARDS * ROW
    lines = []
    for second in range(SECONDS + 1):
        x = LEFT + second * SECOND
        lines.append(line(x, TOP - 8, x, bottom, "#e0e0e0"))
        lines.append(text(x, TOP - 14, f"{second} s", text_anchor="middle"))
    for shard_id, states in times.items():
        y = TOP + shard_id * ROW + ROW / 2
        bucket, place = divmod(shard_id, CONCURRENCY)
        if place == 0:
            lines.append(text(12, y + 4, f"bucket {bucket}", font_weight="bold"))
            above = y - ROW / 2
            lines.append(line(8, above, LEFT + SECONDS * SECOND, above, FAINT))
        lines.append(text(LEFT - 10, y + 4, f"shard {shard_id}", text_anchor="end"))
        begin, ready = states[ShardState.CONNECTING], states[ShardState.READY]
        if shard_id in RESUMED:
            lines.append(bar(y, begin, SECONDS, BLUE))
            lines.append(text(LEFT + begin * SECOND + 6, y + 4, "resumed"))
        else:
            lines.append(bar(y, begin, ready, YELLOW))
            lines.append(bar(y, ready, SECONDS, GREEN))
            lines.append(text(LEFT + ready * SECOND + 6, y + 4, f"identified, {ready:.2f} s"))
    width, height = LEFT + SECONDS * SECOND + 20, bottom + 16
    return card(width, height, lines)


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(record()))
