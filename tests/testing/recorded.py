"""Recordings for tests of those who read and play them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from shardlib import Intents
from shardlib.recording import Recorder
from tests.support import TOKEN

#: In place of a shard, for a recorder.
SHARD: Any = SimpleNamespace(shard_id=0, shard_count=1, intents=int(Intents.all()), token=TOKEN)

#: For shards that get many events: pytest would keep a line of the log for each.
QUIET = logging.getLogger("tests.quiet")
QUIET.setLevel(logging.INFO)

GUILD = "81384788765712384"

READY: dict[str, Any] = {
    "v": 10,
    "user": {"id": "80351110224678912", "username": "recorded", "discriminator": "0", "bot": True},
    "guilds": [{"id": GUILD, "unavailable": True}],
    "session_id": "of the recording",
    "resume_gateway_url": "wss://gateway.discord.gg",
    "application": {"id": "80351110224678912", "flags": 0},
    "shard": [0, 1],
}


def write(path: Path, events: Iterable[tuple[str, Any]]) -> Path:
    """Write a recording of these events, which all come at once."""
    with Recorder(path) as recorder:
        record(recorder, events)
    return path


def record(recorder: Recorder, events: Iterable[tuple[str, Any]]) -> None:
    """Record these events, numbered from 1."""
    for sequence, (name, data) in enumerate(events, 1):
        recorder.record(SHARD, {"op": 0, "s": sequence, "t": name, "d": data})


def numbered(count: int) -> list[tuple[str, Any]]:
    """READY, and events of no guild with numbers from 0."""
    return [("READY", READY), *(("USER_UPDATE", {"number": number}) for number in range(count))]


def messages(count: int) -> list[tuple[str, Any]]:
    """READY, and messages in a guild, each with another text and id."""
    message = {"guild_id": GUILD, "channel_id": "81384788765712385", "type": 0, "tts": False}
    author = {"id": "82198810841029460", "username": "mary", "discriminator": "0", "avatar": None}
    member: dict[str, Any] = {
        "roles": [],
        "joined_at": "2023-09-23T13:24:53.437000+00:00",
        "nick": None,
    }
    return [
        ("READY", READY),
        *(
            (
                "MESSAGE_CREATE",
                {
                    **message,
                    "id": str(81384788765800000 + number),
                    "content": f"message number {number} — what do you think? \U0001f602",
                    "author": author,
                    "member": member,
                    "timestamp": "2026-11-26T14:34:00.516006+00:00",
                    "edited_timestamp": None,
                    **{key: [] for key in ("mentions", "mention_roles", "embeds", "attachments")},
                },
            )
            for number in range(count)
        ),
    ]
