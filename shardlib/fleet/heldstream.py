"""HeldStream: how far one consumer has come in the stream of a shard that it alone reads."""

from __future__ import annotations

from shardlib.fleet.errors import FleetError
from shardlib.fleet.fleetevents import Position, position_of
from shardlib.fleet.groupscripts import GroupOutcome
from shardlib.fleet.reading import RawEntry


class HeldStream:
    """The stream of a shard that this consumer reads.

    :param shard_id: number of the shard.
    :param key: of the stream.
    :param token: of the claim.
    :param position: after which to read.
    :param valid_until: when the lease ends unless it is renewed, by the clock of the consumer.
    :param is_unsure: True if Redis has lost its data since this consumer has read there.
    """

    def __init__(
        self,
        shard_id: int,
        key: str,
        token: str,
        position: Position,
        valid_until: float,
        is_unsure: bool,
    ) -> None:
        self.shard_id = shard_id
        self.key = key
        self.token = token
        self.read_up_to = position
        self.passed = position  # delivered, or not wanted
        self.delivered = position  # the last event that the user got
        self.delivered_id = str(position)
        self.handled = position
        self.acknowledged = position  # as Redis knows it
        self.valid_until = valid_until
        self.is_unsure = is_unsure
        self.is_lost = False

    @property
    def is_idle(self) -> bool:
        """True if the user has no event of this stream in hand."""
        return self.handled >= self.delivered

    # The thread of the keeper, and that of the consumer

    def renew(self, valid_until: float) -> None:
        """Note that the lease was renewed."""
        self.valid_until = valid_until

    def heed(self, answer: GroupOutcome | FleetError) -> None:
        """Note what Redis has answered: another consumer may read the stream."""
        if answer is GroupOutcome.FENCED or answer is GroupOutcome.LOST:
            self.is_lost = True

    # The thread of the consumer

    def take(self, entries: list[RawEntry]) -> None:
        """Note that entries were read."""
        self.read_up_to = position_of(entries[-1][0])

    def deliver(self, entry_id: bytes) -> None:
        """Note that the user has got an event."""
        self.passed = self.delivered = position_of(entry_id)
        self.delivered_id = entry_id.decode()
        self.is_unsure = False

    def skip(self, position: Position) -> None:
        """Note that an event was passed which the user does not want."""
        self.passed = position
        self.is_unsure = False
        if self.is_idle:
            self.handled = position

    def handle(self, entry_id: str) -> bool:
        """Note that the user has handled an event, and all before it.

        :returns: False if that is no news, if the event was not delivered since the claim, or if
            another consumer may read the stream now.
        """
        position = self.delivered if entry_id == self.delivered_id else position_of(entry_id)
        if self.is_lost or not self.handled < position <= self.delivered:
            return False
        self.handled = self.passed if position == self.delivered else position
        return True

    def acknowledge(self, position: Position) -> None:
        """Note that Redis knows what was handled."""
        self.acknowledged = position

    def rewind(self) -> None:
        """Go back to what was handled."""
        self.read_up_to = self.passed = self.delivered = self.handled
        self.delivered_id = str(self.handled)
