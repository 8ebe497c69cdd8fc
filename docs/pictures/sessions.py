"""Draws sessions.svg, where the events of a session are, and after which a Resume begins."""

from __future__ import annotations

from pathlib import Path

from canvas import BLUE, GREEN, GREY, RED, YELLOW, box, card, text

WIDTH, LEFT, TOP, STEP, BOX = 460, 18, 40, 47, 41
FIRST = 101

# How many events are there, what they are, and their colours.
KINDS = [
    (3, "done with,", "and saved", GREEN),
    (2, "done with,", "not saved", BLUE),
    (2, "with your", "functions", YELLOW),
    (2, "still at", "Discord", GREY),
]

RECEIVED = 107

# What resumes, and the last event that counts for it.
RESUMES = [
    ("this process, after a lost connection (last_sequence)", 107),
    ("another process, given shard.session as it is now", 105),
    ("another process, given the file, after a crash", 103),
]


def place(number: int) -> float:
    return LEFT + (number - FIRST) * STEP


def draw() -> str:
    parts = []
    number = 0
    for count, first_line, second_line, colours in KINDS:
        middle = LEFT + (number + count / 2) * STEP - (STEP - BOX) / 2
        parts.append(text(middle, 18, first_line, text_anchor="middle"))
        parts.append(text(middle, 33, second_line, text_anchor="middle"))
        for _ in range(count):
            x = place(FIRST + number)
            parts.append(box(x, TOP, BOX, 28, colours, radius=4))
            parts.append(text(x + BOX / 2, TOP + 19, str(FIRST + number), text_anchor="middle"))
            number += 1
    last = FIRST + number - 1
    for row, (what, done) in enumerate(RESUMES):
        y = TOP + 56 + row * 48
        parts.append(text(LEFT, y, what, font_weight="bold"))
        for begin, end, how, colours in (
            (done, RECEIVED, "once more", RED),
            (RECEIVED, last, "are sent", GREY),
        ):
            if end > begin:
                x, width = place(begin + 1), (end - begin) * STEP - (STEP - BOX)
                parts.append(box(x, y + 7, width, 20, colours, radius=4))
                parts.append(text(x + width / 2, y + 21, how, text_anchor="middle"))
    return card(WIDTH, TOP + 56 + len(RESUMES) * 48 - 10, parts)


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw())
