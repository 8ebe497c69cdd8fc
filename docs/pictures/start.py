"""Draw start.svg, how the shards of a manager start: ``python docs/pictures/start.py``.

The times are those of a start at a local gateway. Two of the shards have a session to resume.
"""

from __future__ import annotations

import tempfile
import time
from html import escape
from pathlib import Path

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


def text(x: float, y: float, content: str, **attributes: str) -> str:
    shown = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:.0f}" y="{y:.0f}"{shown}>{escape(content)}</text>'


def bar(y: float, begin: float, end: float, fill: str, stroke: str) -> str:
    x, width = LEFT + begin * SECOND, max(1.0, (end - begin) * SECOND)
    return (
        f'<rect x="{x:.1f}" y="{y - BAR / 2:.1f}" width="{width:.1f}" height="{BAR}" '
        f'fill="{fill}" stroke="{stroke}"/>'
    )


def draw(times: Times) -> str:
    """Return the picture: a line for each shard, from left to right its time."""
    bottom = TOP + SHARDS * ROW
    lines = []
    for second in range(SECONDS + 1):
        x = LEFT + second * SECOND
        lines.append(f'<path d="M{x} {TOP - 8}V{bottom}" stroke="#e0e0e0"/>')
        lines.append(text(x, TOP - 14, f"{second} s", text_anchor="middle"))
    for shard_id, states in times.items():
        y = TOP + shard_id * ROW + ROW / 2
        bucket, place = divmod(shard_id, CONCURRENCY)
        if place == 0:
            lines.append(text(12, y + 4, f"bucket {bucket}", font_weight="bold"))
            lines.append(f'<path d="M8 {y - ROW / 2}H{LEFT + SECONDS * SECOND}" stroke="#a0a0a0"/>')
        lines.append(text(LEFT - 10, y + 4, f"shard {shard_id}", text_anchor="end"))
        begin, ready = states[ShardState.CONNECTING], states[ShardState.READY]
        if shard_id in RESUMED:
            lines.append(bar(y, begin, SECONDS, "#dfe9f5", "#45648a"))
            lines.append(text(LEFT + begin * SECOND + 6, y + 4, "resumed"))
        else:
            lines.append(bar(y, begin, ready, "#fbeccb", "#94702a"))
            lines.append(bar(y, ready, SECONDS, "#d8edd8", "#42794a"))
            lines.append(text(LEFT + ready * SECOND + 6, y + 4, f"identified, {ready:.2f} s"))
    width, height = LEFT + SECONDS * SECOND + 20, bottom + 16
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="Helvetica,Arial,sans-serif" '
            'font-size="12" fill="#202020">',
            f'<rect width="{width}" height="{height}" fill="#fcfcfc"/>',
            *lines,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(record()))
