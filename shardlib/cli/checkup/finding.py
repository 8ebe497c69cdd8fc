"""Finding: what one check has found."""

from __future__ import annotations

import enum
from typing import NamedTuple


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
