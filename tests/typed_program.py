"""A program for type checkers: what a user writes, and what they are to refuse.

mypy reads it with all other tests, pyright in :mod:`tests.test_typing`. A line that must be refused
has comments that silence both; each complains of a comment that silences nothing.
"""

from __future__ import annotations

from typing import Any

from shardlib import (
    Event,
    GatewayBot,
    GatewayPayload,
    Intents,
    Listener,
    OnSocketClosed,
    OnSocketDispatch,
    OnSocketReady,
    OnSocketState,
    OnSocketText,
    Session,
    SessionGate,
    Shard,
    ShardManager,
    ShardState,
)
from shardlib.dispatch import Mailbox, Pool, Worker


def ready(shard: Shard) -> None:
    session: Session | None = shard.session
    print(session)


def dispatch(shard: Shard, payload: GatewayPayload) -> None:
    sequence: int | None = payload["s"]
    print(payload["t"], sequence, payload["d"]["id"])
    payload["x"]  # type: ignore[typeddict-item]  # pyright: ignore[reportGeneralTypeIssues]


def raw(shard: Shard, payload: dict[str, Any]) -> None:
    print(payload["anything"])


def closed(shard: Shard, error: BaseException | None) -> None:
    print(error)


def state(shard: Shard, new: ShardState) -> None:
    print(new.value)


def text(shard: Shard, event: str, sequence: int, text: bytes) -> None:
    print(event, sequence, text.decode())


def message(shard: Shard, data: dict[str, Any]) -> None:
    print(data["content"])


bot = Shard(
    "token",
    Intents.default(),
    on_socket_ready=ready,
    on_socket_dispatch=dispatch,
    on_socket_raw_message=raw,
    on_socket_text=text,
    on_socket_batch=lambda shard, count: print(count + 1),
    on_socket_state=state,
    on_socket_closed=closed,
    dispatcher=Mailbox(),
)


class Owners:
    def may_resume(self, shard_id: int, session_id: str) -> bool:
        return bool(shard_id or session_id)


class Forgetful:
    def may_resume(self, shard_id: int) -> None: ...


gate: SessionGate = Owners()
Shard("token", 0, session_gate=gate, acknowledge="manual").acknowledge("session", 1)
Shard("token", 0, session_gate=Forgetful())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Shard("token", 0, acknowledge="never")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Shard("token", 0, dispatcher=Worker(maxsize=5))
Shard("token", 0, dispatcher=Pool(key=lambda event, data: data["channel_id"]))
Shard("token", 0, on_socket_dispatch=lambda shard, payload: print(payload["d"]))
Shard("token", 0, on_socket_dispatch=ready)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Shard("token", 0, on_socket_text=message)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Shard("token", 0, on_socket_ready=message)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Shard("token", 0, dispatcher="mailbox")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Shard("token", "0")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

listener: Listener = bot.on("MESSAGE_CREATE", message)
functions: tuple[OnSocketReady, OnSocketDispatch, OnSocketClosed] = (ready, raw, closed)
more_functions: tuple[OnSocketText, OnSocketState] = (text, state)
bot.on("MESSAGE_CREATE", ready)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


@bot.on("GUILD_CREATE")
def guild(shard: Shard, data: dict[str, Any]) -> None:
    shard.update_presence(status="idle")


guild(bot, {})


class Bot(Shard):
    def on_socket_ready(self) -> None:
        print(self.heartbeat_ping)

    def on_socket_dispatch(self, payload: GatewayPayload) -> None:
        print(payload["t"])


def all_ready(manager: ShardManager) -> None:
    count: int | None = manager.shard_count
    print(count, manager.shards[0].state, manager.stats.shards[0].ping)


def resharding_needed(manager: ShardManager, gateway_bot: GatewayBot) -> None:
    manager.reshard(gateway_bot.shards, timeout=60)


def ask() -> GatewayBot:
    return GatewayBot("wss://gateway.discord.gg", 4, 1000, 1000, 0.0, 1)


manager = ShardManager(
    "token",
    Intents.default(),
    16,
    shard_ids=range(4),
    sessions="sessions",
    gateway_bot=ask,
    on_all_ready=all_ready,
    on_resharding_needed=resharding_needed,
    on_socket_dispatch=dispatch,
    on_socket_state=state,
    compression=None,
    dispatcher=Worker(),
)
ShardManager("token", 0, on_resharding_needed=ShardManager.reshard)
ShardManager("token", 0, gateway_bot=ask())
ShardManager("token", 0, backoff=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ShardManager("token", 0, on_socket_ready=message)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ShardManager("token", 0, on_all_ready=resharding_needed)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ShardManager("token", 0, shard_ids=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
manager.on("MESSAGE_CREATE", message)
manager.on("MESSAGE_CREATE", ready)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
manager.shards[0] = bot  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


@manager.on("GUILD_CREATE")
def each_guild(shard: Shard, data: dict[str, Any]) -> None:
    manager.request_guild_members(data["id"], query="", limit=10)
    manager.request_guild_members(data["id"], quary="")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    manager.shard_for(data["id"]).send({"op": 1, "d": None})


def take() -> Event:
    with manager:
        manager.wait_until_ready(60, lambda ready, total: print(ready, total))
        return next(manager.events("MESSAGE_CREATE", timeout=1))
