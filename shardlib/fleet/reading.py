"""How consumers read streams: many at once, and whether a stream has lost events unread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from shardlib.fleet.calling import Call, Script, call_all, raise_first
from shardlib.fleet.connecting import Client
from shardlib.fleet.fleetevents import BEGINNING, Position, position_of
from shardlib.fleet.keys import ShardKeys
from shardlib.fleet.rediserrors import ERRORS, fleet_error
from shardlib.fleet.scripts import FIELD

RawEntry = tuple[bytes, bytes | None]
"""The id of an entry, and its text; None in place of the text of an entry that is no more."""

# A node of a cluster refuses to read two streams at once, even if it has both.
_READ = Script("return redis.call('XREAD', 'COUNT', ARGV[1], 'STREAMS', KEYS[1], ARGV[2])")


def read_streams(
    client: Client, positions: Mapping[str, Position], most: int, timeout: float
) -> dict[str, list[RawEntry]]:
    """Read what is behind some places of streams, and wait for it if nothing is there.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param positions: by the key of the stream.
    :param most: entries of each stream.
    :param timeout: seconds to wait. A client of a cluster does not wait.
    :raises RedisAway: if Redis does not answer.
    :raises FleetError: if Redis refuses.
    """
    if isinstance(client, redis.Redis):
        return read_many(client, "XREAD", positions, most, timeout)
    calls = [Call(_READ, (key,), (most, str(place))) for key, place in positions.items()]
    answers = call_all(client, calls)
    raise_first(answers)
    return {key: entries for answer in answers for key, entries in entries_of(answer).items()}


def read_many(
    client: redis.Redis,
    command: str,
    positions: Mapping[str, Position | str],
    most: int,
    timeout: float,
) -> dict[str, list[RawEntry]]:
    """Read streams by one command, ``XREAD`` or ``XREADGROUP GROUP ...``.

    :raises RedisAway: if Redis does not answer.
    :raises FleetError: if Redis refuses.
    """
    words: list[Any] = [*command.split(), "COUNT", most]
    if timeout > 0:
        words += ["BLOCK", max(1, round(timeout * 1000))]
    words += ["STREAMS", *positions, *map(str, positions.values())]
    execute: Any = client.execute_command  # redis-py has no types for this method
    try:
        return entries_of(execute(*words))
    except ERRORS as error:
        raise fleet_error(error) from error


def entries_of(answer: Any) -> dict[str, list[RawEntry]]:
    """The entries in an answer to ``XREAD`` or ``XREADGROUP``, by the key of the stream.

    redis-py gives a list, or a dict if it talks RESP3; a script gives what stood in RESP2.
    """
    if not answer:
        return {}
    found = {}
    for key, entries in answer.items() if isinstance(answer, dict) else answer:
        if isinstance(answer, dict) and len(entries) == 1 and isinstance(entries[0], list):
            entries = entries[0]  # redis-py before version 8 has one list more there
        found[key.decode()] = [(entry[0], text_of(entry[1])) for entry in entries]
    return found


def text_of(fields: dict[bytes, bytes] | Sequence[bytes] | None) -> bytes | None:
    """The text in the fields of an entry, None if it has none."""
    if not fields:
        return None
    if isinstance(fields, dict):
        return fields.get(FIELD, b"")
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(FIELD, b"")


def was_trimmed(client: Client, keys: ShardKeys, before: Position, first_read: Position) -> bool:
    """True if the stream may have dropped events between two places.

    Redis drops some hundred of the oldest at once. So the answer is right unless the place in front
    was that of the last one dropped.

    :param client: from :func:`~shardlib.fleet.connecting.connect`.
    :param keys: of the shard.
    :param before: the last place that was read before.
    :param first_read: the place of the first event that was read after it.
    :raises RedisAway: if Redis does not answer.
    :raises FleetError: if Redis refuses.
    """
    try:
        oldest: Any = client.xrange(keys.events, count=1)
        if oldest and position_of(oldest[0][0]) < first_read:
            return False  # the stream still has the place in front, or one before it
        if before == BEGINNING:
            return bool(client.hget(keys.state, "trimmed"))
        return True
    except ERRORS as error:
        raise fleet_error(error) from error
