"""A program for type checkers: what a user writes, and what they are to refuse.

mypy reads it with all other tests, pyright in :mod:`tests.test_typing`. A line that must be refused
has comments that silence both; each complains of a comment that silences nothing.
"""

from __future__ import annotations

from typing import Any

from shardlib import (
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
