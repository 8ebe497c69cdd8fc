"""Draws threads.svg, which thread of a shard does what, and when."""

from __future__ import annotations

from pathlib import Path

from canvas import BLUE, FAINT, GREEN, GREY, RED, YELLOW, arrow, box, card, line, text

WIDTH, TOP, ROW, LANE, SIDE, INSET = 492, 46, 17, 122, 2, 7
YOURS, READER, HEARTBEAT, WORKER = range(4)
NAMES = ("your thread", "reader", "heartbeat", "dispatcher's")

# Lane, first row, last row, what stands in the box, colours. Yellow is code of the user's.
DONE: list[tuple[int, float, float, str, tuple[str, str]]] = [
    (YOURS, 0, 2.7, "connect()\nwaits", GREY),
    (READER, 0.5, 2.5, "opens the\nsocket", BLUE),
    (READER, 3.5, 5.5, "on_socket_\nconnected", YELLOW),
    (YOURS, 4, 10.7, "wait_until_\nready()\nwaits", GREY),
    (READER, 6, 8, "reads Hello,\nsends Identify", BLUE),
    (HEARTBEAT, 7.5, 8.7, "begins", GREEN),
    (READER, 8.5, 10.5, "reads READY", BLUE),
    (READER, 11, 12.5, "on_socket_ready", YELLOW),
    (HEARTBEAT, 12.5, 14.5, "sends a\nheartbeat", BLUE),
    (READER, 13.5, 15, "reads an event", BLUE),
    (
        READER,
        15,
        21,
        "your function\nfor the event\n(the reader\nreads nothing\nmeanwhile)",
        YELLOW,
    ),
    (YOURS, 15.5, 17.5, "send() writes\nto the socket", BLUE),
    (HEARTBEAT, 17.5, 19.5, "sends a\nheartbeat", BLUE),
    (HEARTBEAT, 20, 22.5, "looks whether\na function is\nstuck", BLUE),
    (READER, 21.5, 24.5, "with dispatcher=:\nreads an event,\nhands it over", BLUE),
    (WORKER, 24, 29, "your function\nfor the event", YELLOW),
    (READER, 25, 27, "reads the next\nevent", BLUE),
    (YOURS, 28, 35, "disconnect()\nwaits, for 2 s\nat most", GREY),
    (READER, 28.5, 31, "sends a close\nframe, closes\nthe socket", RED),
    (HEARTBEAT, 30.5, 31.7, "ends", RED),
    (READER, 31.5, 33, "on_socket_closed", YELLOW),
    (READER, 33.5, 34.7, "ends", RED),
]

# From one lane to another, and in which row.
CALLS = [
    (YOURS, READER, 0.9),
    (READER, YOURS, 2.2),
    (READER, HEARTBEAT, 7.8),
    (READER, YOURS, 10.2),
    (READER, WORKER, 24.2),
    (YOURS, READER, 28.9),
    (READER, HEARTBEAT, 30.8),
    (READER, YOURS, 34.4),
]

# When each thread lives, in rows.
LIVES = {YOURS: (-0.5, 36.5), READER: (0.5, 34.7), HEARTBEAT: (7.5, 31.7), WORKER: (0.5, 36.5)}


def left(lane: int) -> float:
    return SIDE + lane * LANE


def draw() -> str:
    parts = []
    for lane, name in enumerate(NAMES):
        middle = left(lane) + LANE / 2
        first, last = LIVES[lane]
        dashes = "1 4" if lane == WORKER else "none"
        ends = TOP + first * ROW, TOP + last * ROW
        parts.append(line(middle, ends[0], middle, ends[1], FAINT, stroke_dasharray=dashes))
        parts.append(text(middle, 22, name, text_anchor="middle", font_weight="bold"))
    for start, end, row in CALLS:
        side = 1 if end > start else -1
        x1 = left(start) + LANE / 2 + side * (LANE / 2 - INSET)
        x2 = left(end) + LANE / 2 - side * (LANE / 2 - INSET)
        parts.append(arrow(x1, x2, TOP + row * ROW, "#404040"))
    for lane, first, last, what, colours in DONE:
        y, height = TOP + first * ROW, (last - first) * ROW
        parts.append(box(left(lane) + INSET, y, LANE - 2 * INSET, height, colours, radius=4))
        rows = what.split("\n")
        for number, row in enumerate(rows):
            below = y + height / 2 + (number - (len(rows) - 1) / 2) * 14 + 4
            parts.append(text(left(lane) + LANE / 2, below, row, text_anchor="middle"))
    return card(WIDTH, TOP + 37 * ROW, parts)


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw())
