"""How long shards of a fleet were without a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.table import percentile


class Takeover(NamedTuple):
    """One shard that another worker took over.

    :param minute: of the run, in which its worker failed, or closed the shard in a drain.
    :param seconds: from then until another worker had the shard.
    :param kind: in which way its worker failed.
    :param is_alone: False if Redis, the network, or the next owner failed, too, or the session was
        lost.
    """

    minute: float
    seconds: float
    kind: str
    is_alone: bool

    @property
    def title(self) -> str:
        """What has happened."""
        return self.kind + ("" if self.is_alone else ", and something else failed, too")


def by_title(takeovers: Sequence[Takeover]) -> dict[str, list[Takeover]]:
    """Return the takeovers of each title, in the order of the titles."""
    titles = sorted({each.title for each in takeovers})
    return {title: [each for each in takeovers if each.title == title] for title in titles}


def summary(takeovers: Sequence[Takeover]) -> dict[str, tuple[int, list[float]]]:
    """Return by title the number, and the seconds: the median, 95 %, 99 %, and the longest."""
    return {
        title: (
            len(each),
            [percentile([takeover.seconds for takeover in each], p) for p in (50, 95, 99, 100)],
        )
        for title, each in by_title(takeovers).items()
    }
