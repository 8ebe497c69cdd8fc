"""Finding: what one check has found."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Grade(enum.Enum):
    """How much a finding matters. The value is the word that is printed."""

    GOOD = "good"
    #: Worth to be known; nothing that was asked for fails because of it.
    REMARK = "remark"
    FAILED = "failed"
    #: Not tried, since an earlier check has failed.
    SKIPPED = "skipped"


class Finding(NamedTuple):
    """What one check has found.

    :param name: of the check.
    :param grade: how much it matters.
    :param told: what was found, in one line.
    :param hint: what to do about it, "" for nothing.
    """

    name: str
    grade: Grade
    told: str
    hint: str = ""
