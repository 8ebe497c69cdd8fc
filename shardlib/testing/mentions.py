"""Whom the text of a message mentions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_USER = re.compile(r"<@!?([0-9]+)>")
_ROLE = re.compile(r"<@&([0-9]+)>")
_EVERYONE = re.compile(r"@(?:everyone|here)\b")

#: What a message mentions if its ``allowed_mentions`` say nothing (Message, "Default Settings for
#: Allowed Mentions"): a message of a bot or a user, and one that answers an interaction.
ALL = {"parse": ["users", "roles", "everyone"]}
ONLY_USERS = {"parse": ["users"]}


@dataclass(frozen=True)
class Mentions:
    """The mentions in a text, after ``allowed_mentions``."""

    #: The ids of the mentioned users, in their order.
    users: list[str]
    #: The ids of the mentioned roles, in their order.
    roles: list[str]
    #: Whether the text mentions everyone.
    everyone: bool


def find_mentions(content: str, allowed: dict[str, Any]) -> Mentions:
    """Return whom a text mentions. Whether they exist is for the caller to see.

    :param content: the text of a message.
    :param allowed: the allowed mentions object.
    """
    parsed = allowed.get("parse") or []

    def keep(kind: str, found: list[str]) -> list[str]:
        listed = allowed.get(kind) or []
        return [each for each in dict.fromkeys(found) if kind in parsed or each in listed]

    return Mentions(
        keep("users", _USER.findall(content)),
        keep("roles", _ROLE.findall(content)),
        "everyone" in parsed and _EVERYONE.search(content) is not None,
    )
