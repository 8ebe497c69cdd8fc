"""Commands: what any process may ask of the workers, and of their shards, without being one."""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from shardlib import payloads
from shardlib.checks import check_not_negative, check_positive, check_type
from shardlib.fleet.commandrunner import RESTART
from shardlib.fleet.commandscripts import CommandScripts
from shardlib.fleet.connecting import Client
from shardlib.fleet.errors import FleetError
from shardlib.fleet.keys import Keys
from shardlib.fleet.roster import live_workers
from shardlib.payloads import Payload, Snowflake
from shardlib.shardgroup import shard_id_for

# Seconds. A Gateway that is away for longer has ended the sessions.
_LONGEST_TIMEOUT = 86_400.0

# Seconds in which a worker notices that it is to drain, if Redis answers it.
_DRAIN_NOTICE = 60.0


class Commands:
    """What any process may ask of the shards of a fleet, whichever workers have them.

    :attr:`Fleet.commands` is one. Each method checks its arguments as the method of
    :class:`shardlib.Shard` does that has its name, writes to Redis, and returns. The worker that
    has the shard looks for commands ten times a second, and carries them out in order, each as soon
    as the shard is READY; if nobody has the shard, the next owner does. After `timeout` seconds, by
    the clock of Redis, a command is not carried out any more.

    A command is carried out at least once: twice if its worker is killed just then. Whether it was,
    only its effect shows: answers come as events, in the streams. If it could not be carried out,
    the log of the worker tells why, and its `on_socket_error` is called.

    About 1,000 commands wait for a shard at most, and the oldest give way. Discord allows a shard
    120 sends a minute, commands included.

    Any thread may call the methods. Each blocks while Redis answers.
    """

    def __init__(self, client: Client, keys: Keys, shard_count: Callable[[], int]) -> None:
        self._client = client
        self._keys = keys
        self._scripts = CommandScripts(client, keys)
        self._shard_count = shard_count

    def update_presence(
        self,
        *,
        status: str = "online",
        activities: Iterable[Mapping[str, Any]] = (),
        since: int | None = None,
        afk: bool = False,
        shard_id: int | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Set the bot's presence, of all shards or of one.

        The shard's later sessions begin with it, as long as the same worker has the shard. The next
        owner resumes the session, with the presence that it has; a new session begins with the
        option `presence` of the worker.

        :param status: "online", "dnd", "idle", "invisible" or "offline".
        :param activities: activity objects, dicts with ``name`` and ``type``.
        :param since: an int, milliseconds of Unix time since when the bot is idle, or None.
        :param afk: a bool, whether the bot is away.
        :param shard_id: of one shard, an int from 0; None for all.
        :param timeout: seconds within which it is carried out, or else not at all.
        :raises ValueError: if an argument has a value that Discord does not document, or there is
            no such shard; nothing was written.
        :raises TypeError: if an argument has the wrong type; nothing was written.
        :raises FleetError: if there is no such fleet, or Redis refuses.
        :raises RedisAway: if Redis does not answer; then the command may be carried out.
        """
        payload = payloads.presence_update(
            status=status, activities=activities, since=since, afk=afk
        )
        command = _command("update_presence", payload, timeout)
        shard_ids = range(self._shard_count()) if shard_id is None else [self._check(shard_id)]
        self._scripts.send(dict.fromkeys(shard_ids, command), timeout)

    def update_voice_state(
        self,
        guild_id: Snowflake,
        channel_id: Snowflake | None,
        *,
        self_mute: bool = False,
        self_deaf: bool = False,
        timeout: float = 30.0,
    ) -> None:
        """Join a voice channel, move to another, or leave.

        What comes of it are the events VOICE_STATE_UPDATE and VOICE_SERVER_UPDATE.

        :param guild_id: the guild's id, an int or a str of digits.
        :param channel_id: the channel's id likewise; None to leave.
        :param self_mute: a bool, whether the bot is mute.
        :param self_deaf: a bool, whether the bot is deaf.
        :param timeout: seconds within which it is carried out, or else not at all.
        :raises ValueError: if an id cannot be one; nothing was written.
        :raises TypeError: if an argument has the wrong type; nothing was written.
        :raises FleetError: if there is no such fleet, or Redis refuses.
        :raises RedisAway: if Redis does not answer; then the command may be carried out.
        """
        payload = payloads.voice_state_update(
            guild_id, channel_id, self_mute=self_mute, self_deaf=self_deaf
        )
        self._send_to_guild(guild_id, "update_voice_state", payload, timeout)

    def request_guild_members(
        self,
        guild_id: Snowflake,
        *,
        query: str | None = None,
        limit: int = 0,
        presences: bool = False,
        user_ids: Snowflake | Iterable[Snowflake] | None = None,
        nonce: str | None = None,
        timeout: float = 30.0,
    ) -> str:
        """Ask for a guild's members, who come as GUILD_MEMBERS_CHUNK events, up to 1,000 in each.

        Consumers get these events, if the worker forwards them; begin to read before asking. The
        nonce tells which chunks answer this request. If Discord gets such a request too soon after
        another one, a RATE_LIMITED event comes instead.

        :param guild_id: the guild's id, an int or a str of digits.
        :param query: a str with which user names begin; an empty one, or neither this nor
            `user_ids`, asks for all members.
        :param limit: an int, how many members; 1 to 100 with a query that is not empty, else 0 for
            all.
        :param presences: a bool, whether the members' presences come, too.
        :param user_ids: one id or up to 100, instead of `query`.
        :param nonce: a str of at most 32 bytes as UTF-8, which comes back in the chunks; None for a
            random one.
        :param timeout: seconds within which it is carried out, or else not at all.
        :returns: the nonce.
        :raises ValueError: if an argument has a value that Discord does not take, or `query` and
            `user_ids` are both given; nothing was written.
        :raises TypeError: if an argument has the wrong type; nothing was written.
        :raises FleetError: if there is no such fleet, or Redis refuses.
        :raises RedisAway: if Redis does not answer; then the command may be carried out.
        """
        nonce = secrets.token_hex(16) if nonce is None else nonce
        payload = payloads.request_guild_members(
            guild_id,
            query=query,
            limit=limit,
            presences=presences,
            user_ids=user_ids,
            nonce=nonce,
        )
        self._send_to_guild(guild_id, "request_guild_members", payload, timeout)
        return nonce

    def request_soundboard_sounds(
        self, guild_ids: Iterable[Snowflake], *, timeout: float = 30.0
    ) -> None:
        """Ask for guilds' soundboard sounds, which come as SOUNDBOARD_SOUNDS events, one a guild.

        :param guild_ids: the guilds' ids, each an int or a str of digits; at least one. They may
            belong to different shards.
        :param timeout: seconds within which it is carried out, or else not at all.
        :raises ValueError: if there is no id, or one that cannot be; nothing was written.
        :raises TypeError: if an argument has the wrong type; nothing was written.
        :raises FleetError: if there is no such fleet, or Redis refuses.
        :raises RedisAway: if Redis does not answer; then the command may be carried out.
        """
        ids = payloads.request_soundboard_sounds(guild_ids)["d"]["guild_ids"]
        _check_timeout(timeout)
        shard_count = self._shard_count()
        divided: dict[int, list[str]] = defaultdict(list)
        for guild_id in ids:
            divided[shard_id_for(int(guild_id), shard_count)].append(guild_id)
        commands = {
            shard_id: _command(
                "request_soundboard_sounds", payloads.request_soundboard_sounds(some), timeout
            )
            for shard_id, some in divided.items()
        }
        self._scripts.send(commands, timeout)

    def request_channel_info(
        self,
        guild_id: Snowflake,
        fields: Iterable[str] = payloads.CHANNEL_INFO_FIELDS,
        *,
        timeout: float = 30.0,
    ) -> None:
        """Ask about a guild's channels; the answer comes as CHANNEL_INFO.

        :param guild_id: the guild's id, an int or a str of digits.
        :param fields: one or both of "status" and "voice_start_time".
        :param timeout: seconds within which it is carried out, or else not at all.
        :raises ValueError: if `fields` has another field or none, or the id cannot be one; nothing
            was written.
        :raises TypeError: if an argument has the wrong type; nothing was written.
        :raises FleetError: if there is no such fleet, or Redis refuses.
        :raises RedisAway: if Redis does not answer; then the command may be carried out.
        """
        payload = payloads.request_channel_info(guild_id, fields)
        self._send_to_guild(guild_id, "request_channel_info", payload, timeout)

    def restart(self, shard_id: int, *, new_session: bool = False, timeout: float = 30.0) -> None:
        """Have a shard connect again; also one that an error has closed.

        The worker keeps the shard. By default the session is resumed, so that no event is lost and
        no Identify is spent.

        :param shard_id: number of the shard, an int from 0.
        :param new_session: True to begin a new session: for one that has gone wrong. It costs one
            of the day's session starts, and the stream gets a ``SHARDLIB_GAP``.
        :param timeout: seconds within which it is carried out, or else not at all.
        :raises ValueError: if there is no such shard; nothing was written.
        :raises TypeError: if an argument has the wrong type; nothing was written.
        :raises FleetError: if there is no such fleet, or Redis refuses.
        :raises RedisAway: if Redis does not answer; then the command may be carried out.
        """
        check_type("new_session", new_session, bool)
        _check_timeout(timeout)
        command = {"method": RESTART, "arguments": {"new_session": new_session}}
        self._scripts.send({self._check(shard_id): command}, timeout)

    def drain(self, worker: str, *, timeout: float = 60.0) -> None:
        """Have a worker hand over all its shards, take no more, and end, as :meth:`Worker.drain`.

        So its :meth:`Worker.run_forever` returns, and mostly its process ends; whatever has started
        that must not start it again. This method returns at once: :meth:`Fleet.shards` shows when
        the worker has no more shards.

        :param worker: its :attr:`Worker.name`, as :meth:`Fleet.shards` gives it.
        :param timeout: seconds after which the other shards are released all the same.
        :raises FleetError: if no worker of this name takes shards: it has ended, or drains already;
            or if Redis refuses.
        :raises RedisAway: if Redis does not answer; then the worker may drain.
        :raises ValueError: if `timeout` is negative.
        :raises TypeError: if an argument has the wrong type.
        """
        check_type("worker", worker, str)
        check_not_negative("timeout", timeout)
        workers = live_workers(self._client, self._keys)
        if worker not in workers:
            raise FleetError(
                f"no worker {worker!r} takes shards in the fleet {self._keys.name!r}: it may have "
                f"ended, or drain already. There are: {', '.join(workers) or 'none'}"
            )
        self._scripts.announce({"drain": worker, "timeout": timeout}, _DRAIN_NOTICE)

    def _send_to_guild(
        self, guild_id: Snowflake, method: str, payload: Payload, timeout: float
    ) -> None:
        command = _command(method, payload, timeout)
        shard_id = shard_id_for(int(guild_id), self._shard_count())
        self._scripts.send({shard_id: command}, timeout)

    def _check(self, shard_id: int) -> int:
        check_type("shard_id", shard_id, int)
        shard_count = self._shard_count()
        if not 0 <= shard_id < shard_count:
            raise ValueError(f"shard_id must be from 0 to {shard_count - 1}, not {shard_id}")
        return shard_id


def _check_timeout(timeout: float) -> None:
    """Check the seconds within which a command is carried out.

    :raises TypeError: if they are no number.
    :raises ValueError: if they are not positive, or more than a day.
    """
    check_positive("timeout", timeout)
    if timeout > _LONGEST_TIMEOUT:
        raise ValueError(f"timeout must be at most a day, {_LONGEST_TIMEOUT:g}, not {timeout}")


def _command(method: str, payload: Payload, timeout: float) -> Mapping[str, Any]:
    """The command that has a shard send a payload, if the Gateway would take the payload."""
    _check_timeout(timeout)
    payloads.check_send(payloads.encode(payload, json))
    return {"method": method, "arguments": payload["d"]}
