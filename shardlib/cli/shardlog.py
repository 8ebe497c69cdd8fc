"""The log of a program with many shards: each line tells whose it is."""

from __future__ import annotations

import logging

SHARD_LOGGER = "shardlib.shard"
"""What the names of the shards' loggers begin with; they end with the number of the shard."""


class WithShard(logging.Formatter):
    """Puts the number of the shard in front of what its log says."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record.

        :param record: of any logger.
        """
        text = super().format(record)
        shard_id = number_of(record)
        return text if shard_id is None else f"shard {shard_id}: {text}"


def number_of(record: logging.LogRecord) -> int | None:
    """The number of the shard that a record is about; None if it is from another log.

    :param record: of any logger.
    """
    parent, _, number = record.name.rpartition(".")
    return int(number) if parent == SHARD_LOGGER else None
