"""How commands to shards lie in Redis: put there by anyone, taken out by the owner of the shard.

Each shard has a stream of its own, in the hash slot of its other keys. A stream of the whole fleet
tells of what is new in them: the workers look at that one, which is cheap, many times a second.

A command has a time by the clock of Redis, after which it is not carried out. It stays in the
stream until the shard's owner has carried it out: if that owner is killed meanwhile, the next one
carries it out, perhaps for the second time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from shardlib.fleet.calling import Call, Script, call_all, call_one, raise_first
from shardlib.fleet.connecting import Client
from shardlib.fleet.errors import FleetError
from shardlib.fleet.keys import Keys
from shardlib.fleet.lua import LAST_ID, NOW

_MOST_KEPT = 1000  # entries of a stream, about
_MOST_TAKEN = 50  # entries at once

# The stream goes with the last command for which there is time. An id of Redis' is its clock's, so
# ids go up even if the stream was gone meanwhile.
_SEND = Script(
    NOW
    + """
local milliseconds = tonumber(ARGV[2])
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'p', ARGV[1],
           'until', string.format('%.0f', now() + milliseconds))
if redis.call('PTTL', KEYS[1]) < milliseconds then
    redis.call('PEXPIRE', KEYS[1], milliseconds)
end
return 'SENT'
"""
)

# What was not written by the script above has no text, or no time left.
_READ = """
local function read(stream, from, count)
    local found = {}
    local at = now()
    for _, entry in ipairs(redis.call('XRANGE', stream, from, '+', 'COUNT', count)) do
        local fields = {}
        for i = 1, #entry[2], 2 do
            fields[entry[2][i]] = entry[2][i + 1]
        end
        local left = math.floor((tonumber(fields['until']) or 0) - at)
        found[#found + 1] = {entry[1], fields['p'] or '', left > 0 and left < 1e9 and left or 0}
    end
    return found
end
"""

_TAKE = Script(
    NOW
    + _READ
    + """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
    return {}
end
if ARGV[3] then
    redis.call('XDEL', KEYS[2], ARGV[3])
end
return read(KEYS[2], '-', ARGV[2])
"""
)

# A place behind the end is one from before Redis has lost the stream.
_READ_NEWS = Script(
    NOW
    + LAST_ID
    + _READ
    + """
local epoch, sequence = string.match(ARGV[1], '^(%d+)-(%d+)$')
epoch, sequence = tonumber(epoch), tonumber(sequence)
local last_epoch, last_sequence = last_id(KEYS[1])
local is_behind = epoch > last_epoch or (epoch == last_epoch and sequence > last_sequence)
local news = read(KEYS[1], is_behind and '-' or '(' .. ARGV[1], ARGV[2])
return {whole(last_epoch) .. '-' .. whole(last_sequence), news}
"""
)

BEGINNING = b"0-0"
"""In front of all news."""


class Entry(NamedTuple):
    """What lies in a stream. Anyone who may write to Redis may have put it there.

    :param id: as Redis gives it.
    :param content: what was sent; None if it is no JSON object.
    :param left: seconds that there are to carry it out, 0.0 if there are none.
    """

    id: bytes
    content: dict[str, Any] | None
    left: float


class CommandScripts:
    """The scripts for commands. Each method blocks until Redis has answered. Any thread.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param keys: of the fleet.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def send(self, commands: Mapping[int, Mapping[str, Any]], timeout: float) -> None:
        """Put a command into the stream of each of some shards, and tell the workers.

        :param commands: what :attr:`Entry.content` is to be, by shard number.
        :param timeout: seconds for carrying it out.
        :raises RedisAway: if Redis does not answer; then any of the commands may be there.
        :raises FleetError: if Redis refuses.
        """
        self._put(
            {self._keys.shard(shard_id).commands: each for shard_id, each in commands.items()},
            timeout,
        )
        self.announce({"shards": list(commands)}, timeout)

    def announce(self, news: Mapping[str, Any], timeout: float) -> None:
        """Tell all workers.

        :param news: what :attr:`Entry.content` is to be.
        :param timeout: seconds for acting on it.
        :raises RedisAway: if Redis does not answer; then the news may be there.
        :raises FleetError: if Redis refuses.
        """
        self._put({self._keys.commands: news}, timeout)

    def take(
        self, requests: Mapping[int, tuple[str, bytes | None]]
    ) -> dict[int, list[Entry] | FleetError]:
        """What the owner of shards is to carry out, the oldest first; it stays there.

        :param requests: by shard number, the owner's token, and the id of an entry to delete, which
            was carried out; None for none.
        :returns: by shard number. Nothing for a shard that belongs to another token.
        :raises RedisAway: if Redis does not answer; then the entry may be deleted, or not.
        :raises FleetError: if Redis refuses the connection.
        """
        calls = []
        for shard_id, (token, done) in requests.items():
            keys = self._keys.shard(shard_id)
            arguments = (token, _MOST_TAKEN) if done is None else (token, _MOST_TAKEN, done)
            calls.append(Call(_TAKE, (keys.state, keys.commands), arguments))
        answers = call_all(self._client, calls)
        return {
            shard_id: answer if isinstance(answer, FleetError) else _entries(answer)
            for shard_id, answer in zip(requests, answers, strict=True)
        }

    def read_news(self, place: bytes) -> tuple[bytes, list[Entry]]:
        """What the workers were told.

        :param place: behind which to read: that of the last call, or :data:`BEGINNING`.
        :returns: the place behind what was read, and the news.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        call = Call(_READ_NEWS, (self._keys.commands,), (place, _MOST_KEPT))
        end, news = call_one(self._client, call)
        entries = _entries(news)
        return (entries[-1].id if entries else end), entries

    def _put(self, contents: Mapping[str, Mapping[str, Any]], timeout: float) -> None:
        calls = [
            Call(_SEND, (key,), (json.dumps(content), round(timeout * 1000), _MOST_KEPT))
            for key, content in contents.items()
        ]
        raise_first(call_all(self._client, calls))


def _entries(answer: Iterable[Any]) -> list[Entry]:
    return [Entry(entry_id, _content(text), left / 1000) for entry_id, text, left in answer]


def _content(text: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
