"""Finding: what one check has found."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

NAMES = (
    *("Python", "OpenSSL", "Extras", "Clock", "DNS", "IPv4", "IPv6", "Proxy", "TCP", "TLS"),
    *("WebSocket", "Token", "Session starts", "READY", "Heartbeats", "Compression"),
)
"""The checks, in their order."""


class Grade(enum.Enum):
    """How much a finding matters. The value is the word that is printed."""

    GOOD = "good"
    #: Worth knowing; the bot can reach the Gateway all the same.
    REMARK = "remark"
    FAILED = "failed"
    #: Not tried, since an earlier check has failed.
    SKIPPED = "skipped"


class Finding(NamedTuple):
    """What one check has found.

    :param name: the name of the check.
    :param grade: how much the finding matters.
    :param told: what the check has found, in one line.
    :param hint: what to do about the finding; "" for nothing.
    """

    name: str
    grade: Grade
    told: str
    hint: str = ""


def skip_after(last: str, why: str) -> Iterator[Finding]:
    """Yield a finding for each check that is not made.

    :param last: the name of the last check that was made.
    :param why: the reason, in a few words.
    """
    for name in NAMES[NAMES.index(last) + 1 :]:
        yield Finding(name, Grade.SKIPPED, why)
