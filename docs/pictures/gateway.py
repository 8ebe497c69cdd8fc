"""Draws gateway.svg, what goes to and fro between a bot and Discord."""

from __future__ import annotations

from pathlib import Path

from canvas import BLUE, FAINT, GREEN, INK, RED, YELLOW, arrow, box, card, line, text

WIDTH, ROW, TOP = 460, 31, 52
BOT, DISCORD = 66, 394  # where the two stand

# What each sends, and what it is; None for what nobody sends.
TALK = [
    ("bot", "opens a WebSocket", ""),
    ("Discord", "Hello", "the interval of heartbeats"),
    ("bot", "Identify", "token, intents"),
    ("Discord", "READY", "s = 1: a session has begun"),
    ("Discord", "GUILD_CREATE", "s = 2: the bot's guilds"),
    ("bot", "Heartbeat", "2: the last sequence it has seen"),
    ("Discord", "Heartbeat ACK", ""),
    ("Discord", "MESSAGE_CREATE", "s = 3"),
    ("Discord", "Reconnect", "this server restarts"),
    (None, "the connection is closed; s = 4 and 5 happen meanwhile", ""),
    ("bot", "opens a WebSocket", "at the session's resume URL"),
    ("Discord", "Hello", "the interval of heartbeats"),
    ("bot", "Resume", "token, session, 3"),
    ("Discord", "MESSAGE_CREATE", "s = 4, replayed"),
    ("Discord", "MESSAGE_UPDATE", "s = 5, replayed"),
    ("Discord", "RESUMED", "nothing was missed"),
    ("Discord", "MESSAGE_CREATE", "and so on"),
]


def colour(what: str) -> str:
    if what.startswith("Heartbeat"):
        return YELLOW[1]
    if what in ("READY", "RESUMED"):
        return GREEN[1]
    return RED[1] if what == "Reconnect" else BLUE[1]


def draw() -> str:
    bottom = TOP + len(TALK) * ROW + 8
    parts = [line(x, TOP - 16, x, bottom, FAINT) for x in (BOT, DISCORD)]
    for x, name in ((BOT, "bot"), (DISCORD, "Discord")):
        parts.append(box(x - 42, 12, 84, 26, BLUE if name == "bot" else GREEN, radius=5))
        parts.append(text(x, 30, name, text_anchor="middle", font_weight="bold"))
    middle = (BOT + DISCORD) / 2
    for number, (sender, what, more) in enumerate(TALK):
        y = TOP + number * ROW + 20
        if sender is None:
            parts.append(box(20, y - 15, WIDTH - 40, 23, RED, radius=4))
            parts.append(text(middle, y + 1, what, text_anchor="middle"))
            continue
        ends = (BOT, DISCORD) if sender == "bot" else (DISCORD, BOT)
        parts.append(arrow(*ends, y, colour(what), stroke_width="1.5"))
        shown = f'<tspan font-weight="bold">{what}</tspan>'
        label = text(middle, y - 6, "", text_anchor="middle", fill=INK)
        parts.append(label.replace("></text>", f">{shown} {more}</text>"))
    return card(WIDTH, bottom + 12, parts, size=13)


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw())
