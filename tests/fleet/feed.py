"""A feed of events for the tests of consumers, appended by the scripts as workers append them."""

from __future__ import annotations

import redis

from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import Appended, Batch, Outcome, ShardScripts
from tests.fleet.owner import KEEP_EVENTS, LEASE, owner_of_new_shard
from tests.support import not_none


def dispatch(sequence: int, name: str = "MESSAGE_CREATE") -> bytes:
    """An event as Discord writes it."""
    return b'{"t":"%s","s":%d,"op":0,"d":{"content":"%d"}}' % (name.encode(), sequence, sequence)


class Feed:
    """The owners of a fleet's shards, who append numbered events.

    :param client: to append with.
    :param keys: of the fleet.
    :param shard_count: how many shards there are.
    :param keep_events: of each shard.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        shard_count: int = 1,
        *,
        keep_events: int = KEEP_EVENTS,
    ) -> None:
        self.shard_count = shard_count
        self._scripts = ShardScripts(client, keys, lease=LEASE, keep_events=keep_events)
        self._owners = [
            owner_of_new_shard(self._scripts, client, keys, shard_id)
            for shard_id in range(shard_count)
        ]

    def sequence(self, shard_id: int = 0) -> int:
        """Of the last event of a shard."""
        return not_none(self._owners[shard_id].session).sequence

    def append(
        self, count: int = 1, *, shard_id: int = 0, name: str = "MESSAGE_CREATE", step: int = 1
    ) -> list[str]:
        """Append the next events of a shard, and return their ids.

        :param step: 2 forwards every second event only.
        """
        owner = self._owners[shard_id]
        session = not_none(owner.session)
        sequences = range(session.sequence + 1, session.sequence + count * step + 1, step)
        events = [(sequence, dispatch(sequence, name)) for sequence in sequences]
        answer = self._scripts.append({shard_id: Batch(owner.token, session, events, 0)})[shard_id]
        assert isinstance(answer, Appended) and answer.outcome is Outcome.APPENDED, answer
        owner.session = session._replace(epoch=answer.epoch, sequence=answer.sequence)
        return [f"{shard_id}:{answer.epoch}-{sequence}" for sequence in sequences]

    def append_everywhere(self, count: int = 1) -> dict[int, list[str]]:
        """Append events to each shard, and return the ids by shard number."""
        return {
            shard_id: self.append(count, shard_id=shard_id) for shard_id in range(self.shard_count)
        }

    def begin_session(self, session_id: str, shard_id: int = 0, epoch: int = 0) -> None:
        """Lose the session of a shard, and begin another one, for which an epoch is proposed."""
        self._owners[shard_id].begin(session_id, epoch)

    def go_back(self, count: int, shard_id: int = 0) -> None:
        """Append the last events of a shard again next, as their worker remembers them."""
        owner = self._owners[shard_id]
        session = not_none(owner.session)
        owner.session = session._replace(sequence=session.sequence - count)

    def remember(self, shard_id: int = 0) -> None:
        """Claim a shard again that Redis has lost, and append nothing."""
        self._owners[shard_id].claim(remembering=True)
