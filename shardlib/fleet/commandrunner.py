"""CommandRunner: what carries out the commands to a worker and to its shards.

Everything here runs on a thread of its own: a connection that takes no more bytes holds up other
commands, but neither leases nor events.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shardlib.errors import ShardError
from shardlib.fleet.commandscripts import BEGINNING, CommandScripts, Entry
from shardlib.fleet.errors import FleetError, RedisAway
from shardlib.fleet.fleetshard import FleetShard

INTERVAL = 0.1
"""Seconds between two looks for commands."""

# Seconds after which Redis is asked again that did not answer, and a shard that could not send.
_RETRY = 1.0

# Seconds in which a connection has to take a payload.
_SEND_TIMEOUT = 1.0

# What a command may call: each of these checks its arguments. Whoever writes to Redis must not be
# able to have anything else sent.
SENDING = frozenset(
    {
        "update_presence",
        "update_voice_state",
        "request_guild_members",
        "request_soundboard_sounds",
        "request_channel_info",
    }
)
RESTART = "restart"


class CommandRunner:
    """Looks for commands, and carries them out.

    A command is deleted from Redis after it was carried out. Until then it may be carried out
    again, by the next owner of the shard: each command asks for something, or sets it, and may be
    repeated.

    :param scripts: to ask with.
    :param shards: returns the shards of the worker, by number.
    :param name: of the worker.
    :param socket_url: where a closed shard connects.
    :param drain: has the worker drain, and is given the seconds of :meth:`Worker.drain`.
    :param log: called as :meth:`logging.Logger.log` is.
    :param on_error: called with a shard, and why a command to it was not carried out.
    """

    def __init__(
        self,
        scripts: CommandScripts,
        shards: Callable[[], Mapping[int, FleetShard]],
        *,
        name: str,
        socket_url: str,
        drain: Callable[[float], object],
        log: Callable[..., object],
        on_error: Callable[[FleetShard, Exception], object],
    ) -> None:
        self._scripts = scripts
        self._shards = shards
        self._name = name
        self._socket_url = socket_url
        self._drain = drain
        self._log = log
        self._on_error = on_error
        self._place = BEGINNING  # in the news
        self._next_look = 0.0
        # When a shard is looked at again that could not send: when it is READY, and not before.
        self._waiting: dict[int, float] = {}
        # What was carried out last, and may still be in Redis.
        self._done: dict[int, bytes] = {}
        self._has_told = False  # that Redis refuses something

    def run(self) -> None:
        """Look once."""
        now = time.monotonic()
        if now < self._next_look:
            return
        shards = self._shards()
        self._done = {each: done for each, done in self._done.items() if each in shards}
        self._waiting = {each: at for each, at in self._waiting.items() if each in shards}
        due = {shard_id for shard_id, shard in shards.items() if shard.has_commands}
        due.update(
            each for each, at in self._waiting.items() if at <= now and shards[each].is_ready
        )
        try:
            due.update(self._read_news())
            while due:
                due = self._look_at({each: shards[each] for each in due if each in shards})
        except RedisAway:  # of which the worker's thread tells
            self._next_look = now + _RETRY

    def _read_news(self) -> set[int]:
        """The shards for which there are new commands."""
        try:
            self._place, news = self._scripts.read_news(self._place)
        except RedisAway:
            raise
        except FleetError as error:  # the answers to renewals tell of commands, too
            self._refused(error)
            return set()
        shard_ids: set[int] = set()
        for entry in news:
            content = entry.content or {}
            told = content.get("shards")
            if isinstance(told, list):
                shard_ids.update(each for each in told if type(each) is int)
            timeout = content.get("timeout")
            if content.get("drain") == self._name and entry.left > 0:
                if isinstance(timeout, (int, float)) and 0 <= timeout < float("inf"):
                    self._log(logging.INFO, "this worker was told to drain")
                    self._drain(timeout)
        return shard_ids

    def _look_at(self, shards: Mapping[int, FleetShard]) -> set[int]:
        """Carry out what there is for shards. Returns for which of them there may be more."""
        requests = {}
        for shard_id, shard in shards.items():
            self._waiting.pop(shard_id, None)
            shard.has_commands = False
            requests[shard_id] = shard.lease_token, self._done.get(shard_id)
        more = set()
        for shard_id, answer in self._scripts.take(requests).items():
            if isinstance(answer, FleetError):
                self._refused(answer)
                continue
            self._done.pop(shard_id, None)
            done = self._carry_out_one(shards[shard_id], answer)
            if done is not None:
                self._done[shard_id] = done
                more.add(shard_id)
        return more

    def _refused(self, error: FleetError) -> None:
        if not self._has_told:
            self._has_told = True
            self._log(logging.ERROR, "commands to shards cannot be read: %s", error)

    def _carry_out_one(self, shard: FleetShard, entries: Sequence[Entry]) -> bytes | None:
        """Carry out the first command of a shard that need not wait.

        Only one, which is then deleted: so one is repeated if this process is killed.

        :returns: its id; None if there is none.
        """
        for entry in entries:
            if shard.is_leaving:  # they are the next owner's
                break
            if entry.left == 0:
                self._on_error(shard, TimeoutError("its time is over, and the shard was not ready"))
                return entry.id
            if self._try(shard, entry):
                return entry.id
        return None

    def _try(self, shard: FleetShard, entry: Entry) -> bool:
        """Carry out a command. Returns False if it has to wait."""
        content = entry.content or {}
        method, arguments = content.get("method"), content.get("arguments")
        try:
            if not isinstance(method, str) or not isinstance(arguments, dict):
                raise ValueError("it is none that a program of shardlib's has written")
            if method == RESTART:
                self._restart(shard, **arguments)
            elif method in SENDING:
                return self._send(shard, method, arguments)
            else:
                raise ValueError(f"this version of shardlib has no command {method!r}")
        except (ShardError, TypeError, ValueError, RuntimeError) as error:
            self._on_error(shard, error)
        return True

    def _send(self, shard: FleetShard, method: str, arguments: Mapping[str, Any]) -> bool:
        if shard.shard_id in self._waiting:  # behind one that waits
            return False
        if not shard.is_ready:
            self._waiting[shard.shard_id] = 0.0
            return False
        try:
            getattr(shard, method)(**arguments, timeout=_SEND_TIMEOUT)
        except (ShardError, SystemExit, KeyboardInterrupt):
            # It is not READY any more, or its sends are used up; or it is closed, which concerns
            # the worker's thread, and the command is the next owner's.
            self._waiting[shard.shard_id] = time.monotonic() + _RETRY
            return False
        return True

    def _restart(self, shard: FleetShard, *, new_session: bool) -> None:
        if not isinstance(new_session, bool):
            raise TypeError(f"new_session must be a bool, not {type(new_session).__name__}")
        how = "with a new session" if new_session else "and to resume"
        self._log(logging.INFO, "shard %d is told to connect again, %s", shard.shard_id, how)
        shard.start_anew(self._socket_url, new_session=new_session)
