"""hikari: its own shard, as a bot runs it, down to the call of its event manager.

The event manager is one that hands every event over at once. hikari's own would look for listeners
and make objects of the data, so this is the least that hikari can do for a bot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from hikari import Intents
from hikari.api import GatewayCompression
from hikari.impl import HTTPSettings, ProxySettings
from hikari.impl.shard import GatewayShardImpl

from benchmarks.client import Job, Meter
from benchmarks.stream import LAST, PLAIN

_COMPRESSIONS = {
    "zlib-stream": GatewayCompression.TRANSPORT_ZLIB_STREAM,
    "zstd-stream": GatewayCompression.TRANSPORT_ZSTD_STREAM,
    PLAIN: None,
}


class _EventManager:
    def __init__(self, meter: Meter) -> None:
        self._on_event = meter.on_event
        self._finish = meter.finish

    def consume_raw_event(self, name: str, shard: Any, data: Any) -> None:
        self._on_event(data)
        if name == LAST:
            self._finish()

    async def dispatch(self, event: Any, return_tasks: bool) -> None:
        pass


class _EventFactory:
    def deserialize_connected_event(self, shard: Any) -> None:
        pass


def receive(job: Job, meter: Meter) -> None:
    asyncio.run(_receive(job, meter))


async def _receive(job: Job, meter: Meter) -> None:
    shard = _create(job, meter, _http_settings(job))
    await shard.start()
    await shard.join()


def idle(job: Job) -> Iterator[None]:
    """Yield whenever one more shard is ready. All have the same settings, as those of a bot do."""
    meter, http = Meter(1, stamps=False), _http_settings(job)
    loop = asyncio.new_event_loop()
    shards = []
    while True:
        shards.append(_create(job, meter, http))
        loop.run_until_complete(shards[-1].start())
        yield


def _http_settings(job: Job) -> HTTPSettings:
    context = job.ssl_context()
    return HTTPSettings() if context is None else HTTPSettings(ssl=context)


def _create(job: Job, meter: Meter, http: HTTPSettings) -> GatewayShardImpl:
    manager: Any = _EventManager(meter)
    factory: Any = _EventFactory()
    return GatewayShardImpl(
        compression=_COMPRESSIONS[job.compression],
        loads=job.codec().loads,
        intents=Intents.NONE,
        http_settings=http,
        proxy_settings=ProxySettings(),
        event_manager=manager,
        event_factory=factory,
        token="benchmark",
        url=job.url,
    )
