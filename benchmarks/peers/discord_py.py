"""discord.py: its DiscordWebSocket, as its client runs it, down to the call of a parser.

The parsers hand every event over at once. discord.py's own make objects of the data, so this is
the least that discord.py can do for a bot. It decodes with orjson if that is installed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import discord
import yarl
from discord.gateway import DiscordClientWebSocketResponse, DiscordWebSocket

from benchmarks.client import Job, Meter
from benchmarks.stream import LAST, PLAIN


class _Parsers(dict[str, Any]):
    """The same function for every event but LAST."""

    def __init__(self, meter: Meter) -> None:
        super().__init__({LAST: self._last})
        self._on_event = meter.on_event
        self._finish = meter.finish

    def __missing__(self, event: str) -> Any:
        return self._on_event

    def _last(self, data: Any) -> None:
        self._on_event(data)
        self._finish()


def receive(job: Job, meter: Meter) -> None:
    asyncio.run(_receive(job, meter))


async def _receive(job: Job, meter: Meter) -> None:
    connector = aiohttp.TCPConnector(ssl=job.ssl_context() or True)
    async with discord.Client(intents=discord.Intents.none()) as client:
        # What login() does, without asking Discord for the bot's user.
        client.http.token = "benchmark"
        client.http._HTTPClient__session = aiohttp.ClientSession(
            connector=connector, ws_response_class=DiscordClientWebSocketResponse
        )
        gateway = await DiscordWebSocket.from_client(
            client,
            initial=True,
            gateway=yarl.URL(job.url),
            compress=job.compression != PLAIN,
        )
        gateway._discord_parsers = _Parsers(meter)
        while True:
            await gateway.poll_event()
